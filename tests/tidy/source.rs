//! Reading the project: its sources, what in them is for tests only, and its documents.

use std::collections::BTreeSet;
use std::path::Path;

use crate::lexer::{Kind, kinds};
use crate::text::{blank, item_end, test_attributes};

/// A file of Rust.
pub(crate) struct Source {
    /// Where it is, from the project's root.
    pub(crate) path: String,
    /// As it is written.
    pub(crate) raw: String,
    /// Its code: a byte for each character, with comments and what literals hold blanked out.
    pub(crate) code: String,
    /// Its code without what is compiled for tests only.
    pub(crate) production: String,
    /// The columns of each line, not counting what literals hold; 0 for one with an address.
    pub(crate) widths: Vec<usize>,
}

impl Source {
    /// Takes a text apart.
    pub(crate) fn new(path: String, raw: String) -> Self {
        let kinds = kinds(&raw);
        let code: String = raw
            .chars()
            .zip(&kinds)
            .map(|(char, kind)| match kind {
                _ if char == '\n' => '\n',
                Kind::Code if char.is_ascii() => char,
                _ => ' ',
            })
            .collect();
        let widths = widths(&raw, &kinds);
        let production = if path.starts_with("tests/") {
            blank(&code, 0, code.len())
        } else {
            without_tests(&code)
        };
        Self { path, raw, code, production, widths }
    }

    /// What is wrong in a line, with the place before it.
    pub(crate) fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// How many lines are there for production: all that are not compiled for tests only.
    pub(crate) fn production_lines(&self) -> usize {
        let lines = self.code.lines().zip(self.production.lines());
        let inside = lines.scan(false, |in_tests, (code, production)| {
            // A line without code belongs to what the last line with code belongs to.
            if !code.trim().is_empty() {
                *in_tests = code != production;
            }
            Some(*in_tests)
        });
        if self.production.trim().is_empty() && !self.code.trim().is_empty() {
            return 0;
        }
        inside.filter(|in_tests| !in_tests).count()
    }
}

fn widths(raw: &str, kinds: &[Kind]) -> Vec<usize> {
    let mut kinds = kinds.iter();
    let lines = raw.lines().map(|line| {
        let columns = line.chars().count();
        let literal = kinds.by_ref().take(columns);
        let literal = literal.filter(|kind| **kind == Kind::Literal).count();
        kinds.next();
        if line.contains("://") { 0 } else { columns - literal }
    });
    lines.collect()
}

/// Code with its `#[cfg(test)]` items blanked out.
fn without_tests(code: &str) -> String {
    let mut production = code.to_owned();
    for at in test_attributes(code) {
        production = blank(&production, at, item_end(code, at) + 1);
    }
    production
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All sources of the product, of its benchmarks and of its tests.
pub(crate) fn all_sources() -> Vec<Source> {
    ["src", "benches", "tests"].into_iter().flat_map(sources).collect()
}

/// The sources of all that is more than a test.
pub(crate) fn programs() -> Vec<Source> {
    ["src", "benches"].into_iter().flat_map(sources).collect()
}

/// The sources in a folder; those that only tests are compiled with have no production code.
pub(crate) fn sources(folder: &str) -> Vec<Source> {
    let read = |path| {
        let raw = std::fs::read_to_string(root().join(&path)).expect("a source is UTF-8");
        Source::new(path, raw)
    };
    let mut sources: Vec<_> = files(folder, "rs").into_iter().map(read).collect();
    let for_tests: BTreeSet<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let stem = source.path.trim_end_matches(".rs");
        let mut parents = stem.match_indices('/').map(|(at, _)| &stem[..at]);
        if for_tests.contains(stem) || parents.any(|parent| for_tests.contains(parent)) {
            source.production = blank(&source.code, 0, source.code.len());
        }
    }
    sources
}

/// The files, without `.rs`, of the modules that a source declares for tests only.
fn test_modules(source: &Source) -> Vec<String> {
    let stem = source.path.trim_end_matches(".rs");
    let (parent, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    let folder = match name {
        "mod" | "lib" | "main" => parent,
        _ => stem,
    };
    let items = test_attributes(&source.code).into_iter();
    let items = items.map(|at| &source.code[at..=item_end(&source.code, at)]);
    let declared = items.filter_map(|item| {
        let (_, name) = item.strip_suffix(';')?.rsplit_once("mod ")?;
        Some(format!("{folder}/{name}"))
    });
    declared.collect()
}

/// The documents whose links are checked.
pub(crate) fn documents() -> Vec<(String, String)> {
    let mut paths = files("docs", "md");
    paths.extend(["README.md", "CHANGELOG.md"].map(str::to_owned));
    let read = |path: String| {
        let text = std::fs::read_to_string(root().join(&path)).ok()?;
        Some((path, text))
    };
    paths.into_iter().filter_map(read).collect()
}

/// The files below a folder of the project with this extension, in order; none if it is missing.
fn files(folder: &str, extension: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(root().join(folder)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.expect("the project can be listed");
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            found.extend(files(&path, extension));
        } else if entry.path().extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}
