//! Files of a run with single keys changed.

use crate::SimError;
use crate::run::{Scene, SceneArgs};
use crate::world::World;
use crate::world::truth::Truth;
use muster_engine::policy::Policy;
use std::path::Path;

/// A key and what stands behind its `=`; the key begins with the name of one of these files.
///
/// # Errors
/// What is missing.
pub(crate) fn declared<'a>(text: &'a str, files: &[&str]) -> Result<(&'a str, &'a str), String> {
    let (key, values) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`; write key=value,value"))?;
    if !key.split_once('.').is_some_and(|(file, rest)| files.contains(&file) && !rest.is_empty()) {
        let begins: Vec<String> = files.iter().map(|file| format!("{file}.")).collect();
        return Err(format!("`{key}` must begin with {}", begins.join(" or ")));
    }
    Ok((key, values))
}

/// Values between commas; a comma inside brackets or quotes does not separate.
///
/// # Errors
/// An empty one.
pub(crate) fn choices(key: &str, text: &str) -> Result<Vec<String>, String> {
    let values = split(text);
    if values.iter().any(String::is_empty) {
        return Err(format!("`{key}` has an empty value"));
    }
    Ok(values)
}

fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quoted) = (vec![String::new()], 0i32, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '{' | '[' | '(' if !quoted => depth += 1,
            '}' | ']' | ')' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("there is a first one").push(c);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).collect()
}

/// The files as they are, to be changed.
pub(crate) struct Base {
    policy: toml::Table,
    world: toml::Table,
    truth: toml::Table,
    pub scene: Scene,
}

fn table(path: &Path) -> Result<toml::Table, SimError> {
    let text = std::fs::read_to_string(path).map_err(|source| SimError::Read { path: path.to_path_buf(), source })?;
    text.parse().map_err(|error: toml::de::Error| SimError::World { path: path.to_path_buf(), why: error.to_string() })
}

impl Base {
    /// # Errors
    /// Whatever is wrong with one of the files.
    pub fn read(policy: &Path, scene: &SceneArgs) -> Result<Self, SimError> {
        Ok(Self {
            policy: table(policy)?,
            world: table(&scene.world)?,
            truth: scene.truth.as_deref().map(table).transpose()?.unwrap_or_default(),
            scene: Scene::read(scene)?,
        })
    }

    /// With these values at these keys.
    ///
    /// # Errors
    /// What is no policy, world or truth any more, and with which values.
    pub fn with(&self, keys: &[&str], values: &[String]) -> Result<(Policy, Scene), SimError> {
        let (mut policy, mut world, mut truth) = (self.policy.clone(), self.world.clone(), self.truth.clone());
        for (key, value) in keys.iter().zip(values) {
            let (file, rest) = key.split_once('.').expect("checked when it was parsed");
            let table = match file {
                "policy" => &mut policy,
                "world" => &mut world,
                _ => &mut truth,
            };
            set(table, rest, value).map_err(|why| SimError::Arguments(format!("{key}={value}: {why}")))?;
        }
        let named = |why: String| {
            let pairs: Vec<String> = keys.iter().zip(values).map(|(key, value)| format!("{key}={value}")).collect();
            SimError::Arguments(format!("with {}: {why}", pairs.join(" ")))
        };
        let policy: Policy = policy.try_into().map_err(|error: toml::de::Error| named(error.to_string()))?;
        policy.validate().map_err(|error| named(error.to_string()))?;
        let world = World::parse(&world.to_string()).map_err(named)?;
        let truth: Truth = truth.try_into().map_err(|error: toml::de::Error| named(error.to_string()))?;
        truth.check(&world.fabric).map_err(named)?;
        Ok((policy, self.scene.changed(world, truth).map_err(named)?))
    }

    /// The policy's file with these values at these keys; comments of the old one are gone.
    ///
    /// # Errors
    /// A key that leads through something that is no table.
    pub fn policy_text(&self, keys: &[&str], values: &[String]) -> Result<String, SimError> {
        let mut policy = self.policy.clone();
        for (key, value) in keys.iter().zip(values) {
            let rest = key.strip_prefix("policy.").unwrap_or(key);
            set(&mut policy, rest, value).map_err(|why| SimError::Arguments(format!("{key}={value}: {why}")))?;
        }
        Ok(policy.to_string())
    }
}

fn set(table: &mut toml::Table, key: &str, value: &str) -> Result<(), String> {
    let parsed = format!("x = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("x"));
    let value = parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()));
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let inner = inner.as_table_mut().ok_or_else(|| format!("`{first}` is no table"))?;
            set(inner, rest, &value.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_told_apart_and_set() {
        let (key, values) = declared("policy.admission=skip,{ head_of_line = { x = [1,2] } }", &["policy"]).unwrap();
        assert_eq!(choices(key, values).unwrap().len(), 2);
        let mut table = "[backfill]\nedge = \"before\"\n".parse::<toml::Table>().unwrap();
        set(&mut table, "backfill.reserve_depth", "1").unwrap();
        set(&mut table, "order", "sjf").unwrap();
        set(&mut table, "replan", "{ refill = { min_run_ms = 5 } }").unwrap();
        assert_eq!(table["backfill"]["reserve_depth"].as_integer(), Some(1));
        assert_eq!(
            (table["order"].as_str(), table["replan"]["refill"]["min_run_ms"].as_integer()),
            (Some("sjf"), Some(5))
        );
        assert!(set(&mut table, "order.deep", "1").unwrap_err().contains("no table"));
        assert!(
            declared("backfill=1", &["policy", "world"]).unwrap_err().contains("must begin with policy. or world.")
        );
        assert!(declared("policy.x", &["policy"]).unwrap_err().contains('='));
        assert!(choices("policy.x", "1,,2").unwrap_err().contains("empty"));
    }
}
