//! The protocol's clauses as switches, so that each can be taken away and missed.

/// Which clauses of the safety protocol a run obeys. `true` means the clause is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub refuse_lower_token: bool,
    pub refuse_spent_token: bool,
    pub refuse_other_content: bool,
    pub refuse_below_epoch: bool,
    pub restore_raises_generation: bool,
    pub generation_is_new: bool,
    pub sync_before_create: bool,
    pub previous_proven_gone: bool,
    pub barrier: bool,
    pub first_in_log_wins: bool,
    pub failed_rank_stops_gang: bool,
    pub end_after_devices_settled: bool,
    pub keep_report_until_applied: bool,
    pub lease_from_send: bool,
    pub read_index_before_ack: bool,
    pub own_term_entry_before_ack: bool,
    pub only_session_server_acks: bool,
    pub first_deadline_is_the_lease: bool,
    pub fence_waits_kill_bound: bool,
    pub quiet_while_fencing: bool,
    pub fence_term_is_log_term: bool,
    pub late_tick_restarts_waits: bool,
    pub fence_waits_drift: bool,
    pub fenced_is_unknown: bool,
    pub lost_store_is_swept: bool,
    pub registration_is_live: bool,
    pub release_means_empty_device: bool,
    pub shim_kills_alone: bool,
    pub deadline_survives_restart: bool,
    pub absence_never_kills: bool,
    pub stop_needs_coverage: bool,
}

impl Rules {
    /// Every clause in force: the protocol as designed.
    pub fn all() -> Self {
        Rules {
            refuse_lower_token: true,
            refuse_spent_token: true,
            refuse_other_content: true,
            refuse_below_epoch: true,
            restore_raises_generation: true,
            generation_is_new: true,
            sync_before_create: true,
            previous_proven_gone: true,
            barrier: true,
            first_in_log_wins: true,
            failed_rank_stops_gang: true,
            end_after_devices_settled: true,
            keep_report_until_applied: true,
            lease_from_send: true,
            read_index_before_ack: true,
            own_term_entry_before_ack: true,
            only_session_server_acks: true,
            first_deadline_is_the_lease: true,
            fence_waits_kill_bound: true,
            quiet_while_fencing: true,
            fence_term_is_log_term: true,
            late_tick_restarts_waits: true,
            fence_waits_drift: true,
            fenced_is_unknown: true,
            lost_store_is_swept: true,
            registration_is_live: true,
            release_means_empty_device: true,
            shim_kills_alone: true,
            deadline_survives_restart: true,
            absence_never_kills: true,
            stop_needs_coverage: true,
        }
    }

    /// Every clause but the named one; `None` when no clause has that id.
    pub fn without(id: &str) -> Option<Self> {
        let clause = CLAUSES.iter().find(|clause| clause.id == id)?;
        let mut rules = Rules::all();
        (clause.remove)(&mut rules);
        Some(rules)
    }
}

/// One clause of the protocol, and what is lost without it.
pub struct Clause {
    /// Rule number of the design and a letter, for example `6a`.
    pub id: &'static str,
    /// The clause in words.
    pub text: &'static str,
    /// Name of the scenario that misses it.
    pub scenario: &'static str,
    /// The invariant that breaks there when only this clause is removed.
    pub breaks: &'static str,
    remove: fn(&mut Rules),
}

const fn clause(
    id: &'static str,
    text: &'static str,
    scenario: &'static str,
    breaks: &'static str,
    remove: fn(&mut Rules),
) -> Clause {
    Clause { id, text, scenario, breaks, remove }
}

/// Every clause the model knows, in the order of the design.
pub const CLAUSES: &[Clause] = &[
    clause("3a", "an agent refuses a token lower than its highest", "token", "freed-only-when-empty", |r| {
        r.refuse_lower_token = false
    }),
    clause("3b", "an agent refuses a spent token", "token", "freed-only-when-empty", |r| r.refuse_spent_token = false),
    clause("3c", "an agent refuses an equal token with other content", "token-reuse", "runs-what-it-says", |r| {
        r.refuse_other_content = false
    }),
    clause(
        "3d",
        "a registering agent refuses tokens below its epoch, except those in its store",
        "token",
        "freed-only-when-empty",
        |r| r.refuse_below_epoch = false,
    ),
    clause("3e", "a restore raises the token generation", "restore", "freed-only-when-empty", |r| {
        r.restore_raises_generation = false
    }),
    clause(
        "3f",
        "a restore's generation was never used before, also when the same backup is restored twice",
        "restore",
        "freed-only-when-empty",
        |r| r.generation_is_new = false,
    ),
    clause("4a", "token and deadline are synced before anything is created", "token", "no-causeless-stop", |r| {
        r.sync_before_create = false
    }),
    clause("4b", "prepare only after the previous allocation is proven gone", "token", "one-live-per-device", |r| {
        r.previous_proven_gone = false
    }),
    clause("4c", "no rank starts before the whole set has prepared", "barrier", "start-after-all-prepared", |r| {
        r.barrier = false
    }),
    clause("4d", "the first of start, abort, stop and exit in log order wins", "barrier", "one-outcome", |r| {
        r.first_in_log_wins = false
    }),
    clause("4e", "a failed rank stops its whole gang in the same apply", "barrier", "no-half-gang", |r| {
        r.failed_rank_stops_gang = false
    }),
    clause("5a", "a job ends or is retried only when each device is settled", "barrier", "no-attempt-overlap", |r| {
        r.end_after_devices_settled = false
    }),
    clause("5b", "an agent keeps a report until an applied index covers it", "barrier", "exit-not-lost", |r| {
        r.keep_report_until_applied = false
    }),
    clause("6a", "a lease counts from when its renewal was sent", "lease", "no-attempt-overlap", |r| {
        r.lease_from_send = false
    }),
    clause(
        "6b",
        "a renewal is acknowledged only after a ReadIndex round begun after its arrival",
        "lease",
        "no-attempt-overlap",
        |r| r.read_index_before_ack = false,
    ),
    clause(
        "6c",
        "a new leader acknowledges nothing before it applied its own term's first entry",
        "lease",
        "fenced-holds-no-lease",
        |r| r.own_term_entry_before_ack = false,
    ),
    clause("6d", "only the server of the renewal's session acknowledges it", "lease", "no-attempt-overlap", |r| {
        r.only_session_server_acks = false
    }),
    clause(
        "6e",
        "an allocation's first deadline is the lease its node already has; preparing grants no time",
        "lease",
        "no-attempt-overlap",
        |r| r.first_deadline_is_the_lease = false,
    ),
    clause("7a", "fencing waits for the kill bound after the lease", "lease", "no-attempt-overlap", |r| {
        r.fence_waits_kill_bound = false
    }),
    clause(
        "7b",
        "from deciding to fence until the outcome is applied nothing of the node is acknowledged",
        "lease",
        "no-attempt-overlap",
        |r| r.quiet_while_fencing = false,
    ),
    clause("7c", "a fencing entry counts only in the term that decided it", "lease", "no-attempt-overlap", |r| {
        r.fence_term_is_log_term = false
    }),
    clause("7d", "a late tick restarts all waits", "cut-off", "no-attempt-overlap", |r| {
        r.late_tick_restarts_waits = false
    }),
    clause("7e", "fencing waits for the clocks' drift after the lease", "lease", "no-attempt-overlap", |r| {
        r.fence_waits_drift = false
    }),
    clause("8a", "a fenced node's devices are unknown, not free", "unknown", "freed-only-when-empty", |r| {
        r.fenced_is_unknown = false
    }),
    clause("8b", "the same boot with a lost store is not evidence", "unknown", "freed-only-when-empty", |r| {
        r.lost_store_is_swept = false
    }),
    clause(
        "8c",
        "a registration is evidence only on the live stream that carries it, never late or repeated",
        "unknown",
        "freed-only-when-empty",
        |r| r.registration_is_live = false,
    ),
    clause(
        "8d",
        "a release says that the device is empty, not only that its own token has ended",
        "token",
        "freed-only-when-empty",
        |r| r.release_means_empty_device = false,
    ),
    clause("9a", "a shim kills at its deadline even when the agent is dead", "cut-off", "no-attempt-overlap", |r| {
        r.shim_kills_alone = false
    }),
    clause("9b", "an agent's restart does not extend a persisted deadline", "cut-off", "no-attempt-overlap", |r| {
        r.deadline_survives_restart = false
    }),
    clause("10a", "absence from a desired state never kills", "token", "no-causeless-stop", |r| {
        r.absence_never_kills = false
    }),
    clause(
        "10b",
        "a token is stopped only by a server whose applied index covers it",
        "token",
        "no-causeless-stop",
        |r| r.stop_needs_coverage = false,
    ),
];
