//! The table of conformance cases names tests that there are.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;

/// All text of the files with these endings, in these folders.
fn text(folders: &[&str], endings: &[&str]) -> String {
    let mut folders: Vec<_> = folders.iter().map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).collect();
    let mut all = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|end| endings.iter().any(|ending| end == *ending)) {
                all += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    all
}

#[test]
fn each_case_names_a_test_of_each_package_or_says_why_there_is_none() {
    let page = include_str!("../docs/conformance.md");
    let tests = [
        text(&["src", "tests", "../tests", "verify/src", "verify/tests"], &["rs"]),
        text(&["python/tests", "../tests/oracles"], &["py"]),
        text(&["typescript/test"], &["mjs"]),
        text(&["go"], &["go"]),
    ];
    let mut cases = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| case")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{row}");
        for (cell, tests) in cells[1..].iter().zip(&tests) {
            let name = cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
            let Some(name) = name else {
                assert!(cell.starts_with('-'), "{cell}: name a test, or write a dash");
                continue;
            };
            let written = ["fn {}(", "def {}(", "test(\"{}\"", "func {}("].map(|form| form.replace("{}", name));
            assert!(written.iter().any(|form| tests.contains(form)), "there is no test `{name}`");
        }
        cases += 1;
    }
    assert!(cases >= 20, "{cases}");
}
