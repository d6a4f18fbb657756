#!/usr/bin/env python3
"""Muster and its peers on one machine, in turn: medians and ratios from one run.

    scripts/peers.py [--rounds 3] [--only submit,start,drain,gangs,array,etcd,hq] [--log FILE]

Needs root, Debian's slurmctld, slurmd, slurm-client, libslurm-dev, munge, etcd-server and gcc, the Python packages grpcio and
hyperqueue (for the last two), and `cargo build --release -p muster-cli -p muster-tests`. A peer that is not installed is left
out, and its rows say so. Everything listens on 127.0.0.1 and lives in one temporary folder; only what was started here is stopped.

Fairness, to be quoted with the figures: Slurm is Debian's 22.05 with its defaults and acknowledges before anything is durable;
HyperQueue runs without a journal; Muster acknowledges after two of three servers have synced; etcd has three members as well.
"""
import argparse, asyncio, json, os, shutil, ssl, statistics, subprocess, sys, tempfile, time, urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
SLURM_NODES = 8


class Log:
    """Every figure as it comes, raw, for whoever doubts the medians."""

    def __init__(self, path):
        self.file = open(path, "a") if path else None

    def note(self, **fields):
        fields["load_1m"] = os.getloadavg()[0]
        line = json.dumps(fields)
        print("  " + line, file=sys.stderr, flush=True)
        if self.file:
            print(line, file=self.file, flush=True)


def sh(*arguments, **options):
    return subprocess.run(arguments, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options).stdout


class Processes:
    def __init__(self):
        self.running = []

    def start(self, *arguments, log=None, **options):
        out = open(log, "ab") if log else subprocess.DEVNULL
        process = subprocess.Popen(arguments, stdout=out, stderr=out, **options)
        self.running.append(process)
        return process

    def stop(self):
        for process in reversed(self.running):
            process.terminate()
        until = time.time() + 5
        for process in self.running:
            try:
                process.wait(max(0.1, until - time.time()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Muster:
    def __init__(self):
        measure = ROOT / "target/release/muster-measure"
        self.process = subprocess.Popen([measure, "hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = json.loads(self.process.stdout.readline())
        identity = self.about["identity"]
        self.env = {"MUSTER_SERVER": self.about["server"], "MUSTER_IDENTITY": identity, "HOME": identity, "PATH": os.environ["PATH"]}

    def bench(self, *arguments):
        out = sh(self.about["muster"], "--json", "--quiet", "bench", *map(str, arguments), env=self.env)
        return json.loads(out)["loads"]

    def per_sync(self, arguments):
        """Runs a load; its figures, and the entries that one sync of the leader's log carried."""
        before = self.synced()
        load = self.bench(*arguments)[0]
        entries, syncs = (after - earlier for after, earlier in zip(self.synced(), before))
        return load, entries / max(1, syncs)

    def synced(self):
        context = ssl.create_default_context(cafile=self.about["identity"] + "/ca.crt")
        context.check_hostname = False
        context.load_cert_chain(self.about["identity"] + "/identity.crt", self.about["identity"] + "/identity.key")
        address = self.about["server"].split(",")[self.about["leader"]]
        text = urllib.request.urlopen(f"https://{address}/metrics", context=context).read().decode()
        return metric(text, "muster_log_synced_entries_total"), metric(text, "muster_log_syncs_total")

    def stop(self):
        self.process.stdin.close()
        self.process.wait(30)


class Slurm:
    """slurmctld and one real slurmd a node, all on 127.0.0.1, with fake GPUs that only count."""

    def __init__(self, folder):
        self.folder, self.processes = folder, Processes()
        try:
            self.begin(folder)
        except BaseException:
            self.processes.stop()
            raise

    def begin(self, folder):
        for name in ("state", "spool", "log", "run"):
            (folder / name).mkdir(parents=True)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        folder.chmod(0o755)
        munge = [f"--key-file={key}", f"--socket={folder}/run/munge", f"--pid-file={folder}/run/munge.pid",
                 f"--log-file={folder}/log/munge", f"--seed-file={folder}/run/seed", "--num-threads=10"]
        self.processes.start("munged", "--force", "--foreground", *munge, log=folder / "log/munged.out")
        self.configure()
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        wait_for(lambda: (folder / "run/munge").exists(), "munged")
        self.processes.start("slurmctld-wlm", "-D", log=folder / "log/slurmctld.out")
        for node in range(1, SLURM_NODES + 1):
            (folder / f"spool/n{node}").mkdir()
            self.processes.start("slurmd-wlm", "-D", "-N", f"n{node}", "-d", "/usr/sbin/slurmstepd-wlm", log=folder / f"log/n{node}.out")
        wait_for(lambda: self.idle() == SLURM_NODES, "all slurmd idle")
        # Debian's build forgets the GPUs of a node's line in the file.
        sh("scontrol", "update", f"NodeName=n[1-{SLURM_NODES}]", "Gres=gpu:8")
        self.flood = folder / "flood"
        sh("gcc", "-O2", "-o", str(self.flood), str(HERE / "slurm_flood.c"), "-lslurm", "-lpthread")

    def idle(self):
        try:
            return int(sh("sinfo", "-h", "-t", "idle", "-o", "%D").strip() or 0)
        except (subprocess.CalledProcessError, ValueError):
            return 0

    def configure(self):
        folder, port = self.folder, 21000 + os.getpid() % 500 * 40
        last = port + 9 + SLURM_NODES
        settings = {
            "ClusterName": "peers", "SlurmctldHost": "localhost(127.0.0.1)", "SlurmUser": "root", "SlurmdUser": "root",
            "AuthType": "auth/munge", "CredType": "cred/munge", "AuthInfo": f"socket={folder}/run/munge",
            "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny", "SlurmctldPort": port,
            "StateSaveLocation": folder / "state", "SlurmdSpoolDir": f"{folder}/spool/%n",
            "SlurmctldPidFile": folder / "run/slurmctld.pid", "SlurmdPidFile": f"{folder}/run/%n.pid",
            "SlurmctldDebug": "error", "SlurmdDebug": "error", "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none", "JobAcctGatherType": "jobacct_gather/none", "MpiDefault": "none",
            "AccountingStorageType": "accounting_storage/none", "ReturnToService": 2, "MaxJobCount": 200000,
            "MaxArraySize": 100001, "SchedulerType": "sched/backfill", "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core", "GresTypes": "gpu", "SlurmdParameters": "config_overrides",
        }
        lines = [f"{key}={value}" for key, value in settings.items()]
        hardware = "CPUs=64 SocketsPerBoard=2 CoresPerSocket=32 ThreadsPerCore=1 RealMemory=500000 Gres=gpu:8 State=UNKNOWN"
        lines.append(f"NodeName=n[1-{SLURM_NODES}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{port + 10}-{last}] {hardware}")
        lines.append(f"PartitionName=all Nodes=n[1-{SLURM_NODES}] Default=YES DefaultTime=60 State=UP")
        (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        (folder / "gpu").touch()
        (folder / "gres.conf").write_text(f"Name=gpu Count=8 File={folder}/gpu\n")

    def submit(self, jobs, threads, hold=True):
        out = json.loads(sh(str(self.flood), str(jobs), str(threads), "1", "8" if hold else "0", "hold" if hold else "run"))
        assert out["failed"] == 0, out
        return out["per_second"]

    def cancel_all(self):
        subprocess.run(["scancel", "-u", "root"], check=False)
        wait_for(lambda: not sh("squeue", "-h", "-o", "%i").strip(), "an empty queue", 120)

    def start_ms(self, nodes):
        stamp = "printf '%s\\n' $EPOCHREALTIME"
        began = time.time()
        out = sh("srun", f"-N{nodes}", f"-n{nodes}", "--gpus-per-node=8", "bash", "-c", stamp)
        return (max(map(float, out.split())) - began) * 1e3

    def drain_seconds(self, jobs):
        began = time.time()
        self.submit(jobs, 4, hold=False)
        wait_for(lambda: not sh("squeue", "-h", "-o", "%i").strip(), "the end of the drain", 300, 0.1)
        return time.time() - began

    def array_ms(self, elements):
        script = self.folder / "true.sh"
        script.write_text("#!/bin/sh\ntrue\n")
        began = time.time()
        sh("sbatch", "-H", "-n1", "-o", "/dev/null", f"--array=1-{elements}", str(script))
        took = (time.time() - began) * 1e3
        self.cancel_all()
        return took

    def stop(self):
        self.processes.stop()


class Etcd:
    def __init__(self, folder):
        self.processes = Processes()
        folder.mkdir()
        base = 24000 + os.getpid() % 500 * 10
        peers = {f"m{i}": f"http://127.0.0.1:{base + i}" for i in (1, 2, 3)}
        self.clients = {f"m{i}": f"127.0.0.1:{base + 3 + i}" for i in (1, 2, 3)}
        cluster = ",".join(f"{name}={url}" for name, url in peers.items())
        for name, url in peers.items():
            client = f"http://{self.clients[name]}"
            self.processes.start(
                "etcd", "--name", name, "--data-dir", str(folder / name), "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", url, "--initial-advertise-peer-urls", url, "--initial-cluster", cluster, "--log-level", "error",
                log=folder / f"{name}.log")
        wait_for(self.healthy, "etcd")

    def healthy(self):
        try:
            self.put_rate(1, 0.05)
            return True
        except Exception:
            return False

    def leader(self):
        for address in self.clients.values():
            text = urllib.request.urlopen(f"http://{address}/metrics").read().decode()
            if metric(text, "etcd_server_is_leader") == 1:
                return address, metric(text, "etcd_disk_wal_fsync_duration_seconds_count")
        raise RuntimeError("etcd has no leader")

    def put_rate(self, in_flight, seconds, value_bytes=1024):
        """Closed loop of puts at the leader; puts a second, and puts for each sync of its log."""
        address, before = self.leader()
        count, took = asyncio.run(put_loop(address, in_flight, seconds, os.urandom(value_bytes)))
        syncs = self.leader()[1] - before
        return count / took, count / max(1, syncs)

    def stop(self):
        self.processes.stop()


def metric(text, name):
    return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(name + " ")), None)


def field(number, value):
    """A length-delimited field of a protobuf message."""
    size, out = len(value), bytes([number << 3 | 2])
    while size > 127:
        out, size = out + bytes([size & 127 | 128]), size >> 7
    return out + bytes([size]) + value


async def put_loop(address, in_flight, seconds, value):
    import grpc
    done = 0
    async with grpc.aio.insecure_channel(address) as channel:
        put = channel.unary_unary("/etcdserverpb.KV/Put")
        began = time.perf_counter()

        async def lane(number):
            nonlocal done
            count = 0
            while time.perf_counter() - began < seconds:
                await put(field(1, b"peers/%d/%d" % (number, count % 1000)) + field(2, value))
                count, done = count + 1, done + 1

        await asyncio.gather(*(lane(number) for number in range(in_flight)))
        return done, time.perf_counter() - began


def hyperqueue(folder, what, count, nodes=1):
    """One measurement in a process of its own, since its server lives inside this one's Python."""
    out = sh("timeout", "-k", "2", "180", sys.executable, str(HERE / "hyperqueue_load.py"), what, str(count), str(nodes), cwd=folder)
    return float(out.strip().splitlines()[-1])


def wait_for(condition, what, seconds=60, pause=0.05):
    until = time.time() + seconds
    while not condition():
        if time.time() > until:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(pause)


class Rows:
    def __init__(self, log):
        self.figures, self.log = {}, log

    def add(self, row, who, value, **more):
        self.figures.setdefault(row, {}).setdefault(who, []).append(value)
        self.log.note(row=row, who=who, value=round(value, 3), **more)

    def print(self, faster_is_more):
        print(f"{'':<52} {'Muster':>9} {'peer':>24} {'ratio':>7}  goal")
        for row, by in self.figures.items():
            ours = statistics.median(by["muster"]) if "muster" in by else None
            peers = [(who, statistics.median(values)) for who, values in by.items() if who != "muster"]
            for who, theirs in peers or [("not installed", None)]:
                ratio = f"{ours / theirs:.2f}" if ours and theirs else "-"
                figure = lambda value: "-" if value is None else f"{value:.1f}"
                print(f"{row:<52} {figure(ours):>9} {who + ' ' + figure(theirs):>24} {ratio:>7}  {faster_is_more.get(row.split(':')[0], '')}")


GOALS = {
    "B1": ">= 1, goal 2 (submits/s)", "B3": ">= 1 (writes/s)", "B5": "<= 0.5 (ms)", "B6": ">= 4 Slurm, >= 1 HyperQueue (jobs/s)",
    "B9": ">= 1 (gangs/s)", "B11": "<= 2 (ms)",
}


def measure(rows, muster, slurm, etcd, hq_folder, only):
    wanted = lambda name: not only or name in only
    if wanted("submit"):
        load = muster.bench("submit", "--connections", 8, "--jobs", 2000)[0]
        rows.add("B1: held submits, 8 connections, per second", "muster", load["per_second"], p99_ms=load["p99_ms"])
        if slurm:
            rows.add("B1: held submits, 8 connections, per second", "slurm", slurm.submit(2000, 8))
            slurm.cancel_all()
    if wanted("etcd"):
        for connections, in_flight, jobs in ((8, 1, 3000), (8, 8, 12000)):
            name = f"B3: durable writes of 1 KiB, {connections * in_flight} in flight, per second"
            load, per_sync = muster.per_sync(["submit", "--connections", connections, "--in-flight", in_flight, "--jobs", jobs, "--job-bytes", 700])
            rows.add(name, "muster", load["per_second"], per_sync=round(per_sync, 1))
            if etcd:
                rate, per_sync = etcd.put_rate(connections * in_flight, 4)
                rows.add(name, "etcd", rate, per_sync=round(per_sync, 1))
    if wanted("start"):
        for load, nodes in zip(muster.bench("start", "--runs", 9), (1, 2, 4, 8)):
            rows.add(f"B5: submit to last rank, {nodes} nodes, ms", "muster", load["median_ms"])
            if slurm:
                times = []
                for _ in range(9):
                    time.sleep(0.5)
                    times.append(slurm.start_ms(nodes))
                rows.add(f"B5: submit to last rank, {nodes} nodes, ms", "slurm", statistics.median(times))
    if wanted("drain"):
        rows.add("B6: drain 1,000 x true, 8 nodes, per second", "muster", muster.bench("drain")[0]["per_second"])
        rows.add("B6: drain 1,000 x true, 8 nodes, per second", "muster", muster.bench("drain", "--array")[0]["per_second"], array=True)
        if slurm:
            rows.add("B6: drain 1,000 x true, 8 nodes, per second", "slurm", 1000 / slurm.drain_seconds(1000))
        if hq_folder:
            rows.add("B6: drain 1,000 x true, 8 nodes, per second", "hyperqueue", hyperqueue(hq_folder, "tasks", 1000))
    if wanted("gangs"):
        for nodes in (4, 8):
            name = f"B9: 200 gangs of {nodes}, 8 agents, per second"
            rows.add(name, "muster", muster.bench("drain", "--gangs", 200, "--nodes", nodes, "--gpus-per-node", 8)[0]["per_second"])
            if hq_folder:
                rows.add(name, "hyperqueue", hyperqueue(hq_folder, "gangs", 200, nodes))
    if wanted("array"):
        rows.add("B11: one array of 10,000, ms", "muster", muster.bench("array")[0]["median_ms"])
        if slurm:
            rows.add("B11: one array of 10,000, ms", "slurm", statistics.median(slurm.array_ms(10000) for _ in range(5)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--log")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    folder = Path(tempfile.mkdtemp(prefix="peers-"))
    log = Log(options.log)
    rows, started = Rows(log), []

    def peer(needed, program, make):
        if only and not only & needed:
            return None
        if not shutil.which(program):
            print(f"{program} is not installed: left out", file=sys.stderr)
            return None
        one = make()
        started.append(one)
        return one

    try:
        slurm = peer({"submit", "start", "drain", "array"}, "slurmctld-wlm", lambda: Slurm(folder / "slurm"))
        etcd = peer({"etcd"}, "etcd", lambda: Etcd(folder / "etcd"))
        try:
            import hyperqueue as _  # noqa: F401
            hq_folder = folder
        except ImportError:
            hq_folder = None
            print("the Python package hyperqueue is not installed: left out", file=sys.stderr)
        muster = Muster()
        started.append(muster)
        for at in range(options.rounds):
            log.note(round=at + 1)
            measure(rows, muster, slurm, etcd, hq_folder, only)
        rows.print(GOALS)
    finally:
        for one in reversed(started):
            one.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
