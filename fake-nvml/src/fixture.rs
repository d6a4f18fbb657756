//! Reading a fixture file, as much of it as NVML would tell.

use serde::Deserialize;
use std::path::Path;

/// Largest fixture file that is read.
const SIZE_MAX: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
pub struct Machine {
    #[serde(default)]
    pub id: String,
    pub gpu_model: String,
    pub gpus: Vec<Gpu>,
    #[serde(default)]
    pub fabric: Option<Fabric>,
    pub matrix_pci_level: Vec<Vec<i32>>,
}

#[derive(Debug, Deserialize)]
pub struct Gpu {
    pub pci_bus_id: String,
    pub pci_device_id: String,
    pub cpu_affinity: String,
    pub nvlinks_active: u32,
    pub nvlinks_max: u32,
    #[serde(default)]
    pub memory_numa_node: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub struct Fabric {
    pub state: String,
    pub cluster_uuid: String,
    pub clique_id: u32,
}

#[derive(Debug, Deserialize)]
struct Rack {
    tray: Machine,
    fabric: Fabric,
}

#[derive(Debug, Deserialize)]
struct Table {
    gpus: Vec<Product>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Product {
    pub id: String,
    pub product: String,
    pub memory_gib: u64,
}

pub fn load(path: &Path) -> Result<(Machine, Product), String> {
    let value = read(path)?;
    let machine = if value.get("tray").is_some() {
        let rack: Rack = serde_json::from_value(value).map_err(|error| error.to_string())?;
        Machine { fabric: Some(rack.fabric), ..rack.tray }
    } else {
        serde_json::from_value(value).map_err(|error| error.to_string())?
    };
    let square = machine.matrix_pci_level.iter().all(|row| row.len() == machine.gpus.len());
    if !square || machine.matrix_pci_level.len() != machine.gpus.len() {
        return Err("matrix_pci_level does not fit the number of GPUs".to_owned());
    }
    let table: Table =
        serde_json::from_value(read(&path.with_file_name("gpus.json"))?).map_err(|error| error.to_string())?;
    let product = table.gpus.into_iter().find(|product| product.id == machine.gpu_model);
    let product = product.ok_or_else(|| format!("gpus.json has no `{}`", machine.gpu_model))?;
    Ok((machine, product))
}

fn read(path: &Path) -> Result<serde_json::Value, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.len();
    if size > SIZE_MAX {
        return Err(format!("{} is larger than {SIZE_MAX} bytes", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}
