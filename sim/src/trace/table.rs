//! Tables with a header: columns are found by name, others are not read. A row is one line, so a quote
//! that is never closed spoils its own row and no other.

use super::fields::short;
use super::input::each_line;
use super::rows::{Row, Rows};
use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};
use std::io::BufRead;

/// Where the columns of a table stand, by name.
type Columns = Vec<(&'static str, Option<usize>)>;

/// One row, with the columns of its table.
pub(super) struct Fields<'a> {
    columns: &'a Columns,
    row: &'a Split,
}

impl Fields<'_> {
    /// Empty where the column is missing.
    pub fn get(&self, name: &str) -> &str {
        let column = self.columns.iter().find(|(column, _)| *column == name);
        column.and_then(|(_, at)| self.row.get((*at)?)).unwrap_or("")
    }

    pub fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|(column, at)| *column == name && at.is_some())
    }
}

/// How a table is written.
pub(super) struct Layout {
    pub format: &'static str,
    pub delimiter: u8,
    pub required: &'static [&'static str],
    pub optional: &'static [&'static str],
}

impl Layout {
    fn columns(&self, header: &Split) -> Result<Columns, String> {
        let at = |name: &str| header.iter().position(|field| field == name);
        let all = self.required.iter().chain(self.optional);
        let columns: Columns = all.map(|name| (*name, at(name))).collect();
        let missing = columns.iter().find(|(name, at)| at.is_none() && self.required.contains(name));
        let Some((missing, _)) = missing else { return Ok(columns) };
        let found: Vec<String> = header.iter().take(20).map(short).collect();
        Err(format!(
            "there is no column `{missing}`; there is: {}. A table of {} needs {}",
            found.join(", "),
            self.format,
            self.required.join(", ")
        ))
    }
}

/// Reads all rows. `parse` may note a change through the rows.
pub(super) fn read(
    layout: &Layout,
    input: &mut dyn BufRead,
    mut parse: impl FnMut(&mut Rows, u64, &Fields) -> Result<Row, String>,
) -> Result<Rows, String> {
    let mut rows = Rows::new(layout.format);
    let mut row = Split::new(layout);
    let mut header: Option<(Columns, usize)> = None;
    each_line(input, |number, line| {
        let split = match line {
            Ok("") => return Ok(()),
            Ok(line) => row.split(line),
            Err(why) => Err(why),
        };
        let Some((columns, count)) = &header else {
            split.map_err(|why| format!("the header cannot be read: {why}"))?;
            header = Some((layout.columns(&row)?, row.ends.len()));
            return Ok(());
        };
        let parsed = split.and_then(|()| {
            let found = row.ends.len();
            // Some programs end every row with the delimiter.
            if found == *count || layout.delimiter == b'|' && found == count + 1 {
                parse(&mut rows, number, &Fields { columns, row: &row })
            } else {
                Err(format!("{found} fields instead of {count}"))
            }
        });
        rows.add(number, parsed)
    })?;
    match header {
        Some(_) => Ok(rows),
        None => layout.columns(&row).map(|_| rows),
    }
}

/// The fields of one line, in memory that is used again for the next one.
struct Split {
    reader: Reader,
    quoting: bool,
    line: Vec<u8>,
    bytes: Vec<u8>,
    text: String,
    /// Where each field ends in the text.
    ends: Vec<usize>,
}

impl Split {
    fn new(layout: &Layout) -> Self {
        let quoting = layout.delimiter != b'|';
        let mut builder = ReaderBuilder::new();
        builder.delimiter(layout.delimiter).quoting(quoting).terminator(Terminator::Any(b'\n'));
        let reader = builder.build();
        Self { reader, quoting, line: Vec::new(), bytes: Vec::new(), text: String::new(), ends: Vec::new() }
    }

    fn split(&mut self, line: &str) -> Result<(), String> {
        self.reader.reset();
        self.line.clear();
        self.line.extend(line.bytes().chain([b'\n']));
        // Neither can have more than the line has bytes, and the reader wants room to spare.
        self.bytes.resize(self.line.len() + 1, 0);
        self.ends.resize(self.line.len() + 1, 0);
        let (read, _, _, fields) = self.reader.read_record(&self.line, &mut self.bytes, &mut self.ends);
        self.ends.truncate(if read == ReadRecordResult::Record { fields } else { 0 });
        self.text.clear();
        // A quote inside a field may be the end of one that another line began.
        let odd = self.quoting && line.bytes().filter(|byte| *byte == b'"').count() % 2 == 1;
        if self.ends.is_empty() || odd {
            return Err("a quote is not closed on its line".into());
        }
        let length = self.ends[fields - 1];
        self.text.push_str(std::str::from_utf8(&self.bytes[..length]).map_err(|_| "it is not UTF-8 text".to_owned())?);
        Ok(())
    }

    fn get(&self, at: usize) -> Option<&str> {
        let start = if at == 0 { 0 } else { *self.ends.get(at - 1)? };
        self.text.get(start..*self.ends.get(at)?).map(str::trim)
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).filter_map(|at| self.get(at))
    }
}

#[cfg(test)]
mod tests;
