//! Which parts of the fabric a gang may be in, and in which order they are tried.

use super::ledger::{DomainId, Ledger, NodeView, ROOT};
use muster_common::job::{GroupRequest, Scheduling};
use muster_common::topology::{FabricSpec, TopologyMode, TopologyRequest};
use std::collections::BTreeMap;

/// A set of nodes: the union of `bases`, cut with every one of `filters` (domains of other trees).
#[derive(Debug, Clone)]
pub struct Scope {
    pub bases: Vec<DomainId>,
    pub filters: Vec<DomainId>,
}

impl Default for Scope {
    fn default() -> Self {
        Self { bases: vec![ROOT], filters: Vec::new() }
    }
}

impl Scope {
    /// May the scope be cut down to this domain?
    pub fn admits(&self, ledger: &Ledger, domain: DomainId) -> bool {
        let inner = ledger.domain_view(domain);
        self.bases.iter().chain(&self.filters).all(|&base| {
            let outer = ledger.domain_view(base);
            outer.depth == 0 || outer.tree != inner.tree || inner.path.starts_with(&outer.path)
        })
    }

    pub fn narrow(&self, ledger: &Ledger, domain: DomainId) -> Scope {
        self.among(ledger, vec![domain])
    }

    /// The domains of one tree instead of what the scope had of that tree.
    pub fn among(&self, ledger: &Ledger, domains: Vec<DomainId>) -> Scope {
        let tree = domains.first().map(|&domain| ledger.domain_view(domain).tree);
        let other = |&&base: &&DomainId| {
            let view = ledger.domain_view(base);
            view.depth > 0 && Some(view.tree) != tree
        };
        let filters = self.bases.iter().chain(&self.filters).filter(other).copied().collect();
        Scope { bases: domains, filters }
    }

    pub fn holds(&self, view: &NodeView) -> bool {
        self.filters.iter().all(|&domain| view.is_in(domain))
    }

    /// Depth of the scope in a tree; 0 when it is not bound there.
    fn depth_in(&self, ledger: &Ledger, tree: usize) -> usize {
        let all = self.bases.iter().chain(&self.filters);
        let of_tree = all.map(|&base| ledger.domain_view(base)).filter(|view| view.tree == tree);
        of_tree.map(|view| view.depth).max().unwrap_or(0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    pub tree: usize,
    pub depth: usize,
    pub at_most: u32,
}

/// A gang's topology wishes, sorted out.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Required in one domain: per tree the deepest such level.
    pub homes: Vec<(usize, usize)>,
    /// Required in at most a few domains of a level.
    pub few: Option<Level>,
    /// Required on one node.
    pub one_node: bool,
    /// Preferred level: narrower ones are as good, wider ones come after it.
    preferred: Option<Level>,
    prefers_node: bool,
}

/// Levels that are required in one domain: per tree the deepest, as tree and depth.
pub fn homes(requests: &[TopologyRequest], fabric: &FabricSpec) -> Vec<(usize, usize)> {
    let mut homes: BTreeMap<usize, usize> = BTreeMap::new();
    let strict = requests.iter().filter(|request| request.mode == TopologyMode::Required && request.at_most <= 1);
    for request in strict.filter(|request| request.level.as_str() != "node") {
        if let Some((tree, depth)) = fabric.find_level(request.level.as_str()) {
            let known = homes.entry(tree).or_insert(0);
            *known = (*known).max(depth);
        }
    }
    homes.into_iter().collect()
}

/// The tree that a gang's topology wish is about: of what it requires in one domain, else in a few, else of what it prefers,
/// else of its segments; the first where it wishes nothing.
pub fn tree_wished(scheduling: &Scheduling, fabric: &FabricSpec) -> u16 {
    let groups = || scheduling.groups.iter();
    let requests = || scheduling.together.iter().chain(groups().flat_map(|group| &group.topology));
    let of = |mode, one: bool| {
        let asked = move |request: &&TopologyRequest| request.mode == mode && (request.at_most <= 1) == one;
        requests().filter(asked).map(|request| &request.level)
    };
    let segments = groups().filter_map(|group| group.segment.as_ref()).map(|segment| &segment.level);
    let required = of(TopologyMode::Required, true).chain(of(TopologyMode::Required, false));
    let preferred = of(TopologyMode::Preferred, true).chain(of(TopologyMode::Preferred, false));
    let levels = required.chain(preferred).chain(segments);
    let mut trees =
        levels.filter(|level| level.as_str() != "node").filter_map(|level| fabric.find_level(level.as_str()));
    trees.next().and_then(|(tree, _)| u16::try_from(tree).ok()).unwrap_or(0)
}

impl Wish {
    pub fn of(group: &GroupRequest, fabric: &FabricSpec) -> Self {
        let mut wish = Wish { homes: homes(&group.topology, fabric), ..Wish::default() };
        for request in &group.topology {
            let required = request.mode == TopologyMode::Required;
            if request.level.as_str() == "node" {
                wish.one_node |= required && request.at_most <= 1;
                wish.prefers_node |= !required;
                continue;
            }
            let Some((tree, depth)) = fabric.find_level(request.level.as_str()) else { continue };
            let level = Level { tree, depth, at_most: request.at_most };
            match (required, request.at_most <= 1) {
                (true, true) => {}
                (true, false) => wish.few = wish.few.or(Some(level)),
                (false, _) => wish.preferred = wish.preferred.or(Some(level)),
            }
        }
        wish
    }

    /// Levels to try in turn inside a scope, the narrowest first; after them the scope itself.
    pub fn levels(&self, fabric: &FabricSpec, scope: &Scope, ledger: &Ledger, lowest_fit: bool) -> Vec<Level> {
        let tree = self.preferred.map(|level| level.tree).or(self.homes.first().map(|home| home.0)).unwrap_or(0);
        let Some(spec) = fabric.trees.get(tree) else { return Vec::new() };
        let from = match self.preferred {
            _ if lowest_fit || self.prefers_node => spec.levels.len(),
            Some(level) => level.depth,
            None => return Vec::new(),
        };
        let at_most = |depth| self.preferred.filter(|level| level.depth == depth).map_or(1, |level| level.at_most);
        let to = scope.depth_in(ledger, tree);
        (to + 1..=from).rev().map(|depth| Level { tree, depth, at_most: at_most(depth) }).collect()
    }
}
