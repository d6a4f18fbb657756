//! What is scraped: the counters of this server's [`crate::instruments`], and a look at the present made for each
//! scrape. Label values are of closed sets or as few as servers; never a job, a user or a node.

mod cluster;
mod listen;
mod server;
mod sheet;

pub use listen::{healthy, listen, scraped};

use crate::context::Context;
use crate::gateway::Gateway;
use crate::health::Ready;
use muster_engine::Memo;
use muster_runtime::aside;
use sheet::Sheet;
use std::sync::{Arc, PoisonError};

/// What Prometheus takes the text for.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Scrapes within this time get the same text.
const FRESH_MS: u64 = 1_000;

/// Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    all: Arc<All>,
}

struct All {
    context: Arc<Context>,
    gateway: Gateway,
    ready: Ready,
    latest: tokio::sync::Mutex<Option<Latest>>,
    /// Kept between scrapes, so that explaining what waits costs little.
    memo: std::sync::Mutex<Memo>,
}

struct Latest {
    made_ms: u64,
    text: Arc<str>,
}

impl Metrics {
    pub fn new(context: Arc<Context>, gateway: Gateway, ready: Ready) -> Self {
        Self { all: Arc::new(All { context, gateway, ready, latest: Default::default(), memo: Default::default() }) }
    }

    /// Whether this server is of use, as the health check says.
    pub fn ready(&self) -> bool {
        *self.all.ready.borrow()
    }

    /// The text of a scrape. One is made at a time, however many ask.
    pub async fn text(&self) -> Arc<str> {
        let mut latest = self.all.latest.lock().await;
        let now_ms = self.all.context.clock.boottime_ms();
        if let Some(known) = latest.as_ref().filter(|known| now_ms < known.made_ms + FRESH_MS) {
            return known.text.clone();
        }
        let all = self.all.clone();
        let text = match aside::run(move || all.look()).await {
            Ok(text) => text,
            Err(lost) => std::panic::resume_unwind(lost.into_panic()),
        };
        *latest = Some(Latest { made_ms: now_ms, text: text.clone() });
        text
    }
}

impl All {
    fn look(&self) -> Arc<str> {
        let mut sheet = Sheet::new();
        self.context.consensus.instruments().register(&mut sheet.registry);
        server::look(&mut sheet, &self.context, &self.gateway, *self.ready.borrow());
        // Told by one server, so that sums over servers count nothing twice.
        if self.context.leads() {
            let mut memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
            cluster::look(&mut sheet, &self.context, &mut memo);
        }
        sheet.text()
    }
}

#[cfg(test)]
mod tests;
