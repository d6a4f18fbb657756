//! Tables as Parquet. Equal rows give equal bytes: nothing in a file tells when, where or by which
//! build of which library it was written.

use super::{Cells, Column};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};
use std::io::{self, Write};
use std::sync::Arc;

/// Rows held at once, and written as one row group.
const GROUP_ROWS: usize = 1 << 17;
/// The same for all builds, so that the bytes are.
const CREATED_BY: &str = "muster version 1.0.0";

/// Writes a table; `notes` are kept in the file by name.
///
/// # Errors
/// Those of the output; an unknown cell in a column that has none.
pub(crate) fn parquet<'a, R>(
    columns: &[Column<'a, R>],
    rows: impl Iterator<Item = R>,
    notes: &[(&str, String)],
    output: &mut (dyn Write + Send),
) -> io::Result<()> {
    write(columns, rows, notes, output).map_err(|error| match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) => *source,
            Err(source) => io::Error::other(source),
        },
        other => io::Error::other(other),
    })
}

fn write<'a, R>(
    columns: &[Column<'a, R>],
    mut rows: impl Iterator<Item = R>,
    notes: &[(&str, String)],
    output: &mut (dyn Write + Send),
) -> Result<()> {
    let notes = notes.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), value.clone()));
    let properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(notes.collect()))
        .build();
    let mut file = SerializedFileWriter::new(output, schema(columns)?, Arc::new(properties))?;
    loop {
        let group: Vec<R> = rows.by_ref().take(GROUP_ROWS).collect();
        if group.is_empty() {
            break;
        }
        let mut writer = file.next_row_group()?;
        for column in columns {
            let Some(mut chunk) = writer.next_column()? else { break };
            put_column(&mut chunk, column, &group)?;
            chunk.close()?;
        }
        writer.close()?;
    }
    file.close().map(drop)
}

fn schema<R>(columns: &[Column<R>]) -> Result<TypePtr> {
    let field = |column: &Column<R>| {
        let (physical, logical) = match column.cells {
            Cells::Whole(_) => (Physical::INT64, None),
            Cells::Seconds(_) | Cells::Real(..) => (Physical::DOUBLE, None),
            Cells::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Cells::Flag(_) => (Physical::BOOLEAN, None),
        };
        let repetition = if column.optional { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        let builder = Type::primitive_type_builder(column.name, physical);
        builder.with_repetition(repetition).with_logical_type(logical).build().map(Arc::new)
    };
    let fields: Vec<TypePtr> = columns.iter().map(field).collect::<Result<_>>()?;
    Type::group_type_builder("schema").with_fields(fields).build().map(Arc::new)
}

fn put_column<R>(chunk: &mut SerializedColumnWriter, column: &Column<R>, rows: &[R]) -> Result<()> {
    match &column.cells {
        Cells::Whole(of) => {
            let whole = |row| of(row).map(i64::try_from).transpose();
            let cells: Vec<Option<i64>> =
                rows.iter().map(whole).collect::<std::result::Result<_, _>>().map_err(|_| {
                    ParquetError::General(format!(
                        "a cell of column `{}` is beyond 2^63, which has no place there",
                        column.name
                    ))
                })?;
            put::<Int64Type>(chunk, column, cells.into_iter())
        }
        Cells::Seconds(of) => {
            put::<DoubleType>(chunk, column, rows.iter().map(|row| of(row).map(|ms| ms as f64 / 1000.0)))
        }
        Cells::Real(_, of) => put::<DoubleType>(chunk, column, rows.iter().map(of)),
        Cells::Text(of) => {
            put::<ByteArrayType>(chunk, column, rows.iter().map(|row| of(row).map(|text| ByteArray::from(&*text))))
        }
        Cells::Flag(of) => put::<BoolType>(chunk, column, rows.iter().map(of)),
    }
}

fn put<T: DataType>(
    chunk: &mut SerializedColumnWriter,
    column: &Column<impl Sized>,
    cells: impl Iterator<Item = Option<T::T>>,
) -> Result<()> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    for cell in cells {
        levels.push(i16::from(cell.is_some()));
        values.extend(cell);
    }
    if !column.optional && values.len() < levels.len() {
        return Err(ParquetError::General(format!("column `{}` has an unknown cell", column.name)));
    }
    let levels = column.optional.then_some(levels.as_slice());
    chunk.typed::<T>().write_batch(&values, levels, None).map(drop)
}
