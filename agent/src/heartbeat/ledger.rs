//! Which renewals are out, when each was sent, and whether the fast way answers. Pure: the caller
//! brings the time.

use super::Way;
use std::collections::BTreeMap;

/// Renewals remembered until they are answered.
const UNANSWERED_MAX: usize = 1_024;
/// The part of the renewal interval within which the fast way has to answer.
const GOOD_TIME_DIVISOR: u64 = 3;

/// A renewal to be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub number: u64,
    pub by_quic: bool,
    pub by_stream: bool,
}

/// All times are boot-clock milliseconds of this node.
#[derive(Debug)]
pub struct Ledger {
    every_ms: u64,
    renew_at_ms: u64,
    next: u64,
    /// When each unanswered renewal was sent, by number.
    sent: BTreeMap<u64, u64>,
    answered_ms: u64,
    fast: Option<Fast>,
}

/// Datagrams, where there are any.
#[derive(Debug, Default)]
struct Fast {
    /// The latest renewals were answered over it.
    answers: bool,
    /// A renewal that only it carried, and until when it is to be answered.
    awaited: Option<(u64, u64)>,
}

impl Ledger {
    /// The first renewal is due at once.
    pub fn new(now_ms: u64, every_ms: u64, has_quic: bool) -> Self {
        Self {
            every_ms: every_ms.max(1),
            renew_at_ms: now_ms,
            next: 1,
            sent: BTreeMap::new(),
            answered_ms: now_ms,
            fast: has_quic.then(Fast::default),
        }
    }

    /// When [`Self::due`] is to be asked again.
    pub fn next_ms(&self) -> u64 {
        let awaited = self.fast.as_ref().and_then(|fast| fast.awaited).map(|(_, until_ms)| until_ms);
        awaited.map_or(self.renew_at_ms, |until_ms| until_ms.min(self.renew_at_ms))
    }

    /// When the latest answer came.
    pub fn answered_ms(&self) -> u64 {
        self.answered_ms
    }

    /// Whether datagrams get through, as far as known.
    pub fn quic_answers(&self) -> bool {
        self.fast.as_ref().is_some_and(|fast| fast.answers)
    }

    /// What is to be sent at this moment, and by which way. The caller's clock was read before it
    /// leaves, so a lease never reaches further than the leader could have meant (rule 6).
    pub fn due(&mut self, now_ms: u64) -> Option<Due> {
        if now_ms >= self.renew_at_ms {
            self.renew_at_ms = now_ms + self.every_ms;
            let number = self.note(now_ms);
            let Some(fast) = &mut self.fast else {
                return Some(Due { number, by_quic: false, by_stream: true });
            };
            let by_stream = !fast.answers;
            if fast.answers {
                fast.awaited.get_or_insert((number, now_ms + self.every_ms / GOOD_TIME_DIVISOR));
            }
            return Some(Due { number, by_quic: true, by_stream });
        }
        let fast = self.fast.as_mut()?;
        let (_, until_ms) = fast.awaited?;
        if now_ms < until_ms {
            return None;
        }
        // From here on the stream carries every renewal, until a datagram is answered again.
        (fast.awaited, fast.answers) = (None, false);
        let number = self.note(now_ms);
        Some(Due { number, by_quic: false, by_stream: true })
    }

    fn note(&mut self, now_ms: u64) -> u64 {
        let number = self.next;
        self.next += 1;
        self.sent.insert(number, now_ms);
        while self.sent.len() > UNANSWERED_MAX {
            self.sent.pop_first();
        }
        number
    }

    /// An answer came. Returns when the renewal was sent, if that is news: a repeated answer, one
    /// that was overtaken and one to a renewal that was never sent change no lease.
    pub fn answered(&mut self, number: u64, way: Way, now_ms: u64) -> Option<u64> {
        if number == 0 || number >= self.next {
            return None;
        }
        if let (Way::Quic, Some(fast)) = (way, &mut self.fast) {
            fast.answers = true;
            fast.awaited = fast.awaited.filter(|(awaited, _)| *awaited > number);
        }
        let sent_ms = self.sent.remove(&number)?;
        self.sent = self.sent.split_off(&number);
        self.answered_ms = now_ms;
        Some(sent_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY_MS: u64 = 3_000;

    #[test]
    fn without_datagrams_every_renewal_goes_over_the_stream() {
        let mut ledger = Ledger::new(100, EVERY_MS, false);
        let due = |number| Some(Due { number, by_quic: false, by_stream: true });
        assert_eq!((ledger.due(100), ledger.due(100), ledger.next_ms()), (due(1), None, 3_100));
        assert_eq!(ledger.answered(1, Way::Stream, 150), Some(100));
        assert_eq!((ledger.due(3_100), ledger.answered_ms()), (due(2), 150));
    }

    #[test]
    fn a_lost_datagram_is_made_good_over_the_stream_and_the_fast_way_returns() {
        let mut ledger = Ledger::new(0, EVERY_MS, true);
        let both = |number| Some(Due { number, by_quic: true, by_stream: true });
        assert_eq!(ledger.due(0), both(1), "nobody knows yet whether UDP gets through");
        ledger.answered(1, Way::Quic, 10);
        assert_eq!(ledger.due(3_000), Some(Due { number: 2, by_quic: true, by_stream: false }));
        assert_eq!(ledger.next_ms(), 4_000);
        assert_eq!(ledger.due(3_999), None);
        let good = ledger.due(4_000);
        assert_eq!(good, Some(Due { number: 3, by_quic: false, by_stream: true }));
        assert_eq!(ledger.answered(3, Way::Stream, 4_010), Some(4_000), "counted from when it was sent itself");
        assert!(!ledger.quic_answers());
        assert_eq!((ledger.due(6_000), ledger.next_ms()), (both(4), 9_000), "both, and nothing is waited for");
        assert_eq!(ledger.answered(4, Way::Stream, 6_005), Some(6_000));
        assert_eq!(ledger.answered(4, Way::Quic, 6_006), None, "the lease has it already");
        assert!(ledger.quic_answers(), "but the way is open again");
        assert_eq!(ledger.due(9_000), Some(Due { number: 5, by_quic: true, by_stream: false }));
    }

    #[test]
    fn an_answer_in_good_time_leaves_the_stream_alone() {
        let mut ledger = Ledger::new(0, EVERY_MS, true);
        ledger.due(0);
        ledger.answered(1, Way::Quic, 1);
        for round in 1..100 {
            let now_ms = round * EVERY_MS;
            let due = ledger.due(now_ms).expect("due");
            assert!(due.by_quic && !due.by_stream);
            assert_eq!(ledger.answered(due.number, Way::Quic, now_ms + 900), Some(now_ms));
            assert_eq!(ledger.due(now_ms + 1_000), None);
        }
    }

    #[test]
    fn repeated_overtaken_and_invented_answers_change_nothing() {
        let mut ledger = Ledger::new(0, EVERY_MS, true);
        for round in 0..4 {
            ledger.due(round * EVERY_MS);
        }
        assert_eq!(ledger.answered(3, Way::Quic, 9_100), Some(6_000));
        assert_eq!(ledger.answered(3, Way::Quic, 9_200), None, "repeated");
        assert_eq!(ledger.answered(1, Way::Quic, 9_300), None, "overtaken");
        for invented in [0, 5, u64::MAX] {
            assert_eq!(ledger.answered(invented, Way::Quic, 9_400), None, "{invented} was never sent");
        }
        assert_eq!(ledger.answered_ms(), 9_100);
        assert_eq!(ledger.answered(4, Way::Stream, 9_500), Some(9_000));
    }

    #[test]
    fn whatever_arrives_in_whatever_order_a_lease_counts_from_a_renewal_that_was_sent_and_never_goes_back() {
        for seed in 1..200u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut next = move || {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random
            };
            let mut ledger = Ledger::new(0, EVERY_MS, seed % 3 != 0);
            let (mut sent, mut lease_ms, mut now_ms) = (BTreeMap::new(), 0, 0);
            for _ in 0..300 {
                now_ms += next() % 1_500;
                while let Some(due) = ledger.due(now_ms) {
                    assert!(due.by_quic || due.by_stream, "seed {seed}");
                    sent.insert(due.number, now_ms);
                }
                let (number, way) = (next() % 120, if next() % 2 == 0 { Way::Quic } else { Way::Stream });
                if let Some(counted_ms) = ledger.answered(number, way, now_ms) {
                    assert_eq!(sent.get(&number), Some(&counted_ms), "seed {seed}");
                    assert!(counted_ms >= lease_ms, "seed {seed}");
                    lease_ms = counted_ms;
                }
            }
            assert!(lease_ms > 0, "seed {seed} extended nothing");
        }
    }
}
