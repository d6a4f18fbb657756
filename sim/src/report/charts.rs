//! The pictures of one run.

use super::data::{Job, Run, Sample};
use super::page::legend;
use super::svg::{Frame, Scale, Svg, mark, short, span};
use crate::compare::{Difference, Verdict};
use crate::metrics::groups::{SIZES, size_class};
use crate::sweep::Sweep;
use std::collections::BTreeMap;

const WIDE: Frame = Frame::new(1040.0, 260.0);
const HALF: Frame = Frame::new(520.0, 290.0);
/// Nodes of the chart of nodes over time; the busiest are shown.
const GANTT_NODES_MAX: usize = 200;
const GANTT_BARS_MAX: usize = 12_000;
const DOTS_MAX: usize = 3_000;
/// Steps of a cumulative curve.
const CURVE_POINTS: usize = 200;

/// What jobs of a size class ask for.
pub fn of_size(class: usize) -> String {
    if SIZES[class] == "1" { "1 GPU".to_owned() } else { format!("{} GPUs", SIZES[class]) }
}

/// Cumulative shares of jobs by a time, one curve for each size class.
pub fn cumulative(run: &Run, title: &str, value: fn(&Job) -> Option<f64>) -> String {
    let mut classes: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for job in &run.jobs {
        if let Some(value) = value(job) {
            classes.entry(size_class(job.devices)).or_default().push(value);
        }
    }
    let most = classes.values().flatten().copied().fold(1.0, f64::max);
    let (x, y) = (Scale::log_time(most), Scale::linear(0.0, 1.0));
    let mut svg = Svg::new(title, HALF);
    svg.axes(&x, &mark, &format!("{title} (log)"), &y, "share of jobs");
    for (class, values) in &mut classes {
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        let point = |at: usize| {
            let at = at * last / CURVE_POINTS.min(last.max(1));
            (x.share(values[at].max(1.0)), y.share((at + 1) as f64 / values.len() as f64))
        };
        let points: Vec<(f64, f64)> = (0..=CURVE_POINTS.min(last.max(1))).map(point).collect();
        svg.line(*class, &points);
    }
    let names: Vec<(usize, String)> =
        classes.iter().map(|(class, jobs)| (*class, format!("{} ({})", of_size(*class), jobs.len()))).collect();
    legend(&names.iter().map(|(colour, name)| (*colour, name.as_str())).collect::<Vec<_>>()) + &svg.finish()
}

/// The time axis of all pictures over time: from the first submit, in days or hours.
fn over_time(run: &Run) -> (f64, Scale) {
    let from = run.samples.first().map_or(0.0, |sample| sample.from_s);
    let to = run.samples.last().map_or(1.0, |sample| sample.to_s);
    (from, Scale::time(0.0, to - from))
}

type Pick = fn(&Sample) -> f64;

/// Areas one on top of the other.
fn stacked(run: &Run, title: &str, unit: &str, layers: &[(usize, &str, Pick)]) -> String {
    let (from, x) = over_time(run);
    let sum = |sample: &Sample| layers.iter().map(|(_, _, pick)| pick(sample)).sum::<f64>();
    let y = Scale::linear(0.0, run.samples.iter().map(sum).fold(1e-9, f64::max));
    let mut svg = Svg::new(title, WIDE);
    let mut floor: Vec<f64> = vec![0.0; run.samples.len()];
    for (colour, _, pick) in layers {
        let outline = |heights: &[f64]| -> Vec<(f64, f64)> {
            let step = |(sample, height): (&Sample, &f64)| {
                let height = y.share(*height);
                [(x.share(sample.from_s - from), height), (x.share(sample.to_s - from), height)]
            };
            run.samples.iter().zip(heights).flat_map(step).collect()
        };
        let top: Vec<f64> = floor.iter().zip(&run.samples).map(|(floor, sample)| floor + pick(sample)).collect();
        svg.area(*colour, &outline(&floor), &outline(&top));
        floor = top;
    }
    svg.axes(&x, &mark, "since the first submit", &y, unit);
    let names: Vec<(usize, &str)> = layers.iter().map(|(colour, name, _)| (*colour, *name)).collect();
    legend(&names) + &svg.finish()
}

pub fn utilisation(run: &Run) -> String {
    let mut layers: Vec<(usize, &str, Pick)> = vec![
        (2, "running", |sample| sample.gpus_running),
        (1, "held, not running", |sample| (sample.gpus_allocated - sample.gpus_running).max(0.0)),
        (3, "down", |sample| sample.gpus_down),
    ];
    // Most clusters never sleep.
    let asleep: [(usize, &str, Pick); 2] =
        [(6, "falling asleep or waking", |sample| sample.gpus_switching), (4, "asleep", |sample| sample.gpus_asleep)];
    layers.extend(asleep.into_iter().filter(|(_, _, pick)| run.samples.iter().any(|sample| pick(sample) > 0.0)));
    layers.push((5, "free", |sample| sample.gpus_free));
    stacked(run, "GPUs over time", "GPUs", &layers)
}

/// `None` where nothing is known of power.
pub fn power(run: &Run) -> Option<String> {
    let known = run.samples.iter().any(|sample| sample.power_kw.is_some());
    known.then(|| stacked(run, "Power", "kW", &[(6, "drawn", |sample| sample.power_kw.unwrap_or(0.0))]))
}

pub fn queue(run: &Run) -> String {
    stacked(
        run,
        "GPUs asked for by what waits",
        "GPUs waited for",
        &[(0, "asked for by waiting jobs", |sample| sample.waiting_gpus)],
    )
}

pub fn fragmentation(run: &Run) -> String {
    stacked(
        run,
        "Expected fragments",
        "GPUs",
        &[
            (3, "free, a typical job could not use it", |sample| sample.gpus_fragmented.min(sample.gpus_free)),
            (5, "free, it could", |sample| (sample.gpus_free - sample.gpus_fragmented).max(0.0)),
        ],
    )
}

/// Nodes by time, coloured by the size of the job.
pub fn gantt(run: &Run) -> (String, String) {
    let mut busiest: Vec<usize> = (0..run.nodes.len()).collect();
    busiest.sort_by(|&a, &b| run.nodes[b].held_gpu_h.total_cmp(&run.nodes[a].held_gpu_h).then(a.cmp(&b)));
    busiest.truncate(GANTT_NODES_MAX);
    busiest.sort_unstable();
    let row_of: BTreeMap<&str, usize> =
        busiest.iter().enumerate().map(|(row, node)| (run.nodes[*node].node.as_str(), row)).collect();
    let size: BTreeMap<&str, u32> = run.jobs.iter().map(|job| (job.job_id.as_str(), job.devices)).collect();
    let height = (row_of.len() as f64 * 14.0).clamp(80.0, 900.0);
    let frame = Frame { left: 110.0, ..Frame::new(1040.0, height + 52.0) };
    let (from, x) = over_time(run);
    let row_height = height / row_of.len().max(1) as f64;
    let mut svg = Svg::new("Nodes over time", frame);
    // The longest first, so that what is left out for want of room is what could not be seen.
    let mut placed: Vec<_> = run.placed.iter().filter(|placed| row_of.contains_key(placed.node.as_str())).collect();
    let all = placed.len();
    placed.sort_by(|a, b| (b.to_s - b.from_s).total_cmp(&(a.to_s - a.from_s)));
    placed.truncate(GANTT_BARS_MAX);
    let mut lanes = Lanes::new(run, &row_of);
    placed.sort_by(|a, b| a.from_s.total_cmp(&b.from_s));
    for bar in &placed {
        let row = row_of[bar.node.as_str()];
        let class = size_class(size.get(bar.job_id.as_str()).copied().unwrap_or(1));
        let (lane, share) = lanes.take(row, bar.devices, bar.from_s, bar.to_s);
        let (left, right) = (frame.x(x.share(bar.from_s - from)), frame.x(x.share(bar.to_s - from)));
        let top = frame.top + (row as f64 + lane) * row_height;
        let note = format!("job {}, attempt {}: {} GPUs on {}", bar.job_id, bar.attempt, bar.devices, bar.node);
        svg.rect(class, (left, top), (right - left, row_height * share * 0.92), &note);
    }
    let every = row_of.len().div_ceil(25).max(1);
    for (name, row) in row_of.iter().filter(|(_, row)| *row % every == 0) {
        svg.text(frame.left - 6.0, frame.top + (*row as f64 + 0.5) * row_height + 4.0, "end", name);
    }
    let scale = Scale::linear(0.0, 1.0);
    axis_only(&mut svg, &x, &scale);
    let about = if all > placed.len() {
        format!("{} nodes; the {} longest of {all} parts are drawn", row_of.len(), placed.len())
    } else {
        format!("{} of {} nodes, the busiest; {all} parts", row_of.len(), run.nodes.len())
    };
    let names: Vec<String> = (0..SIZES.len()).map(of_size).collect();
    let names: Vec<(usize, &str)> = names.iter().map(String::as_str).enumerate().skip(1).collect();
    (legend(&names) + &svg.finish(), about)
}

fn axis_only(svg: &mut Svg, x: &Scale, _: &Scale) {
    let frame = svg.frame;
    for tick in x.ticks() {
        svg.text(frame.x(x.share(tick)), frame.height - frame.bottom + 16.0, "middle", &mark(tick));
    }
    svg.text((frame.x(0.0) + frame.x(1.0)) / 2.0, frame.height - 6.0, "middle", "since the first submit");
}

/// Which slots of a node's row a bar is drawn on, so that neighbours do not cover each other.
struct Lanes {
    /// By row and slot: until when it is taken.
    taken: Vec<Vec<f64>>,
}

impl Lanes {
    fn new(run: &Run, row_of: &BTreeMap<&str, usize>) -> Self {
        let mut taken = vec![Vec::new(); row_of.len()];
        for node in &run.nodes {
            if let Some(row) = row_of.get(node.node.as_str()) {
                taken[*row] = vec![f64::NEG_INFINITY; node.devices.max(1) as usize];
            }
        }
        Self { taken }
    }

    /// Where in the row, and how much of it.
    fn take(&mut self, row: usize, devices: u32, from_s: f64, to_s: f64) -> (f64, f64) {
        let slots = &mut self.taken[row];
        let all = slots.len();
        let wanted = (devices as usize).clamp(1, all);
        let free = |at: &usize| slots[*at..*at + wanted].iter().all(|until| *until <= from_s);
        let at = (0..=all - wanted).find(free).unwrap_or(0);
        slots[at..at + wanted].iter_mut().for_each(|until| *until = to_s);
        (at as f64 / all as f64, wanted as f64 / all as f64)
    }
}

/// Where GPU-time (and money) went.
pub fn waterfall(run: &Run) -> String {
    let parts = run.summary.pointer("/usage/parts").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let costs = run.summary.pointer("/cost/categories").and_then(serde_json::Value::as_array).cloned();
    let shown: Vec<(usize, &serde_json::Value)> =
        parts.iter().enumerate().filter(|(_, part)| part["percent"].as_f64().unwrap_or(0.0) > 0.0).collect();
    let frame = Frame { left: 130.0, right: 190.0, ..Frame::new(1040.0, 26.0 * shown.len() as f64 + 20.0) };
    let mut svg = Svg::new("Where the time went", frame);
    let width = frame.width - frame.left - frame.right;
    let mut sum = 0.0;
    for (row, (at, part)) in shown.into_iter().enumerate() {
        let (percent, gpu_h) = (part["percent"].as_f64().unwrap_or(0.0), part["gpu_h"].as_f64().unwrap_or(0.0));
        let top = 8.0 + row as f64 * 26.0;
        let colour = [2, 1, 0, 4, 3, 3, 4, 4, 7, 6, 5, 5][at.min(11)];
        svg.rect(colour, (frame.left + sum / 100.0 * width, top), (percent / 100.0 * width, 18.0), "");
        sum += percent;
        let name = part["category"].as_str().unwrap_or("").replace('_', " ");
        svg.text(frame.left - 8.0, top + 13.0, "end", &name);
        let usd = costs.as_ref().and_then(|costs| costs.get(at)?["usd"].as_f64());
        let usd = usd.map_or_else(String::new, |usd| format!(" · ${}", short(usd)));
        let text = format!("{percent:.1} % · {} GPU-h{usd}", short(gpu_h));
        svg.text(frame.width - frame.right + 10.0, top + 13.0, "start", &text);
    }
    svg.finish()
}

/// Every job's wait against its size.
pub fn wait_by_size(run: &Run) -> String {
    let jobs: Vec<&Job> = run.jobs.iter().filter(|job| job.wait_s.is_some() && job.devices > 0).collect();
    let most = jobs.iter().filter_map(|job| job.wait_s).fold(1.0, f64::max);
    let largest = jobs.iter().map(|job| job.devices).max().unwrap_or(1);
    let (x, y) = (Scale::log(1.0, f64::from(largest)), Scale::log_time(most));
    let mut svg = Svg::new("Wait by size", WIDE);
    svg.axes(&x, &short, "GPUs (log)", &y, "wait (log)");
    for job in jobs.iter().step_by(jobs.len().div_ceil(DOTS_MAX).max(1)) {
        let wait_s = job.wait_s.unwrap_or(0.0);
        let note = format!("job {}: {} GPUs waited {}", job.job_id, job.devices, span(wait_s));
        svg.dot(size_class(job.devices), x.share(f64::from(job.devices)), y.share(wait_s.max(1.0)), &note);
    }
    svg.finish()
}

/// The wait that was told at submit against the real one.
pub fn estimates(run: &Run) -> String {
    let waits = |job: &Job| Some((job.estimated_start_s? - job.submit_s, job.start_s? - job.submit_s));
    let known = run.jobs.iter().filter_map(|job| waits(job).map(|(told_s, real_s)| (job, told_s, real_s)));
    let known: Vec<(&Job, f64, f64)> = known.collect();
    let most = known.iter().map(|(_, told_s, real_s)| told_s.max(*real_s)).fold(10.0, f64::max);
    let scale = Scale::log_time(most);
    let mut svg = Svg::new("Told against real wait", HALF);
    svg.axes(&scale, &mark, "told at submit (log)", &scale, "started after (log)");
    svg.line(5, &[(0.0, 0.0), (1.0, 1.0)]);
    for (job, told_s, real_s) in known.iter().step_by(known.len().div_ceil(DOTS_MAX).max(1)) {
        let note = format!("job {}: told {}, started after {}", job.job_id, span(*told_s), span(*real_s));
        svg.dot(size_class(job.devices), scale.share(told_s.max(1.0)), scale.share(real_s.max(1.0)), &note);
    }
    svg.finish()
}

/// Changes in percent, with their intervals.
pub fn differences(differences: &[Difference]) -> String {
    let shown: Vec<&Difference> = differences.iter().filter(|difference| difference.percent.is_some()).collect();
    let frame = Frame { left: 170.0, right: 24.0, ..Frame::new(1040.0, 24.0 * shown.len() as f64 + 44.0) };
    let ends = |difference: &Difference| {
        let of = |value: f64| 100.0 * value / difference.base_mean.abs();
        let (low, high) = difference.interval.unwrap_or((difference.difference, difference.difference));
        (of(low), of(high))
    };
    let reach = shown
        .iter()
        .map(|difference| ends(difference))
        .fold(1.0, |most: f64, (low, high)| most.max(low.abs()).max(high.abs()));
    let reach = reach.min(200.0);
    let x = Scale::linear(-reach, reach);
    let mut svg = Svg::new("Changes in percent", frame);
    for (row, difference) in shown.iter().enumerate() {
        let top = 8.0 + row as f64 * 24.0;
        let colour = match difference.verdict {
            Verdict::Better => 2,
            Verdict::Worse => 3,
            Verdict::NoClearDifference | Verdict::Equal => 5,
        };
        svg.text(frame.left - 8.0, top + 12.0, "end", difference.figure);
        let zero = frame.x(x.share(0.0));
        let at = frame.x(x.share(difference.percent.unwrap_or(0.0)));
        svg.rect(colour, (zero.min(at), top + 2.0), ((at - zero).abs(), 13.0), "");
        let (low, high) = ends(difference);
        let (low, high) = (frame.x(x.share(low)), frame.x(x.share(high)));
        svg.rect(5, (low, top + 7.5), (high - low, 2.0), "");
    }
    for tick in x.ticks() {
        svg.text(frame.x(x.share(tick)), frame.height - 22.0, "middle", &format!("{tick:+.0} %"));
    }
    svg.finish()
}

/// The p95 of waiting against kept work.
pub fn pareto(sweep: &Sweep) -> String {
    let at = |name| crate::figures::position(name).unwrap_or(0);
    let value = |point: &crate::sweep::Point| (point.figures[at("wait_p95_s")], point.figures[at("goodput")]);
    let values: Vec<(f64, f64)> = sweep.points.iter().map(value).collect();
    let most = values.iter().map(|value| value.0).fold(1.0, f64::max);
    let (low, high) = values.iter().fold((1.0f64, 0.0f64), |(low, high), value| (low.min(value.1), high.max(value.1)));
    let margin = ((high - low) / 10.0).max(0.005);
    let (x, y) = (Scale::linear(0.0, most * 1.05), Scale::linear(low - margin, high + margin));
    let mut svg = Svg::new("Waiting against kept work", WIDE);
    svg.axes(&x, &span, "p95 of waiting", &y, "kept work");
    let mut front: Vec<(f64, f64)> = Vec::new();
    for (point, value) in sweep.points.iter().zip(&values) {
        let at = (x.share(value.0), y.share(value.1));
        if point.pareto {
            front.push(at);
        }
        svg.dot(if point.pareto { 1 } else { 0 }, at.0, at.1, &point.values.join(", "));
    }
    front.sort_by(|a, b| a.0.total_cmp(&b.0));
    svg.line(1, &front);
    svg.finish()
}
