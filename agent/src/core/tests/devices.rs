//! Devices whose slots have moved, and drivers that do not answer.

use super::*;
use crate::core::steps::ASK_AGAIN_MS;
use crate::device::{DeviceEvent, DeviceReport, Probe, ProbeError};
use muster_proto::datagram::Sample;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[tokio::test]
async fn rule_8d_a_release_asks_the_device_that_was_held_although_slots_have_moved() {
    let mut rig = Rig::start().await;
    rig.running(1, 50, &[1], "run").await;
    rig.shutdown.trigger();
    (&mut rig.task).await.expect("no panic").expect("a clean end");
    // GPU-0 was cut into two: what was slot 1 is slot 3 for an agent that starts now.
    let uuids = ["GPU-0", "MIG-a", "MIG-b", "GPU-1", "GPU-2", "GPU-3", "GPU-4", "GPU-5"].map(str::to_owned).to_vec();
    let probe = SimulatedProbe::new("dgx-h100", None, "n").expect("a fixture");
    let control = probe.control();
    let devices = Devices::new(Box::new(probe), uuids);
    let applied_index = rig.applied_index;
    let mut rig = Rig::start_with(rig.folder, rig.time, rig.launcher, "boot-1", devices, control).await;
    rig.applied_index = applied_index;
    until("its load", || (*rig.core.load() == BTreeMap::from([(3, 1000)])).then_some(())).await;
    rig.probe.set_processes(3, vec![4242]);
    rig.desire(vec![rig.work(1, 50, Stop, &[1], "run")]).await;
    rig.await_report("1:exited").await;
    rig.settle().await;
    assert!(!rig.reports().contains(&"1:released".to_owned()), "released with a process on its device");
    rig.probe.set_processes(3, Vec::new());
    rig.time.advance(100);
    rig.await_report("1:released").await;
}

fn fault(slot: u16) -> ReportBody {
    ReportBody::DeviceFault { slot, xid: 79, why: "it fell off the bus".to_owned(), fatal: true }
}

impl Rig {
    /// Joins servers that do not have these devices, and says of which the faults are that they are told of, with numbers.
    async fn faults_told(&self, unregistered: &[&str]) -> Vec<(u64, String)> {
        let unregistered = unregistered.iter().map(|uuid| (*uuid).to_owned()).collect();
        assert!(self.core.joined("c".to_owned(), unregistered).await.expect("the centre lives"));
        let pending = self.core.pending.borrow().clone();
        pending.iter().map(|(number, report)| (*number, report.device.clone().unwrap_or_default())).collect()
    }
}

#[tokio::test]
async fn a_fault_of_a_device_that_servers_do_not_have_is_told_once_they_have_it() {
    let rig = Rig::start().await;
    // Before any server is known; then while one is.
    rig.core.report(fault(6)).await.expect("the centre lives");
    assert_eq!(rig.faults_told(&["GPU-6", "GPU-7"]).await, []);
    rig.core.report(fault(7)).await.expect("the centre lives");
    rig.core.report(fault(0)).await.expect("the centre lives");
    let told = |number, uuid: &str| (number, uuid.to_owned());
    assert_eq!(rig.faults_told(&["GPU-6", "GPU-7"]).await, [told(2, "GPU-0")], "a server has that one");
    rig.acknowledge_all().await;
    let rig = rig.restart("boot-1").await;
    assert_eq!(rig.faults_told(&["GPU-7"]).await, [told(3, "GPU-6")], "the number of one that was passed over");
    assert_eq!(rig.faults_told(&[]).await, [told(3, "GPU-6"), told(4, "GPU-7")]);
}

#[tokio::test]
async fn a_fault_told_before_a_restart_names_the_device_that_had_it() {
    let mut rig = Rig::start().await;
    rig.core.report(fault(1)).await.expect("the centre lives");
    rig.await_report("0:devicefault").await;
    rig.shutdown.trigger();
    (&mut rig.task).await.expect("no panic").expect("a clean end");
    // GPU-0 is gone: what was slot 1 is slot 0 for an agent that starts now.
    let uuids = (1..8).map(|slot| format!("GPU-{slot}")).collect();
    let probe = SimulatedProbe::new("dgx-h100", None, "n").expect("a fixture");
    let control = probe.control();
    let devices = Devices::new(Box::new(probe), uuids);
    let rig = Rig::start_with(rig.folder, rig.time, rig.launcher, "boot-1", devices, control).await;
    rig.await_report("0:devicefault").await;
    let pending = rig.core.pending.borrow().clone();
    let named: Vec<_> = pending.values().map(|report| report.device.as_deref()).collect();
    assert_eq!(named, [Some("GPU-1")]);
}

/// A driver that answers nothing until it is let go.
#[derive(Debug)]
struct Wedged {
    asked: Arc<AtomicUsize>,
    let_go: Arc<AtomicBool>,
}

impl Probe for Wedged {
    fn devices(&mut self) -> Result<DeviceReport, ProbeError> {
        Ok(DeviceReport::default())
    }

    fn events(&mut self, _wait_ms: u64) -> Vec<DeviceEvent> {
        Vec::new()
    }

    fn processes(&self, _slot: u16) -> Result<Vec<u32>, ProbeError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        while !self.let_go.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Vec::new())
    }

    fn samples(&mut self, _load: &Load, _now_ms: u64) -> Result<Vec<Sample>, ProbeError> {
        Ok(Vec::new())
    }

    fn describe(&self) -> String {
        "wedged".to_owned()
    }
}

/// A test that fails must not wait for the driver.
struct LetGo(Arc<AtomicBool>);

impl Drop for LetGo {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_driver_that_does_not_answer_holds_the_centre_up_once_and_not_for_each_device_or_message() {
    let (asked, let_go) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let _guard = LetGo(let_go.clone());
    let time = ManualTime::new(0);
    time.advance(1_000_000);
    let launcher = InProcess::new(Arc::new(time.clock()));
    let wedged = Wedged { asked: asked.clone(), let_go: let_go.clone() };
    let devices = Devices::new(Box::new(wedged), (0..8).map(|slot| format!("GPU-{slot}")).collect());
    let control = SimulatedProbe::new("dgx-h100", None, "n").expect("a fixture").control();
    let folder = tempfile::tempdir().expect("a temp folder");
    let mut rig = Rig::start_with(folder, time, launcher, "boot-1", devices, control).await;
    let all = [0, 1, 2, 3, 4, 5, 6, 7];
    rig.renew().await;
    rig.settle().await;
    rig.desire(vec![rig.work(1, 50, Prepare, &all, "run")]).await;
    until("a question", || (asked.load(Ordering::Relaxed) > 0).then_some(())).await;
    rig.time.advance(3_000);
    rig.await_report("1:failed").await;
    for _ in 0..3 {
        rig.desire(vec![rig.work(1, 50, Stop, &all, "run")]).await;
        let free = tokio::time::timeout(Duration::from_secs(4), rig.settle()).await;
        free.expect("a release that cannot be confirmed holds the centre up");
    }
    assert_eq!(rig.reports(), ["1:failed"], "released without an answer");
    let_go.store(true, Ordering::Relaxed);
    rig.settle().await;
    assert_eq!(rig.reports(), ["1:failed"], "asked before its time");
    rig.time.advance(ASK_AGAIN_MS);
    rig.await_report("1:released").await;
}
