//! Groups that are cut along the domains of a level: segments inside one domain each, or at most so many
//! nodes in one domain.

use super::ledger::DomainId;
use super::scope::Scope;
use super::search::{Picked, Search};
use muster_common::job::GroupRequest;
use muster_common::topology::FabricSpec;
use std::collections::BTreeMap;

/// How a group is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub tree: usize,
    depth: usize,
    /// Nodes that go together.
    unit: u64,
    /// Units in one domain, at most.
    most: u64,
}

impl Cut {
    pub fn of(group: &GroupRequest, fabric: &FabricSpec) -> Option<Self> {
        if let Some(segment) = &group.segment {
            let (tree, depth) = fabric.find_level(segment.level.as_str())?;
            let most = if segment.apart { 1 } else { u64::MAX };
            return Some(Self { tree, depth, unit: u64::from(segment.nodes).max(1), most });
        }
        let spread = group.spread.as_ref()?;
        let (tree, depth) = fabric.find_level(spread.level.as_str())?;
        Some(Self { tree, depth, unit: 1, most: u64::from(spread.nodes) })
    }
}

/// What a scope has of one domain.
struct Cell {
    /// Units it may hold.
    units: u64,
    /// Nodes it may give.
    bound: u64,
    domain: DomainId,
    scope: Scope,
}

impl Search<'_> {
    /// As few domains as will do: the roomiest ones, and for the rest the least sufficient. Where a domain
    /// turns out to hold less than it seemed to, the others make up for it.
    pub fn in_cells(&self, scope: &Scope, cut: Cut, steps: &mut u64) -> Option<Picked> {
        let mut wanted = self.kind.need() / cut.unit;
        let mut cells = self.cells(scope, cut);
        if cells.iter().fold(0u64, |sum, cell| sum.saturating_add(cell.units)) < wanted {
            return None;
        }
        // The least sufficient one stands first among those with as many units: its smallest remainder.
        cells.sort_by(|a, b| (a.units, a.bound, self.path(a.domain)).cmp(&(b.units, b.bound, self.path(b.domain))));
        let mut picked = Picked::new();
        while wanted > 0 {
            let enough = cells.iter().position(|cell| cell.units >= wanted);
            let most = cells.last()?.units;
            let at = enough.or_else(|| cells.iter().position(|cell| cell.units == most))?;
            let cell = cells.remove(at);
            let found = self.of_cell(&cell, cell.units.min(wanted) * cut.unit, steps);
            let units = found.len() as u64 / cut.unit;
            picked.extend(found.into_iter().take((units * cut.unit) as usize));
            wanted -= units;
        }
        Some(picked)
    }

    /// Near each other in the cell, or any of its nodes where fewer are there than it seemed.
    fn of_cell(&self, cell: &Cell, nodes: u64, steps: &mut u64) -> Picked {
        let near = match cell.scope.bases.as_slice() {
            [base] if self.gathers() => self.gathered(&cell.scope, *base, nodes, steps),
            _ => None,
        };
        near.unwrap_or_else(|| self.candidates(&cell.scope, nodes as usize, steps))
    }

    /// As [`Search::bound`], for what can be cut as the group asks.
    pub fn room(&self, scope: &Scope, domain: DomainId) -> u64 {
        let Some(cut) = self.cut else { return self.bound(domain) };
        let cells = self.cells(&scope.narrow(self.ledger, domain), cut);
        cells.iter().fold(0u64, |sum, cell| sum.saturating_add(cell.units)).saturating_mul(cut.unit)
    }

    fn cells(&self, scope: &Scope, cut: Cut) -> Vec<Cell> {
        let mut by_domain: BTreeMap<DomainId, Vec<DomainId>> = BTreeMap::new();
        for &base in &scope.bases {
            let view = self.ledger.domain_view(base);
            if view.depth > 0 && view.tree == cut.tree && view.depth > cut.depth {
                // The scope has only a part of the domain.
                let path = &view.path[..cut.depth];
                if let Some(domain) = self.ledger.domain_at(cut.tree, path) {
                    by_domain.entry(domain).or_default().push(base);
                }
                continue;
            }
            if view.depth > 0 && view.tree == cut.tree {
                let inside = self.ledger.domains_under(base, cut.depth);
                inside.for_each(|domain| by_domain.entry(domain).or_default().push(domain));
                continue;
            }
            let only = Scope { bases: vec![base], filters: scope.filters.clone() };
            let inside = self.ledger.domains_at(cut.tree, cut.depth);
            for domain in inside.filter(|&domain| only.admits(self.ledger, domain)) {
                by_domain.entry(domain).or_default().push(domain);
            }
        }
        let cell = |(domain, mut bases): (DomainId, Vec<DomainId>)| {
            bases.dedup();
            let bound: u64 = bases.iter().map(|&base| self.bound(base)).sum();
            let scope = scope.among(self.ledger, bases);
            Cell { units: (bound / cut.unit).min(cut.most), bound, domain, scope }
        };
        by_domain.into_iter().map(cell).filter(|cell| cell.units > 0).collect()
    }
}
