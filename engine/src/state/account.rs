//! The accounts and queues in force, with the documents they were before.

use crate::command::Principal;
use crate::organisation::{Account, Caps, Organisation, Queue};
use muster_common::{Name, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Documents that can be gone back to, besides the one in force.
pub const PAST_MAX: usize = 16;

/// The accounts, as a tree, and the queues.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Accounts {
    /// 0 = never configured.
    version: u32,
    document: Arc<Organisation>,
    /// The newest last.
    past: Vec<PastOrganisation>,
    #[serde(skip)]
    tree: Arc<Tree>,
}

/// A document that was in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PastOrganisation {
    pub version: u32,
    pub document: Arc<Organisation>,
    /// Who replaced it, and when.
    pub replaced_by: Principal,
    pub replaced_at: Time,
}

/// Where everything stands in the document. Derived from it, never stored.
#[derive(Debug, Default, PartialEq)]
struct Tree {
    accounts: BTreeMap<Name, usize>,
    queues: BTreeMap<Name, usize>,
    children: BTreeMap<Option<Name>, Vec<usize>>,
    /// Anybody has a limit or a budget.
    caps: bool,
}

impl Tree {
    fn of(document: &Organisation) -> Self {
        let mut tree = Self::default();
        for (at, account) in document.accounts.iter().enumerate() {
            tree.accounts.insert(account.name.clone(), at);
            let users = account.users.values().filter_map(|user| user.limits);
            let mut caps = users.chain([account.limits, account.user_limits]);
            tree.caps |= account.budget.is_some() || caps.any(|caps| caps != Caps::default());
            tree.children.entry(account.parent.clone()).or_default().push(at);
        }
        tree.queues = document.queues.iter().enumerate().map(|(at, queue)| (queue.name.clone(), at)).collect();
        tree
    }
}

impl Accounts {
    /// Counts the documents put in force; 0 = none yet.
    pub fn version(&self) -> u32 {
        self.version
    }

    pub fn document(&self) -> &Arc<Organisation> {
        &self.document
    }

    /// Documents before, the newest last.
    pub fn past(&self) -> &[PastOrganisation] {
        &self.past
    }

    /// May jobs only name accounts that are in the document?
    pub fn are_configured(&self) -> bool {
        !self.document.accounts.is_empty()
    }

    /// Does any account or user have a limit or a budget?
    pub fn have_caps(&self) -> bool {
        self.tree.caps
    }

    pub fn get(&self, name: &Name) -> Option<&Account> {
        self.tree.accounts.get(name).map(|at| &self.document.accounts[*at])
    }

    /// The account and those above it, itself first.
    pub fn upward(&self, name: &Name) -> impl Iterator<Item = &Account> {
        std::iter::successors(self.get(name), |account| self.get(account.parent.as_ref()?))
    }

    /// Accounts right below one, or at the top, in the document's order.
    pub fn children(&self, of: Option<&Name>) -> impl Iterator<Item = &Account> {
        let children = self.tree.children.get(&of.cloned()).map_or(&[][..], Vec::as_slice);
        children.iter().map(|at| &self.document.accounts[*at])
    }

    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.tree.accounts.keys()
    }

    pub fn queue(&self, name: &Name) -> Option<&Queue> {
        self.tree.queues.get(name).map(|at| &self.document.queues[*at])
    }

    pub fn queue_names(&self) -> impl Iterator<Item = &Name> {
        self.tree.queues.keys()
    }

    /// Puts a checked document in force.
    pub(crate) fn replace(&mut self, document: Arc<Organisation>, by: &Principal, at: Time) {
        let before = PastOrganisation {
            version: self.version,
            document: std::mem::replace(&mut self.document, document),
            replaced_by: by.clone(),
            replaced_at: at,
        };
        if self.past.len() == PAST_MAX {
            self.past.remove(0);
        }
        self.past.push(before);
        self.version += 1;
        self.restore();
    }

    /// After decoding: what is derived.
    pub(crate) fn restore(&mut self) {
        self.tree = Arc::new(Tree::of(&self.document));
    }

    /// The first broken invariant.
    pub(super) fn check(&self) -> Result<(), String> {
        if *self.tree != Tree::of(&self.document) {
            return Err("the tree of accounts is not that of the document".into());
        }
        if let Err(error) = self.document.validate(&BTreeMap::new()) {
            return Err(format!("the organisation in force is not valid: {error}"));
        }
        let versions = self.past.iter().map(|past| past.version).chain([self.version]);
        let steps = versions.clone().zip(versions.skip(1));
        if self.past.len() > PAST_MAX || steps.into_iter().any(|(before, after)| before + 1 != after) {
            return Err("the versions of the organisation have gaps".into());
        }
        Ok(())
    }
}
