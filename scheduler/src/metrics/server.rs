//! What every server tells about itself.

use super::sheet::Sheet;
use crate::consensus::{Role, Status};
use crate::context::Context;
use crate::gateway::Gateway;
use muster_runtime::process::process_use;

pub fn look(sheet: &mut Sheet, context: &Context, gateway: &Gateway, ready: bool) {
    sheet.info("build", "The version that runs", vec![("version", context.version.to_owned())]);
    sheet.flag("ready", "1 if this server has a leader and has applied what is committed", ready);
    consensus(sheet, context, &context.consensus.status());
    actors(sheet, context, gateway);
    let not_after_ms = context.credentials.current().peer().not_after_ms;
    let help = "When this server's certificate ends, in Unix seconds";
    sheet.gauge("certificate_not_after_timestamp_seconds", help, not_after_ms / 1_000);
    process(sheet);
}

fn consensus(sheet: &mut Sheet, context: &Context, status: &Status) {
    let index = |at: Option<u64>| at.unwrap_or(0);
    sheet.flag("raft_is_leader", "1 if this server leads", status.role == Role::Leader);
    sheet.flag("raft_has_leader", "1 if this server knows a leader", status.leader.is_some());
    sheet.gauge("raft_term", "The term this server is in", status.term);
    sheet.gauge("raft_members", "Servers of the cluster", status.members.len() as u64);
    sheet.gauge("raft_last_log_index", "The last entry of this server's log", index(status.last_log));
    // Read after the status, so it may be further than what that knew; what is applied is committed.
    let applied = context.consensus.applied_index();
    let committed = index(status.committed).max(applied);
    sheet.gauge("raft_committed_index", "The last entry this server knows to be committed", committed);
    sheet.gauge("raft_applied_index", "The last entry this server has applied", applied);
    let snapshot = status.snapshot.map_or(0, |at| at.index);
    sheet.gauge("raft_snapshot_index", "The last entry in this server's newest snapshot", snapshot);
    sheet.gauge("raft_purged_index", "The last entry removed from this server's log", index(status.purged));
    let told = status.members.iter().filter(|_| status.role == Role::Leader);
    let lags = told.filter_map(|member| {
        let name = if member.name.is_empty() { member.id.to_string() } else { member.name.clone() };
        Some((name, member.lag?))
    });
    sheet.gauges(
        "raft_follower_lag_entries",
        "Entries a server lacks, told by the leader, which lacks none",
        "server",
        lags,
    );
}

fn actors(sheet: &mut Sheet, context: &Context, gateway: &Gateway) {
    let sessions = &context.sessions;
    sheet.gauge("sessions", "Agents connected to this server", sessions.count() as u64);
    let depths = sessions.depths();
    let waiting = depths.map(|depth| (depth.actor, depth.messages as u64));
    sheet.gauges("mailbox_messages", "Messages that wait for an actor", "actor", waiting);
    let capacity = depths.map(|depth| (depth.actor, depth.capacity as u64));
    sheet.gauges("mailbox_capacity_messages", "Messages an actor's mailbox holds", "actor", capacity);
    let open = gateway.open().map(|(kind, count)| (kind, count as u64));
    sheet.gauges("gateway_open", "Streams and long polls of clients that are open", "kind", open);
    sheet.counter("events", "Events told by entries applied here", context.watch.published());
}

fn process(sheet: &mut Sheet) {
    let used = process_use();
    sheet.gauge("process_resident_memory_bytes", "Memory of the process in RAM", used.resident_bytes);
    sheet.gauge("process_open_fds", "Open file descriptors", used.open_fds);
    sheet.gauge("process_fds_max", "File descriptors the process may open", used.fds_max);
    sheet.counter_s("process_cpu_seconds", "Processor time of the process", used.cpu_ms);
}
