"""Processes, waiting, figures."""
import json, os, statistics, subprocess, sys, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Log:
    """Every figure as it comes, raw, for whoever doubts the medians."""

    def __init__(self, path):
        self.file = open(path, "a") if path else None

    def note(self, **fields):
        fields["load_1m"] = os.getloadavg()[0]
        fields["cpu_waited_10s_percent"] = waited()
        line = json.dumps(fields)
        print("  " + line, file=sys.stderr, flush=True)
        if self.file:
            print(line, file=self.file, flush=True)


def waited():
    """How long some process had to wait for a processor in the last ten seconds; None where the kernel does not say."""
    try:
        some = Path("/proc/pressure/cpu").read_text().split()
        return float(next(word for word in some if word.startswith("avg10=")).removeprefix("avg10="))
    except (OSError, StopIteration):
        return None


def sh(*arguments, **options):
    done = subprocess.run(arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def wait_for(condition, what, seconds=60, pause=0.05):
    until = time.time() + seconds
    while not condition():
        if time.time() > until:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(pause)


def rss_mib(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def metric(text, name):
    return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(name + " ")), None)


class Processes:
    def __init__(self):
        self.running = []

    def start(self, *arguments, log=None, **options):
        out = open(log, "ab") if log else subprocess.DEVNULL
        process = subprocess.Popen(list(map(str, arguments)), stdout=out, stderr=out, **options)
        self.running.append(process)
        return process

    def kill(self, process):
        process.kill()
        process.wait()
        self.running.remove(process)

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
        self.running = []


class Rows:
    """Figures by row and by whose they are; a row is (key, text, unit, goal)."""

    def __init__(self, log):
        self.figures, self.missing, self.rows, self.log = {}, {}, {}, log

    def add(self, row, who, value, **more):
        self.rows.setdefault(row[0], row)
        self.figures.setdefault(row[0], {}).setdefault(who, []).append(value)
        self.log.note(row=row[0], who=who, value=round(value, 3), **more)

    def lack(self, row, who, why):
        """The row has no figure of theirs, and says so."""
        self.rows.setdefault(row[0], row)
        self.missing.setdefault(row[0], {})[who] = why
        self.log.note(row=row[0], who=who, lacks=why)

    def markdown(self):
        yield "| what | unit | Muster | peer | its figure | Muster / peer | goal |"
        yield "|---|---|---|---|---|---|---|"
        for name, (_, text, unit, goal) in self.rows.items():
            by = self.figures.get(name, {})
            total = unit == "sum"
            ours = middle(by["muster"], total) if "muster" in by else None
            own = shown(by.get("muster"), total) or f"({self.missing.get(name, {}).get('muster', 'not measured')})"
            others = [who for who in list(by) + list(self.missing.get(name, {})) if who != "muster"]
            for who in dict.fromkeys(others) or ["-"]:
                theirs = middle(by[who], total) if who in by else None
                ratio = f"{ours / theirs:.2f}" if ours and theirs and not total else "-"
                figure = shown(by.get(who), total) or (f"({self.missing[name][who]})" if who != "-" else "-")
                yield f"| {text} | {unit} | {own} | {who} | {figure} | {ratio} | {goal} |"


def middle(values, total):
    return sum(values) if total else statistics.median(values)


def shown(values, total):
    if not values:
        return None
    figure = lambda value: f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"
    text = figure(middle(values, total))
    if len(values) > 1 and not total:
        text += f" ({figure(min(values))} - {figure(max(values))})"
    return text
