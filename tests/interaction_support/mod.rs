//! The interaction model as lines that a person compares with spec/events.md §3.
#![allow(dead_code, reason = "each test file uses its part")]

use serde_json::Value;
use stickytape::views::interaction::event::Event;
use stickytape::views::interaction::message::Ticket;

/// `Error Code=timed-out AgentID=ben`: the event, then what it says as JSON has it; without InteractionID and Reason.
pub fn line(event: &Event) -> String {
    let json = serde_json::to_value(event).unwrap();
    let mut line = json["event"].as_str().unwrap().trim_start_matches("Event").to_owned();
    for name in ["AgentID", "InvitedBy", "Party", "Queue", "Workbin", "ReferenceID", "Code"] {
        if let Some(value) = json[name].as_str() {
            line += &format!(" {name}={value}");
        }
    }
    if let Some(parties) = json["Parties"].as_array() {
        let parties: Vec<&str> = parties.iter().filter_map(Value::as_str).collect();
        line += &format!(" Parties={}", parties.join(","));
    }
    if event.ticket.is_some() {
        line += " with ticket";
    }
    line
}

/// As an agent sends it back.
pub fn text(ticket: &Ticket) -> String {
    ticket.to_string()
}
