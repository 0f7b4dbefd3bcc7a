#!/usr/bin/env bash
# Everything that must hold before a change is merged: formatting, lints, documentation, all tests; benches are compiled.
# usage: ./test.sh [arguments of `cargo test`]
#
# Tests talk to SIPp, baresip and sox, read WAV files with Python and count instructions with valgrind. As root (and with
# apt) these are installed; else the line that installs what is missing is printed, with exit code 2. What tests forwarding
# in the kernel takes root and Linux 6.6. Traffic stays on loopback and in networks that tests make. One profile (dev) builds
# program and tests; network is used for crates and packages only.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need_header() { [ -e "/usr/include/$1" ] || missing+=("$2"); }
need sipp sip-tester
need baresip baresip-core
need soxi sox
need python3 python3
need cc gcc
need make make
need valgrind valgrind
# What the kernel forwards: its program is built again, networks are made for its tests, capabilities are dropped.
need clang clang
need llvm-strip llvm
need ip iproute2
need ethtool ethtool
need setpriv util-linux
need_header linux/bpf.h linux-libc-dev
need_header bpf/bpf_helpers.h libbpf-dev
if [ "${#missing[@]}" -gt 0 ]; then
    install=(apt-get install -y --no-install-recommends "${missing[@]}")
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -q && DEBIAN_FRONTEND=noninteractive "${install[@]}"
    else
        echo "missing: ${missing[*]}; install with:" >&2
        echo "  sudo ${install[*]}" >&2
        exit 2
    fi
fi

step() {
    local start=$SECONDS
    echo "== $*"
    "$@"
    echo "== done in $((SECONDS - start)) s"
}

step cargo fmt --all --check
step cargo clippy --locked --all-targets -- -D warnings
step env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib
# Benches too: they must compile, and are run by hand.
step cargo build --locked --all-targets
step cargo test --locked "$@"
echo "all is well, after $SECONDS s"
