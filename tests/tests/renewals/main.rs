//! Lease renewals, by every way they can travel: one suite for both carriers, what only datagrams
//! have, other versions, and UDP blocked in the middle of a run.

mod certificates;
mod conformance;
mod datagrams;
mod udp_blocked;
mod versions;

use muster_agent::heartbeat::{Carrier, Renewal};
use std::time::Duration;

/// For an answer that has to come.
const ANSWER: Duration = Duration::from_secs(20);

/// Renews and collects answers until the one to `number` is there.
///
/// # Panics
/// When it does not come, though the renewal is sent again and again under the same number.
async fn renewed(carrier: &mut dyn Carrier, session: u64, number: u64) -> Vec<Renewal> {
    let wanted = Renewal { session, number };
    let mut answers = Vec::new();
    let done = async {
        loop {
            carrier.renew(wanted).await;
            // A datagram may be lost; another follows.
            while let Ok(answer) = tokio::time::timeout(Duration::from_secs(1), carrier.extended()).await {
                answers.push(answer);
                if answer == wanted {
                    return;
                }
            }
        }
    };
    let done = tokio::time::timeout(ANSWER, done).await;
    done.unwrap_or_else(|_| panic!("renewal {number} of session {session} was not answered; got {answers:?}"));
    answers
}
