//! stickytape calls: the live calls of a running server, and what happens to them.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::Value;

use super::client::{Client, Failure, escaped, print_json};
use super::recordings::new_table;
use crate::clock;
use crate::id::ConnId;

/// Wait before an event stream that has ended is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// A server that has been away for this long does not come back.
const PATIENCE: Duration = Duration::from_secs(30);

/// `stickytape calls …`.
#[derive(Debug, Args)]
pub struct Calls {
    #[command(flatten)]
    client: Client,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the live calls.
    List,
    /// Show one call: parties, media, recordings.
    Show {
        /// Its ConnID.
        conn_id: ConnId,
    },
    /// Print events as they happen, one a line, until interrupted: as `events --follow`.
    Follow(Kept),
    /// Print the events that the server has kept, one a line, and with --follow those that happen.
    Events {
        #[command(flatten)]
        events: Kept,
        /// Go on until interrupted; without --after begin with what happens next.
        #[arg(long)]
        follow: bool,
    },
}

/// Which events.
#[derive(Debug, Args)]
struct Kept {
    /// Only those for this directory number.
    #[arg(long)]
    dn: Option<String>,
    /// First what the server has kept after this event; 0: all that it has kept.
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
}

/// Does it. Exit code 0: done; 1: refused, or no such call; 69: the server does not answer.
pub fn run(calls: Calls) -> ExitCode {
    let client = &calls.client;
    let done = match calls.action {
        Action::List => list(client),
        Action::Show { conn_id } => show(client, conn_id),
        Action::Follow(events) | Action::Events { events, follow: true } => follow(client, &events),
        Action::Events { events, follow: false } => kept(client, &events),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(client.json),
    }
}

fn list(client: &Client) -> Result<(), Failure> {
    let answer = client.get("/v1/calls")?;
    if client.json {
        print_json(&answer);
        return Ok(());
    }
    let calls = items(&answer, "calls");
    match calls.is_empty() {
        true => println!("no live calls"),
        false => println!("{}", calls_table(calls)),
    }
    Ok(())
}

fn show(client: &Client, conn_id: ConnId) -> Result<(), Failure> {
    let call = client.get(&format!("/v1/calls/{conn_id}"))?;
    if client.json {
        print_json(&call);
        return Ok(());
    }
    println!("{}", calls_table(std::slice::from_ref(&call)));
    println!("CallUUID {}", text(&call, "callUuid"));
    println!("\n{}", parties_table(&call));
    println!("\n{}", media_table(&call));
    let recordings = items(&call, "recordings");
    if !recordings.is_empty() {
        println!("\n{}", recordings_table(recordings));
    }
    Ok(())
}

fn calls_table(calls: &[Value]) -> Table {
    let mut table = new_table(&["ConnID", "state", "started (UTC)", "caller", "dialed", "parties", "recordings"]);
    for call in calls {
        table.add_row([
            text(call, "connId"),
            text(call, "state"),
            text(call, "started").chars().take(19).collect::<String>().replace('T', " "),
            text(call, "callerPhoneNumber"),
            text(call, "dialedPhoneNumber"),
            items(call, "parties").len().to_string(),
            items(call, "recordings").len().to_string(),
        ]);
    }
    table
}

fn parties_table(call: &Value) -> Table {
    let mut table = new_table(&["leg", "number", "DN", "trunk", "role", "state", "holds"]);
    for party in items(call, "parties") {
        let fields = ["legId", "number", "dn", "trunk", "role", "state", "holds"];
        table.add_row(fields.map(|field| text(party, field)));
    }
    table
}

fn media_table(call: &Value) -> Table {
    let mut table = new_table(&[
        "leg",
        "codec",
        "media",
        "received",
        "sent",
        "lost",
        "refused",
        "jitter ms",
        "skew ppm",
        "last packet",
    ]);
    for party in items(call, "parties") {
        let fields = ["legId", "codec", "media", "received", "sent", "lost", "refused", "jitterMs", "clockSkewPpm"];
        // Of the time stamp the time of day.
        let last = text(party, "lastPacket").chars().skip(11).take(8).collect();
        table.add_row(fields.map(|field| text(party, field)).into_iter().chain([last]));
    }
    table
}

/// A row for each channel of each file; the first one of a recording names it.
fn recordings_table(recordings: &[Value]) -> Table {
    let mut table = new_table(&["recording", "owner", "trigger", "state", "file", "channel", "peak dBFS", "RMS dBFS"]);
    for recording in recordings {
        let mut named = ["id", "ownerLeg", "trigger", "state"].map(|field| text(recording, field));
        let levels = items(recording, "levels");
        if levels.is_empty() {
            table.add_row(&named);
        }
        for level in levels {
            let decibels = |field| match level.get(field) {
                Some(Value::Number(number)) => number.to_string(),
                _ => "silent".into(),
            };
            let measured = [text(level, "file"), text(level, "channel"), decibels("peakDbfs"), decibels("rmsDbfs")];
            table.add_row(named.iter().chain(&measured));
            named = Default::default();
        }
    }
    table
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A field as people read it.
fn text(value: &Value, field: &str) -> String {
    match value.get(field) {
        None | Some(Value::Null | Value::Bool(false)) => String::new(),
        Some(Value::Bool(true)) => "yes".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Where events are asked for.
fn path(events: &Kept, follow: bool) -> String {
    let mut path = format!("/v1/events?follow={follow}");
    if let Some(dn) = &events.dn {
        path.push_str(&format!("&dn={}", escaped(dn)));
    }
    if let Some(after) = events.after {
        path.push_str(&format!("&after={after}"));
    }
    path
}

fn print(client: &Client, event: &str) {
    match client.json {
        true => println!("{event}"),
        false => println!("{}", line(event)),
    }
}

/// Ends with what is kept.
fn kept(client: &Client, events: &Kept) -> Result<(), Failure> {
    let path = path(events, false);
    client.follow(&path, None, |_, data| print(client, data))
}

/// Goes on where it was when the server ends the stream or is started again.
fn follow(client: &Client, events: &Kept) -> Result<(), Failure> {
    let path = path(events, true);
    let mut last: Option<String> = None;
    let mut heard = None;
    loop {
        let before = last.clone();
        let ended = client.follow(&path, before.as_deref(), |id, data| {
            last = Some(id.to_owned());
            print(client, data);
        });
        let now = clock::now();
        match ended {
            Ok(()) => heard = Some(now),
            // Never heard of it: that is the answer.
            Err(failure @ Failure::Unreachable { .. }) if heard.is_none() && last.is_none() => return Err(failure),
            Err(failure @ Failure::Unreachable { .. }) => {
                if last != before || heard.is_none() {
                    heard = Some(now);
                }
                if heard.is_some_and(|heard| now.duration_since(heard) > PATIENCE) {
                    return Err(failure);
                }
            }
            Err(failure) => return Err(failure),
        }
        std::thread::sleep(AGAIN);
    }
}

/// An event on one line: time, name, then what else it says.
fn line(data: &str) -> String {
    let Ok(Value::Object(event)) = serde_json::from_str(data) else { return data.to_owned() };
    let event = Value::Object(event);
    if event["event"] == "lost" {
        return format!("-- {} events are missing here", text(&event, "lost"));
    }
    let mut line = format!("{:<24} {:<24}", text(&event, "time"), text(&event, "event"));
    for (field, _) in event.as_object().into_iter().flatten() {
        if !["seq", "time", "event", "CallUUID"].contains(&field.as_str()) {
            line.push_str(&format!(" {field}={}", text(&event, field)));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_with_its_time_first() {
        let data =
            r#"{"seq": 7, "time": "2026-11-20T09:00:00.000Z", "event": "EventHeld", "ConnID": "AB", "ThisDN": "1"}"#;
        assert_eq!(line(data), "2026-11-20T09:00:00.000Z EventHeld                ConnID=AB ThisDN=1");
        assert_eq!(line(r#"{"event": "lost", "lost": 3, "next": 9}"#), "-- 3 events are missing here");
        assert_eq!(line("not json"), "not json");
    }
}
