//! One session with one server, from hello to its end.

use super::{Link, LinkError, renew, translate};
use crate::assignment::Desired;
use crate::heartbeat::{Carrier, QuicCarrier, Renewal, StreamCarrier, Way, Ways};
use crate::logs::Streamer;
use muster_proto::agent as wire;
use muster_proto::datagram;
use muster_runtime::identity::explain_transport;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use wire::agent_message::Body as ToServer;
use wire::server_message::Body as FromServer;

/// Control messages on their way; log chunks on theirs.
const OUTGOING: usize = 64;
const LOG_CHUNKS: usize = 4;
/// A server answers the first message within this, and takes any message within this.
const ANSWER_WITHIN_MS: u64 = 10_000;
/// Renewals without an answer before the server counts as gone, and the least time for that.
const UNANSWERED_RENEWALS: u64 = 5;
const SILENCE_MS_MIN: u64 = 5_000;
const REPORTS_AT_ONCE: usize = 256;
const LOG_STREAMS_MAX: usize = 64;
const CERTIFICATE_LOOK_MS: u64 = 3_600_000;

/// How a session ended.
#[derive(Debug)]
pub enum Ended {
    /// Another server leads; its address, if known.
    Redirected(String),
    /// It never began.
    Refused(String),
    /// It began, and then broke.
    Lost(String),
}

/// A session past its welcome.
struct Session<'a> {
    link: &'a Link,
    outgoing: mpsc::Sender<wire::AgentMessage>,
    log_chunks: mpsc::Sender<wire::LogChunk>,
    /// What the renewals travel by.
    ways: Ways,
    /// Answers that came over the stream.
    answers: mpsc::Sender<Renewal>,
    reported: u64,
    streams: BTreeMap<u64, AbortHandle>,
    streaming: JoinSet<u64>,
    /// The look at the certificate; it ends with the session.
    renewing: JoinSet<()>,
}

impl Link {
    /// `unreachable` is a leader that was named and not there.
    pub(super) async fn session(&self, address: &str, unreachable: &str) -> Result<Ended, LinkError> {
        let mut client = self.client(address)?;
        let (outgoing, control) = mpsc::channel(OUTGOING);
        let (log_chunks, logs) = mpsc::channel(LOG_CHUNKS);
        let introduction = self.core.introduce().await?;
        let identity = self.credentials.current();
        let mut hello = translate::hello(introduction, &self.inventory, &identity.name().name, &self.instance);
        hello.unreachable_leader = unreachable.to_owned();
        if self.uses_datagrams() {
            hello.datagram_version = datagram::NEWEST.into();
        }
        let first = wire::AgentMessage { body: Some(ToServer::Hello(hello)) };
        let logs = ReceiverStream::new(logs).map(|chunk| wire::AgentMessage { body: Some(ToServer::Log(chunk)) });
        let stream = tokio_stream::once(first).chain(ReceiverStream::new(control).merge(logs));
        let opened = tokio::select! {
            opened = client.control(stream) => opened,
            () = self.clock.sleep_ms(ANSWER_WITHIN_MS) => return Ok(Ended::Refused("no answer in time".to_owned())),
        };
        let mut incoming = match opened {
            Ok(opened) => opened.into_inner(),
            Err(status) => return Ok(Ended::Refused(words(&status))),
        };
        let welcome = match self.first_answer(&mut incoming).await {
            Ok(welcome) => welcome,
            Err(ended) => return Ok(ended),
        };
        if !self.core.joined(welcome.cluster_id.clone(), welcome.unregistered.clone()).await? {
            return Ok(Ended::Refused(format!("it serves another cluster, {}", welcome.cluster_id)));
        }
        tracing::info!(%address, session = welcome.session, node = welcome.node_id, "joined the leader");
        self.server.send_replace(Some(client));
        let (stream, answers) = StreamCarrier::new(outgoing.clone(), self.clock.clone(), ANSWER_WITHIN_MS);
        let quic = self.datagrams(address, &welcome);
        let now_ms = self.clock.boottime_ms();
        let session = Session {
            link: self,
            outgoing,
            log_chunks,
            ways: Ways::new(welcome.session, now_ms, welcome.renew_every_ms, Box::new(stream), quic),
            answers,
            reported: 0,
            streams: BTreeMap::new(),
            streaming: JoinSet::new(),
            renewing: JoinSet::new(),
        };
        session.run(incoming, welcome.renew_every_ms.max(1)).await
    }

    /// The way for datagrams, when both sides would use it and speak one version.
    fn datagrams(&self, address: &str, welcome: &wire::Welcome) -> Option<Box<dyn Carrier>> {
        let offered = welcome.datagrams.filter(|_| self.uses_datagrams())?;
        let shared = (offered.oldest_version..=offered.newest_version).contains(&datagram::NEWEST.into());
        if !shared {
            let (oldest, newest) = (offered.oldest_version, offered.newest_version);
            tracing::warn!(
                oldest,
                newest,
                ours = datagram::NEWEST,
                "the leader speaks other versions of datagrams; renewals stay on the stream"
            );
            return None;
        }
        let port = u16::try_from(offered.port).ok()?;
        let (credentials, clock) = (self.credentials.clone(), self.clock.clone());
        Some(Box::new(QuicCarrier::start(address, port, credentials, clock, self.backoff.clone())))
    }

    async fn first_answer(&self, incoming: &mut Streaming<wire::ServerMessage>) -> Result<wire::Welcome, Ended> {
        let message = tokio::select! {
            message = incoming.message() => message,
            () = self.clock.sleep_ms(ANSWER_WITHIN_MS) => return Err(Ended::Refused("no answer in time".to_owned())),
        };
        match message.map(|message| message.and_then(|message| message.body)) {
            Ok(Some(FromServer::Welcome(welcome))) => Ok(welcome),
            Ok(Some(FromServer::Redirect(redirect))) => Err(Ended::Redirected(redirect.leader_address)),
            Ok(_) => Err(Ended::Refused("its first message was no welcome".to_owned())),
            Err(status) => Err(Ended::Refused(words(&status))),
        }
    }
}

fn words(status: &tonic::Status) -> String {
    explain_transport(status).unwrap_or_else(|| status.message().to_owned())
}

impl Session<'_> {
    async fn run(
        mut self,
        mut incoming: Streaming<wire::ServerMessage>,
        renew_every_ms: u64,
    ) -> Result<Ended, LinkError> {
        let clock = self.link.clock.clone();
        let mut pending = self.link.core.pending();
        pending.mark_changed();
        let silence_ms = (renew_every_ms * UNANSWERED_RENEWALS).max(SILENCE_MS_MIN);
        let mut samples = self.link.samples.clone();
        let mut certificate_at_ms = clock.boottime_ms();
        loop {
            let now_ms = clock.boottime_ms();
            if now_ms.saturating_sub(self.ways.ledger().answered_ms()) > silence_ms {
                return Ok(Ended::Lost(format!("no renewal was answered for {silence_ms} ms")));
            }
            if now_ms >= certificate_at_ms {
                certificate_at_ms = now_ms + CERTIFICATE_LOOK_MS;
                self.renew_certificate();
            }
            if !self.ways.renew(now_ms).await {
                return Ok(Ended::Lost("it takes no messages".to_owned()));
            }
            let next_ms = self.ways.ledger().next_ms();
            let ended = tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(message)) => self.handle(message).await?,
                    Ok(None) => Some(Ended::Lost("the server closed the stream".to_owned())),
                    Err(status) => Some(Ended::Lost(words(&status))),
                },
                changed = pending.changed() => match changed {
                    Ok(()) => {
                        let reports = pending.borrow_and_update().clone();
                        (!self.report(&reports).await).then(|| Ended::Lost("it takes no messages".to_owned()))
                    }
                    Err(_) => Some(Ended::Lost("the agent is ending".to_owned())),
                },
                (answer, way) = self.ways.extended() => {
                    self.extended(answer, way).await?;
                    None
                }
                Ok(()) = samples.changed() => {
                    let samples = samples.borrow_and_update().clone();
                    self.ways.tell(&samples, clock.boottime_ms()).await;
                    None
                }
                Some(done) = self.streaming.join_next() => {
                    done.into_iter().for_each(|request| drop(self.streams.remove(&request)));
                    None
                }
                () = clock.sleep_until_ms(next_ms) => None,
            };
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
    }

    /// False when the server takes nothing any more.
    async fn send(&self, body: ToServer) -> bool {
        tokio::select! {
            sent = self.outgoing.send(wire::AgentMessage { body: Some(body) }) => sent.is_ok(),
            () = self.link.clock.sleep_ms(ANSWER_WITHIN_MS) => false,
        }
    }

    /// Rule 6: the lease counts from when the renewal was sent.
    async fn extended(&mut self, answer: Renewal, way: Way) -> Result<(), LinkError> {
        match self.ways.answered(answer, way, self.link.clock.boottime_ms()) {
            Some(sent_ms) => Ok(self.link.core.lease_extended(sent_ms).await?),
            None => Ok(()),
        }
    }

    async fn report(&mut self, reports: &BTreeMap<u64, crate::store::Report>) -> bool {
        let devices = &self.link.inventory.devices;
        let fresh = reports.range(self.reported + 1..);
        let fresh: Vec<wire::Report> =
            fresh.map(|(number, report)| translate::report(*number, report, devices)).collect();
        for batch in fresh.chunks(REPORTS_AT_ONCE) {
            if !self.send(ToServer::Reports(wire::Reports { reports: batch.to_vec() })).await {
                return false;
            }
            self.reported = batch.last().map_or(self.reported, |report| report.number);
        }
        true
    }

    async fn handle(&mut self, message: wire::ServerMessage) -> Result<Option<Ended>, LinkError> {
        let core = &self.link.core;
        match message.body {
            Some(FromServer::Desired(desired)) => match Desired::try_from(desired) {
                Ok(desired) => core.desired(desired).await?,
                Err(error) => return Ok(Some(Ended::Lost(format!("it sent nonsense: {error}")))),
            },
            Some(FromServer::Acknowledged(acknowledged)) => core.acknowledged(acknowledged.number).await?,
            Some(FromServer::Lease(lease)) => {
                let answer = Renewal { session: lease.session, number: lease.number };
                // One too many is made good by the next renewal.
                let _ = self.answers.try_send(answer);
            }
            Some(FromServer::Log(request)) => self.handle_log(request),
            Some(FromServer::Redirect(redirect)) => return Ok(Some(Ended::Redirected(redirect.leader_address))),
            Some(FromServer::Welcome(_)) | None => {}
        }
        Ok(None)
    }

    fn handle_log(&mut self, request: wire::LogRequest) {
        let id = request.request;
        if let Some(running) = self.streams.remove(&id) {
            running.abort();
        }
        if request.cancel {
            return;
        }
        if self.streams.len() >= LOG_STREAMS_MAX {
            let error = format!("this node already streams {LOG_STREAMS_MAX} logs; try again later");
            let refusal = wire::LogChunk { request: id, end: true, error, ..Default::default() };
            // Without room even for this, the client's own timeout tells it.
            let _ = self.log_chunks.try_send(refusal);
            return;
        }
        let streamer = Streamer {
            paths: self.link.paths.clone(),
            live: self.link.core.live(),
            clock: self.link.clock.clone(),
            chunks: self.log_chunks.clone(),
        };
        let task = self.streaming.spawn(async move {
            streamer.serve(request).await;
            id
        });
        self.streams.insert(id, task);
    }

    fn renew_certificate(&mut self) {
        let Some(mut client) = self.link.server.borrow().clone() else { return };
        let (credentials, folder) = (self.link.credentials.clone(), self.link.identity_dir.clone());
        let clock = self.link.clock.clone();
        // Beside the session, whose renewals of leases wait neither for the answer nor for the disk.
        self.renewing = JoinSet::new();
        self.renewing.spawn(async move {
            let renewed = tokio::select! {
                renewed = renew::renew_if_due(&mut client, &credentials, &folder, clock.as_ref()) => renewed,
                () = clock.sleep_ms(ANSWER_WITHIN_MS) => return,
            };
            if let Err(error) = renewed {
                tracing::warn!(%error, "the node's certificate could not be renewed; it will be tried again");
            }
        });
    }
}
