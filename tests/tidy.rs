//! Style as a test: layers, sizes, banned words and links, each rule with what to do instead.
//!
//! The rules work on text and not on syntax trees. A small lexer sets comments and the contents of
//! literals apart, and counting brackets finds where an item ends; together with `cargo fmt` that
//! is enough. What clippy can judge is left to clippy.

#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/text.rs"]
mod text;

use std::fmt::Write as _;

use source::{Source, all_sources, documents, programs, root, sources};
use text::{
    attributes, closing, first_of, identifier, item_end, line_of, links, normal, paths_below, words,
};

// ---- The rules --------------------------------------------------------------------------------

/// Each top-level module, and which others it may name besides itself.
///
/// A module that is missing here fails the test, so that somebody decides where it belongs.
const LAYERS: [(&str, &str); 20] = [
    ("limits", ""),
    ("domain", "limits"),
    ("clock", "domain limits"),
    ("client", "limits"),
    ("meta", "domain limits"),
    ("mapping", "domain limits"),
    ("config", "domain limits mapping"),
    ("telemetry", "domain limits"),
    ("store", "domain limits clock"),
    ("sandbox", "domain limits clock client meta"),
    ("bench", "domain limits clock client meta"),
    ("delivery", "domain limits clock client meta config telemetry store"),
    ("reader", "domain limits clock client meta config telemetry store delivery"),
    ("alarm", "domain limits clock client meta config telemetry store delivery"),
    ("http", "domain limits clock meta mapping config telemetry store delivery reader alarm"),
    ("app", "domain limits clock meta config telemetry store delivery reader alarm http sandbox"),
    (
        "cli",
        "domain limits clock client meta mapping config telemetry store delivery reader alarm http \
         sandbox bench app",
    ),
    ("fuzz", "domain limits meta mapping config store delivery http sandbox"),
    ("main", "cli"),
    ("simulation", ""),
];

/// The modules at a border, whose types may be written and read by serde.
const SERDE_MODULES: [&str; 7] = ["meta", "mapping", "alarm", "http", "config", "cli", "sandbox"];

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
const MAIN_LINES_MAX: usize = 40;
const LIB_LINES_MAX: usize = 70;
const ARCHITECTURE_LINES_MAX: usize = 150;
const COLUMNS_MAX: usize = 100;

#[test]
fn modules_name_only_the_modules_below_them() {
    pass(sources("src").iter().flat_map(|source| {
        let found = layer_violations(&source.path, &source.production);
        found.into_iter().map(|(line, what)| source.at(line, &what))
    }));
}

#[test]
fn the_domain_knows_no_wire_format_no_runtime_and_no_machine() {
    let domain = sources("src").into_iter();
    let domain = domain.filter(|source| module_of(&source.path) == "domain");
    pass(domain.flat_map(|source| {
        let mut found = Vec::new();
        for word in ["serde", "serde_json", "tokio", "async"] {
            for at in words(&source.production, word) {
                found.push((line_of(&source.production, at), word.to_owned()));
            }
        }
        for (line, path) in paths_below(&source.production, "std") {
            if ["fs", "net"].contains(&first_of(&path)) {
                found.push((line, format!("std::{path}")));
            }
        }
        let advice = "the domain is pure; do this at a border and pass plain values in";
        let found = found.into_iter();
        found
            .map(|(line, word)| source.at(line, &format!("`{word}`: {advice}")))
            .collect::<Vec<_>>()
    }));
}

#[test]
fn serde_is_derived_at_the_borders_and_in_stored_records_only() {
    pass(sources("src").iter().flat_map(|source| {
        let code = &source.production;
        let derives = words(code, "derive").into_iter().filter(|at| {
            let list = &code[*at..];
            let list = &list[..list.find(')').unwrap_or(list.len())];
            list.contains("Serialize") || list.contains("Deserialize")
        });
        let allowed = SERDE_MODULES.contains(&module_of(&source.path))
            || source.path.starts_with("src/store/records/");
        let advice = "serde is derived here; give the border (or `store/records`) a type of its \
                      own and convert";
        let derives = derives.filter(move |_| !allowed);
        derives.map(move |at| source.at(line_of(code, at), advice))
    }));
}

#[test]
fn every_file_begins_by_telling_what_it_is_for() {
    let silent = programs().into_iter();
    let silent = silent.filter(|source| !source.raw.starts_with("//!"));
    pass(
        silent.map(|source| {
            source.at(1, "begin with `//!`: what this is for, and what it does not do")
        }),
    );
}

#[test]
fn files_and_functions_are_short_enough_to_be_read_at_once() {
    pass(programs().iter().flat_map(|source| {
        let mut found = Vec::new();
        let (lines, lines_max) = match source.path.as_str() {
            "src/main.rs" => (source.raw.lines().count(), MAIN_LINES_MAX),
            "src/lib.rs" => (source.raw.lines().count(), LIB_LINES_MAX),
            _ => (source.production_lines(), FILE_LINES_MAX),
        };
        if lines > lines_max {
            let what =
                format!("{lines} lines outside tests, {lines_max} at most; split by concern");
            found.push(source.at(1, &what));
        }
        for (line, name, lines) in long_functions(&source.production) {
            let what = format!(
                "`{name}` has {lines} lines, {FUNCTION_LINES_MAX} at most; move a step out of it"
            );
            found.push(source.at(line, &what));
        }
        found
    }));
}

#[test]
fn no_module_is_named_after_nothing_in_particular() {
    let vague = ["utils", "util", "helpers", "common", "types"];
    pass(programs().into_iter().filter_map(|source| {
        let mut parts = source.path.trim_end_matches(".rs").split('/');
        let name = parts.find(|part| vague.contains(part))?.to_owned();
        Some(source.at(1, &format!("`{name}` names nothing; call it after what is in it")))
    }));
}

#[test]
fn lints_are_expected_with_a_reason_and_never_just_allowed() {
    pass(programs().iter().flat_map(|source| {
        let mut found = Vec::new();
        for (at, attribute) in attributes(&source.code) {
            let line = line_of(&source.code, at);
            if !words(attribute, "allow").is_empty() {
                found.push(source.at(line, "write `#[expect(lint, reason = \"…\")]` instead"));
            }
            if !words(attribute, "expect").is_empty() && words(attribute, "reason").is_empty() {
                found.push(source.at(line, "say why: `reason = \"…\"`"));
            }
        }
        found
    }));
}

#[test]
fn nothing_outside_tests_unwraps() {
    pass(programs().iter().flat_map(|source| {
        let hits = source.production.match_indices(".unwrap()");
        hits.map(|(at, _)| {
            let line = line_of(&source.production, at);
            source.at(line, "handle it, or `expect` what always holds")
        })
    }));
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    // Put together here, so that this file does not find itself.
    let marks = ["TO", "FIX", "XX"].map(|start| match start {
        "TO" => format!("{start}DO"),
        "FIX" => format!("{start}ME"),
        _ => format!("{start}X"),
    });
    pass(all_sources().iter().flat_map(|source| {
        let hits = marks.iter().flat_map(|mark| words(&source.raw, mark));
        hits.map(|at| {
            let line = line_of(&source.raw, at);
            source.at(line, "do it now, or write an issue")
        })
    }));
}

#[test]
fn no_test_is_ignored_and_none_sleeps() {
    pass(all_sources().iter().flat_map(|source| {
        let lines = source.code.lines().zip(source.production.lines());
        let lines = lines.enumerate().filter(|(_, (code, production))| code != production);
        lines.filter_map(|(index, (code, _))| {
            let sleeps = words(code, "sleep").into_iter();
            let mut sleeps = sleeps.filter(|at| code[at + "sleep".len()..].starts_with('('));
            let what = if code.contains("#[ignore") {
                "mend the test or delete it"
            } else {
                sleeps.next()?;
                "move a `MockClock` or tokio's paused time on; wait for what you wait for"
            };
            Some(source.at(index + 1, what))
        })
    }));
}

#[test]
fn relative_links_in_documents_lead_to_files() {
    pass(documents().into_iter().flat_map(|(path, text)| {
        let folder = root().join(&path);
        let folder = folder.parent().expect("a document is in a folder").to_owned();
        let dead = links(&text).into_iter().filter(move |(_, target)| {
            let inside = normal(&folder.join(target)).is_some_and(|at| at.starts_with(root()));
            !inside || !folder.join(target).exists()
        });
        dead.map(move |(line, target)| {
            format!("{path}:{line}: `{target}` does not exist; correct the link or write the file")
        })
    }));
}

#[test]
fn the_architecture_is_short_and_names_every_module() {
    let path = "docs/ARCHITECTURE.md";
    let Ok(text) = std::fs::read_to_string(root().join(path)) else {
        return;
    };
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > ARCHITECTURE_LINES_MAX {
        found.push(format!(
            "{path}:1: {lines} lines, {ARCHITECTURE_LINES_MAX} at most; move detail to its module"
        ));
    }
    for source in sources("src") {
        if source.path != "src/lib.rs" {
            continue;
        }
        for at in words(&source.production, "mod") {
            let name = identifier(source.production[at + "mod".len()..].trim_start());
            let named = [format!("`{name}"), format!("{name}/"), format!("{name}.rs")];
            if !named.iter().any(|name| text.contains(name)) {
                found.push(format!(
                    "{path}:1: `{name}` of src/lib.rs is not named; say what it is for"
                ));
            }
        }
    }
    pass(found);
}

#[test]
fn no_line_is_wider_than_a_hundred_columns() {
    pass(all_sources().iter().flat_map(|source| {
        let wide = source.widths.iter().enumerate();
        let wide = wide.filter(|(_, columns)| **columns > COLUMNS_MAX);
        wide.map(|(index, columns)| {
            source.at(index + 1, &format!("{columns} columns, {COLUMNS_MAX} at most"))
        })
    }));
}

#[test]
fn every_message_of_the_log_is_in_its_document_beside_its_level() {
    let path = root().join("docs/LOGGING.md");
    let document = std::fs::read_to_string(path).expect("the document is there");
    let all = sources("src");
    let said: Vec<_> = all.iter().flat_map(logged).collect();
    assert!(said.len() > 60, "the check sees only {} messages", said.len());
    pass(said.into_iter().filter(|it| !is_documented(&document, it)).map(
        |Logged { path, level, message }| {
            format!(
                "{path}: {level} `{message}`: name it in docs/LOGGING.md, in a row of its level"
            )
        },
    ));
}

#[test]
fn every_limit_is_used_by_the_code_it_limits() {
    let sources = sources("src");
    let (limits, others): (Vec<_>, Vec<_>) =
        sources.iter().partition(|source| module_of(&source.path) == "limits");
    let used = |name: &str| {
        let mut others = others.iter();
        others.any(|source| !words(&source.production, name).is_empty())
    };
    pass(limits.iter().flat_map(|source| {
        let declared = source.production.match_indices("pub const ");
        declared.filter_map(|(at, start)| {
            let name = identifier(&source.production[at + start.len()..]);
            let line = line_of(&source.production, at);
            let what = format!("nothing keeps to `{name}`; enforce it or delete it");
            (!used(name)).then(|| source.at(line, &what))
        })
    }));
}

// ---- Controls: the checks can fail ------------------------------------------------------------

#[test]
fn the_log_check_reads_level_and_message_and_looks_for_both() {
    let macros =
        ["error!(%id, \"lost;\\n     all\")", "info!(\n    n = f(\"x\"),\n    \"gone\"\n)"];
    let code = macros.map(|it| format!("fn a() {{ tracing::{it}; }}\n")).concat();
    let code = code.replace("\\n", "\\\n");
    let found = logged(&Source::new("src/a.rs".into(), code));
    let found: Vec<_> = found.iter().map(|it| (it.level.as_str(), it.message.as_str())).collect();
    assert_eq!(found, [("ERROR", "lost;all"), ("INFO", "gone")]);
    let document = "| ERROR | of a: `gone`, `lost;all` |\n";
    let told =
        logged(&Source::new("src/a.rs".into(), "fn a() { tracing::info!(\"gone\"); }".into()));
    assert!(!is_documented(document, &told[0]), "it stands beside another level");
    assert!(is_documented(&document.replace("ERROR", "INFO"), &told[0]));
}

#[test]
fn the_layer_check_finds_an_upward_path_in_every_form() {
    let found = |path: &str, text: &str| {
        let source = Source::new(path.into(), text.into());
        let found = layer_violations(path, &source.production).into_iter();
        found.map(|(line, _)| line).collect::<Vec<_>>()
    };
    let none: [usize; 0] = [];
    let domain = "src/domain/lead.rs";
    assert_eq!(found(domain, "use crate::store::Store;\n"), [1]);
    assert_eq!(found(domain, "\nuse crate::{limits, http::{a, b}};\n"), [2, 2]);
    assert_eq!(found(domain, "fn f() {\n    crate::clock::now();\n}\n"), [2]);
    assert_eq!(found(domain, "use super::super::store::Store;\n"), [1]);
    assert_eq!(found(domain, "use super::ids::LeadId;\n"), none);
    assert_eq!(found(domain, "use crate::domain::ids;\nuse crate::limits::A;\n"), none);
    assert_eq!(
        found(domain, "/// As [`crate::store`] says.\nconst A: &str = \"crate::http\";\n"),
        none
    );
    assert_eq!(found(domain, "#[cfg(test)]\nmod tests {\n    use crate::store::A;\n}\n"), none);
    assert_eq!(found(domain, "#[cfg(test)]\nmod tests {}\nuse crate::store::A;\n"), [3]);
    assert_eq!(found("src/http/leads.rs", "use crate::store::{Store, redb::RedbStore};\n"), [1]);
    assert_eq!(found("src/http/leads.rs", "use crate::store;\nuse store::memory::A;\n"), [2]);
    assert_eq!(found("src/http/leads.rs", "use crate::store::query::Page;\n"), none);
    assert_eq!(found("src/main.rs", "fn main() {\n    leadloop::app::run();\n}\n"), [2]);
    assert_eq!(found("src/shiny/mod.rs", "//! New.\n"), [1]);
}

#[test]
fn the_function_check_measures_from_the_signature_to_the_closing_brace() {
    let function = |lines: usize| {
        let body = "    let brace = \"}\"; // }\n".repeat(lines - 2);
        format!("impl A {{\n    fn long(a: [u8; 2]) {{\n{body}    }}\n}}\n")
    };
    let found = |text: String| long_functions(&Source::new("a.rs".into(), text).production);
    assert_eq!(found(function(FUNCTION_LINES_MAX)), []);
    let long = FUNCTION_LINES_MAX + 1;
    assert_eq!(found(function(long)), [(2, "long".to_owned(), long)]);
    let in_tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(long));
    assert_eq!(found(in_tests), []);
}

#[test]
fn the_lexer_tells_code_from_comments_and_literals() {
    let code = |text: &str| Source::new("a.rs".into(), text.into()).code;
    assert_eq!(code("a(); // b()"), "a();       ");
    assert_eq!(code("/* /* b */ */ a"), "              a");
    assert_eq!(code(r#"a("\"b", 'b', '\'')"#), r#"a("   ", ' ', '  ')"#);
    assert_eq!(code("r#\"b\"b\"#.a::<'b>()"), "r#\"   \"#.a::<'b>()");
}

#[test]
fn the_width_of_a_line_leaves_out_literals_and_addresses() {
    let widths = |text: &str| Source::new("a.rs".into(), text.into()).widths;
    let wide = "x".repeat(COLUMNS_MAX + 1);
    assert_eq!(widths(&wide), [COLUMNS_MAX + 1]);
    assert_eq!(widths(&format!("// {wide}")), [COLUMNS_MAX + 4]);
    assert_eq!(widths(&format!("f(\"{wide}\")")), [5]);
    assert_eq!(widths(&format!("// https://{wide}")), [0]);
}

#[test]
fn links_are_found_outside_code_only() {
    let text =
        "[a](b.md#c) `[d](e.md)` [f](https://g)\n```\n[h](i.md)\n```\n[`j`]: k.md\n[l](#m)\n";
    let found: Vec<_> = links(text);
    assert_eq!(found, [(1, "b.md".to_owned()), (5, "k.md".to_owned())]);
}

#[test]
fn the_walk_finds_the_sources_and_tells_tests_apart() {
    let sources = all_sources();
    let find = |path: &str| sources.iter().find(|source| source.path == path);
    let limits = find("src/limits.rs").expect("the limits are read");
    assert!(limits.production_lines() > 50);
    let tidy = find("tests/tidy.rs").expect("this file is read");
    assert_eq!(tidy.production_lines(), 0);
}

// ---- How the rules look at the sources --------------------------------------------------------

/// Passes if nothing was found; otherwise shows all of it.
fn pass(violations: impl IntoIterator<Item = String>) {
    let mut list = String::new();
    let mut count = 0;
    for violation in violations {
        count += 1;
        let _ = write!(list, "\n  {violation}");
    }
    assert!(count == 0, "{count} to mend:{list}\n");
}

/// A line of the log.
struct Logged {
    path: String,
    level: String,
    message: String,
}

/// What a source says to the log: the last text of each macro is the message.
fn logged(source: &Source) -> Vec<Logged> {
    let raw: Vec<char> = source.raw.chars().collect();
    let mut found = Vec::new();
    for level in ["error", "warn", "info", "debug", "trace"] {
        let start = format!("tracing::{level}!");
        for (at, _) in source.production.match_indices(&start) {
            let end = closing(&source.production, at);
            let text: String = raw[at..end].iter().collect();
            let message = text.rsplit('"').nth(1).unwrap_or_default();
            let message = message.split("\\\n").map(str::trim_start).collect();
            let (path, level) = (source.path.clone(), level.to_uppercase());
            found.push(Logged { path, level, message });
        }
    }
    found
}

fn is_documented(document: &str, Logged { level, message, .. }: &Logged) -> bool {
    let (row, message) = (format!("| {level} |"), format!("`{message}`"));
    document.lines().any(|line| line.starts_with(&row) && line.contains(&message))
}

/// The top-level module that a file of `src` belongs to; `lib` and `main` for the roots.
fn module_of(path: &str) -> &str {
    let path = path.trim_start_matches("src/");
    first_of(path).trim_end_matches(".rs")
}

/// Lines of a file that name a module which is not below the file's own.
fn layer_violations(path: &str, production: &str) -> Vec<(usize, String)> {
    let module = module_of(path);
    if module == "lib" {
        return Vec::new();
    }
    let Some((_, below)) = LAYERS.iter().find(|(name, _)| *name == module) else {
        let what = format!("`{module}` has no layer; decide in tests/tidy.rs what it may use");
        return vec![(1, what)];
    };
    let mut found = Vec::new();
    let library = if module == "main" { "leadloop" } else { "crate" };
    for (line, used) in paths_below(production, library) {
        let target = first_of(&used);
        if target != module && !below.split(' ').any(|name| name == target) {
            let what = format!(
                "`{module}` may not use `{used}`; move the type down or pass a value or trait in"
            );
            found.push((line, what));
        }
    }
    if module == "http" {
        let direct = paths_below(production, "crate").into_iter();
        let direct = direct.filter_map(|(line, path)| {
            let path = path.strip_prefix("store::")?.to_owned();
            Some((line, path))
        });
        let bare = paths_below(production, "store").into_iter();
        for (line, path) in direct.chain(bare) {
            if ["redb", "memory"].contains(&first_of(&path)) {
                let what = format!("`http` may not use `store::{path}`; take an `Arc<dyn Store>`");
                found.push((line, what));
            }
        }
    }
    let nested = path.split('/').count() - 1 - usize::from(path.ends_with("/mod.rs"));
    for at in words(production, "super") {
        let ups = production[at..].split("::").take_while(|part| *part == "super");
        if ups.count() >= nested {
            let what = "this climbs to the top of the crate; write it as `crate::…`".to_owned();
            found.push((line_of(production, at), what));
        }
    }
    found
}

/// Line, name and length of the functions that are too long.
fn long_functions(production: &str) -> Vec<(usize, String, usize)> {
    let functions = words(production, "fn").into_iter();
    let functions = functions.filter_map(|at| {
        let name = production[at..].strip_prefix("fn ")?;
        let first = line_of(production, at);
        let lines = line_of(production, item_end(production, at)) - first + 1;
        Some((first, identifier(name).to_owned(), lines))
    });
    let long = functions.filter(|(_, _, lines)| *lines > FUNCTION_LINES_MAX);
    long.collect()
}
