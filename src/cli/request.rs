//! stickytape request: asks something of a live call, or for a new one, by the API.

use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::Value;

use super::client::{Client, print_json};
use crate::api::requests::{MAKE_CALL, RequestAccepted, RequestBody, TAKES};
use crate::id::{ConnId, RecordingId};

/// `stickytape request NAME CONNID …`, `stickytape request make-call …`.
#[derive(Debug, Args)]
pub struct Request {
    #[command(flatten)]
    client: Client,
    /// What is asked.
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(names()))]
    name: String,
    /// The call in which THIS-DN is active; `stickytape calls list` shows it. make-call takes none.
    #[arg(value_name = "CONNID", required_if_eq_any(TAKES.iter().map(|takes| ("name", takes.name))))]
    conn_id: Option<ConnId>,
    /// Who asks: the number of a configured DN, but for make-call in the call.
    #[arg(long, value_name = "DN")]
    this_dn: String,
    /// The target of a transfer, a consultation, a redirection; the owner of a recording.
    #[arg(long, value_name = "DN")]
    other_dn: Option<String>,
    /// The held call, when THIS-DN has more than two.
    #[arg(long, value_name = "CONNID")]
    other_conn_id: Option<ConnId>,
    /// The recording to pause, resume or stop; without it all that THIS-DN owns.
    #[arg(long, value_name = "ID")]
    recording_id: Option<RecordingId>,
    /// The keys that send-dtmf presses: 0-9, *, #, A-D.
    #[arg(long, value_name = "KEYS")]
    digits: Option<String>,
    /// Stands in every event that the request causes. Asked again with the same one, nothing happens twice.
    #[arg(long, value_name = "TEXT")]
    reference_id: Option<String>,
    /// For example record=destination; may be given several times.
    #[arg(long = "extension", value_name = "KEY=VALUE", value_parser = extension)]
    extensions: Vec<(String, Value)>,
}

fn names() -> Vec<&'static str> {
    TAKES.iter().chain([&MAKE_CALL]).map(|takes| takes.name).collect()
}

/// Truth values and numbers are such, everything else is text.
fn extension(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("it has the form KEY=VALUE")?;
    let plain = serde_json::from_str(value).ok().filter(|value: &Value| value.is_boolean() || value.is_number());
    Ok((key.to_owned(), plain.unwrap_or_else(|| value.into())))
}

/// Asks it. Exit code 0: accepted; 1: refused, the reason is on stderr; 2: a CONNID too many; 69: the server does not answer.
pub fn run(request: Request) -> ExitCode {
    let path = match (request.conn_id, request.name == MAKE_CALL.name) {
        (Some(conn_id), false) => format!("/v1/calls/{conn_id}/{}", request.name),
        (None, _) => "/v1/calls".to_owned(),
        (Some(_), true) => {
            eprintln!("make-call takes no CONNID: it makes a new call");
            return ExitCode::from(2);
        }
    };
    let body = RequestBody {
        this_dn: request.this_dn,
        other_dn: request.other_dn,
        other_conn_id: request.other_conn_id,
        recording_id: request.recording_id,
        digits: request.digits,
        reference_id: request.reference_id,
        extensions: (!request.extensions.is_empty()).then(|| request.extensions.into_iter().collect()),
    };
    let answer = match request.client.post(&path, &body) {
        Ok(answer) => answer,
        Err(failure) => return failure.tell(request.client.json),
    };
    match serde_json::from_value::<RequestAccepted>(answer.clone()) {
        Ok(accepted) if !request.client.json => print(&request.name, &accepted),
        _ => print_json(&answer),
    }
    ExitCode::SUCCESS
}

fn print(name: &str, accepted: &RequestAccepted) {
    println!("{name} accepted");
    println!("ConnID       {}", accepted.conn_id);
    println!("ReferenceID  {}", accepted.reference_id);
    if let Some(recording) = accepted.recording_id {
        println!("RecordingID  {recording}");
    }
    if let Some(still) = &accepted.still_recording {
        let ids: Vec<_> = still.iter().map(ToString::to_string).collect();
        println!("recording    {}", if ids.is_empty() { "none".into() } else { ids.join(" ") });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn extensions_are_text_unless_they_are_plainly_something_else() {
        assert_eq!(extension("record=destination"), Ok(("record".into(), json!("destination"))));
        assert_eq!(extension("Intrusion=true"), Ok(("Intrusion".into(), json!(true))));
        assert_eq!(extension("a=b=c"), Ok(("a".into(), json!("b=c"))));
        assert_eq!(extension("a={}"), Ok(("a".into(), json!("{}"))));
        assert!(extension("record").is_err());
    }
}
