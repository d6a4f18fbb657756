//! What a cluster costs: prices by contract and over time, power by load, what waiting is worth.

use crate::SimError;
use crate::meter::{DeviceTime, Meter, Use, Watts};
use crate::metrics::usage::{CATEGORIES, Category, NOT_RUNNING, running_parts};
use crate::metrics::{AttemptResult, JobResult, JobState, Used, seconds};
use crate::world::World;
use muster_common::money::{MicroUsd, device_cost, energy_j, split};
use muster_common::time::SECOND_MS;
use muster_common::{Name, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// A price list. Of several rules for the same nodes and moment the last one holds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    pub price: Vec<Price>,
    pub power: Vec<Power>,
    /// Paid beside the price of the GPUs, for what they and their cooling draw.
    pub usd_per_kwh: f64,
    /// Power of the whole building over that of the GPUs.
    pub pue: Option<f64>,
    /// What an hour of waiting is worth for each GPU asked for, by account; `default` for others.
    pub waiting_usd_per_gpu_hour: BTreeMap<Name, f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// A group of the world's nodes; without it, all.
    pub nodes: Option<Name>,
    /// Only this device model.
    pub model: Option<Name>,
    pub contract: Contract,
    pub usd_per_gpu_hour: f64,
    /// On the trace's clock.
    #[serde(default)]
    pub from_s: u64,
}

/// How machines are paid for. All of them are paid for while the run lasts, used or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contract {
    Owned,
    Reserved,
    OnDemand,
    Spot,
}

/// Watts of one GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    pub model: Option<Name>,
    pub idle_w: u32,
    pub busy_w: u32,
    /// While its node sleeps.
    #[serde(default)]
    pub asleep_w: u32,
}

const DEFAULT: &str = "default";

impl Prices {
    pub fn read(path: &Path, world: &World) -> Result<(Self, String), SimError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| SimError::Read { path: path.to_path_buf(), source })?;
        let prices: Result<Prices, String> = toml::from_str(&text).map_err(|error| error.to_string());
        let checked = prices.and_then(|prices| prices.check(world).map(|()| prices));
        Ok((checked.map_err(|why| SimError::World { path: path.to_path_buf(), why })?, text))
    }

    /// A list without a world: of clusters whose machines are not described anywhere.
    ///
    /// # Errors
    /// When it cannot be read, or is no list of prices.
    pub fn read_alone(path: &Path) -> Result<Self, SimError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| SimError::Read { path: path.to_path_buf(), source })?;
        let prices: Result<Prices, String> = toml::from_str(&text).map_err(|error| error.to_string());
        let checked = prices.and_then(|prices| prices.check_amounts().map(|()| prices));
        checked.map_err(|why| SimError::World { path: path.to_path_buf(), why })
    }

    /// What a GPU hour costs by model, wherever the machine stands: of the rules that name no nodes and hold
    /// from the start, the last one for each model. `None` = every model without a rule after it.
    pub fn by_model(&self) -> BTreeMap<Option<Name>, MicroUsd> {
        let mut prices: BTreeMap<Option<Name>, MicroUsd> = BTreeMap::new();
        for price in self.price.iter().filter(|price| price.nodes.is_none() && price.from_s == 0) {
            let Some(usd) = MicroUsd::from_usd(price.usd_per_gpu_hour) else { continue };
            if price.model.is_none() {
                prices.clear();
            }
            prices.insert(price.model.clone(), usd);
        }
        prices
    }

    fn check(&self, world: &World) -> Result<(), String> {
        for nodes in self.price.iter().filter_map(|price| price.nodes.as_ref()) {
            if !world.nodes.iter().any(|group| group.name == *nodes) {
                return Err(format!("price.nodes: the world has no nodes `{nodes}`"));
            }
        }
        self.check_amounts()
    }

    fn check_amounts(&self) -> Result<(), String> {
        let amount = |what: &str, usd: f64| {
            let sound = MicroUsd::from_usd(usd).is_some_and(|usd| usd.0 <= 1_000_000_000_000);
            if sound { Ok(()) } else { Err(format!("{what} is {usd}; it must be from 0 to 1000000")) }
        };
        for price in &self.price {
            amount("price.usd_per_gpu_hour", price.usd_per_gpu_hour)?;
        }
        amount("usd_per_kwh", self.usd_per_kwh)?;
        if self.pue.is_some_and(|pue| !(1.0..=10.0).contains(&pue)) {
            return Err("pue must be from 1 to 10".into());
        }
        if self.power.iter().any(|power| power.busy_w < power.idle_w.max(power.asleep_w) || power.busy_w > 100_000) {
            return Err("power: busy_w is at least idle_w and asleep_w, and at most 100000".into());
        }
        self.waiting_usd_per_gpu_hour.values().try_for_each(|usd| amount("waiting_usd_per_gpu_hour", *usd))
    }

    /// When something changes its price.
    pub(crate) fn bounds(&self) -> Vec<Time> {
        let mut bounds: Vec<Time> =
            self.price.iter().map(|price| Time(price.from_s.saturating_mul(SECOND_MS))).collect();
        bounds.sort();
        bounds.dedup();
        bounds
    }

    fn price(&self, group: &crate::world::NodeGroup, at: Time) -> Option<(Contract, MicroUsd)> {
        let holds = |price: &&Price| {
            price.nodes.as_ref().is_none_or(|nodes| *nodes == group.name)
                && price.model.as_ref().is_none_or(|model| *model == group.model)
                && price.from_s.saturating_mul(SECOND_MS) <= at.0
        };
        let price = self.price.iter().rev().find(holds)?;
        Some((price.contract, MicroUsd::from_usd(price.usd_per_gpu_hour)?))
    }

    /// Of each group of the world's nodes; nothing of those that no rule speaks of.
    pub(crate) fn watts(&self, world: &World) -> Vec<Watts> {
        let of = |power: &Power| [power.busy_w, power.idle_w, power.asleep_w];
        world.nodes.iter().map(|group| self.power(&group.model).map_or([0; 3], of)).collect()
    }

    pub(crate) fn power(&self, model: &Name) -> Option<&Power> {
        self.power.iter().rev().find(|power| power.model.as_ref().is_none_or(|of| of == model))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CategoryCost {
    pub category: Category,
    pub usd: f64,
    pub percent: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccountCost {
    pub account: String,
    /// For what its gangs held, from placement to release.
    pub usd: f64,
    /// Not paid, but lost: what its waiting was worth.
    pub waiting_usd: f64,
}

/// A run in money.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bill {
    /// For GPUs, by the hour; the categories sum to it.
    pub total_usd: f64,
    pub categories: Vec<CategoryCost>,
    pub contracts: BTreeMap<Contract, f64>,
    /// Of GPU-hours that no rule has a price for.
    pub unpriced_gpu_h: f64,
    pub usd_per_kept_gpu_h: f64,
    pub usd_per_succeeded_job: f64,
    pub accounts: Vec<AccountCost>,
    pub waiting_usd: f64,
    pub energy_kwh: f64,
    pub peak_kw: f64,
    pub energy_usd: f64,
}

/// Works out the bill. The books balance to the millionth of a dollar, or the program is wrong.
pub(crate) fn bill(
    prices: &Prices,
    world: &World,
    results: &[JobResult],
    attempts: &[AttemptResult],
    meter: &Meter,
) -> Bill {
    let starts = period_starts(prices, meter);
    let running = running_parts(results);
    let mut usd = [0u64; CATEGORIES];
    let mut contracts: BTreeMap<Contract, u64> = BTreeMap::new();
    let (mut total, mut unpriced) = (0u64, 0u128);
    for (period, classes) in meter.periods.iter().enumerate() {
        for (class, time) in classes.iter().enumerate() {
            let all: u128 = time.iter().sum();
            let Some((contract, price)) = prices.price(&world.nodes[class], starts[period]) else {
                unpriced += all;
                continue;
            };
            let paid = device_cost(all, price);
            total += paid.0;
            *contracts.entry(contract).or_default() += paid.0;
            let by_use = split(paid, time);
            for (category, of) in NOT_RUNNING {
                usd[category as usize] += by_use[of as usize].0;
            }
            for (at, part) in split(by_use[Use::Running as usize], &running).into_iter().enumerate() {
                usd[at] += part.0;
            }
        }
    }
    assert_eq!(usd.iter().sum::<u64>(), total, "the categories of cost sum to what was paid");
    let percent = |usd: u64| if total == 0 { 0.0 } else { usd as f64 * 100.0 / total as f64 };
    let category = |category: Category| CategoryCost {
        category,
        usd: MicroUsd(usd[category as usize]).usd(),
        percent: percent(usd[category as usize]),
    };
    let succeeded = results.iter().filter(|result| result.state == JobState::Succeeded).count();
    let kept_gpu_h = crate::metrics::usage::gpu_h(running[0]);
    let per = |count: f64| if count > 0.0 { MicroUsd(total).usd() / count } else { 0.0 };
    let accounts = accounts(prices, world, results, attempts, &starts, meter.now());
    let (energy_kwh, peak_kw) = energy(prices, world, meter);
    Bill {
        total_usd: MicroUsd(total).usd(),
        categories: Category::ALL.map(category).to_vec(),
        contracts: contracts.into_iter().map(|(contract, usd)| (contract, MicroUsd(usd).usd())).collect(),
        unpriced_gpu_h: crate::metrics::usage::gpu_h(unpriced),
        usd_per_kept_gpu_h: per(kept_gpu_h),
        usd_per_succeeded_job: per(succeeded as f64),
        waiting_usd: accounts.iter().map(|account| account.waiting_usd).sum(),
        accounts,
        energy_kwh,
        peak_kw,
        energy_usd: energy_kwh * prices.usd_per_kwh,
    }
}

/// The first moment of each of the meter's periods.
fn period_starts(prices: &Prices, meter: &Meter) -> Vec<Time> {
    let later = prices.bounds().into_iter().filter(|bound| *bound > meter.begin());
    std::iter::once(meter.begin()).chain(later).collect()
}

fn accounts(
    prices: &Prices,
    world: &World,
    results: &[JobResult],
    attempts: &[AttemptResult],
    starts: &[Time],
    now: Time,
) -> Vec<AccountCost> {
    let class_of: Vec<usize> =
        world.nodes.iter().enumerate().flat_map(|(class, group)| (0..group.count).map(move |_| class)).collect();
    let mut costs: BTreeMap<String, (u64, f64)> = BTreeMap::new();
    for attempt in attempts {
        let result = &results[attempt.job];
        let entry = costs.entry(result.account()).or_default();
        for (period, &start) in starts.iter().enumerate() {
            let end = starts.get(period + 1).copied().unwrap_or(Time::NEVER);
            let held_ms = attempt.ended.min(end).since_ms(attempt.placed.max(start));
            for &(node, devices) in attempt.nodes.iter().filter(|_| held_ms > 0) {
                let group = &world.nodes[class_of[node as usize]];
                // Of groups with several shares, their mean.
                let milli =
                    u128::from(devices) * u128::from(result.job.milli()) / u128::from(result.job.devices.max(1));
                if let Some((_, price)) = prices.price(group, start) {
                    entry.0 += device_cost(milli * u128::from(held_ms), price).0;
                }
            }
        }
    }
    for result in results {
        let account = result.account();
        let worth = Name::new(account.as_str()).ok().and_then(|name| prices.waiting_usd_per_gpu_hour.get(&name));
        let worth = worth.or_else(|| prices.waiting_usd_per_gpu_hour.get(&Name::literal(DEFAULT)));
        let gpu_h = seconds(waited_ms(result, now)) / 3600.0 * f64::from(result.job.devices);
        costs.entry(account).or_default().1 += gpu_h * worth.copied().unwrap_or(0.0);
    }
    costs
        .into_iter()
        .map(|(account, (usd, waiting_usd))| AccountCost { account, usd: MicroUsd(usd).usd(), waiting_usd })
        .collect()
}

/// What has not ended waits until the end of the run; what can never be placed waits for nothing.
fn waited_ms(result: &JobResult, now: Time) -> u64 {
    match result.wait_ms() {
        Some(wait_ms) => wait_ms,
        None if result.state == JobState::Unplaceable => 0,
        None => {
            let Used { overhead_ms, kept_ms, lost_ms, stalled_ms } = result.used;
            let ran_ms = overhead_ms + kept_ms + lost_ms + stalled_ms;
            now.since_ms(Time(result.job.submit_ms)).saturating_sub(ran_ms)
        }
    }
}

/// Kilowatt-hours, and the most kilowatts over one cell of the grid. What is down draws nothing.
fn energy(prices: &Prices, world: &World, meter: &Meter) -> (f64, f64) {
    let pue = prices.pue.unwrap_or(1.0);
    let mut joules = 0.0;
    for (class, group) in world.nodes.iter().enumerate() {
        let Some(power) = prices.power(&group.model) else { continue };
        for time in meter.periods.iter().map(|classes| classes[class]) {
            let [running, rest, asleep] = drawing(&time);
            joules += energy_j(running, power.busy_w) + energy_j(rest, power.idle_w) + energy_j(asleep, power.asleep_w);
        }
    }
    let of_cell = |cell: &crate::meter::Cell| cell.drawn as f64 / 1000.0 / meter.cell_ms as f64;
    // The last cell may be cut short; it never holds more than a whole one.
    let peak_w = meter.cells.iter().map(of_cell).fold(0.0, f64::max);
    (joules * pue / 3.6e6, peak_w * pue / 1000.0)
}

/// Device time that runs, that is on and does not, and that sleeps. What is down draws nothing.
fn drawing(time: &DeviceTime) -> [u128; 3] {
    let (running, asleep) = (time[Use::Running as usize], time[Use::Asleep as usize]);
    [running, time.iter().sum::<u128>() - running - asleep - time[Use::Down as usize], asleep]
}

#[cfg(test)]
mod tests;
