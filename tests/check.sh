#!/usr/bin/env bash
# Everything a change must pass, and what CI runs. One line per step; a step that fails shows its output and ends the run.
#
#   tests/check.sh          needs Rust, Python with pip, and apt (or mongod, Node, nginx, wrk and Chromium already there)
#   tests/check.sh quick    cargo's part alone, with a real mongod all the same
#
# cargo's own test run comes last, so that its summary is the last thing on the screen.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
log=tests/.cache/check.log
mkdir -p tests/.cache

step() {
  local name=$1 start=$SECONDS
  shift
  printf '%-44s' "$name"
  if "$@" >"$log" 2>&1; then
    printf 'ok  %4d s\n' $((SECONDS - start))
  else
    printf 'FAILED\n'
    cat "$log"
    printf 'check: failed at "%s": %s\n' "$name" "$*" >&2
    exit 1
  fi
}

quick=no
[ "${1:-}" != quick ] || quick=yes

if [ $quick = yes ]; then
  step 'tools (tests/setup.sh core)' tests/setup.sh core
else
  step 'tools (tests/setup.sh)' tests/setup.sh
fi
. tests/.cache/env
step 'format (cargo fmt --check)' cargo fmt --check
step 'lints (cargo clippy, warnings denied)' cargo clippy --locked --all-targets -- -D warnings
step 'documentation (cargo doc, warnings denied)' env RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
step 'documentation tests' cargo test --locked --doc

if [ $quick = no ]; then
  # The debug build: its overflow checks and assertions are worth more here than speed.
  step 'the binary under test (cargo build)' cargo build --locked
  export CLOAKROOM_BIN=$PWD/target/debug/cloakroom
  # A lock file that names where a package came from ties everybody to one machine's mirror.
  step 'npm lock file names no host' bash -c '! grep -n "\"resolved\"" tests/compat/package-lock.json'
  step 'Express and the sidecar in turns, ten stores' node tests/compat/run.mjs
  step 'the same decisions as express-session' node tests/compat/differential.mjs
  step 'kill -9 under load, embedded, 20 times' python3 tests/faults/kill_loop.py --store embedded --kills 20
  step 'kill -9 under load, mongodb, 20 times' python3 tests/faults/kill_loop.py --store mongodb --kills 20
  step 'kill -9 under load, redis, 10 times' python3 tests/faults/kill_loop.py --store redis --kills 10
  step 'kill -9 under load, file, 10 times' python3 tests/faults/kill_loop.py --store file --kills 10
  step 'two sidecars, one session, 64 writers' python3 tests/faults/two_sidecars.py
  step 'mongod down, killed, back' python3 tests/faults/store_down.py
  step '64 MiB bodies in flat memory' python3 tests/faults/big_bodies.py --mib 64
  step 'cookies in Chromium' python3 tests/browser/run.py
  step 'bench, smoke run' python3 tests/bench/run.py --smoke
fi

# Not captured: cargo's own words and its summary end this run.
cargo test --locked --lib --bins --tests
