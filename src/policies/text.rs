//! Splits the text of a file into statements, so that each policy has a line of its own.
//!
//! Cedar's parser reads a whole file and does not give the position of a policy. A statement ends with the first `;` that is
//! neither in a string nor in a comment.

/// The number of levels that an `if` counts as, because Cedar takes twice as long to validate each one that is nested in another.
const OF_AN_IF: usize = 20;

/// One statement of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Statement<'t> {
    /// Its text, from its first character that is neither white space nor in a comment, to its semicolon.
    pub(super) text: &'t str,
    /// The line on which it begins, counted from 1.
    pub(super) line: usize,
    /// How many characters of it may begin another level: brackets and operators outside of strings and comments, and
    /// each `if` as often as [`OF_AN_IF`].
    pub(super) levels: usize,
}

/// The statements of a file, in order. Text after the last semicolon is a statement too, unless it is only white space and
/// comments.
pub(super) fn statements(text: &str) -> Vec<Statement<'_>> {
    let mut found = Vec::new();
    let (mut begins, mut line, mut levels) = (None, 1, 0);
    let (mut in_string, mut in_comment, mut escaped) = (false, false, false);
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\n' {
            line += 1;
            in_comment = false;
            escaped = false;
            continue;
        }
        if in_comment {
            continue;
        }
        if in_string {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        if c == '/' && chars.peek().is_some_and(|(_, next)| *next == '/') {
            in_comment = true;
            continue;
        }
        if begins.is_none() && !c.is_whitespace() {
            begins = Some((at, line));
            levels = 0;
        }
        match c {
            '"' => in_string = true,
            '(' | '[' | '{' | '!' | '-' | '+' | '*' | '&' | '|' | '.' => levels += 1,
            'f' if text.get(..=at).is_some_and(|until| until.ends_with("if")) => levels += OF_AN_IF,
            ';' => {
                if let Some((from, line)) = begins.take() {
                    found.push(Statement { text: text.get(from..=at).unwrap_or_default(), line, levels });
                }
            }
            _ => {}
        }
    }
    if let Some((from, line)) = begins {
        found.push(Statement { text: text.get(from..).unwrap_or_default(), line, levels });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_in_a_string_or_a_comment_ends_nothing() {
        let text = "// a; b\n\n@id(\"x;\\\";\")\npermit(principal, // c;\naction, resource);\nforbid(principal,action,resource);\n// d\n";
        let found = statements(text);
        let lines: Vec<usize> = found.iter().map(|s| s.line).collect();
        assert_eq!(lines, [3, 6]);
        assert!(found.iter().all(|s| s.text.ends_with("resource);")), "{found:?}");
    }

    #[test]
    fn what_is_not_finished_is_a_statement_of_its_own() {
        assert_eq!(statements(""), []);
        assert_eq!(statements("\n // only a comment"), []);
        assert_eq!(statements("\n permit(").first().map(|s| (s.text, s.line)), Some(("permit(", 2)));
        assert_eq!(statements("permit(p); \"open").len(), 2);
        // A multi-line string keeps the count of lines.
        assert_eq!(statements("@a(\"x\ny\")p;q;").iter().map(|s| s.line).collect::<Vec<_>>(), [1, 2]);
    }
}
