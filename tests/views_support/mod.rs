//! Telephony events as lines that a person compares with spec/events.md §1: every attribute that is there is in them.
#![allow(dead_code, reason = "each test file uses its part")]

use serde_json::Value;
use stickytape::views::telephony::event::Event;

/// `A Released C1 Inbound ThisDNRole=Origination OtherDN=B … CallState=OK`: recipient, event, ConnID, CallType, then the
/// attributes as JSON has them. CallUUID is left out.
pub fn line(event: &Event) -> String {
    let json = serde_json::to_value(event).unwrap();
    let text = |name: &str| match &json[name] {
        Value::String(text) => text.clone(),
        other => panic!("{name} is {other}"),
    };
    let conn = |text: String| format!("C{}", text.trim_start_matches('0'));
    let mut line = format!("{} {}", text("ThisDN"), text("event").trim_start_matches("Event"));
    if !json["ConnID"].is_null() {
        line += &format!(" {}", conn(text("ConnID")));
    }
    if !json["CallType"].is_null() {
        line += &format!(" {}", text("CallType"));
    }
    for name in ["ThisDNRole", "OtherDN", "OtherDNRole", "ThirdPartyDN", "ThirdPartyDNRole"] {
        if !json[name].is_null() {
            line += &format!(" {name}={}", text(name));
        }
    }
    if !json["PreviousConnID"].is_null() {
        line += &format!(" PreviousConnID={}", conn(text("PreviousConnID")));
    }
    let rest = ["CallState", "Cause", "ReferenceID", "RecordingID", "RecordingState", "RecordPreference", "Request"];
    for name in rest.into_iter().chain(["Code", "Reason", "State", "MonitorMode"]) {
        if !json[name].is_null() {
            line += &format!(" {name}={}", text(name));
        }
    }
    line
}
