# Short names for the commands of every day. Each is plain cargo, so nothing needs just.

default:
    @just --list

# Everything a change must pass.
ci:
    .ci/run

# A quick look, without tests.
check:
    cargo fmt --all --check
    cargo xtask tidy
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Rewrites what a machine can set right.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty

test *args:
    cargo test --workspace --locked {{ args }}

# The house rules.
tidy:
    cargo xtask tidy

# Attacks every decoder for a minute each, or those named.
fuzz *args:
    cargo xtask fuzz {{ args }}

# Tries the engine's properties on many more cases, others each time.
soak cases="100000":
    MUSTER_CASES={{ cases }} PROPTEST_CASES={{ cases }} cargo test --profile soak -p muster-engine --locked --tests

# The published curves of fragmentation over as many seeds as were published; CI plays three.
golden seeds="10":
    MUSTER_GOLDEN_SEEDS={{ seeds }} cargo test --release -p muster-tests --locked --test golden fgd -- --nocapture

# How fast the simulator is: `just bench-sim --philly FILE`.
bench-sim *args:
    cargo build --release -p muster-cli --locked
    scripts/sim-bench.py {{ args }}

# Removes each safety rule and names the test that notices.
mutate *args:
    cargo xtask mutate {{ args }}

# Known weaknesses of dependencies; needs cargo-deny and the network.
advisories:
    cargo deny check advisories

# A cluster of this machine's own, with a first job.
dev:
    cargo run --release -- dev --run examples/allreduce.toml
