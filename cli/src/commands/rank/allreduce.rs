//! `muster rank allreduce`: proves that a gang is one. Every rank contributes, every rank checks the
//! sum for itself.

use super::ring::{Element, Member, Ring};
use crate::context::Context;
use crate::error::CliError;
use clap::{Args, ValueEnum};
use muster_proto::convert::error::ErrorCode;
use std::thread;
use std::time::{Duration, Instant};

/// Between iterations of a long run: long enough to read, short enough to stop soon.
const PACE: Duration = Duration::from_millis(200);
const LENGTH_MAX: usize = 1 << 26;
/// Values repeat after so many places, so that f64 stays exact.
const PERIOD: u64 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    I64,
    F64,
}

#[derive(Debug, Args)]
pub struct AllreduceArgs {
    /// Values in the vector
    #[arg(long, default_value_t = 65_536)]
    pub length: usize,
    #[arg(long = "type", value_enum, default_value_t = Kind::I64)]
    pub kind: Kind,
    /// Go on for so long, printing each step
    #[arg(long, default_value_t = 0)]
    pub seconds: u64,
    /// How long to wait for the other ranks
    #[arg(long, default_value_t = 60)]
    pub rendezvous_seconds: u64,
}

pub fn run(context: &Context, args: AllreduceArgs) -> Result<u8, CliError> {
    if args.length == 0 || args.length > LENGTH_MAX {
        return Err(CliError::new(ErrorCode::Usage, format!("--length {}: between 1 and {LENGTH_MAX}", args.length)));
    }
    let member = member(|name| context.variable(name))?;
    let limit = Duration::from_secs(args.rendezvous_seconds);
    let failed = |error: std::io::Error| {
        CliError::new(ErrorCode::CheckFailed, format!("rank {}/{}: {error}", member.rank, member.world_size))
    };
    let ring = Ring::join(&member, limit).map_err(failed)?;
    let say = |text: &str| context.printer.line(text);
    match args.kind {
        Kind::I64 => iterate::<i64>(&member, ring, &args, say),
        Kind::F64 => iterate::<f64>(&member, ring, &args, say),
    }
}

fn member(variable: impl Fn(&str) -> Option<String>) -> Result<Member, CliError> {
    fn number<T: std::str::FromStr>(name: &str, text: Option<String>) -> Result<T, CliError> {
        let parsed = text.as_deref().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| {
            CliError::new(ErrorCode::Usage, format!("{name} is not set, or is not a number"))
                .hint("this program runs inside a job")
        })
    }
    let member = Member {
        rank: number("RANK", variable("RANK"))?,
        world_size: number("WORLD_SIZE", variable("WORLD_SIZE"))?,
        master_addr: variable("MASTER_ADDR").unwrap_or_else(|| "127.0.0.1".to_owned()),
        master_port: number("MASTER_PORT", variable("MASTER_PORT"))?,
        run_id: variable("MUSTER_RDZV_ID").unwrap_or_default(),
    };
    if member.rank >= member.world_size {
        let message = format!("RANK {} is not below WORLD_SIZE {}", member.rank, member.world_size);
        return Err(CliError::new(ErrorCode::Usage, message));
    }
    Ok(member)
}

fn iterate<T: Element>(
    member: &Member,
    mut ring: Option<Ring>,
    args: &AllreduceArgs,
    say: impl Fn(&str) -> Result<(), CliError>,
) -> Result<u8, CliError> {
    let who = format!("rank {}/{} on {}", member.rank, member.world_size, host());
    let began = Instant::now();
    for step in 1u64.. {
        let started = Instant::now();
        let over = began.elapsed() >= Duration::from_secs(args.seconds);
        // The last value is rank 0's vote to stop: all ranks see the same sum and stop together.
        let mut values: Vec<T> = (0..args.length as u64).map(|place| contribution(member.rank, place, step)).collect();
        values.push(T::of(u64::from(member.rank == 0 && over)));
        if let Some(ring) = &mut ring
            && let Err(error) = ring.all_reduce(&mut values)
        {
            return Err(CliError::new(
                ErrorCode::CheckFailed,
                format!("{who} lost its neighbours in step {step}: {error}"),
            ));
        }
        let stop = values.pop() != Some(T::of(0));
        if let Some(place) =
            (0..args.length).find(|place| values[*place] != expected(member.world_size, *place as u64, step))
        {
            say(&format!("{who} sum WRONG in step {step}: place {place} is {:?}", values[place]))?;
            return Ok(1);
        }
        if args.seconds > 0 {
            say(&format!("{who} step {step}"))?;
        }
        if stop {
            let took = started.elapsed().as_micros();
            say(&format!("{who} sum ok ({} values, {step} steps, {took} us)", args.length))?;
            return Ok(0);
        }
        thread::sleep(PACE);
    }
    Ok(0)
}

/// Differs between ranks, places and steps, so that nothing old or foreign can pass for right.
fn contribution<T: Element>(rank: u32, place: u64, step: u64) -> T {
    T::of((u64::from(rank) + 1) * (place % PERIOD + step % PERIOD + 1))
}

fn expected<T: Element>(world_size: u32, place: u64, step: u64) -> T {
    let size = u64::from(world_size);
    T::of(size * (size + 1) / 2 * (place % PERIOD + step % PERIOD + 1))
}

fn host() -> String {
    let node = std::env::var("MUSTER_NODE_LIST").ok().zip(std::env::var("MUSTER_NODE_RANK").ok());
    let named = node.and_then(|(list, rank)| list.split(',').nth(rank.parse().ok()?).map(str::to_owned));
    named
        .or_else(|| nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "?".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::Mutex;

    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port()
    }

    fn member_of(rank: u32, world_size: u32, master_port: u16, run_id: &str) -> Member {
        Member { rank, world_size, master_addr: "127.0.0.1".into(), master_port, run_id: run_id.into() }
    }

    fn args(length: usize, kind: Kind) -> AllreduceArgs {
        AllreduceArgs { length, kind, seconds: 0, rendezvous_seconds: 20 }
    }

    fn gang<T: Element>(world_size: u32, length: usize) -> Vec<(u8, String)> {
        let port = free_port();
        let results: Mutex<Vec<(u32, u8, String)>> = Mutex::default();
        thread::scope(|scope| {
            for rank in 0..world_size {
                let results = &results;
                scope.spawn(move || {
                    let member = member_of(rank, world_size, port, "1_0@1");
                    let ring = Ring::join(&member, Duration::from_secs(20)).expect("joined");
                    let said = Mutex::new(String::new());
                    let say = |text: &str| {
                        said.lock().expect("whole").push_str(text);
                        Ok(())
                    };
                    let code = iterate::<T>(&member, ring, &args(length, Kind::I64), say).expect("ran");
                    results.lock().expect("whole").push((rank, code, said.into_inner().expect("whole")));
                });
            }
        });
        let mut results = results.into_inner().expect("whole");
        results.sort();
        results.into_iter().map(|(_, code, said)| (code, said)).collect()
    }

    #[test]
    fn every_rank_of_a_gang_sees_the_right_sum() {
        for (world_size, length) in [(1, 10), (2, 1), (3, 2), (5, 1000), (8, 65_536)] {
            for (rank, (code, said)) in gang::<i64>(world_size, length).into_iter().enumerate() {
                assert_eq!(code, 0, "{said}");
                assert!(
                    said.starts_with(&format!("rank {rank}/{world_size} on ")) && said.contains("sum ok"),
                    "{said}"
                );
            }
        }
        assert!(gang::<f64>(4, 5000).iter().all(|(code, _)| *code == 0));
    }

    #[test]
    fn a_wrong_contribution_is_noticed_by_everybody() {
        let port = free_port();
        thread::scope(|scope| {
            for rank in 0..3 {
                scope.spawn(move || {
                    let mut ring = Ring::join(&member_of(rank, 3, port, "x"), Duration::from_secs(20))
                        .expect("joined")
                        .expect("a ring");
                    let mut values = vec![contribution::<i64>(rank, 0, 1) + i64::from(rank == 1)];
                    ring.all_reduce(&mut values).expect("reduced");
                    assert_ne!(values[0], expected::<i64>(3, 0, 1));
                });
            }
        });
    }

    #[test]
    fn ranks_of_another_attempt_cannot_join() {
        let port = free_port();
        thread::scope(|scope| {
            let master = scope.spawn(move || Ring::join(&member_of(0, 2, port, "1_0@2"), Duration::from_millis(800)));
            let stale = scope.spawn(move || Ring::join(&member_of(1, 2, port, "1_0@1"), Duration::from_millis(800)));
            assert!(master.join().expect("no panic").is_err());
            assert!(stale.join().expect("no panic").is_err());
        });
    }

    #[test]
    fn outside_a_job_it_says_what_is_missing() {
        assert_eq!(member(|_| None).expect_err("no RANK").exit_code(), 2);
    }
}
