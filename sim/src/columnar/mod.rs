//! Tables, each described once and written twice: as CSV for people and as Parquet for programs.
//! Columns have their unit in their name; what is not known is empty in the one and null in the other.

pub(crate) mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use write::parquet;

use std::borrow::Cow;
use std::io::{self, Write};

/// How a column's cell follows from a row; `None` = not known.
pub(crate) enum Cells<'a, R> {
    Whole(fn(&R) -> Option<u64>),
    /// From milliseconds, exactly.
    Seconds(fn(&R) -> Option<u64>),
    /// With so many digits behind the point in CSV; all of them in Parquet.
    Real(usize, fn(&R) -> Option<f64>),
    Text(fn(&R) -> Option<Cow<'a, str>>),
    Flag(fn(&R) -> Option<bool>),
}

/// One column of a table with rows of `R`.
pub(crate) struct Column<'a, R> {
    pub name: &'static str,
    /// May a cell be unknown?
    pub optional: bool,
    pub cells: Cells<'a, R>,
}

/// The same, where a cell may be unknown.
pub(crate) fn optional<R>(column: Column<'_, R>) -> Column<'_, R> {
    Column { optional: true, ..column }
}

pub(crate) const fn whole<'a, R>(name: &'static str, of: fn(&R) -> Option<u64>) -> Column<'a, R> {
    Column { name, optional: false, cells: Cells::Whole(of) }
}

pub(crate) const fn seconds<'a, R>(name: &'static str, of: fn(&R) -> Option<u64>) -> Column<'a, R> {
    Column { name, optional: false, cells: Cells::Seconds(of) }
}

pub(crate) const fn real<'a, R>(name: &'static str, digits: usize, of: fn(&R) -> Option<f64>) -> Column<'a, R> {
    Column { name, optional: false, cells: Cells::Real(digits, of) }
}

pub(crate) const fn text<'a, R>(name: &'static str, of: fn(&R) -> Option<Cow<'a, str>>) -> Column<'a, R> {
    Column { name, optional: false, cells: Cells::Text(of) }
}

pub(crate) const fn flag<'a, R>(name: &'static str, of: fn(&R) -> Option<bool>) -> Column<'a, R> {
    Column { name, optional: false, cells: Cells::Flag(of) }
}

/// Whole seconds without a fraction, others with three digits.
pub(crate) fn in_seconds(ms: u64) -> String {
    match ms % 1000 {
        0 => (ms / 1000).to_string(),
        fraction => format!("{}.{fraction:03}", ms / 1000),
    }
}

impl<R> Cells<'_, R> {
    fn csv(&self, row: &R) -> String {
        let text = match self {
            Cells::Whole(of) => of(row).map(|value| value.to_string()),
            Cells::Seconds(of) => of(row).map(in_seconds),
            Cells::Real(digits, of) => of(row).map(|value| format!("{value:.digits$}")),
            Cells::Text(of) => of(row).map(Cow::into_owned),
            Cells::Flag(of) => of(row).map(|value| value.to_string()),
        };
        text.unwrap_or_default()
    }
}

/// Writes a table as CSV with a header.
///
/// # Errors
/// Those of the output.
pub(crate) fn csv<'a, R>(
    columns: &[Column<'a, R>],
    rows: impl Iterator<Item = R>,
    output: &mut dyn Write,
) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(output);
    writer.write_record(columns.iter().map(|column| column.name))?;
    for row in rows {
        writer.write_record(columns.iter().map(|column| column.cells.csv(&row)))?;
    }
    writer.flush()
}
