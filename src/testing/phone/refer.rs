//! REFER and what comes back in NOTIFY (RFC 3515, 3891, 3892, 4488, 5589); the events `talk` and `hold`.

use std::fmt::Write as _;

use super::*;
use crate::sip::dialog::DialogKey;

/// A dialog as one phone names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DialogName {
    /// Call-ID.
    pub call_id: String,
    /// The phone's own tag.
    pub local_tag: String,
    /// The peer's tag.
    pub remote_tag: String,
}

impl DialogName {
    /// The value of Replaces that names the dialog to the phone's peer (RFC 3891 §3: to-tag is the tag of whoever gets
    /// the INVITE).
    pub fn replaces(&self) -> String {
        format!("{};to-tag={};from-tag={}", self.call_id, self.remote_tag, self.local_tag)
    }

    pub(super) fn of(key: &DialogKey) -> Self {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { call_id: text(&key.call_id), local_tag: text(&key.local_tag), remote_tag: text(&key.remote_tag) }
    }
}

/// A REFER of ours, until the line's call is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Referring {
    /// Until its final answer.
    request: Option<RequestId>,
    leave: Leave,
}

impl Phone {
    /// The dialog of a line, early or confirmed; a caller has none before the first provisional answer.
    pub fn dialog(&self, line: usize) -> Option<DialogName> {
        let dialog = self.lines.get(line)?.call.dialog()?;
        Some(DialogName::of(&self.endpoint.dialog(dialog)?.key))
    }

    pub(super) fn send_refer(&mut self, line: usize, refer: &Refer, now: Instant) -> bool {
        let Call::Talking { dialog } = self.lines[line].call else {
            return false;
        };
        let Some(target) = self.refer_to(refer) else {
            return false;
        };
        let mut headers = Headers::new();
        headers.push(Name::ReferTo, target);
        if refer.referred_by {
            headers.push(Name::ReferredBy, format!("<sip:{}@{}>", self.options.number, self.options.sip));
        }
        if !refer.refer_sub {
            headers.push(Name::ReferSub, "false");
            headers.push(Name::Supported, "norefersub");
        }
        for own in header_lines(&refer.headers).lines() {
            headers.push_line(own.clone());
        }
        match self.endpoint.request(dialog, Method::Refer, headers, None, now) {
            Ok(request) => {
                self.lines[line].refer = Some(Referring { request: Some(request), leave: refer.leave });
                true
            }
            Err(_) => false,
        }
    }

    /// Refer-To as it is written, with the Replaces of another line's dialog.
    fn refer_to(&self, refer: &Refer) -> Option<String> {
        let Some(line) = refer.replaces else {
            return Some(format!("<{}>", self.uri_of(&refer.to)));
        };
        let dialog = self.endpoint.dialog(self.lines.get(line)?.call.dialog()?)?;
        let uri = if refer.to.is_empty() {
            String::from_utf8_lossy(&dialog.remote_target).into_owned()
        } else {
            self.uri_of(&refer.to)
        };
        Some(format!("<{uri}?Replaces={}>", escaped(&DialogName::of(&dialog.key).replaces())))
    }

    /// The answer to a REFER; false when the request is none of it.
    pub(super) fn on_refer_answered(
        &mut self,
        line: usize,
        request: RequestId,
        outcome: &Result<Response, Failure>,
        now: Instant,
    ) -> bool {
        let Some(refer) = self.lines[line].refer.as_mut().filter(|refer| refer.request == Some(request)) else {
            return false;
        };
        refer.request = None;
        let leave = refer.leave;
        match outcome {
            Ok(response) => {
                self.note(line, Happening::Referred { code: response.code }, now);
                if leave == Leave::AtOnce {
                    self.hang_up(line, now);
                }
            }
            Err(failure) => {
                self.lines[line].refer = None;
                self.note(line, Happening::ReferRefused { code: code_of(failure) }, now);
            }
        }
        true
    }

    /// NOTIFY is answered first, then obeyed.
    pub(super) fn on_notify(&mut self, tx: ServerTx, line: usize, request: &Request, now: Instant) {
        let event = first_token(&request.headers.get(Name::Event).unwrap_or_default());
        let code = match event.as_str() {
            "refer" if self.lines[line].refer.is_some() => 200,
            "refer" => 481,
            // Of a SUBSCRIBE that its script has sent; what it says is kept with the other requests.
            "conference" => 200,
            "talk" | "hold" => 200,
            _ => 489,
        };
        // Refused when it is over already: then there is nothing to answer.
        let _ = self.endpoint.respond(tx, None, Reply::new(code), now);
        match event.as_str() {
            _ if code != 200 => {}
            "conference" => {}
            "refer" => self.on_progress_of_refer(line, request, now),
            _ => {
                self.note(line, Happening::Asked { event: event.clone() }, now);
                if self.options.talk {
                    self.obey(line, &event, now);
                }
            }
        }
    }

    /// What the keys of the phone would do (BroadSoft's `talk` and `hold`).
    fn obey(&mut self, line: usize, event: &str, now: Instant) {
        let action = match (self.lines[line].call, event) {
            (Call::Ringing { .. }, "talk") => Action::Answer,
            (Call::Talking { .. }, "talk") if self.lines[line].is_holding() => Action::Retrieve,
            (Call::Talking { .. }, "hold") if !self.lines[line].is_holding() => Action::Hold(HoldForm::SendOnly),
            _ => return,
        };
        self.perform(Action::on(line, action), now);
    }

    fn on_progress_of_refer(&mut self, line: usize, request: &Request, now: Instant) {
        let state = first_token(&request.headers.get(Name::SubscriptionState).unwrap_or_default());
        let code = sipfrag_code(&request.body);
        self.note(line, Happening::Notified { code, state }, now);
        let leave = self.lines[line].refer.map(|refer| refer.leave);
        if leave == Some(Leave::WhenDone) && (200..300).contains(&code) && self.lines[line].is_talking() {
            self.hang_up(line, now);
        }
    }
}

/// A header value without its parameters, in lower case.
fn first_token(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The status code of `SIP/2.0 180 Ringing`; 0 when there is none.
fn sipfrag_code(body: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(body);
    let code = text.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3));
    code.and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// A header value within a URI (RFC 3261 §19.1.1).
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(2 * value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_names_the_dialog_as_its_peer_sees_it_and_is_escaped_in_a_uri() {
        let name = DialogName { call_id: "a b@c".into(), local_tag: "ours".into(), remote_tag: "theirs".into() };
        assert_eq!(name.replaces(), "a b@c;to-tag=theirs;from-tag=ours");
        assert_eq!(escaped(&name.replaces()), "a%20b%40c%3Bto-tag%3Dtheirs%3Bfrom-tag%3Dours");
    }

    #[test]
    fn a_sipfrag_gives_its_status_code() {
        for (body, code) in [("SIP/2.0 180 Ringing\r\n", 180), ("SIP/2.0 200", 200), ("SIP/2.0 2", 0), ("", 0)] {
            assert_eq!(sipfrag_code(body.as_bytes()), code, "{body:?}");
        }
        assert_eq!(first_token(b"Terminated;reason=noresource"), "terminated");
    }
}
