use super::*;
use std::io::Write;

const REFUSE: Reading = Reading { format: None, bad_rows: BadRows::Refuse, throughputs: None };
const SKIP: Reading = Reading { bad_rows: BadRows::Skip, ..REFUSE };

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
    TraceJob { id: id.into(), submit_ms, run_ms, requested_ms, devices, ..TraceJob::default() }
}

#[test]
fn swf_rules_are_applied_and_noted() {
    let (path, _folder) = write("a.swf", SWF.as_bytes());
    let trace = read(&path, REFUSE).unwrap();
    let done = |job| TraceJob { recorded_end: RecordedEnd::Succeeded, ..job };
    assert_eq!(trace.jobs, [done(job("1", 5_000, 100_000, 100_000, 16)), done(job("3", 7_000, 10_000, 50_000, 4))]);
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
    assert_eq!(read(&packed, REFUSE).unwrap(), read(&plain, REFUSE).unwrap());
}

#[test]
fn bad_rows_are_named_and_only_skipped_on_request() {
    let text = "job_id,num_gpu,submit_time,duration\n0,1,0,5\nx,y,1,5\n0,1,2,5\n4,1,-3,5\n5,1,3\n6,0,3,5\n7,1,4,-2\n";
    let (path, _folder) = write("a.csv", text.as_bytes());
    let refused = read(&path, REFUSE).unwrap_err().to_string();
    for part in ["5 bad rows", "line 3: num_gpu is `y`", "line 4: job id 0 was used on line 2", "line 6: 3 fields"] {
        assert!(refused.contains(part), "{refused}");
    }
    let trace = read(&path, SKIP).unwrap();
    assert_eq!(trace.jobs, [job("0", 0, 5_000, 5_000, 1)]);
    assert_eq!((trace.card.bad_rows, trace.card.dropped[0].why), (5, "no devices"));
}

#[test]
fn jobs_are_played_by_submit_time_and_windows_count_from_zero() {
    let text = "job_id,num_gpu,submit_time,duration\na,1,9.5,1\nb,1,2,1\nc,1,9.5,1\n";
    let (path, _folder) = write("a.csv", text.as_bytes());
    let trace = read(&path, REFUSE).unwrap();
    let ids = |trace: &Trace| trace.jobs.iter().map(|job| job.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&trace), ["b", "a", "c"]);
    assert_eq!(trace.card.unsorted_rows, 1);
    let window = trace.clone().window(1, Some(5)).unwrap();
    assert_eq!((ids(&window), window.card.jobs), (vec!["a".into(), "c".into()], 2));
    assert!(matches!(trace.clone().window(3, None), Err(SimError::Window { start: 3, jobs: 3 })));
    assert!(matches!(trace.window(0, Some(0)), Err(SimError::EmptyWindow)));
}

#[test]
fn what_is_no_trace_is_refused_with_a_way_out() {
    let (unknown, _a) = write("a.txt", b"");
    let (empty, _b) = write("a.swf", b"; nothing\n");
    let (other, _c) = write("b.csv", b"job_id,b\n1,2\n");
    let (torn, _d) = write("c.swf.gz", b"\x1f\x8bxx");
    let told = |path: &Path| read(path, SKIP).unwrap_err().to_string();
    assert!(told(&unknown).contains("--format"));
    assert!(told(&empty).contains("no job is left of 0 rows"));
    assert!(told(&other).contains("no column `num_gpu`"));
    assert!(told(&torn).contains("c.swf.gz"));
    assert!(told(Path::new("absent.swf")).contains("cannot read absent.swf"));
}

fn lenient(format: Format, text: &str) -> Trace {
    read_lenient(format, text, None).unwrap()
}

#[test]
fn tables_of_two_clusters_share_their_reader() {
    let helios = "job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,duration,queue\n\
        1,uA,vcX,1,1,1,COMPLETED,2020-06-09 18:41:01,2020-06-09 18:41:01,2020-06-10 04:55:09,36848,0\n\
        2,uB,vcY,4,16,1,FAILED,2020-06-09 18:41:27,2020-06-09 18:41:27,2020-06-09 18:45:36,249,0\n\
        3,uB,vcY,0,16,1,COMPLETED,2020-06-09 18:41:27,,,10,0\n\
        4,uB,vcY,8,16,1,CANCELLED,2020-06-09 18:41:28,,,,0\n";
    let trace = lenient(Format::Helios, helios);
    assert_eq!((trace.jobs.len(), trace.card.rows), (2, 4));
    let [first, second] = &trace.jobs[..] else { panic!() };
    assert_eq!((first.submit_ms, first.run_ms, first.devices), (1_591_728_061_000, 36_848_000, 1));
    assert_eq!((second.account.as_ref().unwrap().as_str(), second.recorded_end), ("vcY", RecordedEnd::Failed));
    let why: Vec<&str> = trace.card.dropped.iter().map(|noted| noted.why).collect();
    assert_eq!(why, ["no devices", "never ran"]);
    let acme = "job_id,user,node_num,gpu_num,cpu_num,type,state,submit_time,start_time,end_time,duration,queue,gpu_time\n\
        d1,u1,1,8,128,Other,FAILED,2023-03-01 00:18:22+08:00,x,y,117,32,936.0\n\
        d2,u1,8,64.0,960,Pretrain,CANCELLED,2023-05-17 11:28:42+00:00,x,y,82,12.0,5248.0\n";
    let trace = lenient(Format::Acme, acme);
    assert_eq!((trace.jobs[1].devices, trace.jobs[1].recorded_end), (64, RecordedEnd::Cancelled));
    assert_eq!(trace.jobs[0].submit_ms, 1_677_601_102_000);
}

#[test]
fn accounting_output_is_read_without_its_steps() {
    let text = "JobID|User|Account|State|Submit|Start|End|Elapsed|Timelimit|AllocTRES|\n\
        10|ann|nlp|COMPLETED|2024-01-01T00:00:00|2024-01-01T00:01:00|2024-01-01T01:01:00|01:00:00|1-00:00:00|cpu=8,gres/gpu=4,gres/gpu:h100=4|\n\
        10.batch||nlp|COMPLETED|2024-01-01T00:00:00|2024-01-01T00:01:00|2024-01-01T01:01:00|01:00:00||cpu=8|\n\
        11_3|bob|cv|CANCELLED by 1000|2024-01-01T00:00:05|Unknown|Unknown|00:00:00|UNLIMITED||\n\
        12|bob|cv|OUT_OF_MEMORY|2024-01-01T00:00:06|2024-01-01T00:01:00|2024-01-01T00:02:00|00:01:00|UNLIMITED|gres/gpu=1|\n\
        13|bob|cv|RUNNING|2024-01-01T00:00:06|2024-01-01T00:01:00|Unknown|00:01:00|UNLIMITED|gres/gpu=1|\n\
        14|bob|cv|FAILED|2024-01-01T00:00:06|2024-01-01T00:01:00|2024-01-01T00:02:00|soon|UNLIMITED|gres/gpu=1|\n";
    let trace = lenient(Format::Sacct, text);
    let [first, second] = &trace.jobs[..] else { panic!("{:?}", trace.card) };
    assert_eq!((first.devices, first.run_ms, first.requested_ms), (4, 3_600_000, 86_400_000));
    assert_eq!((first.models[0].as_str(), first.user.as_deref()), ("h100", Some("ann")));
    assert_eq!((second.recorded_end, second.requested_ms), (RecordedEnd::Failed, 60_000));
    assert_eq!(trace.card.bad[0].why, "Elapsed is `soon`, not a duration such as 1-02:03:04");
    assert_eq!(trace.card.dropped.len(), 3);
}

#[test]
fn a_log_of_jobs_with_attempts() {
    let text = r#"[{"status": "Pass", "vc": "ee9e8c", "jobid": "application_1", "user": "ce2f",
        "attempts": [{"start_time": "2017-10-09 07:02:00", "end_time": "2017-10-09 08:02:00",
        "detail": [{"ip": "m1", "gpus": ["gpu0", "gpu1"]}, {"ip": "m2", "gpus": ["gpu3"]}]},
        {"start_time": "2017-10-09 09:00:00", "end_time": null, "detail": []}],
        "submitted_time": "2017-10-09 07:01:00"},
        {"status": "Killed", "vc": "x", "jobid": "application_2", "attempts": [], "submitted_time": "2017-10-09 07:01:00"},
        {"status": "Killed", "vc": "x"}]"#;
    let trace = lenient(Format::PhillyLog, text);
    assert_eq!((trace.jobs[0].devices, trace.jobs[0].run_ms), (3, 3_600_000));
    assert_eq!((trace.card.rows, trace.card.bad_rows, trace.card.dropped[0].why), (3, 1, "never ran"));
    assert!(read_lenient(Format::PhillyLog, &text[..text.len() - 9], None).unwrap_err().contains("no list of jobs"));
    let long = format!("[{{\"attempts\": [{}", "{},\n".repeat(RECORD_BYTES_MAX / 4));
    assert!(read_lenient(Format::PhillyLog, &long, None).unwrap_err().contains("a job is longer than"));
    let table = "timestamp,duration,num_gpus,gpu_time,cluster\n2017-09-04 10:30:41,2240194.0,8,17921552.0,7f04ca\n";
    assert_eq!(lenient(Format::PhillyTable, table).jobs[0].submit_ms, 1_504_521_041_000);
}

#[test]
fn pods_have_shares_and_models() {
    let text = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n\
        p0,12000,16384,1,460,V100M16|V100M32,LS,Running,0,100,5\n\
        p1,8000,1024,0,0,,BE,Failed,10,30,\n\
        p2,8000,1024,8,1000,,BE,Succeeded,10,30,40\n";
    let trace = lenient(Format::Openb, text);
    let [share, cpu] = &trace.jobs[..] else { panic!() };
    assert_eq!((share.share_milli, share.models.len(), share.run_ms), (460, 2, 95_000));
    assert_eq!((cpu.devices, cpu.cpu_milli, cpu.recorded_end), (0, Some(8000), RecordedEnd::Failed));
    assert!(trace.card.bad[0].why.contains("deleted before it is scheduled"));
}

#[test]
fn steps_need_a_table() {
    let line = "A (batch size 4)\tpython3\tdir\t-n\t1\t80\t2\t1\t-1.000000\t3\n";
    let table = Throughputs::parse(r#"{"v100": {"('A (batch size 4)', 2)": {"null": 8.0}}}"#).unwrap();
    let (path, _folder) = write("a.trace", line.as_bytes());
    assert!(read(&path, REFUSE).unwrap_err().to_string().contains("--throughputs"));
    let trace = read(&path, Reading { throughputs: Some(&table), ..REFUSE }).unwrap();
    let job = &trace.jobs[0];
    assert_eq!((job.run_ms, job.devices, job.models[0].as_str(), job.submit_ms), (10_000, 2, "v100", 3_000));
}

#[test]
fn our_own_format_keeps_everything() {
    let all = TraceJob {
        id: "x".into(),
        submit_ms: 5,
        run_ms: 7,
        requested_ms: 9,
        devices: 1,
        share_milli: 250,
        cpu_milli: Some(500),
        memory_bytes: Some(1 << 30),
        models: vec![Name::literal("H100")],
        user: Some("ann".into()),
        account: Some(Name::literal("nlp")),
        recorded_end: RecordedEnd::Cancelled,
        recorded_start_ms: Some(11),
        work: Some(Work { kind: "A".into(), steps: 4 }),
        ..TraceJob::default()
    };
    let world = crate::world::World::parse("[[nodes]]\ncount = 1\ndevices = 8\n").unwrap();
    let scheduling = Some(Box::new(world.scheduling(&all)));
    let all = TraceJob { name: Some(Name::literal("probe")), scheduling, ..all };
    let jobs = [all, job("y", 6, 7, 7, 3)];
    let mut bytes = Vec::new();
    jsonl::write(&mut bytes, &jobs, Some(64)).unwrap();
    let trace = lenient(Format::Muster, std::str::from_utf8(&bytes).unwrap());
    assert_eq!((trace.jobs.as_slice(), trace.card.recorded_devices), (jobs.as_slice(), Some(64)));
    let wrong =
        "{\"schema\":\"muster.trace/1\"}\n{\"job_id\":\"a\",\"submit_ms\":1,\"run_ms\":1,\"devices\":1,\"colour\":2}\n";
    assert!(lenient(Format::Muster, wrong).card.bad[0].why.contains("colour"));
    let early = std::str::from_utf8(&bytes).unwrap().replacen("\"recorded_start_ms\":11", "\"recorded_start_ms\":4", 1);
    assert_eq!(lenient(Format::Muster, &early).card.bad[0].why, "recorded_start_ms is before submit_ms");
    let unlike =
        std::str::from_utf8(&bytes).unwrap().replacen("\"devices\":1", "\"devices\":2", 1).replace("250", "1000");
    assert!(lenient(Format::Muster, &unlike).card.bad[0].why.contains("scheduling"));
    assert!(read_lenient(Format::Muster, "{\"schema\":\"other/1\"}\n", None).unwrap_err().contains("muster.trace/1"));
}

#[test]
fn damage_is_told_and_never_guessed_at() {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(SWF.as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    let (cut, _a) = write("cut.swf.gz", &packed[..packed.len() - 9]);
    let (long, _b) = write("long.swf", "1 ".repeat(LINE_BYTES_MAX).as_bytes());
    let mut text = b"job_id,num_gpu,submit_time,duration\n1,1,0,5\n2,1,\xff,5\n".to_vec();
    text.extend(b"3,1,9e99,5\n4,1,5,nan\n5,2000000,0,5\n");
    let (broken, _c) = write("broken.csv", &text);
    assert!(read(&cut, SKIP).unwrap_err().to_string().contains("cut.swf.gz"));
    assert!(read(&long, SKIP).unwrap_err().to_string().contains("line 1 is longer"));
    let trace = read(&broken, SKIP).unwrap();
    let lines: Vec<u64> = trace.card.bad.iter().map(|row| row.line).collect();
    assert_eq!((trace.jobs.len(), lines), (1, vec![3, 4, 5, 6]));
}

#[test]
fn formats_are_told_by_name_and_header() {
    let told = |name: &str, text: &str| {
        let (path, _folder) = write(name, text.as_bytes());
        Format::told(&path).ok()
    };
    assert_eq!(told("a.csv", "job_id,user,vc,gpu_num\n"), Some(Format::Helios));
    assert_eq!(told("a.csv", "job_id,user,type,gpu_num\n"), Some(Format::Acme));
    assert_eq!(told("a.txt", "JobID|State\n"), Some(Format::Sacct));
    assert_eq!(told("a.csv", "name,num_gpu,gpu_milli\n"), Some(Format::Openb));
    assert_eq!(told("a.csv", "timestamp,duration,num_gpus\n"), Some(Format::PhillyTable));
    assert_eq!((told("a.jsonl", ""), told("a.trace", "")), (Some(Format::Muster), Some(Format::Gavel)));
    assert_eq!((told("a.dat", ""), told("a.csv", "x,y\n")), (None, None));
}

fn full_jobs() -> [TraceJob; 2] {
    let all = TraceJob {
        share_milli: 250,
        cpu_milli: Some(500),
        memory_bytes: Some(1 << 40),
        models: vec![Name::literal("H100"), Name::literal("A100")],
        user: Some("ann".into()),
        account: Some(Name::literal("nlp")),
        recorded_end: RecordedEnd::Cancelled,
        recorded_start_ms: Some(11),
        work: Some(Work { kind: "A, B".into(), steps: 4 }),
        name: Some(Name::literal("probe")),
        ..job("x", 5, 6, 9, 1)
    };
    let world = crate::world::World::parse("[[nodes]]\ncount = 1\ndevices = 8\n").unwrap();
    let scheduling = Some(Box::new(world.scheduling(&all)));
    [TraceJob { scheduling, ..all }, job("y", 6, 7, 7, 3)]
}

fn as_parquet(jobs: &[TraceJob]) -> Vec<u8> {
    let mut bytes = Vec::new();
    parquet_table::write(&mut bytes, jobs, Some(64)).unwrap();
    bytes
}

#[test]
fn our_own_format_is_the_same_as_lines_and_as_a_table() {
    let jobs = full_jobs();
    let (table, _a) = write("a.parquet", &as_parquet(&jobs));
    let mut lines = Vec::new();
    jsonl::write(&mut lines, &jobs, Some(64)).unwrap();
    let (lines, _b) = write("a.jsonl", &lines);
    let (table, lines) = (read(&table, REFUSE).unwrap(), read(&lines, REFUSE).unwrap());
    assert_eq!((table.jobs.as_slice(), table.card.recorded_devices), (jobs.as_slice(), Some(64)));
    assert_eq!((table.jobs, table.card.device_s), (lines.jobs, lines.card.device_s));
}

#[test]
fn a_cut_or_damaged_table_is_refused() {
    let bytes = as_parquet(&full_jobs());
    for length in [0, 3, 8, bytes.len() / 2, bytes.len() - 1] {
        let (cut, _folder) = write("cut.parquet", &bytes[..length]);
        let refused = read(&cut, SKIP).unwrap_err().to_string();
        assert!(refused.contains("cut.parquet") && refused.contains("cut off"), "{refused}");
    }
    let (packed, _folder) = write("a.parquet.gz", &bytes);
    assert!(read(&packed, SKIP).unwrap_err().to_string().contains("unpack the file"));
}

/// As data frames write them: no schema of ours, floating-point numbers with NaN, lists of other names.
#[test]
fn tables_of_other_programs_are_read_and_their_mistakes_named() {
    use crate::columnar::{Column, parquet, real, text, whole};
    type Made = (&'static str, f64, f64);
    let table = |columns: &[Column<Made>], rows: &[Made]| {
        let mut bytes = Vec::new();
        parquet(columns, rows.iter().copied(), &[], &mut bytes).unwrap();
        let (path, folder) = write("made.parquet", &bytes);
        (read(&path, SKIP), folder)
    };
    let columns = |last: &'static str| -> Vec<Column<Made>> {
        vec![
            text("job_id", |row| Some(row.0.into())),
            real("submit_ms", 0, |row| Some(row.1)),
            whole("run_ms", |_| Some(5)),
            real(last, 0, |row| Some(row.2)),
        ]
    };
    let rows =
        [("a", 1.0, 2.0), ("b", 2.5, 2.0), ("c", -1.0, 2.0), ("d", 4.0, f64::NAN), ("a", 5.0, 2.0), ("", 6.0, 1.0)];
    let (trace, _a) = table(&columns("devices"), &rows);
    let trace = trace.unwrap();
    assert_eq!(
        trace.jobs,
        [job("a", 0, 5, 5, 2)].map(|job| TraceJob { submit_ms: 1, run_ms: 5, requested_ms: 5, ..job })
    );
    let bad: Vec<(u64, &str)> = trace.card.bad.iter().map(|row| (row.line, row.why.as_str())).collect();
    assert_eq!(bad.iter().map(|row| row.0).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    assert!(bad[0].1.contains("submit_ms is 2.5") && bad[2].1.contains("devices is not given"), "{bad:?}");
    let (near, _b) = table(&columns("device"), &rows);
    assert!(near.unwrap_err().to_string().contains("did you mean `devices`?"));
    let (missing, _c) = table(&columns("user"), &rows);
    assert!(missing.unwrap_err().to_string().contains("no column `devices`"));
}
