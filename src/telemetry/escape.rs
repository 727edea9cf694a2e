//! Escapes text of others for logs and terminals, so that it contains no control characters and begins no line (T93).

use std::fmt;

/// Whether a character could begin a line, control a terminal, or change the order of the text around it.
pub(super) fn is_dangerous(c: char) -> bool {
    // Line and paragraph separators; the controls of writing direction (Unicode Technical Report 36, 2.5).
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Passes text on, with dangerous characters written as `\n` or `\u{1b}`.
pub struct Escaping<W>(pub W);

impl<W: fmt::Write> fmt::Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_dangerous(*c)) {
            let (before, from) = rest.split_at(at);
            self.0.write_str(before)?;
            write!(self.0, "{}", c.escape_default())?;
            rest = from.get(c.len_utf8()..).unwrap_or_default();
        }
        self.0.write_str(rest)
    }
}

/// The text on one line, with dangerous characters written as `\n` or `\u{1b}`.
pub fn escaped(text: &dyn fmt::Display) -> String {
    use fmt::Write as _;
    let mut line = Escaping(String::new());
    // A string takes everything.
    let _ = write!(line, "{text}");
    line.0
}

/// The text with its lines, each of them escaped.
pub fn escaped_lines(text: &str) -> String {
    text.split('\n').map(|line| escaped(&line)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t93_no_control_character_passes_and_everything_else_does() {
        assert_eq!(escaped(&"a\r\nb\tc\x1b[2J\x07\u{7f}\u{9b}1m"), "a\\r\\nb\\tc\\u{1b}[2J\\u{7}\\u{7f}\\u{9b}1m");
        assert_eq!(escaped(&"\u{202e}x\u{2069}\u{2028}"), "\\u{202e}x\\u{2069}\\u{2028}");
        let good = r#"Zoë Müller, 名前, "quoted", C:\new 👩‍🚀"#;
        assert_eq!(escaped(&good), good);
        assert_eq!(escaped_lines("a\nb\x1b"), "a\nb\\u{1b}");
        assert_eq!(escaped(&""), "");
    }
}
