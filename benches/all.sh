#!/usr/bin/env bash
# Runs the benches one after the other, each on its own, and writes what they measured to target/bench/; about 35 minutes
# when they are built. usage:
# benches/all.sh [anchored|peers|ending|scale|thousand|kernel|conference|setup|parse|recording|mixing|lateness|profile …]
#
# Afterwards `python3 benches/report.py --from target/bench` writes docs/performance.{json,md} and the README's figures.
# Nothing else should run on the machine. `rtpengine` (Debian: rtpengine-daemon), Asterisk and FreeSWITCH are measured beside
# where they are installed (deploy/peers/README.md); the profile needs `perf` and a kernel that lets this user sample (root, or
# kernel.perf_event_paranoid at most -1).
set -euo pipefail
cd "$(dirname "$0")/.."
out=target/bench
mkdir -p "$out"

cargo bench --locked --no-run

parts=("$@")
[ "${#parts[@]}" -gt 0 ] || parts=(anchored peers ending scale thousand kernel conference setup parse recording mixing lateness profile)

# bench NAME FILE ARGUMENTS…: a bench that writes FILE.
bench() {
    local name=$1 file=$2
    shift 2
    echo "== $file: $name $*"
    cargo bench --locked --quiet --bench "$name" -- "$@" --json "$out/$file.json"
}

# The same, and all that it starts, on the first core only.
on_core_0() {
    local mine
    mine=$(taskset -cp $$ | sed 's/.*: //')
    taskset -cp 0 $$ >/dev/null
    "$@"
    taskset -cp "$mine" $$ >/dev/null
}

# What every function takes of the core that the subject has.
profile() {
    if ! command -v perf >/dev/null 2>&1; then
        echo "no profile: perf is not installed" >&2
        return
    fi
    echo "== profile: 500 recorded calls, every sample of core 0"
    perf record --quiet -F 997 -C 0 -o "$out/perf.data" -- \
        cargo bench --locked --quiet --bench anchored_calls -- --cases recorded --calls 500 --seconds 10
    perf report --stdio --no-children --sort comm,dso,symbol --percent-limit 0.2 -i "$out/perf.data" >"$out/profile.txt"
    rm "$out/perf.data"
}

started=$SECONDS
for part in "${parts[@]}"; do
    case $part in
        anchored) bench anchored_calls anchored --calls 200 --seconds 4 --rounds 3 \
            --cases reflector,relay,recorded,recorded-mixed,two-workers,rtpengine,rtpengine-pcap ;;
        peers) bench anchored_calls peers --calls 50,100 --seconds 4 --rounds 3 \
            --cases reflector,relay,recorded,recorded-mixed,asterisk,asterisk-recorded,freeswitch,freeswitch-recorded ;;
        ending) bench anchored_calls ending --calls 200 --seconds 8 --rounds 2 \
            --cases recorded,recorded-ending,recorded-minute ;;
        scale) bench anchored_calls scale --calls 50,500,2000 --seconds 4 --rounds 1 \
            --cases reflector,reflector-shared,relay,recorded,recorded-mixed ;;
        thousand) bench anchored_calls thousand --calls 1000 --seconds 4 --rounds 3 \
            --cases reflector,reflector-shared,relay,recorded,recorded-mixed ;;
        kernel) bench anchored_calls kernel --calls 200,1000 --seconds 4 --rounds 3 \
            --cases reflector,relay-kernel,recorded-kernel ;;
        conference) bench anchored_calls conference --calls 66 --seconds 5 --rounds 3 \
            --cases conference,conference-recorded ;;
        setup) bench call_setup setup ;;
        parse) bench sip_parse parse ;;
        recording) bench recording recording ;;
        mixing) bench mixing mixing ;;
        lateness) on_core_0 bench mixing lateness --lateness 60 ;;
        profile) profile ;;
        *) echo "no part $part" >&2; exit 2 ;;
    esac
done
echo "measured in $((SECONDS - started)) s; python3 benches/report.py --from $out"
