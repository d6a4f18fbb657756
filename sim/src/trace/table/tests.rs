use super::super::fields::id;
use super::super::input::limited;
use super::super::{Format, TraceJob, read_lenient};
use super::*;
use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

const HEADER: &str = "job_id,num_gpu,submit_time,duration\n";

/// Lines of the jobs that are kept, and of the bad rows.
fn kept_and_bad(rows: &str) -> (Vec<String>, Vec<(u64, String)>) {
    let trace = read_lenient(Format::Tiresias, &format!("{HEADER}{rows}"), None).unwrap();
    let bad = trace.card.bad.into_iter().map(|row| (row.line, row.why)).collect();
    (trace.jobs.into_iter().map(|job| job.id).collect(), bad)
}

#[test]
fn a_quote_that_is_not_closed_spoils_its_own_row_only() {
    for open in ["1,1,0,\"5", "1,\"1,0,5", "\"1,1,0,5", "1,1,0,\"5\"\""] {
        let (kept, bad) = kept_and_bad(&format!("{open}\n2,1,1,5\n3,1,2,5\n"));
        assert_eq!(kept, ["2", "3"], "{open}");
        assert_eq!(bad, [(2, "a quote is not closed on its line".to_owned())], "{open}");
    }
    let (kept, bad) = kept_and_bad("1,1,0,5\n2,1,1,\"5");
    assert_eq!((kept, bad.len(), bad[0].0), (vec!["1".to_owned()], 1, 3));
}

#[test]
fn a_record_over_two_lines_is_bad_on_each() {
    let (kept, bad) = kept_and_bad("\"1\nx\",1,0,5\n2,1,1,5\n");
    assert_eq!((kept, bad.len()), (vec!["2".to_owned()], 2));
    assert_eq!((bad[0].0, bad[1].0), (2, 3));
}

#[test]
fn quoted_fields_are_read_as_others() {
    let (kept, bad) = kept_and_bad("\"a,b\",\"1\",0, 5 \r\n\n\"say \"\"c\"\"\",1,1,5\n");
    assert_eq!((kept, bad), (vec!["a,b".to_owned(), "say \"c\"".to_owned()], Vec::new()));
}

#[test]
fn a_header_that_cannot_be_read_is_refused() {
    let refused = |text: &str| read_lenient(Format::Tiresias, text, None).unwrap_err();
    assert!(refused("").contains("no column `job_id`"));
    assert!(refused("job_id,\"num_gpu,submit_time,duration\n1,1,0,5\n").contains("the header cannot be read"));
    let one_line = "job_id,num_gpu,submit_time,duration\r1,1,0,5\r";
    assert!(refused(one_line).contains("no column `duration`"));
}

/// Rows of a few KiB, the first of which opens a quote. It tells when it is read far ahead of what is parsed.
struct Long {
    next: u64,
    parsed: Rc<Cell<u64>>,
}

impl Long {
    const ROWS: u64 = 2_000;
    const AHEAD_MAX: u64 = 20;
}

impl Read for Long {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(self.next - self.parsed.get() < Self::AHEAD_MAX, "row {} is read, and rows are held", self.next);
        let text = match self.next {
            0 => "job_id,note\n".to_owned(),
            1 => "1,\"open\n".to_owned(),
            Self::ROWS.. => String::new(),
            row => format!("{row},{}\n", "x".repeat(4_000)),
        };
        buffer[..text.len()].copy_from_slice(text.as_bytes());
        self.next += 1;
        Ok(text.len())
    }
}

#[test]
fn what_follows_an_open_quote_is_never_held() {
    const LAYOUT: Layout = Layout { format: "long", delimiter: b',', required: &["job_id"], optional: &[] };
    let parsed = Rc::new(Cell::new(0));
    let mut input = limited(Long { next: 0, parsed: parsed.clone() });
    let rows = read(&LAYOUT, &mut input, |_, line, fields| {
        parsed.set(line);
        Ok(Row::job(TraceJob { id: id(fields.get("job_id"))?, ..TraceJob::default() }))
    });
    let card = rows.unwrap().into_trace().card;
    assert_eq!((card.jobs, card.bad_rows, card.bad[0].line), (Long::ROWS - 2, 1, 2));
}
