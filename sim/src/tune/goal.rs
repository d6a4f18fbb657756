//! What a setting is judged by: one figure, under limits on others.

use crate::figures::{Better, FIGURES, position};
use muster_common::text::nearest;
use serde::Serialize;
use std::cmp::Ordering;

/// The figure that is to be as low, or as high, as can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Goal {
    pub figure: &'static str,
    /// Which way is wanted.
    pub better: Better,
    #[serde(skip)]
    at: usize,
}

impl Goal {
    /// # Errors
    /// A name that is no figure.
    pub fn minimize(name: &str) -> Result<Self, String> {
        known(name).map(|at| Self { figure: FIGURES[at].name, better: Better::Lower, at })
    }

    /// # Errors
    /// A name that is no figure.
    pub fn maximize(name: &str) -> Result<Self, String> {
        known(name).map(|at| Self { figure: FIGURES[at].name, better: Better::Higher, at })
    }

    pub(super) fn value(&self, figures: &[f64]) -> f64 {
        figures[self.at]
    }

    pub fn text(&self) -> String {
        let verb = if self.better == Better::Lower { "minimize" } else { "maximize" };
        format!("{verb} {}", self.figure)
    }
}

fn known(name: &str) -> Result<usize, String> {
    position(name).ok_or_else(|| {
        let all = || FIGURES.iter().map(|figure| figure.name);
        let near = nearest(name, all()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_else(|| ".".into());
        format!("`{name}` is no figure{near} There are {}", all().collect::<Vec<_>>().join(", "))
    })
}

/// A limit on a figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Constraint {
    pub figure: &'static str,
    pub limit: Limit,
    /// `None`: the figure of the policy as it is.
    pub bound: Option<f64>,
    #[serde(skip)]
    at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    AtLeast,
    AtMost,
}

impl Constraint {
    /// `utilisation>=0.85`, `wait_max_s<=base`.
    ///
    /// # Errors
    /// What is missing, unknown or no number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let least = text.split_once(">=").map(|parts| (parts, Limit::AtLeast));
        let most = text.split_once("<=").map(|parts| (parts, Limit::AtMost));
        let ((name, bound), limit) =
            least.or(most).ok_or_else(|| format!("`{text}` is no limit; write FIGURE>=NUMBER or FIGURE<=NUMBER"))?;
        let at = known(name.trim())?;
        let bound = match bound.trim() {
            "base" => None,
            number => {
                let value = number.parse::<f64>().ok().filter(|value| value.is_finite());
                Some(value.ok_or_else(|| format!("`{number}` in `{text}` is neither a number nor `base`"))?)
            }
        };
        Ok(Self { figure: FIGURES[at].name, limit, bound, at })
    }

    pub fn text(&self) -> String {
        let sign = if self.limit == Limit::AtLeast { ">=" } else { "<=" };
        let bound = self.bound.map_or_else(|| "base".to_owned(), |bound| bound.to_string());
        format!("{}{sign}{bound}", self.figure)
    }

    /// By how much it is missed, as a part of the bound; 0 where it is met.
    fn shortfall(&self, figures: &[f64], base: &[f64]) -> f64 {
        let bound = self.bound.unwrap_or(base[self.at]);
        let missing = match self.limit {
            Limit::AtLeast => bound - figures[self.at],
            Limit::AtMost => figures[self.at] - bound,
        };
        // What is no number meets nothing.
        if missing <= 0.0 {
            0.0
        } else if missing.is_nan() {
            f64::INFINITY
        } else {
            missing / bound.abs().max(f64::MIN_POSITIVE.sqrt())
        }
    }
}

/// How good a setting is; the better one is less.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Standing {
    /// Sum of what limits are missed by, each as a part of its bound; jobs that should have ended are one of them.
    pub shortfall: f64,
    /// Of the goal, so that less is better.
    badness: f64,
}

impl Standing {
    pub fn of(goal: &Goal, constraints: &[Constraint], figures: &[f64], base: &[f64]) -> Self {
        let value = goal.value(figures);
        let badness = if goal.better == Better::Lower { value } else { -value };
        Self {
            shortfall: constraints.iter().map(|constraint| constraint.shortfall(figures, base)).sum(),
            badness: if badness.is_nan() { f64::INFINITY } else { badness },
        }
    }

    /// Behind all that bring as many jobs to an end as the policy as it is: means are over those that ended, so that whoever
    /// starves a job would look better for it.
    pub fn with_ended(self, own: u64, base: u64) -> Self {
        Self { shortfall: self.shortfall + base.saturating_sub(own) as f64 / base.max(1) as f64, ..self }
    }

    pub fn order(&self, other: &Self) -> Ordering {
        self.shortfall.total_cmp(&other.shortfall).then(self.badness.total_cmp(&other.badness))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(pairs: &[(&str, f64)]) -> Vec<f64> {
        let mut figures = vec![0.0; FIGURES.len()];
        pairs.iter().for_each(|(name, value)| figures[position(name).unwrap()] = *value);
        figures
    }

    #[test]
    fn what_meets_every_limit_goes_before_what_is_better_and_does_not() {
        let goal = Goal::minimize("wait_p95_s").unwrap();
        let limits = [Constraint::parse("utilisation>=0.8").unwrap(), Constraint::parse("wait_max_s <= base").unwrap()];
        let base = figures(&[("wait_p95_s", 100.0), ("utilisation", 0.9), ("wait_max_s", 500.0)]);
        let of = |wait: f64, utilisation: f64, longest: f64| {
            let own = figures(&[("wait_p95_s", wait), ("utilisation", utilisation), ("wait_max_s", longest)]);
            Standing::of(&goal, &limits, &own, &base)
        };
        assert_eq!(of(50.0, 0.8, 500.0).shortfall, 0.0);
        assert_eq!(of(50.0, 0.8, 500.0).order(&of(60.0, 0.9, 400.0)), Ordering::Less);
        assert_eq!(of(60.0, 0.9, 500.0).order(&of(1.0, 0.79, 500.0)), Ordering::Less);
        assert_eq!(of(60.0, 0.9, 500.0).order(&of(1.0, 0.9, 501.0)), Ordering::Less);
        assert_eq!(of(60.0, f64::NAN, 1.0).shortfall, f64::INFINITY);
        assert_eq!(of(60.0, 0.9, 1.0).order(&of(f64::NAN, 0.9, 1.0)), Ordering::Less);
        let most = Goal::maximize("goodput").unwrap();
        let of = |goodput: f64| Standing::of(&most, &[], &figures(&[("goodput", goodput)]), &base);
        assert_eq!(of(0.9).order(&of(0.8)), Ordering::Less);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        assert!(Goal::minimize("wait_p59_s").unwrap_err().contains("did you mean `wait_p95_s`?"));
        assert!(Constraint::parse("utilisation=0.8").unwrap_err().contains("write FIGURE>=NUMBER"));
        assert!(Constraint::parse("utilisation>=much").unwrap_err().contains("neither a number nor `base`"));
        assert!(Constraint::parse("utilisation>=NaN").is_err());
        assert_eq!(Constraint::parse("wait_max_s<=base").unwrap().text(), "wait_max_s<=base");
    }
}
