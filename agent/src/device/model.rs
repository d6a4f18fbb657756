//! From the name a driver prints to the short model name that jobs ask for.

use muster_common::Name;
use serde::Deserialize;
use std::sync::OnceLock;

/// One product of the table in `fixtures/gpus.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    pub id: String,
    pub product: String,
    pub model: Name,
    pub memory_gib: u64,
    pub tdp_w: u32,
    pub nvlink_links: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    schema: u32,
    gpus: Vec<Product>,
}

/// All products this version knows.
pub fn products() -> &'static [Product] {
    static TABLE: OnceLock<Vec<Product>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let table: Table = serde_json::from_str(include_str!("../../fixtures/gpus.json"))
            .expect("the embedded product table is checked by a test");
        assert_eq!(table.schema, 1, "the embedded product table has schema 1");
        table.gpus
    })
}

/// The product with that id of the table, such as `h100-sxm-80`.
pub fn product(id: &str) -> Option<&'static Product> {
    products().iter().find(|product| product.id == id)
}

/// The short model name of a driver's product string: `NVIDIA H100 80GB HBM3` is `H100`.
///
/// Variants of memory and form share a model, as jobs mostly mean the chip. A product outside the
/// table gets its own cleaned name, so that it can still be asked for.
pub fn model_of(product: &str) -> Name {
    if let Some(known) = products().iter().find(|known| known.product == product) {
        return known.model.clone();
    }
    let words = words_of(product);
    let known = products().iter().find(|known| {
        let model = words_of(known.model.as_str());
        words.windows(model.len()).any(|window| window == model.as_slice())
    });
    match known {
        Some(known) => known.model.clone(),
        None => cleaned(product),
    }
}

fn words_of(text: &str) -> Vec<String> {
    text.split([' ', '-']).filter(|word| !word.is_empty()).map(str::to_uppercase).collect()
}

/// Drops the vendor, turns what a name may not hold into `-`, and cuts to a name's length.
fn cleaned(product: &str) -> Name {
    let text = product.trim();
    let text = text.strip_prefix("NVIDIA ").unwrap_or(text);
    let mut clean = String::new();
    for character in text.chars() {
        let character =
            if character.is_ascii_alphanumeric() || character == '_' || character == '.' { character } else { '-' };
        if character != '-' || !clean.ends_with('-') {
            clean.push(character);
        }
    }
    let clean: String = clean.trim_matches(['-', '.']).chars().take(Name::LENGTH_MAX).collect();
    Name::new(clean.trim_end_matches('-')).unwrap_or_else(|_| Name::literal("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_get_the_short_names_jobs_ask_for() {
        let cases = [
            ("NVIDIA H100 80GB HBM3", "H100"),
            ("NVIDIA H100 PCIe", "H100"),
            ("NVIDIA A100-SXM4-40GB", "A100"),
            ("NVIDIA A100-SXM-64GB", "A100"),
            ("NVIDIA H200", "H200"),
            ("NVIDIA GH200 144G HBM3e", "GH200"),
            ("NVIDIA GB200", "GB200"),
            ("NVIDIA B200", "B200"),
            ("NVIDIA L40S", "L40S"),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
            ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "H100"),
        ];
        for (product, model) in cases {
            assert_eq!(model_of(product).as_str(), model, "{product}");
        }
    }

    #[test]
    fn an_unknown_product_keeps_a_cleaned_name() {
        assert_eq!(model_of("NVIDIA GeForce RTX 4090").as_str(), "GeForce-RTX-4090");
        assert_eq!(model_of("Tesla V100-SXM2-16GB").as_str(), "Tesla-V100-SXM2-16GB");
        assert_eq!(model_of("  \u{1b}[31m ").as_str(), "31m");
        assert_eq!(model_of("").as_str(), "unknown");
        assert!(model_of(&"x".repeat(200)).as_str().len() <= Name::LENGTH_MAX);
    }
}
