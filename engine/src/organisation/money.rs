//! What GPUs cost, and what accounts may spend.

use super::validate::{Checked, refuse};
use super::{Account, Organisation};
use muster_common::Name;
use muster_common::calendar::Period;
use muster_common::job::{GroupRequest, Scheduling};
use muster_common::money::{MicroUsd, device_cost};
use muster_common::node::{LABEL_VALUE_BYTES_MAX, is_label_value};
use muster_common::time::HOUR_MS;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most prices of a document, and of a question what a plan would cost.
pub const PRICES_MAX: usize = 256;
const LABELS_MAX: usize = 16;
/// A million US dollars for an hour of one GPU is a slip of the pen.
pub const PRICE_MAX: MicroUsd = MicroUsd(1_000_000_000_000);
/// So that sums of budgets and costs stay far from the end of their numbers.
const BUDGET_MAX: MicroUsd = MicroUsd(1_000_000_000_000_000_000);

/// What an hour of a GPU costs whom it is given to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// `None` = every model that has no price of its own.
    #[serde(default)]
    pub model: Option<Name>,
    #[serde(with = "usd")]
    pub usd_per_gpu_hour: MicroUsd,
}

/// The most that an account and all below it may spend in each period.
///
/// As Slurm's `GrpTRESMins` with the limit `safe` (doc/html/resource_limits.shtml): a gang starts only if what it costs until its
/// time limit is left; what is not used is given back when it ends. Unlike there, all of an attempt counts in the
/// period in which it was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    #[serde(with = "usd")]
    pub usd: MicroUsd,
    /// By the calendar, in UTC.
    pub per: Period,
}

/// Dollars where people read it, millionths where programs do.
mod usd {
    use muster_common::money::MicroUsd;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub fn serialize<S: Serializer>(amount: &MicroUsd, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_f64(amount.usd())
        } else {
            amount.serialize(serializer)
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MicroUsd, D::Error> {
        if !deserializer.is_human_readable() {
            return MicroUsd::deserialize(deserializer);
        }
        let usd = f64::deserialize(deserializer)?;
        MicroUsd::from_usd(usd).ok_or_else(|| de::Error::custom(format!("{usd} is no amount of US dollars")))
    }
}

impl Organisation {
    /// What an hour of a GPU of the model costs; nothing where no price says so.
    pub fn price_of(&self, model: &Name) -> MicroUsd {
        let of = |wanted: Option<&Name>| self.prices.iter().find(|price| price.model.as_ref() == wanted);
        of(Some(model)).or_else(|| of(None)).map_or(MicroUsd(0), |price| price.usd_per_gpu_hour)
    }

    /// The most that an hour of one gang may cost: at the dearest model that each group may get.
    pub fn hourly_at_most(&self, scheduling: &Scheduling) -> MicroUsd {
        let of_group = |group: &GroupRequest| {
            let named = group.models.iter().map(|model| self.price_of(model));
            let any = self.prices.iter().map(|price| price.usd_per_gpu_hour).filter(|_| group.models.is_empty());
            let milli = u128::from(group.devices()) * u128::from(group.share.0);
            device_cost(milli * u128::from(HOUR_MS), named.chain(any).max().unwrap_or_default()).0
        };
        MicroUsd(scheduling.groups.iter().map(of_group).fold(0, u64::saturating_add))
    }

    /// Nodes for what may be stopped, by label.
    pub(super) fn check_labels(&self) -> Checked {
        if self.preemptible_only.len() > LABELS_MAX {
            let what = format!("there are {} labels", self.preemptible_only.len());
            return refuse("preemptible_only", what, format!("at most {LABELS_MAX} are taken"));
        }
        let wrong = self.preemptible_only.iter().find(|(_, value)| !is_label_value(value));
        let Some((key, _)) = wrong else { return Ok(()) };
        let remedy = format!("it has at most {LABEL_VALUE_BYTES_MAX} printable bytes");
        refuse(format!("preemptible_only.{key}"), "this is no label's value", remedy)
    }

    pub(super) fn check_money(&self) -> Checked {
        if self.prices.len() > PRICES_MAX {
            return refuse(
                "price",
                format!("there are {} prices", self.prices.len()),
                format!("at most {PRICES_MAX} are taken"),
            );
        }
        let mut models = BTreeSet::new();
        for (at, price) in self.prices.iter().enumerate() {
            if !models.insert(&price.model) {
                let what = match &price.model {
                    Some(model) => format!("there are two prices for `{model}`"),
                    None => "there are two prices without a model".into(),
                };
                return refuse(format!("price[{at}].model"), what, "keep one of them");
            }
            if price.usd_per_gpu_hour > PRICE_MAX {
                let what = format!("${} for an hour of one GPU", price.usd_per_gpu_hour);
                return refuse(format!("price[{at}].usd_per_gpu_hour"), what, format!("at most ${PRICE_MAX} is taken"));
            }
        }
        self.accounts.iter().enumerate().try_for_each(|(at, account)| self.check_budget(at, account))
    }

    fn check_budget(&self, at: usize, account: &Account) -> Checked {
        let Some(budget) = account.budget else { return Ok(()) };
        let path = format!("account[{at}].budget");
        if budget.usd == MicroUsd(0) || budget.usd > BUDGET_MAX {
            let what = format!("a budget of ${}", budget.usd);
            return refuse(
                format!("{path}.usd"),
                what,
                format!("it is above 0 and at most ${BUDGET_MAX}; leave it out for none"),
            );
        }
        if !self.prices.iter().any(|price| price.model.is_none()) {
            let what = "what a GPU without a price of its own costs is not known, so no budget could be kept";
            return refuse(path, what, "add a `[[price]]` without `model`");
        }
        Ok(())
    }
}
