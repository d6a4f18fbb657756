//! `muster policy promote`: a policy in force, on the word of a simulation that is kept with it.

use super::{read, show};
use crate::commands::sim::failed;
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::output::table::cell;
use clap::{Args, ValueHint};
use muster_engine::policy::Policy;
use muster_engine::state::policies::{Evidence, Promotion};
use muster_proto::client::ConfigureRequest;
use muster_proto::convert::error::ErrorCode;
use muster_sim::evidence::{self, RunEvidence};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct PromoteArgs {
    /// Folder of a finished `muster sim run` or `muster sim compare`
    #[arg(value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub run: PathBuf,
    /// The policy that is meant: refused unless the run played exactly it; of a comparison of more than two, which
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// One value of a policy that differs.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    pub before: String,
    pub after: String,
}

pub async fn run(context: &Context, args: PromoteArgs) -> Result<u8, CliError> {
    let wanted = args.policy.as_deref().map(read).transpose()?;
    let found = evidence::read(&args.run, wanted.as_ref()).map_err(failed)?;
    let now = show(context).await?;
    if found.engine_version != now.engine_version {
        let (of_run, of_cluster) = (found.engine_version, now.engine_version);
        let why = format!("the run was decided by engine version {of_run}; the cluster decides by {of_cluster}");
        return Err(CliError::new(ErrorCode::VersionMismatch, why)
            .hint("run the simulation again with the cluster's own version of muster"));
    }
    let present: Policy = serde_json::from_str(&now.policy_json)
        .map_err(|error| CliError::new(ErrorCode::VersionMismatch, format!("the policy in force: {error}")))?;
    let changes = changes(&present, &found.policy);
    if !context.yes {
        context.printer.say(render_changes(&found, &changes).trim_end());
    }
    context.confirm("put this policy in force")?;
    let promotion = Promotion { policy: found.policy.clone(), evidence: kept(&found) };
    let request = ConfigureRequest {
        request_id: request_id(),
        kind: "promotion".into(),
        json: serde_json::to_string(&promotion).unwrap_or_default(),
        plan_only: false,
    };
    let client = context.client()?;
    let reply = client.call(async |mut api| api.configure(request.clone()).await).await?;
    context.printer.answer(
        || document(reply.version, &found, &changes),
        || format!("{}policy version {} is in force\n", render_changes(&found, &changes), reply.version),
    )?;
    Ok(0)
}

fn kept(found: &RunEvidence) -> Evidence {
    let RunEvidence { run, manifest, engine_version, figures, .. } = found;
    Evidence { run: run.clone(), manifest: *manifest, engine_version: *engine_version, figures: figures.clone() }
}

/// Values by path, in order.
fn flat(value: &Value, path: &str, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flat(value, &path, into);
            }
        }
        other => drop(into.insert(path.to_owned(), other.to_string())),
    }
}

pub fn changes(before: &Policy, after: &Policy) -> Vec<Change> {
    let values = |policy: &Policy| {
        let mut values = BTreeMap::new();
        flat(&serde_json::to_value(policy).unwrap_or_default(), "", &mut values);
        values
    };
    let (before, after) = (values(before), values(after));
    let paths: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |values: &BTreeMap<String, String>, path: &String| values.get(path).cloned().unwrap_or_default();
    let change = |path: &&String| before.get(*path) != after.get(*path);
    let paths = paths.into_iter().filter(change);
    paths.map(|path| Change { path: path.clone(), before: of(&before, path), after: of(&after, path) }).collect()
}

pub fn render_changes(found: &RunEvidence, changes: &[Change]) -> String {
    let mut text = format!("evidence {} (manifest {})\n", cell(&found.run), found.manifest);
    for (name, value) in &found.figures {
        text.push_str(&format!("  {:<16} {}\n", cell(name), cell(value)));
    }
    if changes.is_empty() {
        text.push_str("the policy is the one in force already; only the evidence is new\n");
    }
    let or_absent = |text: &str| if text.is_empty() { "absent".to_owned() } else { cell(text) };
    for Change { path, before, after } in changes {
        text.push_str(&format!("  {} {} -> {}\n", cell(path), or_absent(before), or_absent(after)));
    }
    text
}

pub fn document(version: u32, found: &RunEvidence, changes: &[Change]) -> Value {
    let figure = |(name, value): &(String, String)| json!({"name": name, "value": value});
    let change = |change: &Change| json!({"path": change.path, "before": change.before, "after": change.after});
    json!({
        "schema": "muster.promoted/1", "version": version, "run": found.run, "manifest_sha256": found.manifest.to_string(),
        "engine_version": found.engine_version, "figures": found.figures.iter().map(figure).collect::<Vec<_>>(),
        "changes": changes.iter().map(change).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_engine::policy::{Backfill, Order};
    use muster_sim::compare::{CompareArgs, compare};
    use muster_sim::{Going, RunArgs, SceneArgs};
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn what_differs_is_named_by_its_path_and_nothing_else() {
        let before = Policy::default();
        let backfill = Backfill { reserve_depth: 0, ..Backfill::default() };
        let after = Policy { order: Order::Fifo, backfill, ..Policy::default() };
        let found = changes(&before, &after);
        let told: Vec<_> = found.iter().map(|change| (change.path.as_str(), change.after.as_str())).collect();
        assert_eq!(told, [("backfill.reserve_depth", "0"), ("order", "\"fifo\"")]);
        assert_eq!(changes(&after, &after), []);
    }

    fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
        std::fs::write(folder.join(name), text).expect("written");
        folder.join(name)
    }

    fn scene(folder: &Path) -> SceneArgs {
        SceneArgs::of(
            file(folder, "world.toml", "[[nodes]]\ncount = 2\ndevices = 8\n"),
            file(folder, "t.csv", "job_id,num_gpu,submit_time,duration\n0,8,0,60\n1,16,10,30\n2,4,20,5\n"),
        )
    }

    #[test]
    fn a_run_speaks_for_its_own_policy_and_only_when_it_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let output = dir.join("fifo");
        let policy = file(dir, "fifo.toml", "order = \"fifo\"\n");
        let args = RunArgs { policy, scene: scene(dir), seed: 0, output: output.clone(), events: false, estimates: 0 };
        muster_sim::run(&args, &mut |_| Going::On).expect("a run");
        let found = evidence::read(&output, None).expect("evidence");
        assert_eq!((found.run.as_str(), &found.policy.order), ("fifo", &Order::Fifo));
        let value = |name: &str| found.figures.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!((value("jobs_succeeded"), value("cost_usd")), (Some("3"), None));
        assert!(value("trace").is_some_and(|trace| trace.starts_with("t.csv ")), "{:?}", found.figures);
        assert!(evidence::read(&output, Some(&found.policy)).is_ok());
        let other = evidence::read(&output, Some(&Policy::default())).expect_err("another policy").to_string();
        assert!(other.contains("another policy") && !other.contains("not a table"), "{other}");

        let manifest = output.join("manifest.json");
        let text = std::fs::read_to_string(&manifest).expect("a manifest");
        let cut = text.replace("\"complete\": true", "\"complete\": false");
        assert_ne!(cut, text);
        std::fs::write(&manifest, cut).expect("written");
        assert!(evidence::read(&output, None).expect_err("stopped").to_string().contains("stopped"));
        let none = evidence::read(dir, None).expect_err("no run").to_string();
        assert!(none.contains("sim run"), "{none}");
    }

    #[test]
    fn of_a_comparison_the_policy_that_is_meant_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let named = |name: &str, order: &str| file(dir, name, &format!("order = \"{order}\"\n"));
        let policies = [named("a.toml", "fifo"), named("b.toml", "smallest"), named("c.toml", "sjf")];
        let compared = |count: usize| {
            let output = dir.join(format!("of-{count}"));
            let policies = policies[..count].to_vec();
            let args = CompareArgs {
                policies,
                scene: scene(dir),
                seeds: Some(1),
                threads: 1,
                output: output.clone(),
                past: None,
            };
            compare(&args, &AtomicBool::new(false), |_, _| ()).expect("a comparison");
            output
        };
        let two = evidence::read(&compared(2), None).expect("the second");
        assert_eq!(two.policy.order, Order::Smallest);
        assert!(two.figures.iter().any(|(name, value)| name == "against" && value == "a.toml"), "{:?}", two.figures);
        let three = compared(3);
        assert!(evidence::read(&three, None).expect_err("which?").to_string().contains("--policy"));
        let meant = read(&policies[2]).expect("a policy");
        assert_eq!(evidence::read(&three, Some(&meant)).expect("the third").policy.order, Order::Sjf);
        assert!(evidence::read(&three, Some(&Policy::default())).is_err());
    }
}
