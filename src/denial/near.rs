//! Suggests the most similar known name for a name that is unknown.

/// The end of a message about an unknown name: `: did you mean …?` with the most similar known one, or nothing.
pub fn near<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = known.map(|known| (distance(known, name), known)).min().filter(|(distance, _)| *distance <= 3);
    near.map_or(String::new(), |(_, known)| format!(": did you mean `{known}`?"))
}

/// The edit distance (Levenshtein) between the first 40 characters of two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(40).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(40).enumerate() {
        let mut next = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let [left, up, diagonal] = [next.last(), row.get(j + 1), row.get(j)].map(|n| n.copied().unwrap_or(usize::MAX - 1));
            next.push((left + 1).min(up + 1).min(diagonal + usize::from(ca != *cb)));
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_three_letters_away_is_a_near_miss_and_another_is_not() {
        let known = || ["researcher", "worker"].into_iter();
        assert_eq!(near("resercher", known()), ": did you mean `researcher`?");
        assert_eq!(near("werkers", known()), ": did you mean `worker`?");
        assert_eq!(near("mailer", known()), "");
        assert_eq!(near("worker", [].into_iter()), "");
    }
}
