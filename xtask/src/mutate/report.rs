//! Prints what became of each mutation and sums up.

use super::cargo::Verdict;

/// What became of one mutation.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The test that failed.
    Killed(String),
    /// Every test still passes: nothing holds the rule.
    Survived,
    /// The mutation says nothing: it cannot be made, does not build, or does not end.
    Invalid(String),
}

impl Outcome {
    pub fn of(verdict: Verdict) -> Outcome {
        match verdict {
            Verdict::Passed(0) => Outcome::Invalid("no test ran".to_string()),
            Verdict::Passed(_) => Outcome::Survived,
            Verdict::Failed(tests) => Outcome::Killed(tests.join(", ")),
            Verdict::Broken(why) => Outcome::Invalid(format!("no test came to a result: {why}")),
            Verdict::TimedOut(Some(test)) => {
                Outcome::Invalid(format!("the limit passed in {test}, which has no deadline"))
            }
            Verdict::TimedOut(None) => {
                Outcome::Invalid("the limit passed before a test ran; see --limit-s".to_string())
            }
        }
    }
}

/// The rules of the safety protocol: section 4 of docs/ARCHITECTURE.md, 1 to 14.
const RULES: u32 = 14;

#[derive(Default)]
pub struct Report {
    killed: usize,
    survived: usize,
    invalid: usize,
    /// Ids with a killed mutation of the code.
    held: Vec<String>,
}

impl Report {
    pub fn add(&mut self, part: &str, id: &str, rule: &str, outcome: Outcome) {
        match &outcome {
            Outcome::Killed(_) => {
                self.killed += 1;
                if part == "code" {
                    self.held.push(id.to_string());
                }
            }
            Outcome::Survived => self.survived += 1,
            Outcome::Invalid(_) => self.invalid += 1,
        }
        println!("{}", line(part, id, rule, &outcome));
    }

    /// Prints the summary; true if every mutation was killed. `whole` tells that all were run.
    pub fn close(&self, whole: bool) -> bool {
        let Report { killed, survived, invalid, .. } = self;
        println!("mutate: {killed} killed, {survived} survived, {invalid} invalid");
        let open = self.rules_without_kill();
        if whole && !self.held.is_empty() && !open.is_empty() {
            println!("mutate: no mutation of the code was killed for the rules {}", open.join(" "));
        }
        *survived == 0 && *invalid == 0
    }

    fn rules_without_kill(&self) -> Vec<String> {
        let rules = (1..=RULES).map(|number| format!("{SECTION}{number}"));
        rules.filter(|rule| !self.held.iter().any(|id| rule_of(id) == *rule)).collect()
    }
}

/// `4.6` of `4.6a` and of `6a`.
fn rule_of(id: &str) -> String {
    let number = short(id).trim_end_matches(|c: char| !c.is_ascii_digit());
    format!("{SECTION}{number}")
}

/// The rules' section in the design, which an id may leave out.
const SECTION: &str = "4.";

/// `6a` of `4.6a` and of `6a`: what makes two ids equal.
pub fn short(id: &str) -> &str {
    id.strip_prefix(SECTION).unwrap_or(id)
}

fn line(part: &str, id: &str, rule: &str, outcome: &Outcome) -> String {
    let id = short(id);
    match outcome {
        Outcome::Killed(test) => format!("{part} {SECTION}{id} killed by {test}"),
        Outcome::Survived => format!("{part} {SECTION}{id} SURVIVED: {rule}"),
        Outcome::Invalid(why) => format!("{part} {SECTION}{id} INVALID: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failing_test_kills() {
        assert_eq!(Outcome::of(Verdict::Failed(vec!["a".into(), "b".into()])), Outcome::Killed("a, b".into()));
        assert_eq!(Outcome::of(Verdict::Passed(1)), Outcome::Survived);
        for verdict in [Verdict::Passed(0), Verdict::Broken("x".into()), Verdict::TimedOut(None)] {
            assert!(matches!(Outcome::of(verdict), Outcome::Invalid(_)));
        }
    }

    #[test]
    fn a_survivor_fails_the_run_and_open_rules_are_named() {
        let mut report = Report::default();
        report.add("code", "4.6a", "r", Outcome::Killed("t".into()));
        report.add("model", "4.7", "r", Outcome::Killed("t".into()));
        assert!(report.close(true));
        let open = report.rules_without_kill();
        assert!(!open.contains(&"4.6".to_string()) && open.contains(&"4.7".to_string()));
        report.add("code", "4.1a", "r", Outcome::Survived);
        assert!(!report.close(true));
    }

    #[test]
    fn lines_say_what_happened() {
        assert_eq!(line("code", "4.6a", "r", &Outcome::Killed("x::y".into())), "code 4.6a killed by x::y");
        assert_eq!(line("code", "4.6a", "leases end", &Outcome::Survived), "code 4.6a SURVIVED: leases end");
    }
}
