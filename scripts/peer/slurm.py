"""slurmctld and one real slurmd a node, all on 127.0.0.1, with fake GPUs that only count."""
import json, os, signal, statistics, subprocess, threading, time
from .common import HERE, Processes, rss_mib, sh, wait_for

NODES = 8
#: Starts what can start at once, in place of once a few seconds.
TUNED = "batch_sched_delay=0,sched_min_interval=0"
STAMP = "printf '%s\\n' $EPOCHREALTIME"


class Slurm:
    def __init__(self, folder):
        self.folder, self.processes = folder, Processes()
        # The ports of an earlier instance may still be in their last state.
        self.port = 21000 + (os.getpid() * 7 + sum(map(ord, folder.name))) % 500 * 40
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
        self.configure("")
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        wait_for(lambda: (folder / "run/munge").exists(), "munged")
        self.start_controller()
        for node in range(1, NODES + 1):
            (folder / f"spool/n{node}").mkdir()
            self.processes.start("slurmd-wlm", "-D", "-N", f"n{node}", "-d", "/usr/sbin/slurmstepd-wlm", log=folder / f"log/n{node}.out")
        self.all_idle()
        self.flood = folder / "flood"
        sh("gcc", "-O2", "-o", str(self.flood), str(HERE / "slurm_flood.c"), "-lslurm", "-lpthread")

    def start_controller(self):
        self.controller = self.processes.start("slurmctld-wlm", "-D", log=self.folder / "log/slurmctld.out")

    def all_idle(self):
        wait_for(lambda: self.idle() == NODES, "all slurmd idle")
        # Debian's build forgets the GPUs of a node's line in the file.
        sh("scontrol", "update", f"NodeName=n[1-{NODES}]", "Gres=gpu:8")

    def idle(self):
        try:
            return int(sh("sinfo", "-h", "-t", "idle", "-o", "%D").strip() or 0)
        except (RuntimeError, ValueError):
            return 0

    def tune(self, parameters):
        """Scheduler parameters from here on; empty = Slurm's own."""
        self.configure(parameters)
        sh("scontrol", "reconfigure")
        self.all_idle()

    def configure(self, parameters):
        folder, port = self.folder, self.port
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
        if parameters:
            settings["SchedulerParameters"] = parameters
        lines = [f"{key}={value}" for key, value in settings.items()]
        hardware = "CPUs=64 SocketsPerBoard=2 CoresPerSocket=32 ThreadsPerCore=1 RealMemory=500000 Gres=gpu:8 State=UNKNOWN"
        lines.append(f"NodeName=n[1-{NODES}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{port + 10}-{port + 9 + NODES}] {hardware}")
        lines.append(f"PartitionName=all Nodes=n[1-{NODES}] Default=YES DefaultTime=60 State=UP")
        (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        # One file for each GPU, as Slurm wants it; what is in them does not matter.
        (folder / "gpu").mkdir(exist_ok=True)
        for gpu in range(8):
            (folder / f"gpu/g{gpu}").touch()
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu/g[0-7]\n")

    def submit(self, jobs, threads, hold=True):
        out = json.loads(sh(str(self.flood), str(jobs), str(threads), "1", "8" if hold else "0", "hold" if hold else "run"))
        assert out["failed"] == 0, out
        return out["per_second"]

    def queued(self):
        return set(map(int, sh("squeue", "-h", "-o", "%A").split()))

    def cancel_all(self):
        subprocess.run(["scancel", "-u", "root"], check=False)
        wait_for(lambda: not self.queued(), "an empty queue", 120)

    def rss_with_queued(self, jobs):
        self.submit(jobs, 8)
        size = rss_mib(self.controller.pid)
        self.cancel_all()
        return size

    def start_ms(self, nodes):
        began = time.time()
        out = sh("srun", f"-N{nodes}", f"-n{nodes}", "--gpus-per-node=8", "bash", "-c", STAMP)
        return (max(map(float, out.split())) - began) * 1e3

    def batch_start_ms(self, nodes):
        """By sbatch, which queues the job and starts it in a later cycle."""
        out = self.folder / "stamps"
        out.unlink(missing_ok=True)
        script = self.folder / "stamp.sh"
        script.write_text("#!/bin/bash\nsrun bash -c 'printf \"%s\\n\" $EPOCHREALTIME'\n")
        began = time.time()
        sh("sbatch", f"-N{nodes}", f"-n{nodes}", "--gpus-per-node=8", "-o", str(out), str(script))
        wait_for(lambda: out.exists() and len(out.read_text().split()) >= nodes, "the ranks of a batch job")
        took = (max(map(float, out.read_text().split())) - began) * 1e3
        wait_for(lambda: not self.queued(), "an empty queue")
        return took

    def drain_seconds(self, jobs):
        began = time.time()
        self.submit(jobs, 4, hold=False)
        wait_for(lambda: not self.queued(), "the end of the drain", 300, 0.1)
        return time.time() - began

    def array_ms(self, elements):
        script = self.folder / "true.sh"
        script.write_text("#!/bin/sh\ntrue\n")
        began = time.time()
        sh("sbatch", "-H", "-n1", "-o", "/dev/null", f"--array=1-{elements}", str(script))
        took = (time.time() - began) * 1e3
        self.cancel_all()
        return took

    def kills(self, count):
        """kill -9 of slurmctld in a flood of held submits, started again at once: what was lost, and how long nobody was answered."""
        seen, flood = [], subprocess.Popen([self.flood, "0", "8", "1", "8", "hold"], stdout=subprocess.PIPE, text=True)

        def read():
            for line in flood.stdout:
                seen.append((time.monotonic(), int(line)))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        back_ms = []
        try:
            for kill in range(count):
                time.sleep(0.7 + kill * 0.037 % 0.3)
                self.processes.kill(self.controller)
                killed = time.monotonic()
                self.start_controller()
                # What was on its way at the kill may still arrive.
                wait_for(lambda: seen and seen[-1][0] > killed + 0.02, "an answer of the new slurmctld", 60, 0.002)
                back_ms.append((next(at for at, _ in seen if at > killed + 0.02) - killed) * 1e3)
        finally:
            flood.send_signal(signal.SIGTERM)
            flood.wait(60)
            reader.join(5)
        ids = [job for _, job in seen]
        there = self.queued()
        lost = sum(1 for job in ids if job not in there)
        return {"kills": count, "acknowledged": len(ids), "lost": lost, "ids_reused": len(ids) - len(set(ids)), "back_ms": back_ms}

    def stop(self):
        self.processes.stop()


def median_of(measure, runs, pause=0.0):
    times = []
    for _ in range(runs):
        time.sleep(pause)
        times.append(measure())
    return statistics.median(times)
