#!/usr/bin/env python3
"""How fast the simulator is: CPU, memory and events a second of whole `muster sim` processes, as Markdown tables.

    scripts/sim-bench.py [--rounds 3] [--only window,philly,million,sweep] [--philly FILE] [--muster FILE]

Needs `cargo build --release -p muster-cli`. An event is an entry of the log: a submit, a plan, an end. All that a process
does is counted, reading the trace and writing every table too. Medians of the rounds; `philly` and `million` are played once.

`philly` needs the list of 52,849 jobs of September and October 2017 that petuum/adaptdl made from Microsoft's traces
(branch osdi21-artifact, simulator/traces/philly.csv, rows before 2017-11-01). `million` invents a month of a million jobs for
10,000 nodes; it takes some GiB of memory and of the temporary folder, and minutes.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES, GOLDEN = ROOT / "examples", ROOT / "tests/data/golden"
WINDOW = GOLDEN / "philly_window_A.csv.gz"

# CPU seconds of the simulators of Tiresias and Lucid (Python 2.7 and 3.11) on window A, measured once on two shared cores like
# those of docs/BENCHMARKS.md, when the starts in tests/data/golden were taken from them.
PEERS = [
    ("fifo", "Tiresias fifo", 1.3),
    ("fit-first", "Tiresias fjf", 1.2),
    ("srtf-refill", "Tiresias shortest", 8.0),
    ("srtf-gpu-refill", "Tiresias shortest-gpu", 8.0),
    ("las-anywhere", "Tiresias dlas-gpu", 3.0),
    ("fifo-consolidated", "Lucid fifo", 20.4),
    ("sjf-consolidated", "Lucid sjf", 17.5),
]
# About 51 GPU-hours a job: a million of them are nine tenths of what 80,000 GPUs can do in 30 days.
MONTH = ["--gpus", "80000", "--days", "30", "--load", "0.9", "--mix", "philly=0.89,train=0.11", "--users", "1000", "--seed", "1"]
MILLION = 1_000_000
GRID = "policy.backfill.reserve_depth=0,1,2,4,8,16,32,64"


class Ran:
    """One process: what it printed, and what it took."""

    def __init__(self, muster, arguments):
        command = [str(muster), "--json", "-q", "sim", *map(str, arguments)]
        with tempfile.TemporaryFile() as answer:
            began = os.times().elapsed
            child = subprocess.Popen(command, stdout=answer, cwd=ROOT)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            self.wall = os.times().elapsed - began
            if child.returncode:
                sys.exit(f"{' '.join(command)}: exit code {child.returncode}")
            answer.seek(0)
            self.said = answer.read()
        self.cpu, self.kib = used.ru_utime + used.ru_stime, used.ru_maxrss

    def told(self):
        answer = json.loads(self.said)
        return answer["summary"], answer["manifest"]


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder, self.runs = options, folder, 0

    def fresh(self, name):
        self.runs += 1
        return self.folder / f"{self.runs}-{name}"

    def world(self, nodes):
        path = self.fresh("world.toml")
        path.write_text(f"[[nodes]]\ncount = {nodes}\ndevices = 8\n")
        return path

    def play(self, policy, world, trace, *more):
        scene = ["--policy", EXAMPLES / f"policies/{policy}.toml", "--world", world, "--trace", trace]
        return Ran(self.options.muster, ["run", *scene, "-o", self.fresh("run"), *more])

    def rounds(self, what):
        return [what() for _ in range(self.options.rounds)]

    def row(self, policy, where, runs):
        cpu = statistics.median(run.cpu for run in runs)
        summary, manifest = runs[0].told()
        kib, wall = (statistics.median(pick(run) for run in runs) for pick in (lambda run: run.kib, lambda run: run.wall))
        told = f"| `{policy}` | {where} | {summary['jobs']:,} | {manifest['entries']:,} | {manifest['cycles']:,} "
        print(told + f"| {cpu:.2f} | {wall:.2f} | {manifest['entries'] / cpu:,.0f} | {kib / 1024:,.0f} |", flush=True)
        return cpu

    def window(self):
        world, ours = EXAMPLES / "worlds/32x8.toml", {}
        runs_head()
        for policy, _, _ in PEERS:
            runs = self.rounds(lambda: self.play(policy, world, WINDOW))
            ours[policy] = self.row(policy, "32 x 8 GPUs, window A", runs)
        head("policy", "CPU s", "peer", "its CPU s", "peer / Muster")
        for policy, peer, theirs in PEERS:
            print(f"| `{policy}` | {ours[policy]:.2f} | {peer} | {theirs} | {theirs / ours[policy]:.1f} |")

    def philly(self):
        if not self.options.philly:
            return print("\nPhilly's two months are left out: no --philly FILE")
        world = self.world(64)  # The work of the trace keeps 466 GPUs busy on average.
        runs_head()
        for policy in ("fifo", "production", "sjf-consolidated"):
            self.row(policy, "64 x 8 GPUs, Philly, two months", [self.play(policy, world, self.options.philly.resolve())])

    def million(self):
        trace = self.fresh("month.jsonl.gz")
        made = Ran(self.options.muster, ["gen", *MONTH, "-o", trace])
        print(f"\nInventing the month: {made.cpu:.1f} CPU s, {made.kib / 1024:,.0f} MiB at most")
        runs_head()
        runs = [self.play("production", self.world(10_000), trace, "--jobs", MILLION)]
        self.row("production", "10,000 x 8 GPUs, an invented month", runs)

    def sweep(self):
        scene = ["--policy", EXAMPLES / "policies/production.toml", "--world", EXAMPLES / "worlds/32x8.toml", "--trace", WINDOW]
        head("runs of window A", "threads", "wall s", "CPU s", "faster than one thread")
        alone, threads = None, 1
        while threads <= (os.cpu_count() or 1):
            asked = ["sweep", *scene, "--grid", GRID, "--threads", threads]
            runs = self.rounds(lambda: Ran(self.options.muster, [*asked, "-o", self.fresh("sweep")]))
            wall, cpu = statistics.median(run.wall for run in runs), statistics.median(run.cpu for run in runs)
            alone = alone or wall
            print(f"| {GRID.count(',') + 1} | {threads} | {wall:.2f} | {cpu:.2f} | {alone / wall:.2f} |", flush=True)
            threads *= 2


def head(*columns):
    print("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)


def runs_head():
    head("policy", "world and trace", "jobs", "events", "cycles", "CPU s", "wall s", "events / CPU s", "peak MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["window", "philly", "million", "sweep"]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","), default=parts)
    parser.add_argument("--philly", type=Path)
    parser.add_argument("--muster", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/muster")
    options = parser.parse_args()
    options.muster = options.muster.resolve()
    unknown = set(options.only) - set(parts)
    if unknown or options.rounds < 1:
        parser.error(f"--only takes {', '.join(parts)}; --rounds at least 1")
    with tempfile.TemporaryDirectory(prefix="muster-sim-bench-") as folder:
        bench = Bench(options, Path(folder))
        for part in options.only:
            getattr(bench, part)()


if __name__ == "__main__":
    main()
