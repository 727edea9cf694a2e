//! Tables for people. In a pipe each cell is whole; on a terminal ids and times are short, and the table fits its width.

use std::io::IsTerminal;

use prost_types::Timestamp;
use time::OffsetDateTime;

use super::timestamp;
use crate::cli::duration::Length;
use crate::telemetry::escaped;

/// Between two columns.
const GAP: &str = "  ";
/// A column is not cut below this width.
const NARROW: usize = 8;

/// How tables are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Style {
    /// The columns of the terminal. `None` if stdout is no terminal.
    width: Option<usize>,
    /// Unix seconds.
    now: i64,
}

impl Style {
    /// The style for stdout.
    pub(in crate::cli) fn of_stdout() -> Style {
        let stdout = std::io::stdout();
        let size = || rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
        let width = stdout.is_terminal().then(|| size().unwrap_or(80));
        Style { width, now: OffsetDateTime::now_utc().unix_timestamp() }
    }

    /// A SPIFFE ID; on a terminal without the trust domain and the kind, as commands take it for an agent.
    pub(in crate::cli) fn id(self, id: &str) -> String {
        if self.width.is_some() { short(id).to_owned() } else { id.to_owned() }
    }

    /// A time; on a terminal how far away it is. Empty if it is absent.
    pub(in crate::cli) fn time(self, at: Option<&Timestamp>) -> String {
        match (at, self.width) {
            (None, _) => String::new(),
            (Some(at), Some(_)) => away(at.seconds - self.now),
            (at, None) => timestamp(at),
        }
    }

    /// The lines of a table, or only `none` if it has no rows. The last column is not padded.
    pub(in crate::cli) fn table(self, none: &str, head: &[&str], rows: Vec<Vec<String>>) -> Vec<String> {
        if rows.is_empty() {
            return vec![none.to_owned()];
        }
        let head = head.iter().map(|name| (*name).to_owned()).collect();
        self.aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    }

    /// Rows below each other. A row with one cell is a heading, and does not count for the widths.
    pub(in crate::cli) fn aligned(self, rows: &[Vec<String>]) -> Vec<String> {
        // Cells contain names that others chose: a cell is escaped before it is measured, and has no line break.
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| escaped(cell)).collect()).collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; columns];
        for row in rows.iter().filter(|row| row.len() > 1) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if let Some(room) = self.width {
            fit(&mut widths, room);
        }
        rows.iter().map(|row| line(row, &widths, self.width.is_some())).collect()
    }
}

/// Narrows the widest columns until the table fits, but never the first one, which has the ids that other commands take.
fn fit(widths: &mut [usize], room: usize) {
    loop {
        let total = widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1);
        let Some(widest) = widths.iter_mut().skip(1).max() else { return };
        if total <= room || *widest <= NARROW {
            return;
        }
        *widest = widest.saturating_sub(total - room).max(NARROW);
    }
}

fn line(row: &[String], widths: &[usize], cut: bool) -> String {
    let [cell] = row else {
        let cells = row.iter().zip(widths).enumerate().map(|(n, (cell, width))| {
            let long = cut && n > 0 && cell.chars().count() > *width;
            let cell = if long { cell.chars().take(width.saturating_sub(1)).chain(['…']).collect() } else { cell.clone() };
            format!("{cell:<width$}")
        });
        return cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned();
    };
    cell.clone()
}

/// A SPIFFE ID without its trust domain and its kind.
fn short(id: &str) -> &str {
    let path = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).map_or(id, |(_, path)| path);
    path.strip_prefix("agent/").unwrap_or(path)
}

/// A time that is so many seconds in the future, or in the past.
fn away(seconds: i64) -> String {
    let length = Length::of(seconds.unsigned_abs()).rough();
    if seconds > 0 { format!("in {length}") } else { format!("{length} ago") }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        vec![row(["researcher/01a2", "dev/demo", "live"]), row(["w/1", "corp/somebody-with-a-long-name", "revoked"])]
    }

    #[test]
    fn columns_stand_below_each_other_and_nothing_is_cut_in_a_pipe() {
        let pipe = Style { width: None, now: 0 };
        let lines = pipe.table("none", &["AGENT", "FOR", "STATE"], rows());
        assert_eq!(lines[0], "AGENT            FOR                             STATE");
        assert_eq!(lines[2], "w/1              corp/somebody-with-a-long-name  revoked");
        assert_eq!(pipe.table("none", &["AGENT"], vec![]), ["none"]);
        assert_eq!(pipe.id("spiffe://a.example/agent/w/1"), "spiffe://a.example/agent/w/1");
    }

    #[test]
    fn a_table_fits_the_terminal_and_ids_stay_whole() {
        let terminal = Style { width: Some(44), now: 1_000_000 };
        let lines = terminal.table("none", &["AGENT", "FOR", "STATE"], rows());
        assert!(lines.iter().all(|line| line.chars().count() <= 44), "{lines:#?}");
        assert_eq!(lines[2], "w/1              corp/somebody-wit…  revoked");
        let narrow = Style { width: Some(5), now: 0 }.table("none", &["AGENT", "FOR", "STATE"], rows());
        assert!(narrow[1].starts_with("researcher/01a2  "));
        assert_eq!(terminal.id("spiffe://a.example/agent/w/1"), "w/1");
        assert_eq!(terminal.id("spiffe://a.example/workload/x"), "workload/x");
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        assert_eq!(terminal.time(at(1_000_000 + 840).as_ref()), "in 14m");
        assert_eq!(terminal.time(at(1_000_000 - 2 * 86_400).as_ref()), "2d ago");
        assert_eq!(terminal.time(None), "");
    }

    #[test]
    fn no_cell_makes_a_second_line() {
        let pipe = Style { width: None, now: 0 };
        let lines = pipe.aligned(&[vec!["a\nb".to_owned(), "c\u{1b}[2J".to_owned()]]);
        assert!(lines.len() == 1 && !lines[0].contains(['\n', '\u{1b}']), "{lines:?}");
    }
}
