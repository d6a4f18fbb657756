//! The store's writes, and what waits for them: nothing that depends on a change is done, shown or told before the change
//! is durable, and all changes of the messages that came together share one write.

use super::{Core, CoreError, Introduction};
use crate::assignment::{Key, StopRules};
use crate::device::Load;
use crate::health::Devices;
use crate::runner::Beginning;
use crate::store::{Store, remove_folder};
use muster_runtime::reply::Reply;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::runtime::{Handle, RuntimeFlavor};

/// What the store's file lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unsaved {
    Nothing,
    /// What may be lost: without it something is said or cleared away a second time.
    Little,
    /// What something depends on.
    Much,
}

/// What waits for the store.
pub(super) enum Effect {
    Introduce(Reply<Introduction>),
    Joined(Reply<bool>, bool),
    /// A fact is safe.
    Told(Reply<()>),
    Start(Key, Beginning),
    Go(Key),
    Stop(Key, StopRules),
    /// The folder of an allocation that is no longer held.
    Remove(Key),
}

impl Core {
    /// The next step depends on what was changed.
    pub(super) fn must_save(&mut self) {
        self.unsaved = Unsaved::Much;
    }

    /// What was changed goes with the next write, or with one of its own when there is time.
    pub(super) fn may_save(&mut self) {
        self.unsaved = self.unsaved.max(Unsaved::Little);
    }

    /// Makes the changes durable that must be, shows what is, and does what waited for it.
    pub(super) fn settle(&mut self) -> Result<(), CoreError> {
        if self.unsaved == Unsaved::Much {
            self.save()?;
        }
        self.show();
        for effect in std::mem::take(&mut self.effects) {
            self.perform(effect);
        }
        Ok(())
    }

    /// Makes every change durable, and only then shows it.
    pub(super) fn save(&mut self) -> Result<(), CoreError> {
        if self.unsaved != Unsaved::Nothing {
            let store = &mut self.parts.store;
            // A slow disk must hold up neither renewals nor logs; a runtime of one thread has no other to give them to.
            let alone = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
            if alone {
                store.save()?
            } else {
                tokio::task::block_in_place(|| store.save())?
            }
            self.unsaved = Unsaved::Nothing;
        }
        self.show();
        Ok(())
    }

    /// Only after a write, or when nothing was added since the last.
    fn show(&self) {
        let store = &self.parts.store;
        if **self.pending.borrow() != *store.reports() {
            self.pending.send_replace(Arc::new(store.reports().clone()));
        }
        let live: BTreeSet<Key> = store.held().iter().filter(|(_, held)| !held.gone).map(|(key, _)| *key).collect();
        if **self.live.borrow() != live {
            self.live.send_replace(Arc::new(live));
        }
        self.load.send_replace(load_of(store, &self.parts.devices));
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Introduce(reply) => reply.send(self.introduction()),
            Effect::Joined(reply, ours) => reply.send(ours),
            Effect::Told(reply) => reply.send(()),
            Effect::Start(key, beginning) => {
                if let Some(held) = self.parts.store.held().get(&key).cloned() {
                    self.start_runner(key, &held, beginning);
                }
            }
            Effect::Go(key) => {
                if let Some(orders) = self.orders.get(&key) {
                    orders.send_if_modified(|orders| !std::mem::replace(&mut orders.go, true));
                }
            }
            Effect::Stop(key, rules) => {
                if let Some(orders) = self.orders.get(&key) {
                    orders.send_modify(|orders| orders.stop = Some(rules));
                }
            }
            Effect::Remove(key) => remove_folder(&self.parts.workplace.allocation(&key)),
        }
    }
}

/// What is not proven gone still loads its devices.
fn load_of(store: &Store, devices: &Devices) -> Load {
    let mut load = std::collections::BTreeMap::new();
    for share in store.held().values().filter(|held| !held.gone).flat_map(|held| &held.run.devices) {
        if let Some(slot) = devices.slot_of(&share.uuid) {
            *load.entry(slot).or_default() += u32::from(share.milli);
        }
    }
    Arc::new(load)
}
