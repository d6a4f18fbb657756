//! One agent's control stream: pushes `desired`, takes reports, passes renewals on.

use crate::consensus::{Leadership, ProposeError};
use crate::heartbeats;
use crate::leases::Answer;
use crate::redirect;
use crate::reports::Arrived;
use crate::sessions::{Member, Services, SessionsHandle};
use crate::translate;
use muster_common::NodeId;
use muster_common::node::Inventory;
use muster_engine::command::{ConfigChange, Principal, Registration, Settings};
use muster_engine::state::node::{Liveness, NodeRecord};
use muster_engine::{Command, Desired, Response, State, desired};
use muster_proto::agent as wire;
use muster_proto::datagram::Sample;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::{Notify, mpsc, watch};
use tonic::{Status, Streaming};
use wire::agent_message::Body as FromAgent;
use wire::server_message::Body as ToAgent;

/// Messages on their way to one agent.
const OUTGOING_MAX: usize = 1024;
/// Within this the agent must say who it is.
const HELLO_MS: u64 = 5_000;
/// Largest wait between renewals; shorter when silence is noticed sooner.
const RENEW_MS_MAX: u64 = 3_000;
/// A renewal may be lost so many times in a row before the node counts as silent.
const RENEWALS_PER_SUSPICION: u64 = 5;
/// Restores in a row that an agent may have seen and these servers not.
const GENERATIONS_AHEAD_MAX: u32 = 1_000;

type Messages = mpsc::Receiver<Result<wire::ServerMessage, Status>>;
type Ending = watch::Receiver<Option<&'static str>>;

/// The way to one agent. Cheap to clone.
#[derive(Clone)]
pub struct Outgoing {
    messages: mpsc::Sender<Result<wire::ServerMessage, Status>>,
    end: watch::Sender<Option<&'static str>>,
    news: Arc<Notify>,
}

impl Outgoing {
    pub(crate) fn new() -> (Self, Messages, Ending) {
        let (messages, receiver) = mpsc::channel(OUTGOING_MAX);
        let (end, ended) = watch::channel(None);
        (Self { messages, end, news: Arc::default() }, receiver, ended)
    }

    /// Drops the message when the agent does not keep up: leases and desired states are sent again.
    pub fn try_send(&self, body: ToAgent) -> bool {
        self.messages.try_send(Ok(wire::ServerMessage { body: Some(body) })).is_ok()
    }

    /// True once somebody has ended the session.
    pub fn is_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// True when it has ended, or nobody is left to read what is sent.
    pub fn is_over(&self) -> bool {
        self.is_ended() || self.messages.is_closed()
    }

    /// Has the session look at what there is to tell.
    pub(crate) fn wake(&self) {
        self.news.notify_one();
    }

    /// Ends the session; the agent connects again.
    pub fn end(&self, why: &'static str) {
        self.end.send_replace(Some(why));
    }
}

/// Why a session ended or never began.
#[derive(Debug, Error)]
pub enum SessionError {
    #[error("no hello within {HELLO_MS} ms")]
    NoHello,
    #[error("the first message was not a hello")]
    NotHello,
    #[error("the hello is of node `{hello}`, the certificate of `{certificate}`")]
    WrongName { hello: String, certificate: String },
    #[error("protocol version {0}; this server speaks {PROTOCOL_VERSION}")]
    Version(u32),
    #[error("{0}")]
    Invalid(#[from] muster_proto::convert::agent::Invalid),
    #[error("the telemetry is not as it should be: {0}")]
    Telemetry(String),
    #[error("the registration was refused: {0}")]
    Refused(String),
    #[error(
        "the registration of this node takes {bytes} bytes and a log entry holds {limit}; give the node fewer devices \
         (whole GPUs in place of MIG instances, `devices` in agent.toml) or shorter labels"
    )]
    TooLarge { bytes: usize, limit: usize },
    #[error(
        "the agent has seen generation {seen} and this cluster is at {now}: its store is of another cluster's history; \
         end its work and start it with an empty state folder"
    )]
    Generation { seen: u32, now: u32 },
    #[error("this server does not lead")]
    NotLeader,
    #[error("{0}")]
    Ended(&'static str),
    #[error("the stream broke: {0}")]
    Stream(Status),
}

pub const PROTOCOL_VERSION: u32 = 1;

/// A session in progress.
struct Session {
    sessions: SessionsHandle,
    outgoing: Outgoing,
    member: Member,
    /// What the agent registered with: the slots in its messages are of this list, unless a fault names its device.
    inventory: Arc<Inventory>,
    /// What the agent was told last, without its position.
    told: Option<Desired>,
    /// How often it was told to renew.
    renew_every_ms: u64,
    acknowledged: u64,
}

/// Serves one control stream until it ends; returns what is to be sent.
pub fn serve(sessions: SessionsHandle, certificate: String, incoming: Streaming<wire::AgentMessage>) -> Messages {
    let (outgoing, receiver, ended) = Outgoing::new();
    tokio::spawn(async move {
        let error = match run(sessions, certificate, outgoing.clone(), incoming, ended).await {
            Ok(()) => return,
            Err(error) => error,
        };
        tracing::info!(%error, "an agent's session ended");
        let status = match &error {
            SessionError::NotLeader | SessionError::Ended(_) => Status::unavailable(error.to_string()),
            SessionError::WrongName { .. } => Status::permission_denied(error.to_string()),
            _ => Status::failed_precondition(error.to_string()),
        };
        // A full channel means that nobody reads any more.
        let _ = outgoing.messages.try_send(Err(status));
    });
    receiver
}

async fn run(
    sessions: SessionsHandle,
    certificate: String,
    outgoing: Outgoing,
    mut incoming: Streaming<wire::AgentMessage>,
    ended: Ending,
) -> Result<(), SessionError> {
    let hello = first_message(&sessions, &mut incoming).await?;
    if hello.protocol_version != PROTOCOL_VERSION {
        return Err(SessionError::Version(hello.protocol_version));
    }
    if hello.node_name != certificate {
        return Err(SessionError::WrongName { hello: hello.node_name, certificate });
    }
    let leadership = sessions.services.consensus.leadership();
    if let Some(leader_address) =
        redirect::elsewhere(leadership, &hello.unreachable_leader, &*sessions.services.clock).await
    {
        outgoing
            .try_send(ToAgent::Redirect(wire::Redirect { leader_address, why: "this server does not lead".into() }));
        return Err(SessionError::NotLeader);
    }
    let may_use_udp = may_use_udp(&sessions, hello.datagram_version, &certificate);
    let seen = hello.seen.map_or(0, |seen| seen.generation);
    let (registration, seen_boot) = translate::registration(hello)?;
    let inventory = registration.inventory.clone();
    let number = sessions.next_session();
    let (node, epoch) = admit(&sessions, registration, seen).await?;
    let now_ms = sessions.services.clock.boottime_ms();
    sessions.services.liveness.heard(node, now_ms);
    let member = Member { node, epoch, session: number };
    sessions.enter(member, certificate, seen_boot, inventory.clone(), outgoing.clone());
    let mut session = Session {
        sessions: sessions.clone(),
        outgoing,
        member,
        inventory,
        told: None,
        renew_every_ms: 0,
        acknowledged: 0,
    };
    let renew_every_ms = session.welcome();
    sessions.services.heartbeats.enter(node, number, may_use_udp, renew_every_ms);
    let done = session.run(incoming, ended).await;
    sessions.leave(node, number);
    sessions.services.heartbeats.leave(node, number);
    // A renewal that still waits for its round as a datagram is not answered.
    session.outgoing.end("the session is over");
    done
}

/// Whether renewals can come as datagrams; releases that share no version of them stay on the stream.
fn may_use_udp(sessions: &SessionsHandle, agents: u32, node: &str) -> bool {
    let Some(ours) = sessions.services.datagrams else { return false };
    let shared = (ours.oldest_version..=ours.newest_version).contains(&agents);
    if !shared && agents != 0 {
        let (oldest, newest) = (ours.oldest_version, ours.newest_version);
        tracing::info!(node, agents, oldest, newest, "no datagram version is shared; renewals stay on the stream");
    }
    shared
}

async fn first_message(
    sessions: &SessionsHandle,
    incoming: &mut Streaming<wire::AgentMessage>,
) -> Result<wire::Hello, SessionError> {
    let message = tokio::select! {
        message = incoming.message() => message.map_err(SessionError::Stream)?,
        () = sessions.services.clock.sleep_ms(HELLO_MS) => return Err(SessionError::NoHello),
    };
    match message.and_then(|message| message.body) {
        Some(FromAgent::Hello(hello)) => Ok(hello),
        _ => Err(SessionError::NotHello),
    }
}

/// Registers the node, or notes that it is back, and returns its id and epoch.
async fn admit(
    sessions: &SessionsHandle,
    mut registration: Registration,
    seen_generation: u32,
) -> Result<(NodeId, u64), SessionError> {
    let services = &sessions.services;
    services.consensus.leader_read_barrier().await.map_err(|_| SessionError::NotLeader)?;
    let term = services.consensus.leadership().borrow().term;
    let state = services.consensus.view();
    let known = state.node_named(&registration.name);
    if known.is_none_or(|record| record.from_backup) {
        raise_above(sessions, term, &state, seen_generation).await?;
    }
    if let Some(record) = known {
        if !(record.gangs.is_empty() && record.orphans.is_empty()) {
            keep_hardware(&record.inventory, &mut registration.inventory);
        }
        // What was switched off in name only is found awake by registering.
        if is_same(record, &registration) && !crate::elastic::is_overdue(record.power, services.proposer.now()) {
            if record.liveness != Liveness::Up {
                propose(sessions, term, Command::NodeSeen { node: record.id, epoch: record.epoch }).await?;
            }
            return Ok((record.id, record.epoch));
        }
        keep_what_matters(&state, record, &mut registration);
        registration.old_boot_silent = !sessions.other_boot_connected(record.id, &registration.inventory.boot_id);
    }
    // In this term or not at all: a registration is evidence only while its stream lives.
    match propose(sessions, term, Command::RegisterNode(Box::new(registration))).await? {
        Response::Registered { node, epoch } => Ok((node, epoch)),
        Response::Refused(why) => Err(SessionError::Refused(why.to_string())),
        other => Err(SessionError::Refused(format!("unexpected answer {other:?}"))),
    }
}

/// An agent that these servers never registered has seen this generation, or a later one: another restore of the same
/// backup has used it for tokens of its own (rule 3).
async fn raise_above(sessions: &SessionsHandle, term: u64, state: &State, seen: u32) -> Result<(), SessionError> {
    let now = state.cluster().generation;
    if seen < now || now == 0 {
        return Ok(());
    }
    if seen - now > GENERATIONS_AHEAD_MAX {
        return Err(SessionError::Generation { seen, now });
    }
    tracing::warn!(seen, now, "an agent has seen this generation from other servers; raising it");
    let change = Box::new(ConfigChange::RaiseGeneration { above: seen });
    let by = Principal("server".into());
    match propose(sessions, term, Command::Configure { change, by }).await? {
        Response::Refused(why) => Err(SessionError::Refused(why.to_string())),
        _ => Ok(()),
    }
}

/// Agents also name what is over and done with. Unless State still believes in it, that is nothing to write in the log.
fn keep_what_matters(state: &State, record: &NodeRecord, registration: &mut Registration) {
    registration.held.retain(|held| {
        let attempt = state.gang(held.gang).and_then(|gang| gang.current());
        let believed = attempt.is_some_and(|attempt| attempt.token == held.token)
            || record.orphans.iter().any(|orphan| orphan.gang == held.gang && orphan.token == held.token);
        held.live.is_some() || believed
    });
}

/// One boot is one machine: a device that it has lost since makes it no other, whose registration would be refused until
/// the work on the devices that are left is gone.
fn keep_hardware(known: &Inventory, found: &mut Arc<Inventory>) {
    if found.boot_id == known.boot_id && found.hardware_id != known.hardware_id {
        Arc::make_mut(found).hardware_id.clone_from(&known.hardware_id);
    }
}

/// The same agent process on the same boot, connected again.
fn is_same(record: &NodeRecord, registration: &Registration) -> bool {
    !record.from_backup
        && record.instance == registration.instance
        && record.store_id == registration.store_id
        && record.inventory == registration.inventory
}

async fn propose(sessions: &SessionsHandle, term: u64, command: Command) -> Result<Response, SessionError> {
    let committed = sessions.services.proposer.propose_in_term(term, command).await;
    committed.map(|committed| committed.response).map_err(|error| {
        tracing::info!(%error, "an agent could not be admitted");
        match error {
            // No other server could either.
            ProposeError::TooLarge { bytes, limit } => SessionError::TooLarge { bytes, limit },
            _ => SessionError::NotLeader,
        }
    })
}

impl Session {
    /// Returns how often the agent is to renew.
    fn welcome(&mut self) -> u64 {
        let state = self.sessions.services.consensus.view();
        let settings = state.settings();
        let renew_every_ms = renew_every_ms(settings);
        self.renew_every_ms = renew_every_ms;
        let known = state.node(self.member.node).map(|record| &record.inventory);
        let unregistered = known.map_or_else(Vec::new, |known| translate::unregistered(&self.inventory, known));
        self.outgoing.try_send(ToAgent::Welcome(wire::Welcome {
            node_id: self.member.node.0,
            epoch: self.member.epoch,
            session: self.member.session,
            cluster_id: self.sessions.services.cluster_id.clone(),
            lease_ms: settings.lease_ms(None),
            renew_every_ms,
            datagrams: self.sessions.services.datagrams,
            unregistered,
        }));
        renew_every_ms
    }

    async fn run(
        &mut self,
        mut incoming: Streaming<wire::AgentMessage>,
        mut ended: Ending,
    ) -> Result<(), SessionError> {
        let mut leadership = self.sessions.services.consensus.leadership();
        let news = self.outgoing.news.clone();
        // What it was admitted by is in it.
        self.sessions.go_on_to(self.sessions.services.consensus.view());
        self.outgoing.wake();
        loop {
            tokio::select! {
                biased;
                why = told_to_end(&mut ended) => return Err(SessionError::Ended(why)),
                leader_address = leadership_lost(&mut leadership) => {
                    self.outgoing.try_send(ToAgent::Redirect(wire::Redirect { leader_address, why: "leadership moved".into() }));
                    return Err(SessionError::NotLeader);
                }
                message = incoming.message() => match message.map_err(SessionError::Stream)? {
                    Some(message) => self.handle(message).await?,
                    None => return Ok(()),
                },
                () = news.notified() => self.tell(&self.sessions.view())?,
            }
        }
    }

    async fn handle(&mut self, message: wire::AgentMessage) -> Result<(), SessionError> {
        let services = &self.sessions.services;
        let Member { node, epoch, session } = self.member;
        // A renewal that names another session was sent to somebody else: no sign of life for this one.
        if !matches!(&message.body, Some(FromAgent::Renewal(renewal)) if renewal.session != session) {
            services.liveness.heard(node, services.clock.boottime_ms());
        }
        match message.body {
            Some(FromAgent::Renewal(renewal)) => {
                let answer = Answer { outgoing: self.outgoing.clone(), datagrams: None };
                self.sessions.renew(self.member, renewal.session, renewal.number, answer);
            }
            Some(FromAgent::Telemetry(telemetry)) => {
                let samples: Result<Vec<Sample>, _> = telemetry.samples.iter().map(Sample::try_from).collect();
                let samples = samples.map_err(|error| SessionError::Telemetry(error.to_string()))?;
                let samples = match inventory_of(services, node) {
                    Some(known) => translate::samples_in_states_slots(&samples, &self.inventory, &known),
                    None => Vec::new(),
                };
                services.heartbeats.sampled(node, &samples, heartbeats::slots_of(&services.consensus, node));
            }
            Some(FromAgent::Reports(reports)) => {
                let known = inventory_of(services, node);
                for report in reports.reports {
                    let device = translate::device_of(&report);
                    let mut report = translate::report(node, epoch, report)?;
                    if let Some(known) = &known {
                        report.body = translate::in_states_slots(report.body, &device, &self.inventory, known);
                    }
                    let arrived = Arrived { report, session: self.outgoing.clone() };
                    if !services.reports.report(arrived).await {
                        return Err(SessionError::Ended("the server stops"));
                    }
                }
            }
            Some(FromAgent::Log(chunk)) => self.sessions.chunk(node, session, chunk),
            Some(FromAgent::Hello(_)) | None => {}
        }
        Ok(())
    }

    /// Tells the agent what has changed for it.
    fn tell(&mut self, state: &State) -> Result<(), SessionError> {
        let Some(record) = state.node(self.member.node) else {
            return Err(SessionError::Ended("the node was removed"));
        };
        if record.epoch != self.member.epoch {
            return Err(SessionError::Ended("the node has registered again"));
        }
        // An agent that renews as before would count as silent between two renewals.
        if renew_every_ms(state.settings()) != self.renew_every_ms {
            return Err(SessionError::Ended("the cluster's times were changed"));
        }
        see_node_back(&self.sessions, self.member, state);
        if record.reports_applied > self.acknowledged {
            let number = record.reports_applied;
            if !self.outgoing.try_send(ToAgent::Acknowledged(wire::Acknowledged { number })) {
                return Err(SessionError::Ended("the agent does not read"));
            }
            self.acknowledged = number;
        }
        let now = desired(state, self.member.node);
        if self.told.as_ref().is_some_and(|told| told.parts == now.parts && told.generation == now.generation) {
            return Ok(());
        }
        if self.outgoing.try_send(ToAgent::Desired(translate::desired(&self.sessions.services.cluster_id, &now))) {
            self.told = Some(now);
        } else {
            return Err(SessionError::Ended("the agent does not read"));
        }
        Ok(())
    }
}

/// The node was called silent while its agent talks to us, by a slow moment or an old decision: says
/// that it is back, if it was heard since.
pub(crate) fn see_node_back(sessions: &SessionsHandle, member: Member, state: &State) {
    let Member { node, epoch, .. } = member;
    if state.node(node).is_none_or(|record| record.liveness == Liveness::Up) {
        return;
    }
    let services = &sessions.services;
    // What the observer would call silent again at once is not back.
    let recent_ms = RENEW_MS_MAX.min(state.settings().suspect_after_ms);
    if services.liveness.silent_ms(node, services.clock.boottime_ms()) >= recent_ms {
        return;
    }
    let sessions = sessions.clone();
    tokio::spawn(async move {
        let term = sessions.services.consensus.leadership().borrow().term;
        let _ = propose(&sessions, term, Command::NodeSeen { node, epoch }).await;
    });
}

/// What State knows of a node's devices. It changes only with a registration, which ends the session.
pub(crate) fn inventory_of(services: &Services, node: NodeId) -> Option<Arc<Inventory>> {
    services.consensus.view().node(node).map(|record| record.inventory.clone())
}

fn renew_every_ms(settings: &Settings) -> u64 {
    (settings.suspect_after_ms / RENEWALS_PER_SUSPICION).clamp(50, RENEW_MS_MAX)
}

async fn told_to_end(ended: &mut Ending) -> &'static str {
    ended.wait_for(Option::is_some).await.ok().and_then(|why| *why).unwrap_or("the server stops")
}

/// Returns where the leader is now, as far as known.
async fn leadership_lost(leadership: &mut watch::Receiver<Leadership>) -> String {
    leadership.wait_for(|now| !now.is_leader).await.ok().and_then(|now| now.leader_addr.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::fixture::inventory;

    #[test]
    fn within_a_boot_a_node_stays_the_hardware_it_was_and_another_boot_looks_again() {
        let known = inventory(8, "leaf-a");
        let mut found = inventory(7, "leaf-a");
        found.hardware_id = "with seven".into();
        let mut same_boot = Arc::new(found.clone());
        keep_hardware(&known, &mut same_boot);
        assert_eq!((same_boot.hardware_id.as_str(), same_boot.devices.len()), ("hw", 7));
        found.boot_id = "boot-2".into();
        let mut other_boot = Arc::new(found);
        keep_hardware(&known, &mut other_boot);
        assert_eq!(other_boot.hardware_id, "with seven");
    }
}
