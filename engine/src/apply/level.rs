//! From which feature level on a command may be in the log.

use super::{
    Applying, DECLARE_LEVEL, EDIT_LEVEL, MOVE_LEVEL, ORGANISATION_LEVEL, POLICIES_LEVEL, POWER_LEVEL, Result,
    WINDOWS_LEVEL,
};
use crate::command::{Command, ConfigChange, PlanStep};
use crate::outcome::Refusal;
use crate::state::State;

/// The feature level from which on all servers can read the command. One that cannot read an entry of the log stops, so
/// none may be proposed before.
pub fn level_of(command: &Command) -> u32 {
    match command {
        Command::Edit(_) => EDIT_LEVEL,
        Command::CommitPlan(plan) if plan.steps.iter().any(|step| matches!(step, PlanStep::Consolidate(_))) => {
            MOVE_LEVEL
        }
        Command::MakeWindow(_) | Command::EndWindow { .. } => WINDOWS_LEVEL,
        Command::RequestNodes(_) | Command::SleepNodes { .. } | Command::NodePower { .. } => POWER_LEVEL,
        Command::Configure { change, .. } => match **change {
            ConfigChange::Organisation(_) | ConfigChange::RollBackOrganisation { .. } => ORGANISATION_LEVEL,
            ConfigChange::Declare(_) | ConfigChange::RollBack { .. } => DECLARE_LEVEL,
            ConfigChange::Shadow(_) | ConfigChange::Promote(_) => POLICIES_LEVEL,
            _ => 1,
        },
        _ => 1,
    }
}

/// # Errors
/// [`Refusal::FeatureLevel`] while some server may not know what that level brought.
pub(super) fn needs_level(state: &State, needed: u32) -> Result<()> {
    let level = state.cluster().feature_level;
    if level < needed { Err(Refusal::FeatureLevel { level, needed }) } else { Ok(()) }
}

impl Applying<'_> {
    pub(super) fn needs_level(&self, needed: u32) -> Result<()> {
        needs_level(self.state, needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Entry, MakeWindow, Principal, Which};
    use crate::outcome::Response;
    use crate::state::window::Holders;
    use muster_common::{Name, Time};

    #[test]
    fn what_apply_refuses_below_its_level_is_never_to_be_proposed_there() {
        let by = || Principal("root".into());
        let configure = |change| Command::Configure { change: Box::new(change), by: by() };
        let window = MakeWindow {
            name: Name::literal("firmware"),
            start: Time(0),
            end: Time(1),
            nodes: Which::All,
            holders: Holders::Nobody,
            reason: String::new(),
            by: by(),
            managed: false,
        };
        for command in [
            Command::MakeWindow(Box::new(window)),
            configure(ConfigChange::RollBack { version: 1, made_from: None }),
            configure(ConfigChange::Shadow(None)),
            configure(ConfigChange::Organisation(Default::default())),
        ] {
            let mut state = State::default();
            let needed = level_of(&command);
            let entry = Entry { index: 1, term: 1, at: Time(0), command };
            let level = state.cluster().feature_level;
            let response = crate::apply::apply(&mut state, &entry).response;
            assert_eq!(response, Response::Refused(Refusal::FeatureLevel { level, needed }));
        }
    }
}
