//! State and Memo: a view, the first cycle of a new leader, what a kept Memo takes to catch up, and what a record takes.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use muster_common::Time;
use muster_engine::forecast::forecast;
use muster_engine::{Memo, cycle};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use support::{Busy, Dice, easy, one_job, tell};

fn state(c: &mut Criterion) {
    let mut group = c.benchmark_group("state");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    let mut busy: Option<Busy> = None;
    group.bench_function("view/100000", |b| {
        let busy = busy.get_or_insert_with(|| Busy::new(10_000, 100_000, easy(1)));
        b.iter(|| busy.player.state.clone());
    });
    group.bench_function("first_cycle/100000", |b| {
        let busy = busy.get_or_insert_with(|| Busy::new(10_000, 100_000, easy(1)));
        b.iter_with_large_drop(|| {
            let mut memo = Memo::default();
            (cycle(&busy.player.state, &mut memo, Time(300_000)), memo)
        });
    });
    group.finish();
    if let Some(mut busy) = busy {
        play(&busy);
        catch_up(&mut busy, "one_end", 50, Busy::end_one);
        let mut dice = Dice(5);
        catch_up(&mut busy, "1000_entries", 10, |busy| {
            let upto = busy.player.state.applied_index() + 1000;
            // One end in ten; the rest are submits.
            while busy.player.state.applied_index() < upto {
                busy.end_one();
                (0..9).for_each(|_| busy.submit(one_job(&mut dice)));
            }
        });
        memory();
    }
}

/// The present played forward, a few times.
fn play(busy: &Busy) {
    for _ in 0..3 {
        let began = Instant::now();
        let played = forecast(&busy.player.state, Time(300_000));
        let known = played.starts.values().filter(|start| start.is_some()).count();
        println!("forecast/100000: {:?}, {known} starts, complete: {}", began.elapsed(), played.complete);
    }
}

/// What a Memo that was kept takes to catch up with what happened since: a cycle that starts from it, less the same cycle
/// once more.
fn catch_up(busy: &mut Busy, what: &str, rounds: usize, mut happen: impl FnMut(&mut Busy)) {
    let mut samples = Vec::new();
    for _ in 0..rounds {
        busy.decide();
        happen(busy);
        let (state, memo) = (&busy.player.state, &mut busy.player.memo);
        let mut timed = || {
            let began = Instant::now();
            let decided = cycle(state, memo, busy.now);
            (began.elapsed(), decided)
        };
        let [(behind, first), (caught_up, second)] = [timed(), timed()];
        assert_eq!(first.commands, second.commands);
        samples.push(behind.saturating_sub(caught_up));
    }
    tell(&format!("memo/catch_up/{what}"), &mut samples);
}

/// Counts what is allocated and not yet freed.
struct Counting;

static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes that a hundred thousand waiting jobs, and ten thousand nodes of eight devices, add to State and to a leader's Memo.
fn memory() {
    let live = || LIVE_BYTES.load(Ordering::Relaxed);
    let each = |before: i64, count: i64| (live() - before) / count;
    let before = live();
    let mut player = support::cluster(10_000, easy(1));
    println!("state: {} bytes a node", each(before, 10_000));
    let before = live();
    let mut dice = support::Dice(3);
    for at in 0..100_000 {
        let command = support::plan_support::submit(&format!("memory-{at}"), support::one_job(&mut dice));
        player.commit(Time(0), command, &mut support::Silent).unwrap();
    }
    println!("state: {} bytes a waiting job", each(before, 100_000));
    let (before, mut memo) = (live(), Memo::default());
    let _ = cycle(&player.state, &mut memo, Time(0));
    println!("memo: {} bytes a waiting job and a tenth of a node", each(before, 100_000));
}

criterion_group!(benches, state);
criterion_main!(benches);
