//! The control stream as a carrier: ordered, and always there while there is a session.

use super::{Carrier, Renewal, Sample, Way};
use async_trait::async_trait;
use muster_proto::agent as wire;
use muster_runtime::clock::Clock;
use std::sync::Arc;
use tokio::sync::mpsc;
use wire::agent_message::Body;

/// Answers that wait to be looked at; there is never more than a handful.
const ANSWERS_MAX: usize = 64;

/// Sends into the control stream. Whoever reads that stream passes the answers in.
pub struct StreamCarrier {
    outgoing: mpsc::Sender<wire::AgentMessage>,
    answers: mpsc::Receiver<Renewal>,
    clock: Arc<dyn Clock>,
    within_ms: u64,
}

impl StreamCarrier {
    /// A message that the stream does not take `within_ms` did not leave.
    pub fn new(
        outgoing: mpsc::Sender<wire::AgentMessage>,
        clock: Arc<dyn Clock>,
        within_ms: u64,
    ) -> (Self, mpsc::Sender<Renewal>) {
        let (passed_in, answers) = mpsc::channel(ANSWERS_MAX);
        (Self { outgoing, answers, clock, within_ms }, passed_in)
    }
}

#[async_trait]
impl Carrier for StreamCarrier {
    fn way(&self) -> Way {
        Way::Stream
    }

    async fn renew(&mut self, renewal: Renewal) -> bool {
        let Renewal { session, number } = renewal;
        let body = Some(Body::Renewal(wire::Renewal { session, number }));
        tokio::select! {
            sent = self.outgoing.send(wire::AgentMessage { body }) => sent.is_ok(),
            () = self.clock.sleep_ms(self.within_ms) => false,
        }
    }

    /// Left out when the stream is busy: a newer one follows.
    async fn tell(&mut self, _session: u64, samples: &[Sample]) -> bool {
        let telemetry = wire::Telemetry { samples: samples.iter().map(Into::into).collect() };
        self.outgoing.try_send(wire::AgentMessage { body: Some(Body::Telemetry(telemetry)) }).is_ok()
    }

    async fn extended(&mut self) -> Renewal {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}
