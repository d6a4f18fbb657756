"""Muster: three servers with their own sync and eight agents, held by `muster-measure`."""
import json, os, ssl, subprocess, urllib.request
from .common import ROOT, metric, rss_mib, sh


def measure(profile):
    """The program that holds a cluster, and the environment in which it builds nothing."""
    folder = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / profile
    for name in ("muster", "muster-shim", "muster-measure"):
        if not (folder / name).exists():
            raise SystemExit(f"{folder / name} is not there; build it first: see scripts/peers.py --help")
    return folder / "muster-measure", {**os.environ, "MUSTER_TEST_BUILT": "1"}


class Muster:
    def __init__(self, profile):
        program, env = measure(profile)
        self.process = subprocess.Popen([program, "hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.about = self.answer()
        identity = self.about["identity"]
        self.env = {"MUSTER_SERVER": self.about["server"], "MUSTER_IDENTITY": identity, "HOME": identity, "PATH": os.environ["PATH"]}

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("muster-measure ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def ask(self, line):
        print(line, file=self.process.stdin, flush=True)
        return self.answer()

    def leader_pid(self):
        self.about = self.ask("about")
        return self.about["server_pids"][self.about["leader"]]

    def bench(self, *arguments):
        out = sh(self.about["muster"], "--json", "--quiet", "bench", *map(str, arguments), env=self.env)
        return json.loads(out)["loads"]

    def rss_with_queued(self, jobs):
        """Memory of the leader while so many held jobs wait; they are cancelled afterwards."""
        leader = self.leader_pid()
        load = ["bench", "submit", "--in-flight", "8", "--jobs", str(jobs)]
        process = subprocess.Popen([self.about["muster"], *load], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        size = None
        for line in process.stderr:
            # Said when the last submit was answered.
            if "cancelling" in line:
                size = rss_mib(leader)
        if process.wait() != 0 or size is None:
            raise RuntimeError("muster bench submit did not end well")
        return size

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
        self.about = self.ask("about")
        address = self.about["server"].split(",")[self.about["leader"]]
        text = urllib.request.urlopen(f"https://{address}/metrics", context=context).read().decode()
        return metric(text, "muster_log_synced_entries_total"), metric(text, "muster_log_syncs_total")

    def kills(self, count):
        return self.ask(f"kills {count}")

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)


def idle_agents(profile, agents, seconds):
    """A cluster of its own with virtual agents; what it prints."""
    program, env = measure(profile)
    return json.loads(sh(program, "idle", str(agents), str(seconds), env=env).strip().splitlines()[-1])
