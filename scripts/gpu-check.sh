#!/usr/bin/env bash
# One server and one agent on a machine with an NVIDIA GPU, and what only such a machine can show: the inventory is the
# driver's, a rank sees the GPU it was given and no other, a killed agent does not stop it, a cancelled job's memory is free.
#
#   scripts/gpu-check.sh [FOLDER]      with `muster` and `muster-shim`; left out: target/release
#
# Needs nvidia-smi and a Python with torch (PYTHON names it). Works in a temporary folder, on 127.0.0.1:$PORT (7470).
set -euo pipefail

bin=$(cd "${1:-target/release}" && pwd)
export PATH="$bin:$PATH"
port="${PORT:-7470}"
python="${PYTHON:-python3}"
work=$(mktemp -d)
started=()
stop() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT
cd "$work"

fail() {
    echo "gpu-check: FAILED: $*" >&2
    tail -n 20 -- *.log >&2 || true
    exit 1
}
passed() { echo "gpu-check: $*"; }
admin() { MUSTER_CONFIG="$work/cluster/users/admin/config.toml" muster "$@"; }
alice() { MUSTER_CONFIG="$work/cluster/users/alice/config.toml" muster "$@"; }
# await WHAT COMMAND...: until it succeeds, half a minute at most.
await() {
    local what="$1"
    shift
    for _ in $(seq 150); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.2
    done
    fail "waited in vain for $what"
}
says() { alice logs "$1" 2>/dev/null | grep -q "$2"; }
used_mib() { nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | awk '{ sum += $1 } END { print sum }'; }
begin_agent() {
    muster agent --config n1/agent.toml >>agent.log 2>&1 &
    agent=$!
    started+=("$agent")
}
# job NAME GPUS CODE: a job of one rank that runs a line of Python.
job() {
    cat >"$1.toml" <<EOF
name = "$1"
[gang]
nodes = 1
gpus_per_node = $2
run = ["$python", "-c", """$3"""]
[limits]
time = "10m"
expected = "1m"
EOF
    alice submit "$1.toml" >/dev/null
}

gpus=$(nvidia-smi -L | wc -l)
"$python" -c 'import torch' || fail "$python has no torch: name one that has in PYTHON"

muster cluster init --cluster check --user alice --server-at "a=127.0.0.1:$port" cluster >/dev/null 2>&1
muster server --config cluster/servers/a/server.toml >server.log 2>&1 &
started+=($!)
await "the server" admin cluster status
admin node token --node n1 2>/dev/null | muster agent join --token - --dir n1 --name n1 >/dev/null
begin_agent
await "the node" sh -c "MUSTER_CONFIG=$work/cluster/users/admin/config.toml muster node ls | grep -q UP"
admin node show n1 --json >node.json
"$python" - "$gpus" <<'EOF' || fail "the inventory is not the driver's: $(cat node.json)"
import json, subprocess, sys
have = sorted((d["uuid"], d["product"], d["memory_bytes"] >> 20) for d in json.load(open("node.json"))["devices"])
query = ["nvidia-smi", "--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits"]
rows = [row.split(", ") for row in subprocess.check_output(query, text=True).splitlines()]
want = sorted((uuid, name, int(mib)) for uuid, name, mib in rows)
assert len(have) == int(sys.argv[1]) and have == want, (have, want)
EOF
passed "the inventory is the driver's: $(nvidia-smi --query-gpu=name --format=csv,noheader | sort | uniq -c | xargs)"

job train 1 "
import os, time, torch
assert torch.cuda.device_count() == 1, torch.cuda.device_count()
a = torch.randn(8192, 8192, device='cuda', dtype=torch.bfloat16)
for step in range(20):
    began = time.time()
    for _ in range(300): a @ a
    torch.cuda.synchronize()
    print('step', step, round(300 * 2 * 8192**3 / (time.time() - began) / 1e12), 'TFLOP/s on', os.environ['CUDA_VISIBLE_DEVICES'], flush=True)
    time.sleep(0.3)
"
await "three steps on the GPU" says train "step 3"
passed "a rank sees the one GPU it was given: $(alice logs train | tail -n 1)"
job next "$gpus" "print('done')"
alice why next | grep -q "free device" || fail "why does not say what the next job waits for"
admin node show n1 | grep -Eq 'HELD .* MiB|HELD .* GiB' || fail "the node does not show memory in use"
passed "the job behind it waits, and why says for what; the node shows $(used_mib) MiB in use"

kill -9 "$agent"
wait "$agent" 2>/dev/null || true
nvidia-smi --query-compute-apps=pid --format=csv,noheader | grep -q . || fail "the rank died with its agent"
begin_agent
alice wait train --timeout 2m >/dev/null
alice show train | grep -q "^attempt 1  ENDED" || fail "not one attempt: $(alice show train)"
passed "kill -9 of the agent stopped nothing: $(alice show train | head -n 1)"
alice wait next --timeout 1m >/dev/null
passed "the job behind it ran then"

before=$(used_mib)
job hog 1 "
import time, torch
x = torch.empty(8 << 30, dtype=torch.uint8, device='cuda').fill_(1)
torch.cuda.synchronize()
print('holding', flush=True)
time.sleep(600)
"
await "memory to be held" says hog holding
[ "$(used_mib)" -ge $((before + 8000)) ] || fail "nothing is held"
alice cancel hog >/dev/null
! alice wait hog --timeout 1m >/dev/null 2>&1 || fail "a cancelled job succeeded"
[ "$(used_mib)" -le $((before + 100)) ] || fail "$(used_mib) MiB in use after the job ended, $before before it"
passed "a cancelled job's memory is free when it has ended"

job cpu 0 "import torch; assert torch.cuda.device_count() == 0"
alice wait cpu --timeout 1m >/dev/null || fail "a job without GPUs sees one"
passed "a job without GPUs sees none"
echo "gpu-check: passed on $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1)"
