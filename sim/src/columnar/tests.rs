use super::read::{Cell, Table};
use super::*;
use std::fs::File;

struct Thing {
    name: &'static str,
    count: Option<u64>,
    ms: u64,
    share: Option<f64>,
    good: bool,
}

const THINGS: [Thing; 3] = [
    Thing { name: "a, \"b\"", count: Some(3), ms: 1_500, share: Some(1.0 / 3.0), good: true },
    Thing { name: "", count: None, ms: 2_000, share: None, good: false },
    Thing { name: "\u{e9}", count: Some(0), ms: 1, share: Some(-0.5), good: true },
];

fn columns<'a>() -> Vec<Column<'a, &'a Thing>> {
    vec![
        text("name", |thing| Some(thing.name.into())),
        optional(whole("count", |thing| thing.count)),
        seconds("time_s", |thing| Some(thing.ms)),
        optional(real("share", 3, |thing| thing.share)),
        flag("good", |thing| Some(thing.good)),
    ]
}

fn bytes(rows: &[Thing]) -> Vec<u8> {
    let mut bytes = Vec::new();
    parquet(&columns(), rows.iter(), &[("muster.schema", "things/1".into())], &mut bytes).unwrap();
    bytes
}

fn table(bytes: &[u8]) -> Result<Table, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("things.parquet");
    std::fs::write(&path, bytes).unwrap();
    Table::open(File::open(path).unwrap())
}

fn rows(table: &Table) -> Result<Vec<Vec<Cell>>, String> {
    let mut rows = Vec::new();
    table.each(|number, cells| {
        rows.push(cells);
        assert_eq!(number as usize, rows.len());
        Ok(())
    })?;
    Ok(rows)
}

#[test]
fn a_table_reads_back_with_its_types_and_what_is_not_known() {
    let table = table(&bytes(&THINGS)).unwrap();
    assert_eq!((table.rows, table.note("muster.schema"), table.note("other")), (3, Some("things/1"), None));
    assert_eq!(table.columns, ["name", "count", "time_s", "share", "good"]);
    let row = |name: &str, count, time_s, share, good| {
        vec![Cell::Text(name.into()), count, Cell::Real(time_s), share, Cell::Flag(good)]
    };
    let expected = [
        row("a, \"b\"", Cell::Whole(3), 1.5, Cell::Real(1.0 / 3.0), true),
        row("", Cell::Unknown, 2.0, Cell::Unknown, false),
        row("\u{e9}", Cell::Whole(0), 0.001, Cell::Real(-0.5), true),
    ];
    assert_eq!(rows(&table).unwrap(), expected);
}

#[test]
fn csv_and_parquet_have_the_same_columns_and_rows() {
    let mut text = Vec::new();
    csv(&columns(), THINGS.iter(), &mut text).unwrap();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "name,count,time_s,share,good\n\"a, \"\"b\"\"\",3,1.500,0.333,true\n,,2,,false\n\u{e9},0,0.001,-0.500,true\n"
    );
}

#[test]
fn an_empty_table_is_a_table() {
    let table = table(&bytes(&[])).unwrap();
    assert_eq!((table.rows, table.columns.len(), rows(&table).unwrap().len()), (0, 5, 0));
}

#[test]
fn equal_rows_give_equal_bytes() {
    assert!(bytes(&THINGS) == bytes(&THINGS));
}

#[test]
fn a_cell_that_must_be_known_is_never_left_out() {
    let columns: Vec<Column<&Thing>> = vec![whole("count", |thing| thing.count)];
    let refused = parquet(&columns, THINGS.iter(), &[], &mut Vec::new()).unwrap_err();
    assert!(refused.to_string().contains("`count`"), "{refused}");
}

/// Wherever it is cut, and whichever byte is another: it is refused, or read to its end.
#[test]
fn damage_is_refused_and_never_a_panic() {
    let sound = bytes(&THINGS);
    for length in 0..sound.len() {
        let cut = table(&sound[..length]).and_then(|table| rows(&table).map(|_| ())).unwrap_err();
        assert!(!cut.is_empty(), "cut to {length} bytes");
    }
    assert!(table(&sound[..sound.len() - 9]).err().unwrap().contains("cut off"));
    for at in 0..sound.len() {
        for bit in [0, 3, 7] {
            let mut damaged = sound.clone();
            damaged[at] ^= 1 << bit;
            if let Ok(table) = table(&damaged) {
                let _ = rows(&table);
            }
        }
    }
}
