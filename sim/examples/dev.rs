fn main() {
    let a: Vec<String> = std::env::args().collect();
    let args = muster_sim::RunArgs {
        policy: a[1].clone().into(),
        world: a[2].clone().into(),
        trace: a[3].clone().into(),
        output: a[4].clone().into(),
        start_job: a.get(5).map_or(0, |x| x.parse().unwrap()),
        jobs: a.get(6).map(|x| x.parse().unwrap()),
        check: std::env::var_os("CHECK").is_some(),
        bad_rows: Default::default(),
    };
    let r = muster_sim::run(&args, &mut |p| {
        if std::env::var_os("V").is_some() {
            eprintln!("{p:?}")
        }
    })
    .unwrap_or_else(|e| {
        eprintln!("{e}");
        std::process::exit(1)
    });
    println!("{}", serde_json::to_string(&r.summary).unwrap());
    eprintln!("entries {} cycles {} steps {}", r.manifest.entries, r.manifest.cycles, r.manifest.steps);
}
