#!/bin/sh
# A conference and its supervisor, asked for with curl alone. It waits for a call of AGENT, calls COLLEAGUE in, has SUPERVISOR
# join in mute, coach, connect and fall silent again, deletes COLLEAGUE and ends the call; each for PAUSE seconds.
#
#   conference.sh AGENT COLLEAGUE SUPERVISOR [API]
#
# Who has nobody to call: fixtures/sipp/README.md has a configuration and four SIPp.
set -eu
if [ $# -lt 3 ]; then
    echo "usage: $0 AGENT COLLEAGUE SUPERVISOR [http://127.0.0.1:8080]" >&2
    exit 2
fi
agent=$1 colleague=$2 supervisor=$3 api=${4:-http://127.0.0.1:8080}
pause=${PAUSE:-2}

# POST of a body to a path. A refusal is printed, with its reason, and ends this.
ask() {
    echo "POST $1 $2"
    curl --silent --show-error --fail-with-body --header 'content-type: application/json' --data "$2" "$api$1"
    echo
}

# The live call in which somebody has answered; nothing when there is none.
call_of() {
    curl --silent --fail "$api/v1/calls" | awk -v dn="\"dn\":\"$1\"" '
        BEGIN { RS = "{" }
        /^"connId"/ { split($0, part, "\""); call = part[4] }
        index($0, dn) && /"state":"established"/ { print call; exit }'
}

# Waits until somebody has answered, and says in which call.
wait_for() {
    tries=0
    until call=$(call_of "$1") && [ -n "$call" ]; do
        tries=$((tries + 1))
        if [ $tries -gt 100 ]; then
            echo "$1 is in no call at $api" >&2
            exit 1
        fi
        sleep 0.1
    done
    echo "$1 is in call $call"
}

wait_for "$agent"
sleep "$pause"

ask "/v1/calls/$call/single-step-conference" "{\"ThisDN\": \"$agent\", \"OtherDN\": \"$colleague\"}"
wait_for "$colleague"
sleep "$pause"

extensions='{"MonitorMode": "mute", "Intrusion": true}'
ask "/v1/dns/$supervisor/monitor-next-call" "{\"OtherDN\": \"$agent\", \"Extensions\": $extensions}"
wait_for "$supervisor"
sleep "$pause"

echo "$agent hears $supervisor, the others do not:"
ask "/v1/calls/$call/set-mute-off" "{\"ThisDN\": \"$supervisor\", \"Extensions\": {\"MonitorMode\": \"coach\"}}"
sleep "$pause"

echo "everybody hears $supervisor:"
ask "/v1/calls/$call/set-mute-off" "{\"ThisDN\": \"$supervisor\"}"
sleep "$pause"

echo "nobody hears $supervisor:"
ask "/v1/calls/$call/set-mute-on" "{\"ThisDN\": \"$supervisor\"}"
sleep "$pause"

ask "/v1/calls/$call/delete-from-conference" "{\"ThisDN\": \"$agent\", \"OtherDN\": \"$colleague\"}"
sleep "$pause"

ask "/v1/calls/$call/release-call" "{\"ThisDN\": \"$agent\"}"
