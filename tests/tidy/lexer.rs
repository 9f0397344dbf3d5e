//! A small lexer: which characters are code, which are a comment, which are in a literal.

/// What a character belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Code,
    Comment,
    Literal,
}

/// What each character belongs to; the quotes of a literal count as code.
pub(crate) fn kinds(raw: &str) -> Vec<Kind> {
    let chars: Vec<char> = raw.chars().collect();
    let mut kinds = Vec::with_capacity(chars.len());
    while kinds.len() < chars.len() {
        let at = kinds.len();
        let (kind, length) = token(&chars, at);
        if kind == Kind::Literal {
            let quote = chars[at..].iter().position(|char| matches!(char, '"' | '\''));
            let open = quote.map_or(0, |quote| quote + 1);
            let hashes = open.saturating_sub(1);
            let hashes = chars[at..at + hashes].iter().filter(|char| **char == '#');
            let close = (1 + hashes.count()).min(length - open);
            kinds.extend(std::iter::repeat_n(Kind::Code, open));
            kinds.extend(std::iter::repeat_n(kind, length - open - close));
            kinds.extend(std::iter::repeat_n(Kind::Code, close));
        } else {
            kinds.extend(std::iter::repeat_n(kind, length));
        }
    }
    kinds
}

/// The kind and the length of what begins here.
fn token(chars: &[char], at: usize) -> (Kind, usize) {
    let rest = &chars[at..];
    let word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match rest {
        ['/', '/', ..] => {
            let end = rest.iter().position(|char| *char == '\n');
            (Kind::Comment, end.unwrap_or(rest.len()))
        }
        ['/', '*', ..] => (Kind::Comment, block_comment(rest)),
        ['"', ..] => (Kind::Literal, quoted(rest, '"')),
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => (Kind::Literal, quoted(rest, '\'')),
        ['r', '"' | '#', ..] | ['b' | 'c', 'r', '"' | '#', ..] if !word_before => {
            let start = rest.iter().position(|char| matches!(char, '"' | '#'));
            raw_string(rest, start.unwrap_or(0))
        }
        _ => (Kind::Code, 1),
    }
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// A raw string whose hashes begin at `start`; or a raw identifier, which is code.
fn raw_string(rest: &[char], start: usize) -> (Kind, usize) {
    let hashes = rest[start..].iter().take_while(|char| **char == '#').count();
    let open = start + hashes;
    if rest.get(open) != Some(&'"') {
        return (Kind::Code, 1);
    }
    let closes = |at: &usize| {
        rest[*at] == '"'
            && rest[at + 1..].iter().take(hashes).filter(|char| **char == '#').count() == hashes
    };
    let close = (open + 1..rest.len()).find(closes);
    (Kind::Literal, close.map_or(rest.len(), |close| close + 1 + hashes))
}
