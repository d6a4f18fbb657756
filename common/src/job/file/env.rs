//! Variables a job may set for its ranks.

use super::error::{Errors, SpecErrorKind};
use std::collections::BTreeMap;

const COUNT_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 32 * 1024;
const TOTAL_BYTES_MAX: usize = 128 * 1024;

/// Set by the agent for every rank, so a job's own value would be lost.
const RESERVED: &[&str] = &[
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "NODE_RANK",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
];

/// `at`: the path of the table.
pub(super) fn check_env(env: &BTreeMap<String, String>, at: &str, errors: &mut Errors) {
    if env.len() > COUNT_MAX {
        let why = format!("at most {COUNT_MAX} are allowed");
        errors.add(SpecErrorKind::TooBig, at, format!("{} variables", env.len()), why);
        return;
    }
    let total: usize = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if total > TOTAL_BYTES_MAX {
        let why = format!("all variables together may take {TOTAL_BYTES_MAX} bytes");
        errors.add(SpecErrorKind::TooBig, at, format!("the variables take {total} bytes"), why);
        return;
    }
    for (name, value) in env {
        let path = format!("{at}.{name}");
        check_name(name, &path, errors);
        if value.len() > VALUE_BYTES_MAX {
            let why = format!("at most {VALUE_BYTES_MAX} bytes are allowed");
            errors.add(SpecErrorKind::TooBig, &path, format!("the value takes {} bytes", value.len()), why);
        } else if value.contains('\0') {
            errors.value(&path, "the value contains a NUL character", "no program can receive it");
        }
    }
}

/// Also for the variables of array elements.
pub(super) fn check_name(name: &str, path: &str, errors: &mut Errors) {
    let mut characters = name.chars();
    let starts = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !starts || !characters.all(|c| c.is_ascii_alphanumeric() || c == '_') || name.len() > NAME_BYTES_MAX {
        let why = "a variable's name has letters, digits and `_`, and does not start with a digit";
        errors.value(path, format!("{name:?} cannot name a variable"), why);
    } else if name.starts_with("MUSTER_") || RESERVED.contains(&name) {
        errors.value(path, format!("`{name}` is set by Muster"), "each rank gets its own value of it");
        errors.hint("leave it out, or choose another name");
    }
}
