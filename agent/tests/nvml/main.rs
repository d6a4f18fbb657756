//! The NVML probe against the stand-in library, through the real wrapper, and against the real library
//! where there is one.

mod fake;

use fake::{FakeNvml, NO_INSTANCE, fixture_path};
use muster_agent::device::fixture::{self, Fixture};
use muster_agent::device::{
    DeviceEventKind, DeviceReport, DeviceSource, FabricState, NvmlProbe, Probe, ProbeError, Recovery, SimulatedProbe,
    open_auto,
};
use muster_agent::inventory::{InventoryConfig, InventoryError, collect, describe};
use muster_common::Name;
use muster_common::node::Link;
use serde_json::Value;
use std::path::Path;

const WAIT_MS: u64 = 20_000;
/// The two ways in which drivers treat a device that is off the bus.
const REFUSES_ALL: u32 = 1;
const TELLS_ITS_NAME: u32 = 2;

fn report(fixture: &str) -> DeviceReport {
    FakeNvml::playing(fixture).probe().devices().unwrap()
}

fn expectations(name: &str) -> Value {
    let value: Value = serde_json::from_str(&std::fs::read_to_string(fixture_path(name)).unwrap()).unwrap();
    value.get("tray").unwrap_or(&value)["expect"].clone()
}

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

#[test]
fn every_fixture_comes_back_through_nvml_as_it_is_written() {
    for name in fixture::names() {
        let machine = Fixture::load(name, None).unwrap();
        let report = report(name);
        assert_eq!(report.links, machine.links().unwrap(), "the matrix of {name}");
        assert!(report.unreadable.is_empty());
        for (gpu, (device, health)) in machine.gpus.iter().zip(report.devices.iter().zip(&report.health)) {
            assert_eq!(device.pci_address, gpu.pci_bus_id, "{name}");
            let links = (gpu.nvlinks_max > 0).then_some(gpu.nvlinks_active);
            assert_eq!(health.nvlinks_active, links, "{name}");
            assert!(health.reachable && device.uuid.starts_with("GPU-") && device.parent.is_none());
        }
        assert_eq!(report.affinity, machine.gpus.iter().map(|gpu| gpu.cpu_affinity.clone()).collect::<Vec<_>>());
    }
}

#[test]
fn nvml_and_the_simulated_probe_tell_of_the_same_machine() {
    for name in fixture::names() {
        let real = report(name);
        let simulated = SimulatedProbe::new(name, None, "node-1").unwrap().devices().unwrap();
        assert_eq!(real.links, simulated.links, "{name}");
        assert_eq!(real.nvlink_domain, simulated.nvlink_domain, "{name}");
        for (one, other) in real.devices.iter().zip(&simulated.devices) {
            assert_eq!(
                (&one.model, &one.product, one.memory_bytes),
                (&other.model, &other.product, other.memory_bytes)
            );
        }
    }
}

/// Devices joined by NVLink to all others of the set, greedily from each device.
fn largest_nvlink_group(links: &[Vec<Link>]) -> usize {
    let joined = |a: usize, b: usize| matches!(links[a][b], Link::NvLink(_));
    let group = |start: usize| {
        (0..links.len()).fold(vec![start], |mut group, next| {
            if !group.contains(&next) && group.iter().all(|member| joined(*member, next)) {
                group.push(next);
            }
            group
        })
    };
    (0..links.len()).map(|start| group(start).len()).max().unwrap_or(0)
}

#[test]
fn the_expectations_written_in_the_fixtures_hold() {
    for name in fixture::names() {
        let expect = expectations(name);
        let report = report(name);
        if let Some(supported) = expect.get("fabric_info_supported") {
            let told = report.health[0].fabric.state != FabricState::NotSupported;
            assert_eq!(Value::Bool(told), *supported, "{name}");
        }
        if let Some(unhealthy) = expect.get("unhealthy_gpus") {
            let dark = (0..report.health.len()).filter(|slot| report.health[*slot].nvlinks_active == Some(0));
            assert_eq!(dark.collect::<Vec<_>>(), numbers(unhealthy), "{name}");
        }
        if let Some(size) = expect.get("largest_full_nvlink_group") {
            assert_eq!(largest_nvlink_group(&report.links) as u64, size.as_u64().unwrap(), "{name}");
        }
        if let Some(pairs) = expect.get("best_pair") {
            let best =
                report.links.iter().flatten().filter(|link| **link != Link::Same).map(|link| link.quality()).max();
            for pair in pairs.as_array().unwrap().iter().map(numbers) {
                assert_eq!(Some(report.links[pair[0]][pair[1]].quality()), best, "{name} {pair:?}");
            }
        }
        if let Some(level) = expect.get("worst_pair_level") {
            let worst = report.links.iter().flatten().min_by_key(|link| link.quality()).unwrap();
            assert_eq!(*worst, fixture::parse_link(level.as_str().unwrap()).unwrap(), "{name}");
        }
    }
}

#[test]
fn rails_and_numa_groups_written_in_the_fixtures_hold() {
    for name in fixture::names() {
        let expect = expectations(name);
        let source = DeviceSource::Simulated { fixture: name.to_owned(), tray: None };
        let inventory = collect(&source, &InventoryConfig::new(Name::literal("node-1"))).unwrap();
        if let Some(rails) = expect.get("rail_of_gpu") {
            for (slot, rail) in numbers(rails).into_iter().enumerate() {
                let nearest = &inventory.devices[slot].nearest_nics;
                let near = inventory.nics.iter().filter(|nic| nearest.contains(&nic.name));
                assert!(near.clone().all(|nic| nic.compute), "{name}");
                assert!(near.filter_map(|nic| nic.rail).any(|near| usize::from(near) == rail), "{name} {slot}");
            }
        }
        if let Some(groups) = expect.get("gpu_groups_by_numa").or(expect.get("gpu_groups_by_switch")) {
            for group in groups.as_array().unwrap().iter().map(numbers) {
                let numa: Vec<_> = group.iter().map(|slot| inventory.devices[*slot].numa).collect();
                assert!(numa.iter().all(|one| one.is_some() && *one == numa[0]), "{name} {group:?}");
            }
        }
    }
}

#[test]
fn a_degraded_b200_shows_gpu_2_off_nvlink() {
    let report = report("hgx-b200-degraded");
    let expected = [Link::Node, Link::Node, Link::Same, Link::Node, Link::Sys, Link::Sys, Link::Sys, Link::Sys];
    assert_eq!(report.links[2], expected);
    assert_eq!(report.links[1][5], Link::NvLink(18));
    assert_ne!(report.health[2].fabric.state, FabricState::Completed);
}

#[test]
fn an_xid_arrives_with_its_device_and_stays_in_its_health() {
    let fake = FakeNvml::playing("dgx-h100");
    let mut probe = fake.probe();
    let uuid = probe.devices().unwrap().devices[5].uuid.clone();
    fake.inject_xid(5, 48);
    let events = probe.events(WAIT_MS);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].slot, events[0].kind, &events[0].uuid), (Some(5), DeviceEventKind::Xid(48), &uuid));
    let health = probe.devices().unwrap().health;
    assert_eq!(health[5].last_xid, Some(48));
    assert_eq!(health[4].last_xid, None);
    assert!(probe.events(0).is_empty());
}

#[test]
fn a_device_off_the_bus_keeps_its_slot_and_its_xid_is_still_named() {
    for kind in [REFUSES_ALL, TELLS_ITS_NAME] {
        lose_a_device(kind);
    }
}

fn lose_a_device(kind: u32) {
    let fake = FakeNvml::playing("dgx-h100");
    let mut probe = fake.probe();
    let before = probe.devices().unwrap();
    fake.set("set_lost", [3, kind]);
    fake.inject_xid(3, 79);
    let events = probe.events(WAIT_MS);
    assert_eq!((events[0].slot, events[0].kind), (Some(3), DeviceEventKind::Xid(79)));
    let after = probe.devices().unwrap();
    assert_eq!(after.devices, before.devices, "slots and their devices stay");
    assert_eq!(after.unreadable.len(), 1);
    let reachable: Vec<bool> = after.health.iter().map(|health| health.reachable).collect();
    assert_eq!(reachable, [true, true, true, false, true, true, true, true]);
    assert_eq!((after.health[3].processes.clone(), after.health[3].last_xid), (None, Some(79)));
    assert!(matches!(probe.processes(3), Err(ProbeError::Query { .. })), "a lost device is no evidence of being free");
    assert!(probe.processes(4).unwrap().is_empty());
    fake.set("set_lost", [3, 0]);
    let back = probe.devices().unwrap();
    assert!(back.health[3].reachable);
    assert_eq!(back.links, before.links);
}

#[test]
fn a_dropped_link_lowers_the_bond_of_its_device_only() {
    let fake = FakeNvml::playing("dgx-h100");
    let mut probe = fake.probe();
    fake.set("drop_link", [0, 7]);
    let report = probe.devices().unwrap();
    assert_eq!(report.links[0][1], Link::NvLink(17));
    assert_eq!(report.links[1][2], Link::NvLink(18));
    assert_eq!(report.health[0].nvlinks_active, Some(17));
}

#[test]
fn health_facts_come_through() {
    let fake = FakeNvml::playing("dgx-h100");
    let mut probe = fake.probe();
    fake.set("set_temperature", [1, 83]);
    fake.set("set_remap", [2, 1, 0]);
    fake.set("set_remap", [3, 0, 1]);
    fake.set("set_recovery", [4, 4]);
    fake.set("add_process", [6, NO_INSTANCE, 4711]);
    fake.set("add_process", [6, NO_INSTANCE, 42]);
    let health = probe.devices().unwrap().health;
    assert_eq!(health[1].temperature_c, Some(83));
    assert_eq!((health[2].remap_pending, health[2].remap_failed), (Some(true), Some(false)));
    assert_eq!((health[3].remap_pending, health[3].remap_failed), (Some(false), Some(true)));
    assert_eq!((health[0].recovery, health[4].recovery), (Some(Recovery::None), Some(Recovery::DrainAndReset)));
    assert_eq!(health[6].processes, Some(vec![42, 4711]));
    assert_eq!(probe.processes(6).unwrap(), vec![42, 4711]);
    fake.set("clear_processes", [6]);
    assert!(probe.processes(6).unwrap().is_empty());
    assert!(matches!(probe.processes(8), Err(ProbeError::NoSuchSlot { slot: 8, count: 8 })));
}

#[test]
fn a_wedged_driver_costs_an_answer_and_not_the_agent() {
    let fake = FakeNvml::playing("dgx-h100");
    let mut probe = fake.probe().with_answer_limit_ms(200);
    fake.set("set_hang", [1]);
    for _ in 0..8 {
        assert!(matches!(probe.devices(), Err(ProbeError::Stuck { .. })));
    }
    fake.set("set_hang", [0]);
    let mut probe = probe.with_answer_limit_ms(WAIT_MS);
    // Until the thread is through its backlog the queue of questions may still be full.
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(WAIT_MS);
    let report = loop {
        match probe.devices() {
            Ok(report) => break report,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    };
    assert_eq!(report.devices.len(), 8);
}

#[test]
fn an_old_driver_without_the_newer_calls_still_gives_the_matrix() {
    let fake = FakeNvml::playing("dgx-h100");
    fake.set("set_old_driver", [1]);
    let report = fake.probe().devices().unwrap();
    assert_eq!(report.links[0][7], Link::NvLink(18));
    let health = &report.health[0];
    assert_eq!((health.remap_pending, health.recovery, health.fabric.state), (None, None, FabricState::NotSupported));
}

#[test]
fn mig_instances_follow_their_gpu_and_have_their_own_processes() {
    let fake = FakeNvml::playing("dgx-h100");
    fake.set("set_mig", [1, 2]);
    fake.set("add_process", [1, 1, 77]);
    let mut probe = fake.probe();
    let report = probe.devices().unwrap();
    let parents: Vec<Option<u16>> = report.devices.iter().map(|device| device.parent).collect();
    assert_eq!(parents, [None, None, Some(1), Some(1), None, None, None, None, None, None]);
    assert!(report.devices[2].uuid.starts_with("MIG-"), "{}", report.devices[2].uuid);
    assert_eq!(report.devices[3].memory_bytes, 10 << 30);
    assert_eq!((report.links[2][3], report.links[2][0], report.links[0][1]), (Link::Pix, Link::Node, Link::NvLink(18)));
    assert_eq!(probe.processes(3).unwrap(), vec![77]);
    assert!(probe.processes(2).unwrap().is_empty());
    // The driver takes an instance away: its slot stays, and the others' too.
    fake.set("set_mig", [1, 1]);
    let after = probe.devices().unwrap();
    assert_eq!(after.devices, report.devices);
    assert!(!after.health[3].reachable && after.health[2].reachable);
}

/// NUMA nodes of a fixture as the kernel would show them, without a PCI tree.
fn write_machine(root: &Path, machine: &Fixture) {
    let put = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("sys/devices/system/cpu/online", "0-255\n");
    for node in &machine.cpu.numa {
        put(&format!("sys/devices/system/node/node{}/cpulist", node.id), &node.cpus);
    }
    put("proc/meminfo", "MemTotal: 1048576 kB\n");
    put("proc/sys/kernel/random/boot_id", "00000000-0000-4000-8000-000000000001\n");
    put("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
}

#[test]
fn an_inventory_over_nvml_finds_the_numa_node_of_every_device() {
    for name in fixture::names() {
        let fake = FakeNvml::playing(name);
        let machine = Fixture::load(name, None).unwrap();
        let root = tempfile::tempdir().unwrap();
        write_machine(root.path(), &machine);
        let config = InventoryConfig {
            address: Some("node-1".to_owned()),
            sysfs_root: root.path().join("sys"),
            proc_root: root.path().join("proc"),
            machine_id_path: root.path().join("etc/machine-id"),
            ..InventoryConfig::new(Name::literal("node-1"))
        };
        let source = DeviceSource::Nvml { library: Some(fake.path().to_owned()) };
        let inventory = collect(&source, &config).unwrap();
        for (device, gpu) in inventory.devices.iter().zip(&machine.gpus) {
            assert_eq!(device.numa, Some(gpu.numa_node), "{name} {}", gpu.index);
        }
        assert_eq!(inventory.memory_bytes, 1 << 30);
    }
}

#[test]
fn a_library_that_is_missing_foreign_or_without_a_driver_is_told_apart() {
    let open = |path: &Path| NvmlProbe::open(Some(path)).map(drop);
    let missing = open(Path::new("/nonexistent/libnvidia-ml.so.1"));
    assert!(matches!(missing, Err(ProbeError::LibraryMissing { .. })), "{missing:?}");
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("libnvidia-ml.so.1");
    std::fs::write(&text, "not a library").unwrap();
    assert!(matches!(open(&text), Err(ProbeError::LibraryMissing { .. })));
    let idle = FakeNvml::idle();
    if std::env::var_os("MUSTER_FAKE_NVML").is_none() {
        assert!(matches!(open(idle.path()), Err(ProbeError::Init { .. })));
    }
}

#[test]
fn auto_joins_without_devices_only_where_there_is_no_hardware() {
    if std::env::var_os("MUSTER_FAKE_NVML").is_some() {
        return;
    }
    let idle = FakeNvml::idle();
    let sysfs = tempfile::tempdir().unwrap();
    let mut probe = open_auto(Some(idle.path()), sysfs.path()).unwrap();
    assert!(probe.devices().unwrap().devices.is_empty());
    let card = sysfs.path().join("bus/pci/devices/0000:1b:00.0");
    std::fs::create_dir_all(&card).unwrap();
    std::fs::write(card.join("vendor"), "0x10de\n").unwrap();
    std::fs::write(card.join("class"), "0x030200\n").unwrap();
    let error = open_auto(Some(idle.path()), sysfs.path()).unwrap_err().to_string();
    assert!(error.contains("must not join as CPU-only"), "{error}");
    let playing = FakeNvml::playing("pcie-8x");
    let mut whole = open_auto(Some(playing.path()), sysfs.path()).unwrap();
    assert_eq!(whole.devices().unwrap().devices.len(), 8);
}

#[test]
fn this_machine_has_an_inventory() {
    let address = Some("127.0.0.1".to_owned());
    let config = InventoryConfig { address, ..InventoryConfig::new(Name::literal("here")) };
    match collect(&DeviceSource::None, &config) {
        Ok(inventory) => {
            assert!(inventory.cpu_milli >= 1000 && inventory.memory_bytes > 0 && !inventory.numa.is_empty());
            println!("{}", describe(&inventory));
        }
        Err(error @ InventoryError::NoIdentity { .. }) => println!("skipped: {error}"),
        Err(error) => panic!("{error}"),
    }
}

/// The environment belongs to a whole process, so this test runs its body in a second one.
#[test]
fn the_fixture_can_come_from_the_environment() {
    const VARIABLE: &str = "MUSTER_FAKE_NVML";
    if std::env::var_os(VARIABLE).is_some() {
        let report = FakeNvml::idle().probe().devices().unwrap();
        assert_eq!((report.devices.len(), report.devices[0].model.as_str()), (4, "GB200"));
        assert!(report.nvlink_domain.is_some());
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_fixture_can_come_from_the_environment", "--nocapture"])
        .env(VARIABLE, fixture_path("gb200-nvl72"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// The same questions to the real driver; on a machine without one there is nothing to ask.
#[test]
fn real_nvml_if_present() {
    let mut probe = match NvmlProbe::open(None) {
        Ok(probe) => probe,
        Err(error @ (ProbeError::LibraryMissing { .. } | ProbeError::Init { .. })) => {
            println!("skipped: no working NVIDIA driver here: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let report = probe.devices().unwrap();
    println!("{}: {report:#?}", probe.describe());
    assert!(!report.devices.is_empty() && report.unreadable.is_empty());
    assert_eq!(report.links.len(), report.devices.len());
    for (slot, (device, health)) in report.devices.iter().zip(&report.health).enumerate() {
        assert!(device.uuid.starts_with("GPU-") || device.uuid.starts_with("MIG-"), "{device:?}");
        assert!(health.reachable && device.memory_bytes > 0, "{device:?}");
        probe.processes(slot as u16).unwrap();
    }
    assert_eq!(probe.devices().unwrap().devices, report.devices, "two looks agree");
    probe.events(0);
    let inventory = collect(&DeviceSource::Auto, &InventoryConfig::new(Name::literal("node-1"))).unwrap();
    assert_eq!(inventory.devices.len(), report.devices.len());
    println!("{}", describe(&inventory));
}
