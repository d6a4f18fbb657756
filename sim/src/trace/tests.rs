use super::*;
use std::io::Write;

fn write(name: &str, bytes: &[u8]) -> (std::path::PathBuf, Folder) {
    let folder = Folder::new(name);
    let path = folder.0.join(name);
    File::create(&path).unwrap().write_all(bytes).unwrap();
    (path, folder)
}

/// Removed at the end of the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let unique = format!("muster-trace-{}-{:?}-{name}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SWF: &str = "; MaxNodes: 256\n\n\
    1 5 -1 100 16 -1 -1 -1 -1 -1 1 -1 -1 -1 0 -1 -1 -1\n\
    2 6 -1 0 16 -1 -1 -1 -1 -1 1 -1 -1 -1 0 -1 -1 -1\n\
    3 7 -1 -1 2 -1 -1 4 50 -1 1 -1 -1 -1 0 -1 -1 -1\n";

fn job(id: &str, submit_ms: u64, run_ms: u64, requested_ms: u64, devices: u32) -> TraceJob {
    TraceJob { id: id.into(), submit_ms, run_ms, requested_ms, devices }
}

#[test]
fn swf_rules_are_applied_and_noted() {
    let (path, _folder) = write("a.swf", SWF.as_bytes());
    let trace = read(&path, BadRows::Refuse).unwrap();
    assert_eq!(trace.jobs, [job("1", 5_000, 100_000, 100_000, 16), job("3", 7_000, 10_000, 50_000, 4)]);
    let card = trace.card;
    assert_eq!((card.rows, card.jobs, card.recorded_devices), (3, 2, Some(256)));
    assert_eq!((card.dropped[0].why, card.dropped[0].first_line), ("run time 0", 4));
    assert_eq!(card.changed.len(), 2);
    assert_eq!((card.span_s, card.device_s), (2.0, 1640.0));
}

#[test]
fn a_packed_trace_reads_the_same() {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(SWF.as_bytes()).unwrap();
    let (packed, _a) = write("a.swf.gz", &packer.finish().unwrap());
    let (plain, _b) = write("b.swf", SWF.as_bytes());
    assert_eq!(read(&packed, BadRows::Refuse).unwrap(), read(&plain, BadRows::Refuse).unwrap());
}

#[test]
fn bad_rows_are_named_and_only_skipped_on_request() {
    let text = "job_id,num_gpu,submit_time,duration\n0,1,0,5\nx,y,1,5\n0,1,2,5\n4,1,-3,5\n5,1,3\n6,0,3,5\n7,1,4,-2\n";
    let (path, _folder) = write("a.csv", text.as_bytes());
    let refused = read(&path, BadRows::Refuse).unwrap_err().to_string();
    for part in ["5 bad rows", "line 3: num_gpu is `y`", "line 4: job id 0 was used on line 2", "line 6: 3 fields"] {
        assert!(refused.contains(part), "{refused}");
    }
    let trace = read(&path, BadRows::Skip).unwrap();
    assert_eq!(trace.jobs, [job("0", 0, 5_000, 5_000, 1)]);
    assert_eq!((trace.card.bad_rows, trace.card.dropped[0].why), (5, "no devices"));
}

#[test]
fn jobs_are_played_by_submit_time_and_windows_count_from_zero() {
    let text = "job_id,num_gpu,submit_time,duration\na,1,9.5,1\nb,1,2,1\nc,1,9.5,1\n";
    let (path, _folder) = write("a.csv", text.as_bytes());
    let trace = read(&path, BadRows::Refuse).unwrap();
    let ids = |trace: &Trace| trace.jobs.iter().map(|job| job.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&trace), ["b", "a", "c"]);
    let window = trace.clone().window(1, Some(5)).unwrap();
    assert_eq!((ids(&window), window.card.jobs), (vec!["a".into(), "c".into()], 2));
    assert!(matches!(trace.clone().window(3, None), Err(SimError::Window { start: 3, jobs: 3 })));
    assert!(matches!(trace.window(0, Some(0)), Err(SimError::EmptyWindow)));
}

#[test]
fn what_is_no_trace_is_refused_with_a_way_out() {
    let (unknown, _a) = write("a.txt", b"");
    let (empty, _b) = write("a.swf", b"; nothing\n");
    let (other, _c) = write("b.csv", b"a,b\n1,2\n");
    let (torn, _d) = write("c.swf.gz", b"\x1f\x8bxx");
    let told = |path: &Path| read(path, BadRows::Skip).unwrap_err().to_string();
    assert!(told(&unknown).contains(".swf.gz"));
    assert!(told(&empty).contains("no job is left of 0 rows"));
    assert!(told(&other).contains("no column `job_id`"));
    assert!(told(&torn).contains("cannot read"));
    assert!(told(Path::new("absent.swf")).contains("cannot read absent.swf"));
}
