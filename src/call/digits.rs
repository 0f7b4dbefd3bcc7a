//! Digits between two parties that do not speak the same form of DTMF (spec/sip.md §7).
//!
//! | The digit comes as | and the other party | gets it as |
//! |---|---|---|
//! | telephone event | has telephone-event | the same packets (the relay) |
//! | telephone event | has none, `dtmf = "info"`, INFO in its Allow | INFO |
//! | telephone event | any other | an in-band tone (the media thread) |
//! | INFO | has INFO in its Allow, or cannot be sent events and names no Allow | the same INFO |
//! | INFO | any other | telephone event, else an in-band tone (the media thread) |
//!
//! Digits go to the active peer only: to nobody while one of the two holds. What a request presses goes to a party that has
//! telephone-event as such, else as in the second and third line.

use std::collections::VecDeque;
use std::time::Duration;

use super::call::{Call, Purpose, State};
use super::core::{Core, Timer};
use super::fact::What;
use super::leg::Leg;
use super::options::Dtmf;
use super::request::{Accepted, Ask, Code, Denied};
use super::room::Form;
use crate::bridge::command::{Command, Digit};
use crate::codec::Kind;
use crate::id::LegId;
use crate::sip::endpoint::{Body, DialogId, Reply, ServerTx};
use crate::sip::headers::Headers;
use crate::sip::message::Request;
use crate::sip::method::Method;
use crate::sip::name::Name;

/// INFOs with digits of one call that may wait for their answer; more digits are dropped, and a warning says so.
const MAX_OPEN: usize = 16;
/// The length of a digit whose INFO names none.
const DEFAULT_LENGTH: Duration = Duration::from_millis(160);

/// The length of a digit by request, and the pause behind it: what every receiver takes (Q.24 wants 40 ms each).
const BY_REQUEST: Duration = Duration::from_millis(100);
/// Digits by request that may wait in a call, behind one that is being pressed.
const MAX_WAITING: usize = 2 * Ask::MAX_DIGITS;

/// Digits by request.
#[derive(Debug)]
pub(super) struct Pressing {
    from: LegId,
    to: LegId,
    /// What is still to be pressed; empty: the pause behind the last one.
    left: VecDeque<Digit>,
}

/// What decides how a digit reaches a party.
#[derive(Debug, Clone, Copy)]
struct Receiver {
    /// `dtmf` of its DN or trunk.
    dtmf: Dtmf,
    /// Whether its Allow has INFO; `None`: it has shown none.
    allows_info: Option<bool>,
    /// It takes telephone events.
    takes_events: bool,
}

impl Receiver {
    fn of(leg: &Leg) -> Self {
        let mut sent = leg.sdp.negotiated().into_iter().flat_map(|negotiated| &negotiated.send);
        Self {
            dtmf: leg.identity.dtmf,
            allows_info: leg.allows_info,
            takes_events: sent.any(|payload| payload.codec.kind() == Kind::TelephoneEvent),
        }
    }

    /// A digit that came as INFO is pressed by the media thread instead of passed on.
    fn gets_media(self) -> bool {
        match self.allows_info {
            Some(allows) => !allows,
            None => self.takes_events && self.dtmf == Dtmf::Rfc4733,
        }
    }
}

impl Call {
    /// Two parties are bridged and neither holds: digits have somebody to go to.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, State::Talking(_)) && !self.legs.iter().any(Leg::holds)
    }

    /// An INFO with a digit. False: it goes on to the other party as it is.
    pub(super) fn press_info(&mut self, core: &mut Core, tx: ServerTx, from: Option<LegId>, request: &Request) -> bool {
        let Some(to) = from.and_then(|from| self.other(from)).and_then(|to| self.leg(to)) else { return false };
        let Some((digit, length)) = read(&request.body).filter(|_| Receiver::of(to).gets_media()) else { return false };
        core.media(to.worker, Command::Press { leg: to.id, digit, length });
        core.answer(tx, None, Reply::new(200));
        true
    }

    /// An INFO with a digit of a caller at the door of a room, who types its PIN. False: it is none.
    pub(super) fn type_info(&mut self, core: &mut Core, tx: ServerTx, request: &Request) -> bool {
        if !self.is_at_door() {
            return false;
        }
        core.answer(tx, None, Reply::new(200));
        if let Some((digit, _)) = read(&request.body) {
            self.type_pin(core, digit, Form::Info);
        }
        true
    }

    /// A digit that came as a telephone event for a party that is told by INFO.
    pub(super) fn on_digit(&mut self, core: &mut Core, from: LegId, digit: Digit, length: Duration) {
        if self.type_pin(core, digit, Form::Event) {
            return;
        }
        let to = self.other(from).and_then(|to| self.leg(to)).filter(|to| to.takes_info());
        let dialog = to.and_then(|to| to.dialog);
        let Some(dialog) = dialog.filter(|_| self.is_active()) else { return };
        self.send_info(core, dialog, digit, length);
    }

    /// SendDTMF: one after the other to whom `by` talks to, who hears them as if its phone had pressed them.
    pub(super) fn ask_dtmf(&mut self, core: &mut Core, by: LegId, digits: &[Digit]) -> Result<Accepted, Denied> {
        let Some(to) = self.other(by).filter(|_| self.is_active()) else {
            return Err(self.denied(Code::WrongState, "ThisDN must talk to one other party, and neither hold"));
        };
        let accepted = Accepted::new(self.connection_of(by));
        let pressing = self.talk_mut().and_then(|talk| talk.pressing.as_mut());
        if let Some(Pressing { left, .. }) = pressing {
            if left.len() + digits.len() > MAX_WAITING {
                return Err(self.denied(Code::Busy, "earlier digits are still to be pressed"));
            }
            left.extend(digits);
            return Ok(accepted);
        }
        let pressing = Pressing { from: by, to, left: digits.iter().copied().collect() };
        if let Some(talk) = self.talk_mut() {
            talk.pressing = Some(pressing);
        }
        self.press_next(core);
        Ok(accepted)
    }

    /// The next digit by request, unless the two do not talk to each other any more.
    pub(super) fn press_next(&mut self, core: &mut Core) {
        let Some(mut pressing) = self.talk_mut().and_then(|talk| talk.pressing.take()) else { return };
        let Some(digit) = pressing.left.pop_front() else { return };
        let to = self.other(pressing.from).filter(|to| *to == pressing.to && self.is_active());
        let Some(to) = to.and_then(|to| self.leg(to)) else {
            return self.fact(core, What::Warning { text: "digits by request are dropped: the parties do not talk" });
        };
        match to.dialog.filter(|_| !Receiver::of(to).takes_events && to.takes_info()) {
            Some(dialog) => self.send_info(core, dialog, digit, BY_REQUEST),
            None => core.media(to.worker, Command::Press { leg: to.id, digit, length: BY_REQUEST }),
        }
        if let Some(talk) = self.talk_mut() {
            talk.pressing = Some(pressing);
        }
        core.arm(self.key, Timer::Digit, 2 * BY_REQUEST);
    }

    /// A digit as INFO.
    fn send_info(&mut self, core: &mut Core, dialog: DialogId, digit: Digit, length: Duration) {
        let open = self.pending.iter().filter(|(_, purpose)| matches!(purpose, Purpose::Digit)).count();
        if open >= MAX_OPEN {
            return self.fact(core, What::Warning { text: "a digit is dropped: a peer does not answer earlier ones" });
        }
        let body = Body { content_type: "application/dtmf-relay".into(), bytes: write(digit, length).into() };
        match core.endpoint.request(dialog, Method::Info, Headers::new(), Some(body), core.now) {
            Ok(request) => {
                core.index.requests.insert(request, self.key);
                self.pending.push((request, Purpose::Digit));
            }
            Err(_) => self.fact(core, What::Warning { text: "a digit could not be sent as INFO" }),
        }
    }
}

/// True when a request carries a digit.
pub(super) fn is_dtmf(request: &Request) -> bool {
    let content_type = request.headers.get(Name::ContentType).unwrap_or_default();
    let plain = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    plain.eq_ignore_ascii_case(b"application/dtmf-relay") || plain.eq_ignore_ascii_case(b"application/dtmf")
}

/// The digit of `application/dtmf-relay` (`Signal=5`, `Duration=160` in ms) or of `application/dtmf` (`5`).
fn read(body: &[u8]) -> Option<(Digit, Duration)> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let fields = || text.lines().filter_map(|line| line.split_once('='));
    let field = |name: &str| fields().find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, v)| v.trim());
    let digit = read_key(field("Signal").unwrap_or(text))?;
    let length = field("Duration").and_then(|ms| ms.parse().ok()).map_or(DEFAULT_LENGTH, Duration::from_millis);
    Some((digit, length))
}

/// A key, or an event code from 10 on, as some write star and hash.
fn read_key(text: &str) -> Option<Digit> {
    let mut keys = text.chars();
    match (keys.next(), keys.next()) {
        (Some(key), None) => Digit::of_key(key),
        _ => text.parse().ok().filter(|event| *event >= 10).and_then(Digit::new),
    }
}

fn write(digit: Digit, length: Duration) -> String {
    format!("Signal={}\r\nDuration={}\r\n", digit.key(), length.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digit_reads_back_and_the_forms_of_others_are_understood() {
        for key in "0123456789*#ABCD".chars() {
            let digit = Digit::of_key(key).unwrap();
            let length = Duration::from_millis(250);
            assert_eq!(read(write(digit, length).as_bytes()), Some((digit, length)));
        }
        let is = |body: &str, key, ms| {
            assert_eq!(read(body.as_bytes()), Some((Digit::of_key(key).unwrap(), Duration::from_millis(ms))), "{body}");
        };
        is("Signal= 5\nDuration = 100", '5', 100);
        is("duration=90\r\nsignal=d\r\n", 'D', 90);
        is("Signal=11\r\nDuration=x", '#', 160);
        is("7\r\n", '7', 160);
        for body in ["", "Signal=", "Signal=16", "Signal=01", "Signal=hf", "55", "Duration=100", "Signal=é"] {
            assert_eq!(read(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn an_info_goes_on_to_who_allows_it_and_else_becomes_media() {
        use Dtmf::{Info, Rfc4733};
        for (dtmf, allows_info, takes_events, media) in [
            (Rfc4733, Some(true), true, false),
            (Rfc4733, Some(true), false, false),
            (Rfc4733, Some(false), true, true),
            (Rfc4733, Some(false), false, true),
            (Rfc4733, None, true, true),
            (Rfc4733, None, false, false),
            (Info, None, true, false),
            (Info, Some(true), false, false),
            (Info, Some(false), true, true),
        ] {
            let receiver = Receiver { dtmf, allows_info, takes_events };
            assert_eq!(receiver.gets_media(), media, "{receiver:?}");
        }
    }
}
