//! Silence: an observation that sessions propose, and what it allows (rules 7 and 8).

use super::{Applying, Result};
use crate::outcome::{Event, Refusal, Response};
use crate::state::gang::Cause;
use crate::state::node::Liveness;
use muster_common::NodeId;

impl Applying<'_> {
    /// Only the leader that observed the silence may have it committed: an entry proposed in an
    /// older term says nothing about now.
    fn check_observer(&self, node: NodeId, epoch: u64, term: u64) -> Result<()> {
        if term != self.entry.term {
            return Err(Refusal::OldTerm { proposed: term, term: self.entry.term });
        }
        self.check_epoch(node, epoch)
    }

    pub(super) fn check_epoch(&self, node: NodeId, epoch: u64) -> Result<()> {
        let record = self.state.nodes.get(&node).ok_or(Refusal::UnknownNode(node))?;
        if record.epoch != epoch {
            return Err(Refusal::OldEpoch { node, epoch: record.epoch });
        }
        Ok(())
    }

    pub(super) fn node_seen(&mut self, node: NodeId, epoch: u64) -> Result {
        self.check_epoch(node, epoch)?;
        if self.state.nodes.get(&node).is_some_and(|record| record.liveness == Liveness::Up) {
            return Ok(Response::Noop);
        }
        self.node_mut(node).liveness = Liveness::Up;
        self.event(Event::NodeSeen { node });
        Ok(Response::Done)
    }

    pub(super) fn node_silent(&mut self, node: NodeId, epoch: u64, term: u64) -> Result {
        self.check_observer(node, epoch, term)?;
        let since = self.now();
        let record = self.node_mut(node);
        // Nothing is expected to be heard of one that sleeps.
        if record.liveness != Liveness::Up || !record.power.is_awake() {
            return Ok(Response::Noop);
        }
        record.liveness = Liveness::Silent { since };
        self.event(Event::NodeSilent { node });
        Ok(Response::Done)
    }

    pub(super) fn node_fenced(&mut self, node: NodeId, epoch: u64, term: u64, waited_ms: u64) -> Result {
        self.check_observer(node, epoch, term)?;
        let since = self.now();
        let record = self.state.nodes.get(&node).expect("checked above");
        if record.liveness == Liveness::Up {
            return Ok(Response::Noop);
        }
        let over: Vec<_> = record
            .gangs
            .iter()
            .copied()
            .filter(|gang| {
                let fence_after_ms = self.scheduling_of(*gang).fence_after_ms;
                self.state.settings.fence_after_ms(fence_after_ms) <= waited_ms
            })
            .collect();
        if waited_ms >= self.state.settings.fence_after_ms(None) && !matches!(record.liveness, Liveness::Fenced { .. })
        {
            self.node_mut(node).liveness = Liveness::Fenced { since };
            self.event(Event::NodeFenced { node });
        }
        for gang in over {
            self.stop(gang, Cause::NodeLost { node });
            let attempt = self.state.gangs.get(&gang).and_then(|record| record.current());
            if let Some(at) = attempt.and_then(|attempt| attempt.part_on(node)) {
                self.fence_part(gang, at);
            }
            self.finish_if_settled(gang);
        }
        Ok(Response::Done)
    }
}
