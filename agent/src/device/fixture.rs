//! The machines of `fixtures/`, embedded in the binary.

use super::ProbeError;
use muster_common::node::Link;
use muster_runtime::config::nearest;
use serde::Deserialize;

const EMBEDDED: [(&str, &str); 6] = [
    ("dgx-a100", include_str!("../../fixtures/dgx-a100.json")),
    ("dgx-h100", include_str!("../../fixtures/dgx-h100.json")),
    ("gb200-nvl72", include_str!("../../fixtures/gb200-nvl72.json")),
    ("hgx-b200", include_str!("../../fixtures/hgx-b200.json")),
    ("hgx-b200-degraded", include_str!("../../fixtures/hgx-b200-degraded.json")),
    ("pcie-8x", include_str!("../../fixtures/pcie-8x.json")),
];

/// The names that `simulated:NAME` takes.
pub fn names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(name, _)| *name)
}

/// One machine of a fixture file. Unknown keys are allowed: the files say more than a probe needs.
#[derive(Debug, Clone, Deserialize)]
pub struct Fixture {
    pub cpu: Cpu,
    pub gpu_model: String,
    pub gpus: Vec<Gpu>,
    pub nics: Vec<FixtureNic>,
    #[serde(default)]
    pub fabric: Option<FixtureFabric>,
    pub matrix_topo_m: Vec<Vec<String>>,
    pub matrix_pci_level: Vec<Vec<i32>>,
    pub matrix_gpu_nic: Vec<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Cpu {
    pub host_mem_gib: u64,
    pub numa: Vec<FixtureNuma>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct FixtureNuma {
    pub id: u16,
    pub cpus: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Gpu {
    pub index: u16,
    pub pci_bus_id: String,
    pub numa_node: u16,
    pub cpu_affinity: String,
    pub pcie_root: String,
    pub pcie_switch: Option<String>,
    pub nvlinks_active: u8,
    pub nvlinks_max: u8,
    pub nearest_nics: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct FixtureNic {
    pub name: String,
    pub netdev: Option<String>,
    pub pci_bus_id: String,
    pub role: String,
    pub rail: Option<u16>,
    pub numa_node: u16,
    pub rate_gbps: u32,
    pub pcie_switch: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct FixtureFabric {
    pub state: String,
    pub cluster_uuid: String,
    pub clique_id: u32,
}

/// A rack repeats one tray; the fabric stands beside it.
#[derive(Deserialize)]
struct Rack {
    tray: Fixture,
    nodes: Vec<RackNode>,
    fabric: FixtureFabric,
}

#[derive(Deserialize)]
struct RackNode {
    slot: u16,
}

impl Fixture {
    /// The machine `name`; in a rack its tray `tray`, counted from 1 (the first one if `None`).
    ///
    /// Errors: an unknown name (with the nearest known one), a tray that the rack does not have.
    pub fn load(name: &str, tray: Option<u16>) -> Result<Self, ProbeError> {
        let Some((_, text)) = EMBEDDED.iter().find(|(known, _)| *known == name) else {
            let hint = nearest(name, names()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let known = names().collect::<Vec<_>>().join(", ");
            return Err(ProbeError::UnknownFixture { name: name.to_owned(), known, hint });
        };
        let bad = |cause: String| ProbeError::BadFixture { name: name.to_owned(), cause };
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        let fixture = if value.get("tray").is_some() {
            let rack: Rack = serde_json::from_value(value).map_err(|error| bad(error.to_string()))?;
            let tray = tray.unwrap_or(1);
            if !rack.nodes.iter().any(|node| node.slot == tray) {
                let help = format!("its trays are 1 to {}", rack.nodes.len());
                return Err(ProbeError::NoSuchTray { name: name.to_owned(), tray, help });
            }
            Fixture { fabric: Some(rack.fabric), ..rack.tray }
        } else {
            if let Some(tray) = tray {
                let help = "it is one machine; leave out the number".to_owned();
                return Err(ProbeError::NoSuchTray { name: name.to_owned(), tray, help });
            }
            serde_json::from_value(value).map_err(|error| bad(error.to_string()))?
        };
        fixture.check().map_err(bad)?;
        Ok(fixture)
    }

    fn check(&self) -> Result<(), String> {
        let count = self.gpus.len();
        if self.matrix_topo_m.len() != count || self.matrix_topo_m.iter().any(|row| row.len() != count) {
            return Err("matrix_topo_m does not fit the number of GPUs".to_owned());
        }
        if super::model::product(&self.gpu_model).is_none() {
            return Err(format!("the product table has no `{}`", self.gpu_model));
        }
        self.links().map(|_| ())
    }

    /// The matrix as `nvidia-smi topo -m` prints it, parsed.
    pub fn links(&self) -> Result<Vec<Vec<Link>>, String> {
        self.matrix_topo_m.iter().map(|row| row.iter().map(|cell| parse_link(cell)).collect()).collect()
    }
}

/// One cell of `nvidia-smi topo -m`.
pub fn parse_link(cell: &str) -> Result<Link, String> {
    Ok(match cell {
        "X" => Link::Same,
        "PIX" => Link::Pix,
        "PXB" => Link::Pxb,
        "PHB" => Link::Phb,
        "NODE" => Link::Node,
        "SYS" => Link::Sys,
        other => {
            let count = other.strip_prefix("NV").and_then(|count| count.parse().ok());
            Link::NvLink(count.ok_or_else(|| format!("`{other}` is not a link"))?)
        }
    })
}
