//! One scrape being written.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

type Number = Gauge<u64, AtomicU64>;

pub struct Sheet {
    pub registry: Registry,
}

impl Sheet {
    pub fn new() -> Self {
        Self { registry: Registry::with_prefix("muster") }
    }

    pub fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let gauge = Number::default();
        gauge.set(value);
        self.registry.register(name, help, gauge);
    }

    pub fn flag(&mut self, name: &str, help: &str, value: bool) {
        self.gauge(name, help, u64::from(value));
    }

    /// One gauge for each value of a label.
    pub fn gauges<V: Into<String>>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (V, u64)>,
    ) {
        let family = Family::<[(&'static str, String); 1], Number>::default();
        for (of, value) in values {
            family.get_or_create(&[(label, of.into())]).set(value);
        }
        self.registry.register(name, help, family);
    }

    /// What something else has counted; `_total` is added to the name.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        self.registry.register(name, help, counter);
    }

    /// The same in seconds.
    pub fn counter_s(&mut self, name: &str, help: &str, value_ms: u64) {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(value_ms as f64 / 1_000.0);
        self.registry.register(name, help, counter);
    }

    /// Facts that do not change while the server runs; `_info` is added to the name.
    pub fn info(&mut self, name: &str, help: &str, facts: Vec<(&'static str, String)>) {
        self.registry.register(name, help, Info::new(facts));
    }

    pub fn text(&self) -> Arc<str> {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("text takes any text");
        text.into()
    }
}
