//! The documentation is held to the tree: its length, its links, and the numbers that comments and tests cite.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The files with one of these endings below a folder, without what is built or installed.
fn files(dir: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "node_modules" {
            found.extend(files(&path, endings));
        } else if path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending)) {
            found.push(path);
        }
    }
    found
}

/// Where the files are that pages name.
const FOLDERS: &[&str] = &["src/", "agent-sdk/", "loadtest/", "tests/", "proto/", ".ci/", ".cargo/", ".fuzz/"];

/// The README, the changelog and every page.
fn pages() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    for dir in ["src", "agent-sdk", "loadtest"] {
        found.extend(files(Path::new(dir), &["md"]));
    }
    found
}

#[test]
fn the_readme_is_short() {
    let words = fs::read_to_string("README.md").unwrap().split_whitespace().count();
    assert!(words <= 1300, "the README has {words} words: move details to a page");
}

#[test]
fn the_readme_ends_in_an_agent_that_is_refused() {
    let readme = fs::read_to_string("README.md").unwrap();
    let lines: Vec<_> = readme.lines().filter(|line| line.starts_with("$ ")).collect();
    let at = |what: &str| lines.iter().position(|line| line.contains(what)).unwrap();
    let (revoked, refused, reopened) = (at("mayfly revoke "), at("exits 6"), at("mayfly reopen "));
    assert!(revoked < refused && refused < reopened && reopened <= 10, "{lines:?}");
    assert!(lines.iter().filter(|line| line.contains("verify") && line.contains("--live")).count() >= 2, "before and after");
}

/// Every target of a link: `](target)`, and `[label]: target` at the beginning of a line.
fn links(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    let mut found: Vec<String> = prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect();
    for line in prose.lines().filter(|l| l.starts_with('[')) {
        if let Some((_, target)) = line.split_once("]: ") {
            found.push(target.trim().to_owned());
        }
    }
    found
}

/// The labels of `[text][label]`.
fn labels(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    prose.split("][").skip(1).filter_map(|rest| Some(rest.split_once(']')?.0.to_owned())).collect()
}

#[test]
fn links_lead_to_files() {
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for target in links(&text) {
            // Items of rustdoc are checked by `cargo doc`, and other sites by nobody.
            if target.starts_with("https://") || target.contains("::") || target.starts_with('`') {
                continue;
            }
            let file = target.split('#').next().unwrap();
            assert!(page.parent().unwrap().join(file).exists(), "{}: `{target}` leads nowhere", page.display());
            checked += 1;
        }
        // Files that are named and not linked: `cargo doc` has no place for them.
        // In the list of hazards they are those of other projects.
        let ours = !page.ends_with("hazards.md");
        for span in text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2)) {
            let named = ours && FOLDERS.iter().any(|folder| span.starts_with(folder)) && !span.contains([' ', ':', '*', '<']);
            assert!(!named || Path::new(span).exists(), "{}: there is no `{span}`", page.display());
        }
        for label in labels(&text) {
            assert!(text.contains(&format!("\n[{label}]: ")), "{}: `[{label}]` is not defined", page.display());
        }
    }
    assert!(checked > 20, "links are found: {checked}");
}

#[test]
fn every_page_can_be_reached() {
    let mut open = vec![PathBuf::from("README.md")];
    let mut seen = BTreeSet::new();
    while let Some(page) = open.pop() {
        let page = fs::canonicalize(page).unwrap();
        if page.extension().is_some_and(|e| e == "md") && seen.insert(page.clone()) {
            let text = fs::read_to_string(&page).unwrap();
            let targets = links(&text).into_iter().filter(|t| t.ends_with(".md"));
            open.extend(targets.map(|t| page.parent().unwrap().join(t)));
        }
    }
    for page in pages() {
        assert!(seen.contains(&fs::canonicalize(&page).unwrap()), "no link leads from the README to {}", page.display());
    }
}

/// The numbers in a text, such as T85 and WE-6: also in names of tests, such as `t85_…` and `we6_wa10_…`.
fn numbers(text: &str, prefixes: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')) {
        let hazard = word.strip_prefix('T').filter(|n| n.len() >= 2 && n.bytes().all(|b| b.is_ascii_digit()));
        if hazard.is_some() {
            found.insert(word.to_owned());
        }
        if let Some((prefix, number)) = word.split_once('-') {
            let upper = prefix.len() == 2 && prefix.bytes().all(|b| b.is_ascii_uppercase());
            if upper && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
                found.insert(word.to_owned());
            }
        }
        // Names of tests: parts at the beginning that are a prefix and a number.
        for part in word.split('_').take_while(|p| p.ends_with(|c: char| c.is_ascii_digit())) {
            let letters: String = part.chars().take_while(char::is_ascii_lowercase).collect();
            let number = &part[letters.len()..];
            if number.is_empty() || !word.contains('_') || !number.bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            if letters == "t" && number.len() >= 2 {
                found.insert(format!("T{number}"));
            } else if prefixes.contains(&letters.to_uppercase()) {
                found.insert(format!("{}-{number}", letters.to_uppercase()));
            }
        }
    }
    found
}

#[test]
fn every_number_that_is_cited_is_in_a_list() {
    let listed: BTreeSet<String> = ["src/docs/hazards.md", "src/docs/clauses.md"]
        .iter()
        .flat_map(|list| fs::read_to_string(list).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| Some(line.strip_prefix("| ")?.split_once(" |")?.0.to_owned()))
        .filter(|number| numbers(number, &BTreeSet::new()).contains(number))
        .collect();
    assert!(listed.contains("T85") && listed.contains("WE-6") && listed.contains("XL-3"));
    let prefixes = listed.iter().filter_map(|n| Some(n.split_once('-')?.0.to_owned())).collect();
    assert_eq!(
        numbers("// T85, WE-6: x\nfn t85_a() { we6_wa10_b(); cl1(); } 01T00:00:00Z", &prefixes),
        ["T85", "WA-10", "WE-6"].map(String::from).into()
    );

    let mut cited = BTreeMap::new();
    for dir in ["src", "agent-sdk", "tests", "loadtest", "benches", "proto"] {
        for file in files(Path::new(dir), &["rs", "md", "proto", "py", "go", "java", "toml"]) {
            for number in numbers(&fs::read_to_string(&file).unwrap(), &prefixes) {
                cited.entry(number).or_insert(file.clone());
            }
        }
    }
    assert!(cited.len() > 100, "{}", cited.len());
    for (number, file) in cited {
        assert!(listed.contains(&number), "{} cites {number}, which is in no list", file.display());
    }
}

#[test]
fn what_users_read_cites_no_numbers() {
    let prefixes = BTreeSet::new();
    for page in pages() {
        if ["hazards.md", "clauses.md", "develop.md", "conformance.md"].iter().any(|list| page.ends_with(list)) {
            continue;
        }
        let found = numbers(&fs::read_to_string(&page).unwrap(), &prefixes);
        assert!(found.is_empty(), "{}: {found:?}: write what it means", page.display());
    }
}
