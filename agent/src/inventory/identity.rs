//! Which machine this is, and where others reach it.

use super::{InventoryConfig, InventoryError};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

/// A short hash over the node's name, the machine's own identity and its devices' serials: equal
/// after a reboot, different for another machine under the same name. A device that is gone changes it,
/// so a machine that comes back without one needs an operator's word before its devices count as free. Within one boot
/// servers know it by its boot id.
pub(super) fn hardware_id(
    config: &InventoryConfig,
    simulated: bool,
    serials: &[String],
) -> Result<String, InventoryError> {
    let machine = match machine_identity(config) {
        Some(identity) => identity,
        None if simulated => String::new(),
        None => {
            return Err(InventoryError::NoIdentity { path: config.machine_id_path.clone() });
        }
    };
    let mut serials: Vec<&str> = serials.iter().map(String::as_str).collect();
    serials.sort_unstable();
    serials.dedup();
    let mut hash = Sha256::new();
    for part in ["muster hardware id", config.node.as_str(), &machine].into_iter().chain(serials) {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest = hash.finalize();
    Ok(digest[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The board's UUID (readable by root only), else the installation's id, else the cards' addresses.
fn machine_identity(config: &InventoryConfig) -> Option<String> {
    let text = |path: &Path| {
        std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    text(&config.sysfs_root.join("class/dmi/id/product_uuid"))
        .or_else(|| text(&config.machine_id_path))
        .or_else(|| card_addresses(&config.sysfs_root))
}

/// Hardware addresses of real cards; virtual interfaces get new ones at every boot.
fn card_addresses(sysfs_root: &Path) -> Option<String> {
    let entries = std::fs::read_dir(sysfs_root.join("class/net")).ok()?;
    let real = entries.flatten().filter(|entry| entry.path().join("device").exists());
    let mut addresses: Vec<String> = real
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("address")).ok())
        .map(|address| address.trim().to_owned())
        .filter(|address| !address.is_empty() && address != "00:00:00:00:00:00")
        .collect();
    addresses.sort();
    (!addresses.is_empty()).then(|| addresses.join(","))
}

pub(super) fn boot_id(proc_root: &Path) -> Result<String, InventoryError> {
    let path = proc_root.join("sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(&path).map_err(|error| InventoryError::unreadable(&path, error))?;
    let id = text.trim();
    if id.is_empty() || id.len() > 64 {
        return Err(InventoryError::unreadable(&path, "it holds no boot id"));
    }
    Ok(id.to_owned())
}

/// The configured address, else 127.0.0.1 for a simulated node, else the address that packets to the
/// outside would leave from, else the host's name.
pub(super) fn address(configured: Option<&str>, simulated: bool) -> Result<String, InventoryError> {
    match configured {
        Some(address) => check_address(address).map(|()| address.to_owned()),
        None if simulated => Ok("127.0.0.1".to_owned()),
        None => {
            let host = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
            let address = outgoing_address().map(|address| address.to_string()).or_else(host);
            address.filter(|address| check_address(address).is_ok()).ok_or(InventoryError::NoAddress)
        }
    }
}

/// A name or an address that can stand in `MASTER_ADDR`: no port, no spaces, no control characters.
fn check_address(address: &str) -> Result<(), InventoryError> {
    let name = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    let good = address.parse::<IpAddr>().is_ok_and(|ip| !ip.is_unspecified())
        || (!address.is_empty() && address.len() <= 253 && name(address) && address.parse::<IpAddr>().is_err());
    if good { Ok(()) } else { Err(InventoryError::BadAddress { address: address.escape_debug().to_string() }) }
}

/// The source address the kernel would choose. Connecting a datagram socket sends nothing; the
/// far ends are addresses reserved for documentation.
fn outgoing_address() -> Option<IpAddr> {
    let source = |local: &str, remote: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind((local, 0)).ok()?;
        socket.connect((remote, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
    };
    source("0.0.0.0", "192.0.2.1").or_else(|| source("::", "2001:db8::1"))
}
