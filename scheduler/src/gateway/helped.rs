//! What would help a waiting job, and in which range its start lies: both tried on copies of the state.

use super::render::words::{delay, duration, gang_name, plain};
use super::subject::Subject;
use muster_common::{GangId, Time};
use muster_engine::State;
use muster_engine::forecast::{RUNS, StartRange, start_range};
use muster_engine::remedy::{Delays, Remedy, remedies};
use muster_proto::client as pb;

/// Adds to an answer about a waiting gang what was tried for it. Hints that nobody tried stay where
/// nothing was found.
pub fn add(reply: &mut pb::WhyReply, subject: &Subject, gang: GangId) {
    let state = &subject.state;
    let Some(found) = remedies(state, gang, subject.now) else { return };
    if found.start == Some(subject.now) {
        return;
    }
    reply.not_tried = found.untried;
    if !found.found.is_empty() {
        reply.would_help = found.found.iter().map(|remedy| render(subject, remedy)).collect();
    }
    match start_range(state, gang, subject.now) {
        Ok(range) => {
            reply.start_early_at_ms = Some(range.early.0);
            reply.start_late_at_ms = range.late.map(|late| late.0);
            reply.range_text = range_text(&range);
        }
        Err(none) => reply.range_text = none.text().to_owned(),
    }
}

fn range_text(range: &StartRange) -> String {
    let fixed = match range.fixed {
        0 => String::new(),
        fixed => format!(", those of {fixed} more are as expected or their limits"),
    };
    let gangs = if range.drawn == 1 { "gang".to_owned() } else { "gangs".to_owned() };
    format!(
        "four of five of {RUNS} plays; run times of {} {gangs} ahead are drawn from those of their users' earlier jobs of that name{fixed}",
        range.drawn
    )
}

fn render(subject: &Subject, remedy: &Remedy) -> pb::Remedy {
    let (state, now) = (&*subject.state, subject.now);
    let starts = match remedy.start > now {
        true => format!("starts in {}", duration(remedy.start.since_ms(now))),
        false => "starts now".to_owned(),
    };
    let worst = remedy.delays.and_then(|delays| delays.worst).map(|worst| delay(state, worst));
    pb::Remedy {
        change: plain(&remedy.change.text),
        effect: format!("{starts}{}", pushes(state, remedy.delays)),
        kind: remedy.change.kind.word().into(),
        command: plain(&remedy.change.command),
        start_at_ms: Some(remedy.start.0),
        admins_only: remedy.change.kind.is_operators(),
        delayed: remedy.delays.map(|delays| delays.gangs),
        worst,
    }
}

fn pushes(state: &State, delays: Option<Delays>) -> String {
    match delays {
        None => "; whom it pushes back is not known".to_owned(),
        Some(Delays { worst: Some((gang, before, after)), gangs }) => {
            let by = match after < Time::NEVER {
                true => format!("by {}", duration(after.since_ms(before))),
                false => "to a time nobody can foresee".to_owned(),
            };
            let most = if gangs > 1 { format!("{gangs} gangs, most of all ") } else { String::new() };
            format!("; pushes back {most}{} {by}", gang_name(state, gang))
        }
        Some(_) => String::new(),
    }
}
