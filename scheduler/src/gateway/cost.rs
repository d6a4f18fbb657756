//! What a planned job would cost, at prices that come with the question or those of the organisation.

use super::errors;
use muster_common::Name;
use muster_common::money::{MicroUsd, device_cost};
use muster_common::time::HOUR_MS;
use muster_engine::organisation::{Organisation, PRICE_MAX, PRICES_MAX};
use muster_proto::client as pb;
use muster_proto::convert::error::ErrorInfo;
use std::collections::BTreeMap;

/// By model; empty = any other.
pub type PriceList = BTreeMap<String, MicroUsd>;

/// # Errors
/// Too many prices, one of them too high, or two for one model.
pub fn prices(given: &[pb::PlanPrice]) -> Result<PriceList, ErrorInfo> {
    if given.len() > PRICES_MAX {
        return Err(errors::usage(format!("at most {PRICES_MAX} prices are taken, not {}", given.len()))
            .hint("give those of the models the jobs may get"));
    }
    let mut list = PriceList::new();
    for price in given {
        let usd = MicroUsd(price.micro_usd_per_gpu_hour);
        if usd > PRICE_MAX {
            let message = format!("the price of `{}` is ${usd}; at most ${PRICE_MAX} an hour is taken", price.model);
            return Err(errors::usage(message).hint("prices are in millionths of a US dollar"));
        }
        if list.insert(price.model.clone(), usd).is_some() {
            return Err(errors::usage(format!("two prices for the model `{}`", price.model)).hint("give one of them"));
        }
    }
    Ok(list)
}

/// The prices in force.
pub fn of_organisation(organisation: &Organisation) -> PriceList {
    let name = |model: &Option<Name>| model.as_ref().map(Name::to_string).unwrap_or_default();
    organisation.prices.iter().map(|price| (name(&price.model), price.usd_per_gpu_hour)).collect()
}

/// `None` for a job that is refused.
pub fn cost(planned: &pb::PlannedJob, prices: &PriceList) -> Option<pb::PlanCost> {
    let job = planned.job.as_ref()?;
    let unknown = |text: String| Some(pb::PlanCost { text, ..pb::PlanCost::default() });
    if planned.placement.is_empty() {
        return unknown("not known: nobody can foresee where it would run".into());
    }
    let gangs = u128::from(job.counts.as_ref().map_or(1, |counts| counts.total.max(1)));
    let mut hourly: u128 = 0;
    for device in planned.placement.iter().flat_map(|part| &part.devices) {
        let Some(price) = prices.get(&device.model).or_else(|| prices.get("")) else {
            return unknown(format!("not known: there is no price for {}", device.model));
        };
        hourly += u128::from(device_cost(u128::from(device.milli) * u128::from(HOUR_MS), *price).0);
    }
    let of_all = |ms: u64| -> Option<u64> { u64::try_from(hourly * gangs * u128::from(ms) / u128::from(HOUR_MS)).ok() };
    Some(pb::PlanCost {
        micro_usd_per_hour: of_all(HOUR_MS),
        expected_micro_usd: job.expected_ms.and_then(of_all),
        at_most_micro_usd: job.time_limit_ms.and_then(of_all),
        text: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_engine::organisation::Price;

    fn planned(models: &[&str]) -> pb::PlannedJob {
        let device = |model: &&str| pb::PartDevice { model: (*model).into(), milli: 500, ..pb::PartDevice::default() };
        let part = pb::Part { devices: models.iter().map(device).collect(), ..pb::Part::default() };
        let counts = pb::GangCounts { total: 3, ..pb::GangCounts::default() };
        let job = pb::Job {
            counts: Some(counts),
            time_limit_ms: Some(10 * HOUR_MS),
            expected_ms: Some(HOUR_MS / 2),
            ..pb::Job::default()
        };
        pb::PlannedJob { job: Some(job), placement: vec![part], ..pb::PlannedJob::default() }
    }

    fn price(model: &str, micro: u64) -> pb::PlanPrice {
        pb::PlanPrice { model: model.into(), micro_usd_per_gpu_hour: micro }
    }

    #[test]
    fn a_plan_costs_its_gangs_devices_and_time() {
        let list = prices(&[price("H100", 4_000_000), price("", 1_000_000)]).unwrap();
        let cost = cost(&planned(&["H100", "A100"]), &list).unwrap();
        // Three gangs of half an H100 and half of another.
        assert_eq!(cost.micro_usd_per_hour, Some(7_500_000));
        assert_eq!((cost.expected_micro_usd, cost.at_most_micro_usd), (Some(3_750_000), Some(75_000_000)));
    }

    #[test]
    fn the_organisations_prices_are_those_of_a_plan_that_gives_none() {
        let price = |model: Option<&'static str>, micro| Price {
            model: model.map(Name::literal),
            usd_per_gpu_hour: MicroUsd(micro),
        };
        let prices = vec![price(Some("H100"), 4_000_000), price(None, 1_000_000)];
        let list = of_organisation(&Organisation { prices, ..Organisation::default() });
        let cost = cost(&planned(&["H100", "A100"]), &list).unwrap();
        assert_eq!(cost.micro_usd_per_hour, Some(7_500_000));
    }

    #[test]
    fn without_a_price_or_a_place_the_cost_is_not_known_and_slips_are_refused() {
        let list = prices(&[price("H100", 4_000_000)]).unwrap();
        assert_eq!(cost(&planned(&["A100"]), &list).unwrap().text, "not known: there is no price for A100");
        let nowhere = pb::PlannedJob { placement: Vec::new(), ..planned(&[]) };
        assert!(cost(&nowhere, &list).unwrap().text.starts_with("not known: nobody"));
        let many: Vec<pb::PlanPrice> = (0..=PRICES_MAX).map(|at| price(&format!("m{at}"), 1)).collect();
        assert!(prices(&many[1..]).is_ok());
        for wrong in [vec![price("H100", PRICE_MAX.0 + 1)], vec![price("a", 1), price("a", 2)], many] {
            assert!(prices(&wrong).is_err());
        }
    }
}
