//! How firmly ranks are tied to their shim on this machine.

use crate::inventory::pid_namespace_permitted;

/// What holds ranks to the life of their shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// The kernel kills all of a namespace with its first process.
    PidNamespace,
    /// Parent-death signal, subreaper and a sweep at start-up: a rank that hides from all three can
    /// outlive a killed shim. Reported as weak fencing.
    ParentDeath,
}

impl Isolation {
    /// The firmest one this process may use; `wanted` = false chooses the weaker one.
    pub fn detect(wanted: bool) -> Self {
        if wanted && pid_namespace_permitted() { Self::PidNamespace } else { Self::ParentDeath }
    }

    pub fn has_pid_namespace(self) -> bool {
        self == Self::PidNamespace
    }
}
