//! Many runs at once. Each run is one thread's; which thread makes no difference to it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

/// Does `count` pieces of work on so many threads. The results are in the order of their numbers;
/// `None` where it was stopped before. `done` is told each time one more is finished.
pub(crate) fn all<T: Send>(
    count: usize,
    threads: usize,
    stop: &AtomicBool,
    work: impl Fn(usize) -> T + Sync,
    mut done: impl FnMut(usize),
) -> Vec<Option<T>> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<T>>> = (0..count).map(|_| Mutex::new(None)).collect();
    let threads = threads.clamp(1, count.max(1));
    std::thread::scope(|scope| {
        let (finished, finishes) = sync_channel::<()>(threads);
        for _ in 0..threads {
            let finished = finished.clone();
            let (next, results, work) = (&next, &results, &work);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let result = work(number);
                    *results[number].lock().expect("no thread panics while it holds a result") = Some(result);
                    if finished.send(()).is_err() {
                        break;
                    }
                }
            });
        }
        drop(finished);
        for (number, ()) in (1..).zip(finishes.iter()) {
            done(number);
        }
    });
    let inner = |result: Mutex<Option<T>>| result.into_inner().expect("the threads are gone");
    results.into_iter().map(inner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_on_any_number_of_threads() {
        for threads in [1, 4, 100] {
            let mut told = Vec::new();
            let results = all(20, threads, &AtomicBool::new(false), |number| number * number, |done| told.push(done));
            assert!(results.iter().enumerate().all(|(number, result)| *result == Some(number * number)));
            assert_eq!(told, (1..=20).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_was_done_before_a_stop_is_kept() {
        let stop = AtomicBool::new(false);
        let work = |number: usize| {
            if number == 4 {
                stop.store(true, Ordering::Relaxed);
            }
            number
        };
        let results = all(10, 1, &stop, work, |_| {});
        assert_eq!(results.iter().flatten().count(), 5);
    }
}
