//! What accounts may spend, below the queues.

use crate::output::Style;
use crate::output::human;
use crate::output::table::{Align, Table, cell};
use muster_common::money::MicroUsd;
use muster_proto::client::AccountBudget;

/// Nothing where nobody has a budget.
pub fn render(budgets: &[AccountBudget], style: &Style) -> String {
    if budgets.is_empty() {
        return String::new();
    }
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("ACCOUNT", Left),
        ("BUDGET", Right),
        ("PER", Left),
        ("SPENT", Right),
        ("SET ASIDE", Right),
        ("LEFT", Right),
        ("ENDS", Left),
    ]);
    let usd = |micro: u64| format!("${}", MicroUsd(micro));
    for of in budgets {
        let used = of.spent_micro_usd.saturating_add(of.set_aside_micro_usd);
        table.row([
            cell(&of.account),
            usd(of.budget_micro_usd),
            cell(&of.period),
            usd(of.spent_micro_usd),
            usd(of.set_aside_micro_usd),
            usd(of.budget_micro_usd.saturating_sub(used)),
            human::moment_and_distance(of.until_at_ms, style.now_ms),
        ]);
    }
    format!("\n{}", table.text())
}
