//! Where an agent that asks a server other than the leader is sent.

use crate::consensus::Leadership;
use muster_runtime::clock::Clock;
use tokio::sync::watch;

/// An agent that asks while nobody is known to lead is answered by then at the latest: it keeps one quiet stream
/// in place of knocking, and hears of the new leader at once. Less than a server that stops gives its streams.
const HOLD_MS: u64 = 3_000;

/// The leader's address, empty if none is known, for an agent that could not reach `unreachable`; `None` when this
/// server serves agents itself. Waits up to [`HOLD_MS`] for somebody to lead.
pub async fn elsewhere(
    mut leadership: watch::Receiver<Leadership>,
    unreachable: &str,
    clock: &dyn Clock,
) -> Option<String> {
    let asked_in = leadership.borrow().term;
    let known = |now: &Leadership| match &now.leader_addr {
        // In another term the same server leads again.
        Some(address) => !now.is_leader && (address != unreachable || now.term != asked_in),
        None => false,
    };
    tokio::select! {
        // Fails when this server stops.
        _ = leadership.wait_for(|now| now.first_index_of_term_applied || known(now)) => {}
        () = clock.sleep_ms(HOLD_MS) => {}
    }
    let now = leadership.borrow();
    if now.first_index_of_term_applied {
        return None;
    }
    Some(now.leader_addr.clone().filter(|_| !now.is_leader).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_runtime::clock::SystemClock;
    use tokio::task::JoinHandle;

    fn led_by(address: &str, term: u64) -> Leadership {
        Leadership { term, leader: Some(1), leader_addr: Some(address.to_owned()), ..Leadership::default() }
    }

    /// Asks, and lets the question reach the point where it waits.
    async fn ask(of: &watch::Sender<Leadership>, unreachable: &'static str) -> JoinHandle<Option<String>> {
        let leadership = of.subscribe();
        let asked = tokio::spawn(async move { elsewhere(leadership, unreachable, &SystemClock).await });
        tokio::task::yield_now().await;
        asked
    }

    #[tokio::test]
    async fn an_agent_is_sent_to_the_leader_at_once() {
        let (servers, _kept) = watch::channel(led_by("a:1", 4));
        assert_eq!(ask(&servers, "").await.await.unwrap().as_deref(), Some("a:1"));
        assert_eq!(ask(&servers, "b:1").await.await.unwrap().as_deref(), Some("a:1"));
    }

    #[tokio::test]
    async fn an_agent_that_did_not_reach_the_leader_hears_of_the_next_one_as_soon_as_there_is_one() {
        let (servers, _kept) = watch::channel(led_by("a:1", 4));
        let asked = ask(&servers, "a:1").await;
        servers.send_replace(Leadership { term: 5, ..Leadership::default() });
        tokio::task::yield_now().await;
        assert!(!asked.is_finished(), "nobody leads yet");
        servers.send_replace(led_by("b:1", 5));
        assert_eq!(asked.await.unwrap().as_deref(), Some("b:1"));

        let asked = ask(&servers, "b:1").await;
        servers.send_replace(led_by("b:1", 6));
        assert_eq!(asked.await.unwrap().as_deref(), Some("b:1"), "it leads again");
    }

    #[tokio::test]
    async fn a_server_that_comes_to_lead_serves_the_agent_once_it_has_applied_its_first_entry() {
        let (servers, _kept) = watch::channel(led_by("a:1", 4));
        let asked = ask(&servers, "a:1").await;
        let mut own = Leadership { is_leader: true, ..led_by("b:1", 5) };
        servers.send_replace(own.clone());
        tokio::task::yield_now().await;
        assert!(!asked.is_finished(), "its state may be behind");
        own.first_index_of_term_applied = true;
        servers.send_replace(own);
        assert_eq!(asked.await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_agent_is_not_held_by_a_server_that_stops() {
        let (servers, kept) = watch::channel(Leadership::default());
        drop(kept);
        let asked = ask(&servers, "").await;
        drop(servers);
        assert_eq!(asked.await.unwrap().as_deref(), Some(""));
    }
}
