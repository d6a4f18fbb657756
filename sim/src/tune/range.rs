//! Which settings are tried: declared ranges of parameters, and points spread over all of them.

use crate::draw::Draw;
use crate::variant;
use std::collections::BTreeSet;

/// One parameter of the policy and what it may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    /// `policy.`, then the key in that file, with dots.
    pub key: String,
    /// As it was declared.
    pub text: String,
    values: Values,
}

#[derive(Debug, Clone, PartialEq)]
enum Values {
    /// As TOML.
    Choices(Vec<String>),
    /// Whole numbers, both ends included.
    Whole { low: i64, high: i64, logarithmic: bool },
}

/// Draws for one setting that is not there yet.
const TRIES: usize = 20;

impl Range {
    /// `policy.backfill.reserve_depth=0..16`, `policy.order=fifo,smallest`, `policy.taking.restart_ms=1000..600000:log`.
    ///
    /// # Errors
    /// What is missing, or a range with nothing to choose from.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (key, values) = variant::declared(text, &["policy"])?;
        let values = match whole(key, values) {
            Some(range) => range?,
            None => Values::Choices(variant::choices(key, values)?),
        };
        Ok(Self { key: key.to_owned(), text: text.to_owned(), values })
    }

    fn count(&self) -> u64 {
        match &self.values {
            Values::Choices(all) => all.len() as u64,
            Values::Whole { low, high, .. } => high.abs_diff(*low).saturating_add(1),
        }
    }

    fn nth(&self, number: u64) -> String {
        match &self.values {
            Values::Choices(all) => all[(number as usize).min(all.len() - 1)].clone(),
            Values::Whole { low, high, .. } => low.saturating_add_unsigned(number).min(*high).to_string(),
        }
    }

    /// The value at this part of the range, from 0 to 1.
    fn at(&self, part: f64) -> String {
        if let Values::Whole { low, high, logarithmic: true } = self.values {
            let (from, to) = (libm::log(low as f64), libm::log(high as f64 + 1.0));
            return (libm::exp(from + part * (to - from)) as i64).clamp(low, high).to_string();
        }
        self.nth((part * self.count() as f64) as u64)
    }
}

/// `None`: it is no range of numbers.
fn whole(key: &str, text: &str) -> Option<Result<Values, String>> {
    let (ends, logarithmic) = text.strip_suffix(":log").map_or((text, false), |ends| (ends, true));
    let (low, high) = ends.split_once("..")?;
    let (low, high): (i64, i64) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
    if low >= high {
        return Some(Err(format!(
            "`{key}`: the range {low}..{high} is empty or one number; its first end is the lower"
        )));
    }
    if logarithmic && low < 1 {
        return Some(Err(format!("`{key}`: a logarithmic range begins at 1 or above, not at {low}")));
    }
    Some(Ok(Values::Whole { low, high, logarithmic }))
}

/// At most so many settings: all there are, or points spread so that each parameter meets all parts of its range (a
/// Latin hypercube). The same for the same ranges, always.
pub(super) fn settings(ranges: &[Range], wanted: usize) -> Vec<Vec<String>> {
    let all = ranges.iter().fold(1u64, |all, range| all.saturating_mul(range.count()));
    if all <= wanted as u64 {
        return (0..all).map(|number| combination(ranges, number)).collect();
    }
    let mut draw = Draw::of(0, "tune", 0);
    let strata: Vec<Vec<usize>> = ranges.iter().map(|_| shuffled(wanted, &mut draw)).collect();
    let mut seen = BTreeSet::new();
    let mut settings = Vec::new();
    for point in 0..wanted {
        let mut part = |strata: &[usize]| (strata[point] as f64 + 1.0 - draw.unit()) / wanted as f64;
        let mut setting: Vec<String> =
            ranges.iter().zip(&strata).map(|(range, strata)| range.at(part(strata))).collect();
        for _ in 0..TRIES {
            if seen.insert(setting.clone()) {
                settings.push(setting);
                break;
            }
            setting = ranges.iter().map(|range| range.at(1.0 - draw.unit())).collect();
        }
    }
    settings
}

/// The last parameter moves first.
fn combination(ranges: &[Range], mut number: u64) -> Vec<String> {
    let mut setting: Vec<String> = Vec::new();
    for range in ranges.iter().rev() {
        setting.push(range.nth(number % range.count()));
        number /= range.count();
    }
    setting.reverse();
    setting
}

/// The numbers below `count`, in no order.
pub(super) fn shuffled(count: usize, draw: &mut Draw) -> Vec<usize> {
    let mut all: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        all.swap(at, draw.below(at as u64 + 1) as usize);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Vec<Range> {
        texts.iter().map(|text| Range::parse(text).unwrap()).collect()
    }

    #[test]
    fn every_combination_is_tried_where_there_are_few() {
        let all = settings(&ranges(&["policy.order=fifo,sjf", "policy.backfill.reserve_depth=0..2"]), 6);
        let depths: Vec<&str> = all.iter().map(|setting| setting[1].as_str()).collect();
        assert_eq!((all.len(), &depths[..3], all[3][0].as_str()), (6, &["0", "1", "2"][..], "sjf"));
    }

    #[test]
    fn each_parameter_meets_all_parts_of_its_range() {
        let ranges = ranges(&["policy.a=0..999", "policy.b=1..1000000:log", "policy.c=x,y"]);
        let all = settings(&ranges, 10);
        assert_eq!(all.len(), 10);
        let tenths: BTreeSet<i64> = all.iter().map(|setting| setting[0].parse::<i64>().unwrap() / 100).collect();
        assert_eq!(tenths.len(), 10, "{all:?}");
        let digits: BTreeSet<usize> = all.iter().map(|setting| setting[1].len()).collect();
        assert!(digits.len() >= 6, "{all:?}");
        assert_eq!(all.iter().filter(|setting| setting[2] == "x").count(), 5);
        assert_eq!(settings(&ranges, 10), all, "and always the same");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        assert!(Range::parse("policy.a=5..5").unwrap_err().contains("empty or one number"));
        assert!(Range::parse("policy.a=0..9:log").unwrap_err().contains("begins at 1"));
        assert!(Range::parse("world.a=0..9").unwrap_err().contains("must begin with policy."));
        assert!(Range::parse("policy.a=").unwrap_err().contains("empty value"));
        assert_eq!(Range::parse("policy.a=-2..2").unwrap().nth(1), "-1");
        let whole = Range::parse(&format!("policy.a={}..{}", i64::MIN, i64::MAX)).unwrap();
        assert_eq!((whole.nth(u64::MAX), whole.count()), (i64::MAX.to_string(), u64::MAX));
    }
}
