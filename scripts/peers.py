#!/usr/bin/env python3
"""Muster and its peers on one machine, in turn: medians and ratios from one run, as a Markdown table.

    scripts/peers.py [--rounds 3] [--tiny] [--only submit,drain] [--log FILE]

Needs root, Debian's slurmctld, slurmd, slurm-client, libslurm-dev, munge, etcd-server and gcc, the Python packages grpcio,
hyperqueue and ray, and `cargo build --release -p muster-cli -p muster-agent -p muster-tests`. A peer that is not installed is
left out, and its rows say so. Everything listens on 127.0.0.1 and lives in one temporary folder; only what was started here
is stopped. Every round starts Muster and Slurm afresh and measures each row on one after the other.

Fairness, to be quoted with the figures: Slurm is Debian's 22.05, with its defaults and with batch_sched_delay and
sched_min_interval at 0, and acknowledges before anything is durable; HyperQueue runs without a journal and Ray keeps its
state in memory; Muster acknowledges after two of three servers have synced; etcd has three members as well.
"""
import argparse, math, shutil, sys, tempfile, time, traceback
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from peer.common import HERE, Log, Rows, sh  # noqa: E402
from peer.etcd import Etcd  # noqa: E402
from peer.muster import Muster, idle_agents  # noqa: E402
from peer.slurm import TUNED, Slurm, median_of  # noqa: E402

KILLS = 20


@dataclass
class Sizes:
    queued: int = 10_000
    submits: int = 2_000
    writes: tuple = (3_000, 12_000)
    put_seconds: float = 4.0
    starts: int = 7
    batch_starts: int = 3
    drained: int = 1_000
    gangs: int = 200
    ray_gangs: int = 10
    elements: int = 10_000
    arrays: int = 5
    idle: tuple = (1_000, 15)


TINY = Sizes(queued=300, submits=100, writes=(100, 300), put_seconds=0.5, starts=1, batch_starts=1, drained=24, gangs=4, ray_gangs=2,
             elements=500, arrays=1, idle=(20, 3))


class Round:
    """One round: every row once, Muster first and its peers right after."""

    def __init__(self, rows, sizes, parts):
        self.rows, self.sizes, self.parts = rows, sizes, parts
        self.muster = parts["muster"]

    def peer(self, row, name, measure, **more):
        """The peer's figure, or the reason why there is none."""
        part = self.parts.get(name)
        who = more.pop("who", name)
        if not part:
            return self.rows.lack(row, who, self.parts.get(f"no {name}", "not installed"))
        try:
            self.rows.add(row, who, measure(part), **more)
        except Exception as error:
            self.rows.lack(row, who, f"failed: {type(error).__name__}")
            print(f"{who}: {error}", file=sys.stderr)

    def memory(self):
        row = ("B10", f"B10: memory of the leader with {self.sizes.queued:,} queued", "MiB", "<= 0.25")
        self.rows.add(row, "muster", self.muster.rss_with_queued(self.sizes.queued))
        self.peer(row, "slurm", lambda slurm: slurm.rss_with_queued(self.sizes.queued))

    def submit(self):
        row = ("B1", f"B1: {self.sizes.submits:,} held submits, 8 connections", "/s", ">= 1, goal 2")
        load = self.muster.bench("submit", "--connections", 8, "--jobs", self.sizes.submits)[0]
        self.rows.add(row, "muster", load["per_second"], p99_ms=load["p99_ms"])
        self.peer(row, "slurm", lambda slurm: slurm.submit(self.sizes.submits, 8))
        if self.parts.get("slurm"):
            self.parts["slurm"].cancel_all()

    def etcd(self):
        for in_flight, jobs in zip((1, 8), self.sizes.writes):
            total = 8 * in_flight
            row = (f"B3 {total}", f"B3: durable writes of 1 KiB, {total} in flight", "/s", ">= 1")
            syncs = (f"B3 {total} syncs", f"B3: writes for each sync of the leader's log, {total} in flight", "writes", ">= 1")
            load = ["submit", "--connections", 8, "--in-flight", in_flight, "--jobs", jobs, "--job-bytes", 700]
            load, per_sync = self.muster.per_sync(load)
            self.rows.add(row, "muster", load["per_second"])
            self.rows.add(syncs, "muster", per_sync)
            found = []
            self.peer(row, "etcd", lambda etcd: found.append(etcd.put_rate(total, self.sizes.put_seconds)) or found[0][0])
            self.peer(syncs, "etcd", lambda _: found[0][1])

    def start(self):
        for load, nodes in zip(self.muster.bench("start", "--runs", self.sizes.starts), (1, 2, 4, 8)):
            row = (f"B5 {nodes}", f"B5: submit to the last rank of {nodes}", "ms", "<= 0.5 of srun, <= 0.1 of sbatch")
            self.rows.add(row, "muster", load["median_ms"])
            self.peer(row, "slurm", lambda slurm: median_of(lambda: slurm.start_ms(nodes), self.sizes.starts, 0.2), who="srun")
        self.batch_starts(row, "sbatch, defaults")

    def batch_starts(self, row, who):
        self.peer(row, "slurm", lambda slurm: median_of(lambda: slurm.batch_start_ms(8), self.sizes.batch_starts), who=who)

    def drain(self):
        row = ("B6", f"B6: drain {self.sizes.drained:,} x true, 8 nodes", "/s", ">= 4 of Slurm, >= 1 of HyperQueue")
        array = ("B6 array", f"B6: the same as one array of {self.sizes.drained:,}", "/s", "")
        self.rows.add(row, "muster", self.muster.bench("drain", "--gangs", self.sizes.drained)[0]["per_second"])
        self.peer(row, "slurm", lambda slurm: self.sizes.drained / slurm.drain_seconds(self.sizes.drained), who="slurm, defaults")
        self.rows.add(array, "muster", self.muster.bench("drain", "--array", "--gangs", self.sizes.drained)[0]["per_second"])
        self.peer(row, "hyperqueue", lambda folder: hyperqueue(folder, "tasks", self.sizes.drained))
        if not self.parts.get("slurm"):
            return
        # Tuned: what hangs on it is measured while it is.
        self.parts["slurm"].tune(TUNED)
        self.peer(row, "slurm", lambda slurm: self.sizes.drained / slurm.drain_seconds(self.sizes.drained), who="slurm, tuned")
        if "B5 8" in self.rows.rows:
            self.batch_starts(self.rows.rows["B5 8"], "sbatch, tuned")
        self.parts["slurm"].tune("")

    def gangs(self):
        rays = []
        for at, nodes in enumerate((4, 8)):
            row = (f"B9 {nodes}", f"B9: {self.sizes.gangs} gangs of {nodes} x 8 GPUs through 8 agents", "/s", ">= 1 of HyperQueue, >= 10 of Ray")
            load = self.muster.bench("drain", "--gangs", self.sizes.gangs, "--nodes", nodes, "--gpus-per-node", 8)[0]
            self.rows.add(row, "muster", load["per_second"])
            self.peer(row, "hyperqueue", lambda folder: hyperqueue(folder, "gangs", self.sizes.gangs, nodes))
            self.peer(row, "ray", lambda folder: (rays or rays.append(ray(folder, self.sizes.ray_gangs)) or rays)[0][at])

    def array(self):
        row = ("B11", f"B11: one array of {self.sizes.elements:,}", "ms", "<= 2")
        load = self.muster.bench("array", "--elements", self.sizes.elements, "--runs", self.sizes.arrays)[0]
        self.rows.add(row, "muster", load["median_ms"])
        self.peer(row, "slurm", lambda slurm: median_of(lambda: slurm.array_ms(self.sizes.elements), self.sizes.arrays))

    def kills(self, count):
        """The last rows of a round: the servers are not the same afterwards."""
        what = f"of {KILLS} x kill -9 of the leader in a flood of submits"
        goals = {"acknowledged": "", "lost": "0", "ids_reused": "0", "starts": "", "duplicate_starts": "0", "failed": "0"}
        rows = {key: (f"B4 {key}", f"B4: {key.replace('_', ' ')}, {what}", "sum", goal) for key, goal in goals.items()}
        back = ("B4 back", "B4: from kill -9 of the leader to the next acknowledged submit", "ms", "<= 2,000")
        killed = self.muster.kills(count)
        for key, row in rows.items():
            self.rows.add(row, "muster", killed[key])
        for value in killed["back_ms"]:
            self.rows.add(back, "muster", value)
        slurm = []
        for key in ("acknowledged", "lost", "ids_reused"):
            self.peer(rows[key], "slurm", lambda part: (slurm or slurm.append(part.kills(count)) or slurm)[0][key])
        for value in slurm[0]["back_ms"] if slurm else ():
            self.rows.add(back, "slurm", value)


def hyperqueue(folder, what, count, nodes=1):
    """One measurement in a process of its own, since its server lives inside this one's Python."""
    out = sh("timeout", "-k", "2", "180", sys.executable, str(HERE / "hyperqueue_load.py"), what, str(count), str(nodes), cwd=folder)
    return float(out.strip().splitlines()[-1])


def ray(folder, gangs):
    """A second, of 4 and of 8 nodes."""
    out = sh("timeout", "-k", "2", "180", sys.executable, str(HERE / "ray_load.py"), str(gangs), cwd=folder)
    return [float(word) for word in out.strip().splitlines()[-1].split()]


def idle(rows, sizes, profile):
    agents, seconds = sizes.idle
    found = idle_agents(profile, agents, seconds)
    rows.add(("idle cpu", f"leader's processor with {agents:,} idle agents", "% of a core", ""), "muster", found["leader_core_percent"], **found)
    rows.add(("idle rss", f"leader's memory with {agents:,} idle agents", "MiB", ""), "muster", found["leader_rss_mib"])


def module_there(name):
    import importlib.util
    return importlib.util.find_spec(name) is not None


def play(rows, options, sizes, folder, at):
    """One round. What fails is said and costs its own rows only."""
    wanted = lambda name: not options.only or name in options.only
    started, parts = [], {}

    def begin(name, make):
        try:
            parts[name] = make()
            started.append(parts[name])
        except Exception as error:
            parts[f"no {name}"] = "did not start"
            print(f"{name} cannot be started: {error}", file=sys.stderr)

    try:
        begin("muster", lambda: Muster(options.profile))
        if shutil.which("slurmctld-wlm"):
            begin("slurm", lambda: Slurm(folder / f"slurm-{at}"))
        if shutil.which("etcd") and module_there("grpc") and wanted("etcd"):
            begin("etcd", lambda: Etcd(folder / f"etcd-{at}"))
        parts["hyperqueue"] = folder if module_there("hyperqueue") else None
        parts["ray"] = folder if module_there("ray") else None
        one = Round(rows, sizes, parts)
        kills = 1 if options.tiny else math.ceil(KILLS / options.rounds)
        measures = {name: getattr(one, name) for name in ("memory", "submit", "etcd", "start", "drain", "gangs", "array")}
        measures["kills"] = lambda: one.kills(kills)
        for name, measure in measures.items():
            if wanted(name):
                began = time.time()
                guarded(name, measure)
                rows.log.note(done=name, round=at + 1, seconds=round(time.time() - began, 1))
    finally:
        for one in reversed(started):
            one.stop()


def guarded(name, measure):
    try:
        measure()
    except Exception:
        print(f"{name} failed:", file=sys.stderr)
        traceback.print_exc()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: every row, with figures that mean nothing")
    parser.add_argument("--only", default="", help="of memory, submit, etcd, start, drain, gangs, array, kills, idle")
    parser.add_argument("--profile", default="release", help="of the build to measure, such as debug")
    parser.add_argument("--log", help="every figure as a line of JSON, appended")
    options = parser.parse_args()
    options.only = set(filter(None, options.only.split(",")))
    if options.tiny:
        options.rounds = 1
    sizes = TINY if options.tiny else Sizes()
    folder = Path(tempfile.mkdtemp(prefix="peers-"))
    rows, began = Rows(Log(options.log)), time.time()
    try:
        for at in range(options.rounds):
            rows.log.note(round=at + 1, since_start_s=round(time.time() - began, 1))
            play(rows, options, sizes, folder, at)
        if not options.only or "idle" in options.only:
            guarded("idle", lambda: idle(rows, sizes, options.profile))
        rows.log.note(seconds=round(time.time() - began, 1))
        print("\n".join(rows.markdown()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
