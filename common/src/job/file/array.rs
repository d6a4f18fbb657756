//! `[array]` into elements and their variables.

use super::Array;
use super::env::check_name;
use super::error::{Errors, SpecErrorKind};
use super::value::{Inline, Scalar};
use crate::job::{ArraySpec, SPEC_BYTES_MAX};
use std::collections::BTreeMap;

/// The variables of one element.
type Element = BTreeMap<String, String>;

/// The array, and the variables of its elements: none at all when the element's number, which every
/// rank gets as `MUSTER_ARRAY_INDEX`, says everything.
pub(super) fn compile_array(array: &Array, errors: &mut Errors) -> (ArraySpec, Vec<Element>) {
    let given = [array.range.is_some(), array.grid.is_some(), array.lines.is_some(), array.json.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        let kind = if given.contains(&true) { SpecErrorKind::Value } else { SpecErrorKind::Missing };
        errors.add(
            kind,
            "array",
            "exactly one of `range`, `grid`, `lines` and `json` is needed",
            "it says what the elements are",
        );
        errors.hint("write for example `range = \"0-99\"`");
        return (ArraySpec { count: 1, at_once: None, stop_after_failures: None }, Vec::new());
    }
    let (count, elements) = if let Some(range) = &array.range {
        range_elements(range, errors)
    } else if let Some(grid) = &array.grid {
        listed(grid_elements(grid, errors))
    } else if let Some(lines) = &array.lines {
        let line = |line: &String| Element::from([("line".to_owned(), line.clone())]);
        listed(inline("array.lines", lines, errors).iter().map(line).collect())
    } else {
        let objects = array.json.as_ref().map(|json| inline("array.json", json, errors)).unwrap_or_default();
        listed(objects.iter().map(|object| variables(object, errors)).collect())
    };
    for (path, value) in [("array.at_once", array.at_once), ("array.stop_after_failures", array.stop_after_failures)] {
        if let Some(value) = value {
            errors.check_range(path, value.into(), 1, ArraySpec::COUNT_MAX.into());
        }
    }
    check_size(count, &elements, errors);
    let spec = ArraySpec { count, at_once: array.at_once, stop_after_failures: array.stop_after_failures };
    (spec, elements)
}

fn listed(elements: Vec<Element>) -> (u32, Vec<Element>) {
    (u32::try_from(elements.len()).unwrap_or(u32::MAX), elements)
}

fn check_size(count: u32, elements: &[Element], errors: &mut Errors) {
    if count == 0 {
        errors.value("array", "the array has no elements", "at least one is needed");
    } else if count > ArraySpec::COUNT_MAX {
        let why = format!("at most {} are allowed", ArraySpec::COUNT_MAX);
        errors.add(SpecErrorKind::TooBig, "array", format!("{count} elements"), why);
    }
    let bytes: usize = elements.iter().flatten().map(|(name, value)| name.len() + value.len() + 2).sum();
    if bytes > SPEC_BYTES_MAX {
        let why = format!("all of them together may take {SPEC_BYTES_MAX} bytes");
        errors.add(SpecErrorKind::TooBig, "array", format!("the elements' variables take {bytes} bytes"), why);
        errors.hint("use `range` and look the values up by MUSTER_ARRAY_INDEX");
    }
}

/// `0-99` or `10-50:10`. Elements are numbered from 0, so a range that starts or steps otherwise
/// gives each element its own number as the variable `index`.
fn range_elements(range: &str, errors: &mut Errors) -> (u32, Vec<Element>) {
    let Some((first, last, step)) = parse_range(range) else {
        errors.value(
            "array.range",
            format!("`{range}` is not a range"),
            "a range is `first-last` or `first-last:step`",
        );
        errors.hint("write for example `range = \"0-99\"`");
        return (1, Vec::new());
    };
    if last < first || step == 0 {
        errors.value(
            "array.range",
            format!("`{range}` holds nothing"),
            "the last number is below the first, or the step is 0",
        );
        return (1, Vec::new());
    }
    let count = u64::from(last - first) / u64::from(step) + 1;
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    if (first, step) == (0, 1) || count > ArraySpec::COUNT_MAX {
        return (count, Vec::new());
    }
    let numbers = (first..=last).step_by(step as usize);
    (count, numbers.map(|number| Element::from([("index".to_owned(), number.to_string())])).collect())
}

fn parse_range(range: &str) -> Option<(u32, u32, u32)> {
    let (numbers, step) = match range.split_once(':') {
        Some((numbers, step)) => (numbers, step.trim().parse().ok()?),
        None => (range, 1),
    };
    let (first, last) = numbers.split_once('-')?;
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?, step))
}

/// Every combination, the last name changing fastest.
fn grid_elements(grid: &BTreeMap<String, Vec<Scalar>>, errors: &mut Errors) -> Vec<Element> {
    for (name, values) in grid {
        let path = format!("array.grid.{name}");
        check_name(name, &path, errors);
        if values.is_empty() {
            errors.value(&path, "no values", "a name without values leaves no combination");
        }
    }
    let combinations = grid.values().try_fold(1usize, |product, values| product.checked_mul(values.len()));
    if grid.is_empty() || combinations.is_none_or(|count| count > SPEC_BYTES_MAX) {
        let why = "each combination takes room for its variables";
        errors.add(SpecErrorKind::TooBig, "array.grid", "no combinations, or far too many", why);
        return vec![Element::new()];
    }
    let mut elements = vec![Element::new()];
    for (name, values) in grid {
        let with = |element: &Element, value: &Scalar| {
            let mut element = element.clone();
            element.insert(name.clone(), value.0.clone());
            element
        };
        elements = elements.iter().flat_map(|element| values.iter().map(move |value| with(element, value))).collect();
    }
    elements
}

fn variables(object: &BTreeMap<String, Scalar>, errors: &mut Errors) -> Element {
    for name in object.keys() {
        check_name(name, &format!("array.json.{name}"), errors);
    }
    object.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect()
}

fn inline<'a, T>(path: &str, source: &'a Inline<T>, errors: &mut Errors) -> &'a [T] {
    match source {
        Inline::List(items) => items,
        Inline::File(file) => {
            errors.value(path, format!("the file `{file}` was not read"), "servers do not see the files of a client");
            errors.hint("submit with `muster submit`, or put the list here");
            &[]
        }
    }
}
