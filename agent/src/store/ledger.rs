//! The fencing rules of one node: which placement may use a device, decided from the highest token
//! each device has ever accepted (rule 3).

use crate::assignment::{Assignment, Key, RunPart};
use muster_common::Token;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why a placement is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("token {token} is lower than {highest}, which device {device} has accepted")]
    Lower { token: Token, highest: Token, device: String },
    #[error("token {token} was released, stopped or refused on device {device} before")]
    Spent { token: Token, device: String },
    #[error("token {token} names other work than before on device {device}")]
    OtherContent { token: Token, device: String },
    #[error("token {token} is older than this node's registration at {floor}")]
    BelowEpoch { token: Token, floor: Token },
    #[error("it was never prepared here, so it cannot be started")]
    NeverPrepared,
    #[error("this agent cannot read what it is to run: {why}; an agent as new as the servers may")]
    Unreadable { why: String },
    #[error("slot {slot} is device {have} here, not {want}")]
    OtherDevice { slot: u16, want: String, have: String },
    #[error("whether device {device} is free of processes is not known")]
    DeviceUnknown { device: String },
    #[error("device {device} is used by process {pid}, which is none of ours")]
    DeviceBusy { device: String, pid: u32 },
}

/// What one device has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DeviceRecord {
    highest: Token,
    /// Who came with `highest`: one whole holder, or several shares of one plan. True = spent.
    holders: BTreeMap<Key, Holder>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    milli: u16,
    spent: bool,
}

/// Durable as a part of the agent's store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// By UUID.
    devices: BTreeMap<String, DeviceRecord>,
    /// The highest token spent without any device.
    deviceless_spent: Token,
    /// This node's registration.
    floor: Token,
}

impl Ledger {
    /// Notes a registration. True when it is a new one.
    pub fn raise_floor(&mut self, floor: Token) -> bool {
        let raised = floor > self.floor;
        self.floor = self.floor.max(floor);
        raised
    }

    /// Whether work that the store does not hold yet may be accepted.
    pub fn check(&self, assignment: &Assignment, run: &RunPart) -> Result<(), Refusal> {
        let (key, token) = (assignment.key, assignment.key.token);
        if token < self.floor {
            return Err(Refusal::BelowEpoch { token, floor: self.floor });
        }
        if run.devices.is_empty() && token <= self.deviceless_spent {
            return Err(Refusal::Spent { token, device: "none".to_owned() });
        }
        for share in &run.devices {
            let Some(record) = self.devices.get(&share.uuid) else { continue };
            let device = share.uuid.clone();
            if token < record.highest {
                return Err(Refusal::Lower { token, highest: record.highest, device });
            }
            if token > record.highest {
                continue;
            }
            match record.holders.get(&key) {
                Some(holder) if holder.spent => return Err(Refusal::Spent { token, device }),
                Some(holder) if holder.milli == share.milli => {}
                // Shares of one plan come with one token; a whole device has one holder.
                None if share.milli < 1000 && record.holders.values().all(|holder| holder.milli < 1000) => {}
                _ => return Err(Refusal::OtherContent { token, device }),
            }
        }
        Ok(())
    }

    /// Notes what [`Ledger::check`] allowed.
    pub fn accept(&mut self, key: Key, run: &RunPart) {
        for share in &run.devices {
            self.note(key, &share.uuid, Holder { milli: share.milli, spent: false });
        }
    }

    /// From here on the token opens nothing on these devices.
    pub fn spend(&mut self, key: Key, run: &RunPart) {
        if run.devices.is_empty() {
            self.deviceless_spent = self.deviceless_spent.max(key.token);
        }
        for share in &run.devices {
            self.note(key, &share.uuid, Holder { milli: share.milli, spent: true });
        }
    }

    fn note(&mut self, key: Key, uuid: &str, holder: Holder) {
        let fresh = || DeviceRecord { highest: key.token, holders: BTreeMap::new() };
        let record = self.devices.entry(uuid.to_owned()).or_insert_with(fresh);
        if key.token > record.highest {
            *record = fresh();
        }
        if key.token == record.highest {
            record.holders.insert(key, holder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignment::tests::assignment;
    use muster_proto::agent::Phase::Prepare;

    fn checked(ledger: &Ledger, job: u64, index: u64, slots: &[u32]) -> Result<(), Refusal> {
        let assignment = assignment(job, index, Prepare, slots);
        ledger.check(&assignment, assignment.run.as_ref().expect("it runs"))
    }

    fn with(job: u64, index: u64, slots: &[u32], spent: bool) -> Ledger {
        let mut ledger = Ledger::default();
        let assignment = assignment(job, index, Prepare, slots);
        let run = assignment.run.expect("it runs");
        ledger.accept(assignment.key, &run);
        if spent {
            ledger.spend(assignment.key, &run);
        }
        ledger
    }

    #[test]
    fn rule_3a_a_lower_token_is_refused() {
        let ledger = with(1, 50, &[0, 1], true);
        assert!(matches!(checked(&ledger, 2, 49, &[1, 2]), Err(Refusal::Lower { .. })));
        assert_eq!(checked(&ledger, 2, 49, &[2]), Ok(()), "another device has its own count");
        assert_eq!(checked(&ledger, 2, 51, &[1]), Ok(()));
    }

    #[test]
    fn rule_3b_a_spent_token_is_refused() {
        assert!(matches!(checked(&with(1, 50, &[0], true), 1, 50, &[0]), Err(Refusal::Spent { .. })));
        assert_eq!(checked(&with(1, 50, &[0], false), 1, 50, &[0]), Ok(()));
        assert!(matches!(checked(&with(1, 50, &[], true), 1, 50, &[]), Err(Refusal::Spent { .. })), "without devices");
        assert_eq!(checked(&with(1, 50, &[], true), 1, 51, &[]), Ok(()));
    }

    #[test]
    fn rule_3c_an_equal_token_with_other_content_is_refused() {
        let ledger = with(1, 50, &[0], false);
        assert!(matches!(checked(&ledger, 2, 50, &[0]), Err(Refusal::OtherContent { .. })));
    }

    #[test]
    fn shares_of_one_plan_may_meet_on_a_device() {
        let mut ledger = Ledger::default();
        for job in [1, 2] {
            let mut assignment = assignment(job, 50, Prepare, &[0]);
            let run = assignment.run.as_mut().expect("it runs");
            run.devices[0].milli = 400;
            let run = run.clone();
            assert_eq!(ledger.check(&assignment, &run), Ok(()));
            ledger.accept(assignment.key, &run);
        }
        assert!(matches!(checked(&ledger, 3, 50, &[0]), Err(Refusal::OtherContent { .. })), "a whole device");
    }

    #[test]
    fn rule_3d_a_token_from_before_the_registration_is_refused() {
        let mut ledger = Ledger::default();
        assert!(ledger.raise_floor(Token { generation: 1, index: 40 }));
        assert!(!ledger.raise_floor(Token { generation: 1, index: 30 }));
        assert!(matches!(checked(&ledger, 1, 39, &[0]), Err(Refusal::BelowEpoch { .. })));
        assert_eq!(checked(&ledger, 1, 41, &[0]), Ok(()));
    }

    #[test]
    fn an_old_spending_does_not_touch_a_newer_holder() {
        let mut ledger = with(2, 60, &[0], false);
        let old = assignment(1, 50, Prepare, &[0]);
        ledger.spend(old.key, old.run.as_ref().expect("it runs"));
        assert_eq!(checked(&ledger, 2, 60, &[0]), Ok(()));
        assert!(matches!(checked(&ledger, 1, 50, &[0]), Err(Refusal::Lower { .. })));
    }
}
