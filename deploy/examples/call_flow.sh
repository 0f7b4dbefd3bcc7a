#!/bin/sh
# A call is placed, held, joined by a third party and released, and its recording paused, by HTTP requests alone; after
# each one the events that it causes are shown. It needs curl, the server and three phones that answer: docs/requests.md.
#
# usage: sh call_flow.sh [URL]        of the API, default http://127.0.0.1:8080; TOKEN=… where it asks for one
set -eu

api=${1:-http://127.0.0.1:8080}
files=$(mktemp -d)
: >"$files/events"
steps=0
shown=0

ask() { curl -sS ${TOKEN:+-H "Authorization: Bearer $TOKEN"} "$@"; }

# Another curl follows the events from now on.
curl -sSN ${TOKEN:+-H "Authorization: Bearer $TOKEN"} -D "$files/head" "$api/v1/events" >"$files/events" &
follower=$!
trap 'kill "$follower" 2>/dev/null || :; rm -r "$files"' EXIT
tries=0
until grep -q '^HTTP/1.1 200' "$files/head" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { echo "no events from $api" >&2; exit 1; }
    sleep 0.1
done

# happened NAME DN: that event has come for that DN since the last step.
happened() {
    sed -n 's/^data: //p' "$files/events" | tail -n "+$((shown + 1))" | grep "\"event\":\"$1\"" | grep -q "\"ThisDN\":\"$2\""
}

# step WHAT PATH BODY [NAME/DN]…: asks, waits until all those events have come, and shows every event that came.
step() {
    what=$1 path=$2 body=$3
    shift 3
    steps=$((steps + 1))
    body="{$body, \"ReferenceID\": \"flow-$$-$steps\"}"
    printf '\n# %s\n$ curl -X POST -H "content-type: application/json" -d '"'%s'"' $API%s\n' "$what" "$body" "$path"
    answer=$(ask -w ' (%{http_code})' -X POST -H 'content-type: application/json' -d "$body" "$api$path")
    echo "$answer"
    case $answer in *"(202)") ;; *) exit 1 ;; esac
    for event; do
        tries=0
        until happened "${event%/*}" "${event#*/}"; do
            tries=$((tries + 1))
            [ "$tries" -lt 100 ] || { echo "$event has not come" >&2; exit 1; }
            sleep 0.1
        done
    done
    # What comes with the last one.
    sleep 0.5
    sed -n 's/^data: //p' "$files/events" | tail -n "+$((shown + 1))"
    shown=$(grep -c '^data: ' "$files/events")
}

conn_id() { echo "$answer" | sed -n 's/.*"ConnID":"\([0-9A-F]*\)".*/\1/p'; }

step "2001 calls 2002" /v1/calls '"ThisDN": "2001", "OtherDN": "2002"' EventEstablished/2001 EventEstablished/2002
call=$(conn_id)
step "2002 holds" "/v1/calls/$call/hold-call" '"ThisDN": "2002"' EventHeld/2002
step "and retrieves" "/v1/calls/$call/retrieve-call" '"ThisDN": "2002"' EventRetrieved/2002
step "2002 consults 2003" "/v1/calls/$call/initiate-conference" '"ThisDN": "2002", "OtherDN": "2003"' \
    EventEstablished/2002 EventEstablished/2003
consultation=$(conn_id)
step "and takes it into the call" "/v1/calls/$consultation/complete-conference" '"ThisDN": "2002"' \
    EventPartyAdded/2001 EventPartyChanged/2003
step "2001 pauses its recording" "/v1/calls/$call/record-pause" '"ThisDN": "2001"' EventPrivateInfo/2001
step "and resumes it" "/v1/calls/$call/record-resume" '"ThisDN": "2001"' EventPrivateInfo/2001
step "2002 sends 2003 away" "/v1/calls/$call/delete-from-conference" '"ThisDN": "2002", "OtherDN": "2003"' \
    EventReleased/2003 EventPartyDeleted/2001
step "and hangs up" "/v1/calls/$call/release-call" '"ThisDN": "2002"' EventReleased/2001 EventReleased/2002
