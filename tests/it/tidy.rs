//! The house is in order: imports go down, functions are short, comments are as wide as the code,
//! every file says what it is. Read from the sources, line by line, which the formatter has laid
//! out; each rule is tried on a text that breaks it.

use std::path::{Path, PathBuf};

/// The floors of the library. A module imports from floors below its own, and from itself.
const FLOORS: [&[&str]; 9] = [
    &["values"],
    &["space", "format"],
    &["arena", "files"],
    &["version"],
    &["tree"],
    &["insert", "query"],
    &["external", "maintain"],
    &["store"],
    &["simulation"],
];

/// Lines of a function, its head and its last brace included.
const LONGEST: usize = 70;

/// Functions that are longer, and how long they are. The list may only get shorter, and so may
/// they.
///
/// `receive` takes the frames of a stream one after the other; what it carries from one to the next
/// is most of it.
const LONGER: [(&str, &str, usize); 1] = [("src/maintain/receive.rs", "receive", 81)];

/// Columns of a comment, as of code.
const WIDTH: usize = 100;

/// One source file.
struct Source {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The sources below a folder of the repository.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push(Source { path: name, text: std::fs::read_to_string(path).unwrap() });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 3, "{folder}");
    found
}

fn all_sources() -> Vec<Source> {
    ["src", "cli/src", "tests", "cli/tests", "benches"].into_iter().flat_map(sources).collect()
}

/// A file up to its module of tests, which is the last thing in it.
fn before_tests(text: &str) -> &str {
    let ends = ["#[cfg(test)]\nmod ", "#[cfg(all(test, "].map(|begin| text.find(begin));
    &text[..ends.into_iter().flatten().min().unwrap_or(text.len())]
}

impl Source {
    /// The module of the library that this is part of; `None` for the root.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let name = inside.split('/').next()?;
        Some(name.strip_suffix(".rs").unwrap_or(name)).filter(|&name| name != "lib")
    }

    /// The lines up to the module of tests at the end, without comments.
    fn code(&self) -> impl Iterator<Item = &str> {
        let is_of_tests = self.path.ends_with("/tests.rs");
        let text = if is_of_tests { "" } else { before_tests(&self.text) };
        text.lines().map(|line| line.split("//").next().unwrap_or(line))
    }

    /// Modules of the library that are named after `crate::`.
    fn imports(&self) -> Vec<String> {
        let code: String = self.code().collect::<Vec<_>>().join("\n");
        let mut found = Vec::new();
        for (at, head) in code.match_indices("crate::") {
            let rest = &code[at + head.len()..];
            let names: Vec<&str> = match rest.strip_prefix('{') {
                Some(group) => top_level(group),
                None => vec![rest],
            };
            for name in names {
                let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
                found.push(name[..end.unwrap_or(name.len())].to_owned());
            }
        }
        found
    }
}

/// What the commas of a group separate, up to its brace.
fn top_level(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(group[start..at].trim());
                return names;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Imports that do not go down.
fn upward(source: &Source) -> Vec<String> {
    let Some(own) = source.module() else { return Vec::new() };
    let Some(here) = floor(own) else { return vec![format!("{}: on no floor", source.path)] };
    let goes_up = |name: &String| {
        let is_item = name.starts_with(char::is_uppercase);
        let there = floor(name).unwrap_or(if is_item { FLOORS.len() } else { 0 });
        name != own && there >= here && name != "macros"
    };
    let up = source.imports().into_iter().filter(goes_up);
    up.map(|name| format!("{} imports crate::{name}", source.path)).collect()
}

/// Name and length of every function.
fn functions(source: &Source) -> Vec<(String, usize)> {
    let lines: Vec<&str> = before_tests(&source.text).lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let indent = &line[..line.len() - body.len()];
        let Some((head, tail)) = body.split_once("fn ") else { continue };
        let is_head = |word: &str| {
            ["pub", "const", "unsafe", "extern", "\"C\""].contains(&word)
                || word.starts_with("pub(")
        };
        if !head.split_whitespace().all(is_head) {
            continue;
        }
        let end = tail.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(tail.len());
        let last = format!("{indent}}}");
        let is_end = |line: &&str| **line == last;
        let has_no_body = |line: &&str| line.trim_end().ends_with(';') && line.starts_with(indent);
        if body.ends_with(';') || body.ends_with('}') || end == 0 {
            continue;
        }
        let after = &lines[at + 1..];
        let Some(length) = after.iter().position(is_end) else { continue };
        // A declaration of a trait ends with its last argument.
        let head_end = after.iter().position(|line| line.trim_start().starts_with(')'));
        if head_end.is_some_and(|end| end < length && has_no_body(&after[end]))
            && !body.ends_with('{')
        {
            continue;
        }
        found.push((tail[..end].to_owned(), length + 2));
    }
    found
}

/// Comments that are wider than code: line numbers. Tables and examples keep their lines.
fn wide_comments(text: &str) -> Vec<usize> {
    let mut is_example = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
        let words = comment.trim_start_matches(['/', '!']).trim_start();
        is_example ^= words.starts_with("```");
        if line.chars().count() > WIDTH && !words.starts_with("| ") && !is_example {
            found.push(number + 1);
        }
    }
    found
}

#[test]
fn imports_go_down() {
    let up: Vec<String> = sources("src").iter().flat_map(upward).collect();
    assert!(up.is_empty(), "imports that go up:\n{}", up.join("\n"));

    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    for (path, text) in [
        ("src/tree/a.rs", "use crate::store::Store;"),
        ("src/tree/a.rs", "use crate::Store;"),
        ("src/space/a.rs", "use crate::format::arrays;"),
        ("src/insert/a.rs", "use crate::{values, query::{self, knn}};"),
        ("src/arena/mod.rs", "fn f() { crate::version::g() }"),
        ("src/attic/mod.rs", ""),
    ] {
        assert_eq!(upward(&source(path, text)).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("src/tree/a.rs", "use crate::tree::b; // crate::store"),
        (
            "src/query/a.rs",
            "use crate::values::ids;\n#[cfg(test)]\nmod tests { use crate::Store; }",
        ),
        ("src/lib.rs", "use crate::store;"),
    ] {
        assert!(upward(&source(path, text)).is_empty(), "{path}: {text}");
    }
}

#[test]
fn functions_are_short() {
    let mut longer = Vec::new();
    for source in ["src", "cli/src"].into_iter().flat_map(sources) {
        if source.path.ends_with("/tests.rs") {
            continue;
        }
        for (name, length) in functions(&source).into_iter().filter(|(_, l)| *l > LONGEST) {
            longer.push((source.path.clone(), name, length));
        }
    }
    let known: Vec<(String, String, usize)> =
        LONGER.iter().map(|&(path, name, length)| (path.into(), name.into(), length)).collect();
    assert_eq!(longer, known, "functions of more than {LONGEST} lines, and those that may be");

    let body = "    let x = 1;\n".repeat(LONGEST);
    let text =
        format!("impl A {{\n    pub(crate) fn long(\n        a: u8,\n    ) {{\n{body}    }}\n}}\n");
    let source = Source { path: "src/a.rs".into(), text };
    assert_eq!(functions(&source), [("long".to_owned(), LONGEST + 4)]);
}

#[test]
fn comments_are_as_wide_as_code() {
    let mut wide = Vec::new();
    for source in all_sources() {
        let lines = wide_comments(&source.text).into_iter();
        wide.extend(lines.map(|line| format!("{}:{line}", source.path)));
    }
    assert!(wide.is_empty(), "comments wider than {WIDTH} columns:\n{}", wide.join("\n"));

    let long = "x".repeat(WIDTH);
    assert_eq!(wide_comments(&format!("//! {long}\n    /// | {long}\n// {long}")), [1, 3]);
    assert!(wide_comments(&format!("/// ```\n/// {long}\n/// ```\nlet a = {long};")).is_empty());
}

#[test]
fn every_file_says_what_it_is() {
    let silent = all_sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    let silent: Vec<String> = silent.map(|source| source.path).collect();
    assert!(silent.is_empty(), "files without a first line of documentation: {silent:?}");
}

/// Documents that link to files of the repository.
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "format-spec.md",
    "benches/README.md",
];

/// What a text of Markdown links to, or names as a source file in code.
fn references(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, head) in text.match_indices("](") {
        let link = text[at + head.len()..].split([')', ' ']).next().unwrap_or("");
        if !link.contains("://") && !link.starts_with('#') && !link.starts_with("mailto:") {
            found.push(link.split('#').next().unwrap_or(link).to_owned());
        }
    }
    for code in text.split('`').skip(1).step_by(2) {
        let is_path = code.contains('/') && !code.contains(['*', ' ', '<', '{', ':', '\n']);
        if is_path
            && (code.ends_with(".rs") || code.ends_with('/'))
            && !code.starts_with(['/', '-'])
        {
            found.push(code.to_owned());
        }
    }
    found
}

/// True for a file or folder, from the root, from `src` or from beside the document.
fn exists(document: &Path, name: &str) -> bool {
    let bases = [document.parent().unwrap().to_owned(), root(), root().join("src")];
    bases.iter().any(|base| base.join(name).exists())
}

#[test]
fn documents_name_what_there_is() {
    let mut missing = Vec::new();
    let mut named = 0;
    for document in DOCUMENTS {
        let path = root().join(document);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{document}: {e}"));
        for name in references(&text) {
            named += 1;
            if !exists(&path, &name) {
                missing.push(format!("{document}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(named > 30, "{named}");
    assert_eq!(
        references("[a](b.md#c) `src/d.rs` [e](https://f) `g h/i.rs`"),
        ["b.md", "src/d.rs"]
    );
}
