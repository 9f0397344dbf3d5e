//! Finding words, paths, items and links in a text.

use std::path::{Component, Path, PathBuf};

/// Where the attributes begin, with their text.
pub(crate) fn attributes(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let starts = code.match_indices(['#']).map(|(at, _)| at);
    starts.filter_map(|at| {
        let list = code[at + 1..].trim_start_matches('!').starts_with('[');
        list.then(|| (at, &code[at..=closing(code, at)]))
    })
}

/// Where a word stands on its own.
pub(crate) fn words(text: &str, word: &str) -> Vec<usize> {
    let part =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = text.as_bytes();
    let hits = text.match_indices(word).map(|(at, _)| at);
    hits.filter(|at| !part(bytes[..*at].last()) && !part(bytes.get(at + word.len()))).collect()
}

/// The identifier at the start of a text; empty if there is none.
pub(crate) fn identifier(text: &str) -> &str {
    let inside = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let end = text.find(|char| !inside(char)).unwrap_or(text.len());
    &text[..end]
}

/// The first part of a path of files or of modules.
pub(crate) fn first_of(path: &str) -> &str {
    let end = path.find(['/', ':']).unwrap_or(path.len());
    &path[..end]
}

/// Every path below `root` with its line: `root::{a::b, c}` gives `a::b` and `c`.
pub(crate) fn paths_below(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, root) {
        let Some(rest) = code[at + root.len()..].strip_prefix("::") else {
            continue;
        };
        if code[..at].ends_with("::") {
            continue;
        }
        let mut paths = Vec::new();
        flatten(rest, "", &mut paths);
        let line = line_of(code, at);
        found.extend(paths.into_iter().map(|path| (line, path)));
    }
    found
}

/// Writes down the paths of a tree as `use` has it, and answers what follows the tree.
fn flatten<'t>(text: &'t str, prefix: &str, paths: &mut Vec<String>) -> &'t str {
    let mut rest = text.trim_start();
    if let Some(list) = rest.strip_prefix('{') {
        rest = list;
        loop {
            rest = flatten(rest, prefix, paths).trim_start();
            if let Some(more) = rest.strip_prefix(',') {
                rest = more;
            } else {
                return rest.strip_prefix('}').unwrap_or(rest);
            }
        }
    }
    let name = identifier(rest);
    rest = &rest[name.len()..];
    let path = format!("{prefix}{name}");
    match rest.strip_prefix("::") {
        Some(deeper) if !deeper.starts_with('<') => flatten(deeper, &format!("{path}::"), paths),
        _ if name.is_empty() && prefix.is_empty() => rest,
        _ if rest.starts_with('}') && name.is_empty() => rest,
        _ => {
            paths.push(path.trim_end_matches(':').to_owned());
            rest
        }
    }
}

/// Where the item that begins at `from` ends: at its semicolon, or at its body's last brace.
pub(crate) fn item_end(code: &str, from: usize) -> usize {
    end(code, from, |byte, depth| depth == 0 && matches!(byte, b';' | b'}'))
}

/// Where the first bracket after `from` is closed.
pub(crate) fn closing(code: &str, from: usize) -> usize {
    end(code, from, |byte, depth| depth == 0 && matches!(byte, b')' | b']' | b'}'))
}

fn end(code: &str, from: usize, is_end: impl Fn(u8, usize) -> bool) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if is_end(byte, depth) {
            return at;
        }
    }
    code.len() - 1
}

pub(crate) fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// Relative targets of a Markdown text, with their lines.
pub(crate) fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        let mark = line.trim_start();
        if mark.starts_with("```") || mark.starts_with("~~~") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let prose: String = line.split('`').step_by(2).collect();
        let inline = prose.split("](").skip(1).map(|rest| rest.split(')').next());
        let defined = prose.starts_with('[').then(|| prose.split_once("]: "));
        let defined = defined.flatten().map(|(_, target)| Some(target));
        for target in inline.chain(defined).flatten() {
            let target = target.split_whitespace().next().unwrap_or_default();
            let target = target.trim_matches(['<', '>']);
            let file = target.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !file.is_empty() && !elsewhere {
                found.push((index + 1, file.to_owned()));
            }
        }
    }
    found
}

/// The path without `.` and `..`; `None` if it leaves the file system.
pub(crate) fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => normal.pop().then_some(())?,
            other => normal.push(other),
        }
    }
    Some(normal)
}

pub(crate) fn test_attributes(code: &str) -> Vec<usize> {
    let marked = attributes(code).filter(|(_, attribute)| {
        attribute.starts_with("#[cfg(test)") || attribute.starts_with("#[cfg(any(test,")
    });
    marked.map(|(at, _)| at).collect()
}

/// The text with everything between two places made blank, line by line.
pub(crate) fn blank(text: &str, from: usize, to: usize) -> String {
    let blanked = text.char_indices().map(|(at, char)| {
        let keep = char == '\n' || at < from || at >= to;
        if keep { char } else { ' ' }
    });
    blanked.collect()
}
