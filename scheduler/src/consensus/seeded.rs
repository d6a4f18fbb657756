//! The async runtime under openraft: tokio, with election times that a simulated cluster draws from its seed.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use openraft::OptionalSend;
use openraft::async_runtime::AsyncRuntime;
use openraft::impls::TokioRuntime;
use rand::rngs::{SmallRng, ThreadRng};
use rand::{SeedableRng, TryRng};

thread_local! {
    static SEEDED: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
}

/// From here on, every random choice of consensus on this thread follows from `seed`. For simulated clusters, which run
/// on one thread; everywhere else the machine's own randomness is used.
pub fn seed_this_thread(seed: u64) {
    SEEDED.set(Some(SmallRng::seed_from_u64(seed)));
}

/// The thread's generator: the seeded one if there is one.
#[derive(Debug)]
pub enum Random {
    Seeded,
    Machine(ThreadRng),
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        match self {
            Random::Seeded => seeded(TryRng::try_next_u32),
            Random::Machine(rng) => rng.try_next_u32(),
        }
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        match self {
            Random::Seeded => seeded(TryRng::try_next_u64),
            Random::Machine(rng) => rng.try_next_u64(),
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        match self {
            Random::Seeded => seeded(|rng| rng.try_fill_bytes(bytes)),
            Random::Machine(rng) => rng.try_fill_bytes(bytes),
        }
    }
}

fn seeded<T>(draw: impl FnOnce(&mut SmallRng) -> T) -> T {
    SEEDED.with_borrow_mut(|rng| draw(rng.as_mut().expect("a seed is never taken back")))
}

/// Tokio, but for randomness and blocking work.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Random;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Random {
        if SEEDED.with_borrow(Option::is_some) { Random::Seeded } else { Random::Machine(rand::rng()) }
    }

    fn new(threads: usize) -> Self {
        Runtime(TokioRuntime::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }

    async fn spawn_blocking<F, T>(work: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        muster_runtime::aside::run(work).await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn a_seed_repeats_every_choice_of_its_thread() {
        let draws = |seed| {
            let draw = move || {
                seed_this_thread(seed);
                (0..8).map(|_| Runtime::thread_rng().random_range(0..u64::MAX)).collect::<Vec<_>>()
            };
            std::thread::spawn(draw).join().expect("it draws")
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        assert!(matches!(Runtime::thread_rng(), Random::Machine(_)), "another thread is not seeded");
    }
}
