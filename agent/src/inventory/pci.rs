//! How far apart two PCI devices are, by their places in the kernel's device tree.

use muster_common::node::Link;
use std::ffi::OsStr;
use std::path::{Component, Path};

/// A device's place: the parts of its real path from the root complex to the function, such as
/// `[pci0000:15, 0000:15:01.0, 0000:16:00.0, 0000:1b:00.0]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciPlace {
    parts: Vec<String>,
    pub numa: Option<u16>,
}

impl PciPlace {
    /// Reads `bus/pci/devices/<address>`, or `None` when the kernel does not show it.
    pub fn read(sysfs_root: &Path, address: &str) -> Option<Self> {
        let path = std::fs::canonicalize(sysfs_root.join("bus/pci/devices").join(address)).ok()?;
        Self::of(&path)
    }

    /// From the real path of a device's folder, or of a folder below it (a virtio card's own device is).
    pub fn of(path: &Path) -> Option<Self> {
        let mut folder = path;
        while !folder.file_name().and_then(OsStr::to_str).is_some_and(is_function) {
            folder = folder.parent()?;
        }
        let names = folder.components().filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });
        let parts: Vec<String> = names.skip_while(|name| !is_root_complex(name)).map(str::to_owned).collect();
        let numa = std::fs::read_to_string(folder.join("numa_node")).ok();
        // Virtual machines and single-socket boards say -1.
        let numa = numa.and_then(|text| text.trim().parse::<i32>().ok()).and_then(|numa| u16::try_from(numa).ok());
        (parts.len() >= 2).then_some(Self { parts, numa })
    }

    /// The address of the function itself.
    pub fn address(&self) -> &str {
        self.parts.last().map_or("", String::as_str)
    }

    /// PIX for one bridge between the two, PXB for several, PHB for the same root complex, NODE for the same
    /// NUMA node, else SYS. Never better than the tree proves.
    pub fn distance(&self, other: &Self) -> Link {
        if self.parts == other.parts {
            return Link::Same;
        }
        let shared = self.parts.iter().zip(&other.parts).take_while(|(a, b)| a == b).count();
        match shared {
            0 if self.numa.is_some() && self.numa == other.numa => Link::Node,
            0 => Link::Sys,
            1 => Link::Phb,
            _ => {
                // Below the shared bridge: a port of the one switch and the function, or just the function.
                let below = (self.parts.len() - shared).max(other.parts.len() - shared);
                if below <= 2 { Link::Pix } else { Link::Pxb }
            }
        }
    }
}

/// `pci0000:15`, and not `pci_bus` or a driver's folder.
fn is_root_complex(name: &str) -> bool {
    let bus = name.strip_prefix("pci").and_then(|rest| rest.split_once(':'));
    bus.is_some_and(|(domain, bus)| is_hex(domain, 4) && is_hex(bus, 2))
}

/// `0000:1b:00.0`.
fn is_function(name: &str) -> bool {
    let mut parts = name.split(':');
    let (domain, bus, rest) = (parts.next(), parts.next(), parts.next());
    let function = rest.and_then(|rest| rest.split_once('.'));
    parts.next().is_none()
        && domain.is_some_and(|text| is_hex(text, 4))
        && bus.is_some_and(|text| is_hex(text, 2))
        && function.is_some_and(|(device, function)| is_hex(device, 2) && is_hex(function, 1))
}

fn is_hex(text: &str, digits_min: usize) -> bool {
    text.len() >= digits_min && text.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str, numa: Option<u16>) -> PciPlace {
        PciPlace { numa, ..PciPlace::of(Path::new(path)).unwrap() }
    }

    #[test]
    fn distances_follow_the_tree() {
        let gpu = place("/sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:00.0/0000:18:00.0", Some(0));
        let cases = [
            ("/sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:01.0/0000:19:00.0", Some(0), Link::Pix),
            (
                "/sys/devices/pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:02.0/0000:1a:00.0/0000:1b:00.0/0000:1c:00.0",
                Some(0),
                Link::Pxb,
            ),
            ("/sys/devices/pci0000:15/0000:15:02.0/0000:20:00.0", Some(0), Link::Phb),
            ("/sys/devices/pci0000:30/0000:30:01.0/0000:31:00.0", Some(0), Link::Node),
            ("/sys/devices/pci0000:80/0000:80:01.0/0000:81:00.0", Some(1), Link::Sys),
            ("/sys/devices/pci0000:80/0000:80:01.0/0000:81:00.0", None, Link::Sys),
        ];
        for (path, numa, link) in cases {
            let other = place(path, numa);
            assert_eq!(gpu.distance(&other), link, "{path}");
            assert_eq!(other.distance(&gpu), link, "{path}, the other way");
        }
        assert_eq!(gpu.distance(&gpu), Link::Same);
    }

    #[test]
    fn without_numa_two_root_complexes_are_far() {
        let one = place("/sys/devices/pci0000:15/0000:15:01.0", None);
        assert_eq!(one.distance(&place("/sys/devices/pci0000:16/0000:16:01.0", None)), Link::Sys);
        assert!(PciPlace::of(Path::new("/sys/devices/virtual/net/lo")).is_none());
        let virtio = place("/sys/devices/pci0000:00/0000:00:03.0/virtio2", None);
        assert_eq!(virtio.address(), "0000:00:03.0");
    }
}
