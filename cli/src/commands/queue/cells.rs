//! Cells that accounts own, below the queues.

use crate::output::human;
use crate::output::table::{Align, Table, cell};
use muster_proto::client::OwnedCells;

/// Nothing where nobody owns cells.
pub fn render(cells: &[OwnedCells]) -> String {
    if cells.is_empty() {
        return String::new();
    }
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("ACCOUNT", Left),
        ("CELLS", Left),
        ("OWNED", Right),
        ("IN USE", Right),
        ("OBTAINABLE", Right),
        ("LOST", Right),
        ("WITHIN", Right),
    ]);
    for of in cells {
        table.row([
            cell(&of.account),
            shape(of),
            of.owned.to_string(),
            of.in_use.to_string(),
            of.obtainable.to_string(),
            of.lost.to_string(),
            human::duration(of.reclaim_within_ms),
        ]);
    }
    format!("\n{}", table.text())
}

fn shape(of: &OwnedCells) -> String {
    let nodes = human::count(u64::from(of.nodes), "node");
    let whole = format!("{nodes} of {} {}", of.gpus_per_node, cell(&of.model));
    if of.level == "node" { whole } else { format!("{whole} in one {}", cell(&of.level)) }
}
