//! What a server counts about itself while it works. One set for each server, never for the process: several servers
//! live in one process in simulation.

use crate::booked::Started;
use muster_proto::convert::error::ErrorCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One label with a value of a closed set.
type Label = [(&'static str, &'static str); 1];

/// Cheap to clone, and to call: each method is a few atomics and at most one short lock.
#[derive(Clone)]
pub struct Instruments {
    all: Arc<All>,
}

struct All {
    cycle_seconds: Histogram,
    cycle_steps: Counter,
    cycles_truncated: Counter,
    cycle_gangs_unseen: Counter,
    start_error_seconds: Family<Label, Histogram>,
    sync_seconds: Histogram,
    syncs: Counter,
    synced_entries: Counter,
    synced_bytes: Counter,
    append_seconds: Histogram,
    proposal_seconds: Histogram,
    proposals: Family<Label, Counter>,
    leases_acknowledged: Counter,
    leases_unanswered: Counter,
    refusals: Family<Label, Counter>,
    http_requests: Family<Label, Counter>,
    fencing_held: Gauge,
    recent_syncs_us: Mutex<VecDeque<u64>>,
}

/// Syncs whose times are kept, to tell how the disk is doing now.
const RECENT_SYNCS: usize = 256;

impl Default for Instruments {
    fn default() -> Self {
        // From 50 us to 1.6 s: below is noise, above is an outage.
        let short = || Histogram::new(exponential_buckets(50e-6, 2.0, 16));
        let all = All {
            cycle_seconds: short(),
            cycle_steps: Counter::default(),
            cycles_truncated: Counter::default(),
            cycle_gangs_unseen: Counter::default(),
            // From a second to a day and a half.
            start_error_seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 2.0, 18))),
            sync_seconds: short(),
            syncs: Counter::default(),
            synced_entries: Counter::default(),
            synced_bytes: Counter::default(),
            append_seconds: short(),
            // A proposal waits for a leader for seconds.
            proposal_seconds: Histogram::new(exponential_buckets(200e-6, 2.0, 17)),
            proposals: Family::default(),
            leases_acknowledged: Counter::default(),
            leases_unanswered: Counter::default(),
            refusals: Family::default(),
            http_requests: Family::default(),
            fencing_held: Gauge::default(),
            recent_syncs_us: Mutex::default(),
        };
        for outcome in ["committed", "failed"] {
            drop(all.proposals.get_or_create(&[("outcome", outcome)]));
        }
        for outcome in ["early", "late"] {
            drop(all.start_error_seconds.get_or_create(&[("outcome", outcome)]));
        }
        Self { all: Arc::new(all) }
    }
}

impl fmt::Debug for Instruments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Instruments")
    }
}

impl Instruments {
    /// The leader ran one decision cycle: its time, the steps it spent, the gangs it did not come to.
    pub fn cycled(&self, took: Duration, steps: u64, gangs_unseen: u32) {
        self.all.cycle_seconds.observe(took.as_secs_f64());
        self.all.cycle_steps.inc_by(steps);
        if gangs_unseen > 0 {
            self.all.cycles_truncated.inc();
            self.all.cycle_gangs_unseen.inc_by(u64::from(gangs_unseen));
        }
    }

    /// A gang was placed, for which a start had been booked.
    pub fn started(&self, start: Started) {
        let (outcome, off_ms) = if start.placed > start.booked {
            ("late", start.placed.since_ms(start.booked))
        } else {
            ("early", start.booked.since_ms(start.placed))
        };
        let off = Duration::from_millis(off_ms).as_secs_f64();
        self.all.start_error_seconds.get_or_create(&[("outcome", outcome)]).observe(off);
    }

    /// The log engine synced its file once: how long that took, and what became durable by it.
    pub fn log_synced(&self, took: Duration, entries: u64, bytes: u64) {
        self.all.sync_seconds.observe(took.as_secs_f64());
        let mut recent = self.all.recent_syncs_us.lock().unwrap_or_else(PoisonError::into_inner);
        recent.truncate(RECENT_SYNCS - 1);
        recent.push_front(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        drop(recent);
        self.all.syncs.inc();
        self.all.synced_entries.inc_by(entries);
        self.all.synced_bytes.inc_by(bytes);
    }

    /// Times of the latest syncs of the log, the shortest first.
    pub fn recent_syncs_us(&self) -> Vec<u64> {
        let recent = self.all.recent_syncs_us.lock().unwrap_or_else(PoisonError::into_inner);
        let mut times: Vec<u64> = recent.iter().copied().collect();
        times.sort_unstable();
        times
    }

    /// An append to the log became durable, with whatever waiting the engine did for company.
    pub fn appended(&self, took: Duration) {
        self.all.append_seconds.observe(took.as_secs_f64());
    }

    /// A proposal of this server was answered.
    pub fn proposed(&self, took: Duration, committed: bool) {
        self.all.proposal_seconds.observe(took.as_secs_f64());
        let outcome = if committed { "committed" } else { "failed" };
        self.all.proposals.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Of a batch of lease renewals, so many were answered and so many were not.
    pub fn leases(&self, acknowledged: u64, unanswered: u64) {
        self.all.leases_acknowledged.inc_by(acknowledged);
        self.all.leases_unanswered.inc_by(unanswered);
    }

    /// A client's call was refused or failed.
    pub fn refused(&self, code: ErrorCode) {
        self.all.refusals.get_or_create(&[("reason", code.name())]).inc();
    }

    /// An HTTP request was answered with this status.
    pub fn answered(&self, status: http::StatusCode) {
        let class = match status.as_u16() / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.all.http_requests.get_or_create(&[("class", class)]).inc();
    }

    /// Whether so many nodes are silent that none is fenced.
    pub fn fencing_held(&self, held: bool) {
        self.all.fencing_held.set(i64::from(held));
    }

    /// Makes everything counted here part of what is scraped.
    pub fn register(&self, registry: &mut Registry) {
        let all = &*self.all;
        let seconds = |registry: &mut Registry, name: &str, help: &str, metric: &Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        };
        seconds(registry, "cycle", "Time of one decision cycle of the leader", &all.cycle_seconds);
        registry.register("cycle_steps", "Steps of work spent in decision cycles", all.cycle_steps.clone());
        registry.register("cycles_truncated", "Cycles that ended at the budget", all.cycles_truncated.clone());
        registry.register("cycle_gangs_unseen", "Gangs beyond the budget of a cycle", all.cycle_gangs_unseen.clone());
        registry.register_with_unit(
            "start_error",
            "Between the start that was first booked for a gang and its start, by outcome",
            Unit::Seconds,
            all.start_error_seconds.clone(),
        );
        seconds(registry, "log_sync", "Time of one sync of the log to its disk", &all.sync_seconds);
        registry.register("log_syncs", "Syncs of the log", all.syncs.clone());
        registry.register("log_synced_entries", "Log entries made durable by syncs", all.synced_entries.clone());
        registry.register_with_unit(
            "log_synced",
            "Bytes of the log made durable by syncs",
            Unit::Bytes,
            all.synced_bytes.clone(),
        );
        seconds(registry, "log_append", "Time from an append to the log until it is durable", &all.append_seconds);
        seconds(registry, "proposal", "Time from a proposal until its entry is applied here", &all.proposal_seconds);
        registry.register("proposals", "Proposals of this server, by outcome", all.proposals.clone());
        registry.register("leases_acknowledged", "Lease renewals acknowledged", all.leases_acknowledged.clone());
        registry.register("leases_unanswered", "Lease renewals not acknowledged", all.leases_unanswered.clone());
        registry.register("refusals", "Client calls refused or failed, by reason", all.refusals.clone());
        registry.register("http_requests", "HTTP requests answered, by class of status", all.http_requests.clone());
        registry.register("fencing_held", "1 while too many nodes are silent to fence any", all.fencing_held.clone());
    }
}
