//! Parquet files as rows of named cells. Whatever is in a file, it is read or refused.

use parquet::basic::CompressionCodec;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::{Field, Row};
use std::cell::Cell as Flag;
use std::cmp::Ordering;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// Longest text of a cell; with it a row cannot grow beyond what a line of text may hold.
const TEXT_BYTES_MAX: usize = crate::trace::LINE_BYTES_MAX;
/// Most columns of a table.
const COLUMNS_MAX: usize = 256;
/// Most bytes of all pages once unpacked, as the file itself tells them.
const UNPACKED_BYTES_MAX: i64 = 64 << 30;

/// One cell; numbers of any width are alike.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    /// Null, and what some programs write for it in columns of floating-point numbers.
    Unknown,
    Whole(i128),
    Real(f64),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    /// Of a type that no table here has.
    Other(&'static str),
}

/// A file whose end has been read: what columns and rows it has.
pub(crate) struct Table {
    reader: Box<dyn FileReader>,
    pub columns: Vec<String>,
    pub rows: u64,
}

thread_local! {
    static GUARDED: Flag<bool> = const { Flag::new(false) };
}

/// The library reports most damage and panics at some; both are the file's fault, and told once.
fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static HUSHED: Once = Once::new();
    HUSHED.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                tell(info);
            }
        }));
    });
    let before = GUARDED.replace(true);
    let read = panic::catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(before);
    read.unwrap_or_else(|_| Err("its pages contradict each other: it is damaged, copy it again".into()))
}

/// How pages may be packed. Of gzip nobody can say beforehand to how much it unpacks.
fn packing(codec: CompressionCodec) -> Result<(), String> {
    match codec {
        CompressionCodec::UNCOMPRESSED | CompressionCodec::SNAPPY => Ok(()),
        other => {
            Err(format!("its pages are packed with {other:?}, which is not read; write it anew, plain or with Snappy"))
        }
    }
}

impl Table {
    /// # Errors
    /// A file that is not Parquet, is cut off, or is beyond what is read here.
    pub fn open(file: File) -> Result<Self, String> {
        guarded(|| {
            let reader = SerializedFileReader::new(file)
                .map_err(|error| format!("it is not a whole Parquet file ({error}); was it cut off? Copy it again"))?;
            let known = reader.metadata();
            let columns: Vec<String> =
                known.file_metadata().schema().get_fields().iter().map(|field| field.name().to_owned()).collect();
            if columns.len() > COLUMNS_MAX {
                return Err(format!("it has {} columns; at most {COLUMNS_MAX} are read", columns.len()));
            }
            let unpacked = known.row_groups().iter().map(|group| group.total_byte_size());
            if unpacked.fold(0i64, |sum, bytes| sum.saturating_add(bytes.max(0))) > UNPACKED_BYTES_MAX {
                return Err(format!("it unpacks to more than {UNPACKED_BYTES_MAX} bytes; cut it into parts"));
            }
            let mut chunks = known.row_groups().iter().flat_map(|group| group.columns());
            chunks.try_for_each(|chunk| packing(chunk.compression_codec()))?;
            let rows =
                u64::try_from(known.file_metadata().num_rows()).map_err(|_| "it has a negative number of rows")?;
            Ok(Self { reader: Box::new(reader), columns, rows })
        })
    }

    /// What the file keeps under a name.
    pub fn note(&self, key: &str) -> Option<&str> {
        let notes = self.reader.metadata().file_metadata().key_value_metadata()?;
        notes.iter().find(|note| note.key == key)?.value.as_deref()
    }

    /// Each row with its number, counted from 1, until one is refused.
    ///
    /// # Errors
    /// A row that cannot be read, or the refusal.
    pub fn each(&self, mut take: impl FnMut(u64, Vec<Cell>) -> Result<(), String>) -> Result<(), String> {
        let mut rows = guarded(|| self.reader.get_row_iter(None).map_err(|error| error.to_string()))?;
        let mut read = 0;
        while let Some(row) = guarded(|| rows.next().transpose().map_err(|error| error.to_string()))
            .map_err(|why| format!("after row {read}: {why}"))?
        {
            read += 1;
            if read > self.rows {
                break;
            }
            take(read, cells(row))?;
        }
        match read.cmp(&self.rows) {
            Ordering::Equal => Ok(()),
            Ordering::Less => Err(format!("it has {read} rows, and says {}; copy it again", self.rows)),
            Ordering::Greater => Err(format!("it has more rows than the {} it says; copy it again", self.rows)),
        }
    }
}

fn cells(row: Row) -> Vec<Cell> {
    row.into_columns().into_iter().map(|(_, field)| cell(field)).collect()
}

fn cell(field: Field) -> Cell {
    match field {
        Field::Null => Cell::Unknown,
        Field::Bool(value) => Cell::Flag(value),
        Field::Byte(value) => Cell::Whole(value.into()),
        Field::Short(value) => Cell::Whole(value.into()),
        Field::Int(value) => Cell::Whole(value.into()),
        Field::Long(value) => Cell::Whole(value.into()),
        Field::UByte(value) => Cell::Whole(value.into()),
        Field::UShort(value) => Cell::Whole(value.into()),
        Field::UInt(value) => Cell::Whole(value.into()),
        Field::ULong(value) => Cell::Whole(value.into()),
        Field::Float(value) if value.is_nan() => Cell::Unknown,
        Field::Double(value) if value.is_nan() => Cell::Unknown,
        Field::Float(value) => Cell::Real(value.into()),
        Field::Double(value) => Cell::Real(value),
        Field::Str(text) if text.len() <= TEXT_BYTES_MAX => Cell::Text(text),
        Field::Str(_) => Cell::Other("text that is too long"),
        Field::ListInternal(list) => {
            let texts = list.elements().iter().map(|field| match field {
                Field::Str(text) if text.len() <= TEXT_BYTES_MAX => Some(text.clone()),
                _ => None,
            });
            texts.collect::<Option<Vec<String>>>().map_or(Cell::Other("a list of other than text"), Cell::Texts)
        }
        Field::Bytes(_) => Cell::Other("bytes that are not marked as text"),
        Field::Date(_) | Field::TimestampMillis(_) | Field::TimestampMicros(_) => Cell::Other("a moment"),
        Field::TimeMillis(_) | Field::TimeMicros(_) => Cell::Other("a time of day"),
        Field::Float16(_) | Field::Decimal(_) => Cell::Other("a number of an unusual kind"),
        Field::Group(_) | Field::MapInternal(_) => Cell::Other("a table of its own"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packings_that_are_not_read_are_named_with_what_to_do() {
        for read in [CompressionCodec::UNCOMPRESSED, CompressionCodec::SNAPPY] {
            assert_eq!(packing(read), Ok(()));
        }
        for not_read in [CompressionCodec::ZSTD, CompressionCodec::GZIP] {
            let refused = packing(not_read).unwrap_err();
            assert!(refused.contains(&format!("{not_read:?}")) && refused.contains("write it anew"), "{refused}");
        }
    }

    /// Whatever panics inside is an error of the file, and outside still a panic.
    #[test]
    fn a_panic_of_the_library_is_an_error_of_the_file() {
        let refused = guarded::<()>(|| panic!("made up")).unwrap_err();
        assert!(refused.contains("damaged"), "{refused}");
        assert!(!GUARDED.get());
    }
}
