//! The documentation is held to the tree: the numbers that comments and tests cite.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The files with one of these endings below a folder, without what is built.
fn files(dir: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" {
            found.extend(files(&path, endings));
        } else if path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending)) {
            found.push(path);
        }
    }
    found
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
