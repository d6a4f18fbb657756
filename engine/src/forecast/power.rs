//! Machines that go to sleep and come back, after the time that the world says.

use super::{Happening, Hooks, PlayError, Player};
use crate::command::{Command, PowerAnswer, Registration};
use crate::state::node::{NodeRecord, Power};
use muster_common::{NodeId, Time};

/// With the answers of agents.
const ENDS: u8 = 1;

impl Player {
    pub(super) fn put_to_sleep(&mut self, node: NodeId, at: Time, hooks: &mut dyn Hooks) -> Result<(), PlayError> {
        match hooks.sleep_ms(&self.state, node) {
            Some(0) => self.answer_asleep(node, at, hooks)?,
            Some(ms) => {
                let asked = self.state.now();
                self.insert(at.plus_ms(ms), ENDS, Happening::Asleep { node, asked });
            }
            None => {
                let answer = PowerAnswer::NotAsleep { why: "nobody can switch it".into() };
                self.answer_power(node, answer, at, hooks)?;
            }
        }
        Ok(())
    }

    pub(super) fn wake(&mut self, node: NodeId, at: Time, hooks: &mut dyn Hooks) {
        if let Some(ms) = hooks.wake_ms(&self.state, node) {
            let asked = self.state.now();
            self.insert(at.plus_ms(ms), ENDS, Happening::Awake { node, asked });
        }
    }

    pub(super) fn fell_asleep(
        &mut self,
        (node, asked): (NodeId, Time),
        at: Time,
        hooks: &mut dyn Hooks,
    ) -> Result<(), PlayError> {
        let power = self.state.node(node).map(|record| record.power);
        match power {
            Some(Power::FallingAsleep { since, .. }) if since == asked => self.answer_asleep(node, at, hooks),
            _ => Ok(()),
        }
    }

    fn answer_asleep(&mut self, node: NodeId, at: Time, hooks: &mut dyn Hooks) -> Result<(), PlayError> {
        self.answer_power(node, PowerAnswer::Asleep, at, hooks)
    }

    fn answer_power(
        &mut self,
        node: NodeId,
        answer: PowerAnswer,
        at: Time,
        hooks: &mut dyn Hooks,
    ) -> Result<(), PlayError> {
        let Some(epoch) = self.state.node(node).map(|record| record.epoch) else { return Ok(()) };
        self.commit(at, Command::NodePower { node, epoch, answer }, hooks).map(drop)
    }

    /// With another boot, as a machine that was off.
    pub(super) fn woke_up(
        &mut self,
        (node, asked): (NodeId, Time),
        at: Time,
        hooks: &mut dyn Hooks,
    ) -> Result<(), PlayError> {
        let Some(record) = self.state.node(node) else { return Ok(()) };
        match record.power {
            Power::Waking { since, .. } if since == asked => {
                let registration = registration(record);
                self.commit(at, Command::RegisterNode(Box::new(registration)), hooks).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Takes over what State says is on its way.
    pub(super) fn adopt_power(&mut self, at: Time, hooks: &mut dyn Hooks) -> Result<(), PlayError> {
        let changing = self.state.nodes().values().filter(|record| record.power.is_changing());
        let changing: Vec<(NodeId, Power)> = changing.map(|record| (record.id, record.power)).collect();
        for (node, power) in changing {
            match power {
                Power::FallingAsleep { .. } => self.put_to_sleep(node, at, hooks)?,
                Power::Waking { since, .. } => {
                    if let Some(ms) = hooks.wake_ms(&self.state, node) {
                        self.insert(since.plus_ms(ms).max(at), ENDS, Happening::Awake { node, asked: since });
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn registration(record: &NodeRecord) -> Registration {
    let mut inventory = (*record.inventory).clone();
    inventory.boot_id = format!("woken-{}", record.epoch);
    Registration {
        name: record.name.clone(),
        inventory: inventory.into(),
        store_id: record.store_id.clone(),
        instance: format!("woken-{}", record.epoch),
        store_lost: false,
        old_boot_silent: true,
        held: Vec::new(),
    }
}
