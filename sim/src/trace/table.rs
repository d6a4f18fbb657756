//! Tables with a header: columns are found by name, others are not read.

use super::fields::short;
use super::rows::{Row, Rows};
use csv::StringRecord;
use std::io::Read;

/// One row, with the columns of its table.
pub(super) struct Fields<'a> {
    columns: &'a [(&'static str, Option<usize>)],
    record: &'a StringRecord,
}

impl Fields<'_> {
    /// Empty where the column is missing.
    pub fn get(&self, name: &str) -> &str {
        let column = self.columns.iter().find(|(column, _)| *column == name);
        column.and_then(|(_, at)| self.record.get((*at)?)).unwrap_or("")
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

/// Reads all rows. `parse` may note a change through the rows.
pub(super) fn read(
    layout: &Layout,
    input: &mut dyn Read,
    mut parse: impl FnMut(&mut Rows, u64, &Fields) -> Result<Row, String>,
) -> Result<Rows, String> {
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .trim(csv::Trim::All)
        .delimiter(layout.delimiter)
        .quoting(layout.delimiter != b'|')
        .from_reader(input);
    let header = reader.headers().map_err(|error| format!("the header cannot be read: {error}"))?.clone();
    let at = |name: &str| header.iter().position(|field| field.trim_start_matches('\u{feff}') == name);
    let columns: Vec<(&'static str, Option<usize>)> =
        layout.required.iter().chain(layout.optional).map(|name| (*name, at(name))).collect();
    if let Some((missing, _)) = columns.iter().find(|(name, at)| at.is_none() && layout.required.contains(name)) {
        let found: Vec<String> = header.iter().take(20).map(short).collect();
        return Err(format!(
            "there is no column `{missing}`; there is: {}. A table of {} needs {}",
            found.join(", "),
            layout.format,
            layout.required.join(", ")
        ));
    }
    let mut rows = Rows::new(layout.format);
    let mut record = StringRecord::new();
    let mut line = 1;
    loop {
        match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {
                line = record.position().map_or(0, csv::Position::line);
                // Some programs end every row with the delimiter.
                let trailing = layout.delimiter == b'|' && record.len() == header.len() + 1;
                let row = if record.len() == header.len() || trailing {
                    parse(&mut rows, line, &Fields { columns: &columns, record: &record })
                } else {
                    Err(format!("{} fields instead of {}", record.len(), header.len()))
                };
                rows.add(line, row)?;
            }
            Err(error) if matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) => {
                line = error.position().map_or(line, csv::Position::line);
                rows.add(line, Err("it is not UTF-8 text".into()))?;
            }
            Err(error) => return Err(format!("after line {line}: {error}")),
        }
    }
    Ok(rows)
}
