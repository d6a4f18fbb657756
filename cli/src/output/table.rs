//! Columns of plain text.

use crate::error::printable;

/// How a column is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Rows under a heading. Cells may carry colour; widths count what is seen.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    pub fn text(&self) -> String {
        let heading: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = self.rows.iter().chain([&heading]).map(|row| seen(&row[column]));
                cells.max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in [&heading].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                let padding = " ".repeat(width - seen(cell));
                match align {
                    Align::Left => line.extend([cell.as_str(), padding.as_str(), "  "]),
                    Align::Right => line.extend([padding.as_str(), cell.as_str(), "  "]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Words of others for a cell: one line, nothing that steers a terminal.
pub fn cell(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}

/// Characters that take room on the screen: all but colour sequences.
fn seen(text: &str) -> usize {
    let mut count = 0;
    let mut inside = false;
    for c in text.chars() {
        match (inside, c) {
            (false, '\x1b') => inside = true,
            (false, _) => count += 1,
            (true, 'm') => inside = false,
            (true, _) => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_and_without_colour() {
        let table = |state: &str| {
            let mut table = Table::new(&[("JOB", Align::Right), ("STATE", Align::Left), ("WHERE", Align::Left)]);
            table.row(["4711".into(), state.into(), "n1".into()]);
            table.row(["7".into(), "QUEUED".into()]);
            table.text()
        };
        assert_eq!(table("RUNNING"), " JOB  STATE    WHERE\n4711  RUNNING  n1\n   7  QUEUED\n");
        assert_eq!(table("\x1b[32mRUNNING\x1b[0m").lines().nth(2), Some("   7  QUEUED"));
    }
}
