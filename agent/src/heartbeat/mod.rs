//! Ways for what is small and comes often: lease renewals, their answers, telemetry.
//!
//! [`StreamCarrier`] uses the control stream, [`QuicCarrier`] datagrams beside it. [`Ways`] sends by
//! the fast one first and makes good over the stream what was not answered in time, so that losing
//! UDP loses speed and never a lease (rule 6).

mod ledger;
mod quic;
mod stream;
mod ways;

pub use ledger::{Due, Ledger};
pub use quic::QuicCarrier;
pub use stream::StreamCarrier;
pub use ways::Ways;

pub use crate::link::Backoff;
pub use muster_proto::datagram::{Renewal, Sample};

use async_trait::async_trait;

/// How something travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Quic,
    Stream,
}

/// Carries renewals of one control session to the server that holds it, and its answers back. May
/// lose, repeat and reorder; never invents an answer.
#[async_trait]
pub trait Carrier: Send + Sync {
    fn way(&self) -> Way;

    /// False when it surely did not leave.
    async fn renew(&mut self, renewal: Renewal) -> bool;

    /// How devices are doing; false when it surely did not leave.
    async fn tell(&mut self, session: u64, samples: &[Sample]) -> bool;

    /// The next answer; waits for ever when none comes any more. Safe to drop.
    async fn extended(&mut self) -> Renewal;
}
