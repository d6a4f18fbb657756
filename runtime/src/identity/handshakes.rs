//! Handshakes that are not finished: bounded, and shared out among the places they come from.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::shutdown::Shutdown;

/// An address as far as it is somebody's: of IPv6 the network of 64 bits, for whoever has one address in it has them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source(IpAddr);

impl Source {
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
            v4 => v4,
        })
    }
}

/// Everything under way. Clones count together.
#[derive(Debug, Clone)]
pub(super) struct Handshakes {
    open: Arc<Mutex<Open>>,
    most: usize,
    most_of_address: usize,
}

#[derive(Debug, Default)]
struct Open {
    begun: u64,
    all: usize,
    /// Those of each source with what cuts them, the oldest first; a source without any is not kept.
    by_source: BTreeMap<Source, BTreeMap<u64, (IpAddr, Shutdown)>>,
}

/// The place of one handshake; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    source: Source,
    number: u64,
    handshakes: Handshakes,
}

impl Handshakes {
    pub(super) fn new(most: usize, most_of_address: usize) -> Self {
        Self { open: Arc::default(), most, most_of_address }
    }

    /// A place, unless the address has its most already. When all are taken another handshake is ended for it, the
    /// oldest of whatever source has the most: a newcomer never waits for those who keep their places without a word. The
    /// bound is each address's own, or one host would keep out all that share its network.
    pub(super) fn enter(&self, from: IpAddr, cut: Shutdown) -> Option<Turn> {
        let (source, address) = (Source::of(from), from.to_canonical());
        let mut open = self.lock();
        let own = open.by_source.get(&source).into_iter().flat_map(BTreeMap::values);
        if own.filter(|(whose, _)| *whose == address).count() >= self.most_of_address {
            return None;
        }
        let ended = if open.all >= self.most { open.take_from_the_largest() } else { None };
        if open.all >= self.most {
            return None;
        }
        let number = open.begun;
        open.begun += 1;
        open.all += 1;
        open.by_source.entry(source).or_default().insert(number, (address, cut));
        drop(open);
        if let Some(ended) = ended {
            ended.trigger();
        }
        Some(Turn { source, number, handshakes: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Of sources with as many, it is the turn of the one with the oldest.
    fn take_from_the_largest(&mut self) -> Option<Shutdown> {
        let oldest = |own: &BTreeMap<u64, (IpAddr, Shutdown)>| own.keys().next().copied();
        let largest = self.by_source.iter().max_by_key(|(_, own)| (own.len(), Reverse(oldest(own))));
        let (source, number) = largest.and_then(|(source, own)| Some((*source, oldest(own)?)))?;
        self.take(source, number)
    }

    fn take(&mut self, source: Source, number: u64) -> Option<Shutdown> {
        let own = self.by_source.get_mut(&source)?;
        let (_, cut) = own.remove(&number)?;
        if own.is_empty() {
            self.by_source.remove(&source);
        }
        self.all -= 1;
        Some(cut)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // It is gone already if it was ended for another.
        self.handshakes.lock().take(self.source, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn source(text: &str) -> Source {
        Source::of(address(text))
    }

    #[test]
    fn the_oldest_of_the_largest_source_makes_room_for_a_newcomer() {
        let handshakes = Handshakes::new(4, 3);
        let enter = |from: &str| {
            let cut = Shutdown::new();
            handshakes.enter(address(from), cut.clone()).map(|turn| (turn, cut))
        };
        let crowd: Vec<_> = (0..3).map(|_| enter("10.0.0.1").expect("room")).collect();
        assert!(enter("10.0.0.1").is_none(), "beyond its own bound");
        let alone = enter("10.0.0.2").expect("room");
        let newcomer = enter("10.0.0.3").expect("room is made");
        let ended: Vec<_> = crowd.iter().map(|(_, cut)| cut.is_triggered()).collect();
        assert_eq!(ended, [true, false, false]);
        let another = enter("10.0.0.4").expect("room is made");
        assert!(crowd[1].1.is_triggered() && !crowd[2].1.is_triggered());
        // With one each it is the turn of the oldest.
        let last = enter("10.0.0.5").expect("room is made");
        assert!(crowd[2].1.is_triggered() && !alone.1.is_triggered() && !newcomer.1.is_triggered());
        drop((crowd, alone, newcomer, another, last));
        let open = handshakes.lock();
        assert!(open.all == 0 && open.by_source.is_empty(), "a place was not given back: {open:?}");
    }

    #[test]
    fn a_host_that_has_its_most_keeps_none_of_its_network_out() {
        let handshakes = Handshakes::new(4, 3);
        let enter = |from: &str| handshakes.enter(address(from), Shutdown::new());
        let silent: Vec<_> = (0..3).map(|_| enter("2001:db8::1").expect("room")).collect();
        assert!(enter("2001:db8::1").is_none());
        let neighbour = enter("2001:db8::2").expect("room");
        let another = enter("2001:db8::3").expect("room is made");
        assert_eq!(handshakes.lock().all, 4);
        drop((silent, neighbour, another));
        assert_eq!(handshakes.lock().all, 0);
    }

    #[test]
    fn without_any_place_nobody_enters() {
        assert!(Handshakes::new(0, 1).enter(address("10.0.0.1"), Shutdown::new()).is_none());
        assert!(Handshakes::new(1, 0).enter(address("10.0.0.1"), Shutdown::new()).is_none());
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_a_mapped_address_is_the_ipv4_one() {
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    }
}
