//! A SIP phone that is a value: scripted in tests, real in the demo. One call at a time.
//!
//! It is a user agent of its own on [`Endpoint`] and [`Local`]; it knows the proxy by its SIP address only. As a
//! [`Node`] it takes datagrams (SIP on [`Options::sip`], RTP on [`Options::rtp`]) and gives datagrams; [`Phone::act`]
//! and its script make it do things, [`Phone::happenings`] tells what it saw.

mod answer;
mod media;
mod outgoing;
mod script;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

pub use media::{Continuity, Heard, MAX_HEARD, Packet, Spoken};
pub use script::{Action, Happened, Happening, HoldForm, Incoming, Options, Signal, Step};

use self::media::Sender;
use super::network::{Datagram, Node};
use crate::codec::Direction;
use crate::sdp::{Local, Session, Terms};
use crate::sip::endpoint::{
    self, Body, DialogId, Endpoint, Flow, Input, InviteId, Listener, OutgoingInvite, Output, Peer, Reply, RequestId,
    ServerTx, Transport,
};
use crate::sip::headers::Headers;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::name::Name;

/// Most messages that a phone keeps for assertions.
pub const MAX_KEPT: usize = 1_000;

/// The phone.
pub struct Phone {
    options: Options,
    endpoint: Endpoint,
    call: Call,
    local: Option<Local>,
    /// The offer of the INVITE that rings here.
    offered: Option<Session>,
    /// What we want to do with media: our part in every offer and answer of ours.
    direction: Direction,
    /// Hold in the old form: the null address stands in what we write.
    null_address: bool,
    sender: Sender,
    heard: Heard,
    /// Our open re-INVITE or UPDATE.
    open: Option<Open>,
    /// A refused re-INVITE is made again at this instant (RFC 3261 §14.1).
    retry: Option<(Instant, Action)>,
    /// What a call that comes in gets by itself.
    ring_at: Option<Instant>,
    answer_at: Option<Instant>,
    script: VecDeque<Step>,
    /// The first happening that the script's next step may wait for, and when the step before was taken.
    cursor: usize,
    stepped: Option<Instant>,
    happenings: Vec<Happened>,
    requests: Vec<Request>,
    responses: Vec<Response>,
    out: VecDeque<Datagram>,
    /// The first input: the script counts from it.
    started: Option<Instant>,
    vanished: bool,
}

/// The call.
///
/// ```text
///        Call                    2xx                  BYE of either side
/// Idle ───────► Calling ───────────────► Talking ─────────────────────► Idle
///   │              │ failure, cancelled ─► Idle      (Leaving while ours is open)
///   │ INVITE       ▼
///   └─────────► Ringing ── Answer: 2xx sent ─► Talking
///                  └── CANCEL, refused ─► Idle
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Idle,
    Calling { invite: InviteId },
    Ringing { tx: ServerTx, dialog: DialogId },
    Talking { dialog: DialogId },
    Leaving { dialog: DialogId, bye: RequestId },
}

/// A request of ours that carries or asks for an offer.
#[derive(Debug, Clone)]
struct Open {
    request: RequestId,
    method: Method,
    action: Action,
    /// What to go back to when it is refused.
    before: (Direction, bool),
}

impl Phone {
    /// A phone on hook.
    pub fn new(options: Options) -> Self {
        let endpoint = Endpoint::new(endpoint::Options {
            user_agent: format!("stickytape-phone/{}", env!("CARGO_PKG_VERSION")),
            listeners: vec![Listener { transport: Transport::Udp, local: options.sip }],
            seed: options.seed,
            ..endpoint::Options::default()
        });
        Self {
            endpoint,
            call: Call::Idle,
            local: None,
            offered: None,
            direction: Direction::SendRecv,
            null_address: false,
            sender: Sender::new(options.rtp, options.voice.clone(), options.seed),
            heard: Heard::default(),
            open: None,
            retry: None,
            ring_at: None,
            answer_at: None,
            script: options.script.iter().cloned().collect(),
            cursor: 0,
            stepped: None,
            happenings: Vec::new(),
            requests: Vec::new(),
            responses: Vec::new(),
            out: VecDeque::new(),
            started: None,
            vanished: false,
            options,
        }
    }

    /// How it was set up.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// All that has happened, in order.
    pub fn happenings(&self) -> &[Happened] {
        &self.happenings
    }

    /// True when something of the kind has happened.
    pub fn has_seen(&self, signal: Signal) -> bool {
        self.happenings.iter().any(|happened| signal.matches(&happened.what))
    }

    /// Everything it has heard.
    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    /// When it spoke: what stands in a recording at these instants is what it said.
    pub fn spoken(&self) -> &[Spoken] {
        &self.sender.spoken
    }

    /// RTP packets that it made, lost ones too.
    pub fn sent_packets(&self) -> u64 {
        self.sender.sent
    }

    /// The requests that reached it as a user agent (INVITE, re-INVITE, BYE, INFO …), the first [`MAX_KEPT`].
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// The answers to its requests, the first [`MAX_KEPT`].
    pub fn responses(&self) -> &[Response] {
        &self.responses
    }

    /// Its own description, while there is a call.
    pub fn local(&self) -> Option<&Local> {
        self.local.as_ref()
    }

    /// True when there is no call.
    pub fn is_idle(&self) -> bool {
        self.call == Call::Idle
    }

    /// True in an established call.
    pub fn is_talking(&self) -> bool {
        matches!(self.call, Call::Talking { .. })
    }

    /// True when something has happened, the script has been taken to its end and there is no call.
    pub fn is_done(&self) -> bool {
        !self.happenings.is_empty() && self.script.is_empty() && self.is_idle()
    }

    /// True when nothing of SIP is left: no transaction, no dialog.
    pub fn is_clean(&self) -> bool {
        self.is_idle() && self.endpoint.is_empty()
    }

    /// Does something now.
    pub fn act(&mut self, action: Action, now: Instant) {
        self.started.get_or_insert(now);
        self.perform(action, now);
        self.drain(now);
    }

    fn note(&mut self, what: Happening, now: Instant) {
        self.happenings.push(Happened { at: now, what });
    }

    fn perform(&mut self, action: Action, now: Instant) {
        match action {
            Action::Speak(voice) => self.sender.speak(voice),
            Action::Dtx(dtx) => self.sender.dtx = dtx,
            Action::Faults(link) => self.sender.faults = link,
            Action::Skew(ppm) => self.sender.skew_ppm = ppm,
            Action::Stall(time) => self.sender.stalled_until = Some(now + time),
            Action::NewSource => self.sender.new_source(),
            Action::JumpTimestamp(by) => self.sender.jump_timestamp(by),
            Action::Vanish => self.vanish(),
            Action::Press(key) => {
                let pressed = self.sender.press(key);
                self.require(pressed, "press a key", now);
            }
            Action::Call { to, offer, headers } => {
                let called = self.place_call(&to, offer, &headers, now);
                self.require(called, "call", now);
            }
            Action::SpeakAhead => {
                let possible = matches!(self.call, Call::Ringing { .. }) && self.write_description(now).is_some();
                self.follow(now);
                self.require(possible, "speak ahead", now);
            }
            Action::Ring | Action::EarlyMedia | Action::Answer | Action::Refuse { .. } => {
                let answered = self.answer_call(&action, now);
                self.require(answered, &format!("{action:?}"), now);
            }
            Action::Cancel => {
                let cancelled = match self.call {
                    Call::Calling { invite } => self.endpoint.cancel(invite, Headers::new(), now).is_ok(),
                    _ => false,
                };
                self.require(cancelled, "cancel", now);
            }
            Action::Info { content_type, body } => {
                let sent = match self.call {
                    Call::Talking { dialog } => {
                        let body = Body { content_type, bytes: body };
                        self.endpoint.request(dialog, Method::Info, Headers::new(), Some(body), now).is_ok()
                    }
                    _ => false,
                };
                self.require(sent, "send INFO", now);
            }
            Action::HangUp => self.hang_up(now),
            Action::Hold(_) | Action::Retrieve | Action::Recode(_) | Action::AskForOffer | Action::Update(_) => {
                let sent = self.reoffer(action.clone(), now);
                self.require(sent, &format!("{action:?}"), now);
            }
        }
    }

    fn require(&mut self, possible: bool, action: &str, now: Instant) {
        if !possible {
            self.note(Happening::NotPossible { action: action.to_owned() }, now);
        }
    }

    fn vanish(&mut self) {
        self.vanished = true;
        self.out.clear();
        self.script.clear();
    }

    /// Our terms at present.
    fn terms(&self) -> Terms {
        Terms::of(&self.options.codecs, self.direction)
    }

    /// What is written: with the null address while held in the old form.
    fn written(&self, body: Bytes) -> Bytes {
        if !self.null_address {
            return body;
        }
        let text = String::from_utf8_lossy(&body);
        let line = format!("\r\nc=IN {}", if self.options.rtp.is_ipv4() { "IP4" } else { "IP6" });
        let null = format!("{line} {}\r\n", if self.options.rtp.is_ipv4() { "0.0.0.0" } else { "::" });
        text.replace(&format!("{line} {}\r\n", self.options.rtp.ip()), &null).into_bytes().into()
    }

    /// Sends and hears what is negotiated now.
    fn follow(&mut self, now: Instant) {
        let mut negotiated = self.local.as_ref().and_then(Local::negotiated).cloned();
        if let Some(negotiated) = &mut negotiated {
            self.heard.set_payloads(&negotiated.receive);
            // In the old form of hold the direction is not written, but meant.
            if self.null_address {
                negotiated.direction = negotiated.direction.and(Direction::SendOnly);
            }
        }
        self.sender.set_target(negotiated.as_ref(), now);
    }

    fn stop_media(&mut self, now: Instant) {
        self.local = None;
        self.offered = None;
        self.open = None;
        self.retry = None;
        self.ring_at = None;
        self.answer_at = None;
        self.sender.set_target(None, now);
    }

    fn go_idle(&mut self, what: Happening, now: Instant) {
        self.call = Call::Idle;
        self.stop_media(now);
        self.note(what, now);
    }

    /// Takes what the endpoint gives until it has no more.
    fn drain(&mut self, now: Instant) {
        loop {
            while let Some(output) = self.endpoint.poll_output() {
                match output {
                    Output::Transmit(transmit) => {
                        self.out.push_back(Datagram {
                            from: self.options.sip,
                            to: transmit.flow.remote,
                            bytes: transmit.bytes,
                        });
                    }
                    Output::Event(event) => self.on_event(event, now),
                }
            }
            if !self.take_step(now) {
                break;
            }
        }
        if self.vanished {
            self.out.clear();
        }
    }

    /// When the script's next step is due, if its condition is met.
    fn step_due(&self) -> Option<Instant> {
        let step = self.script.front()?;
        let from = match step.on {
            Some(signal) => {
                let seen =
                    self.happenings.get(self.cursor..)?.iter().find(|happened| signal.matches(&happened.what))?;
                seen.at
            }
            None => self.stepped.or(self.started)?,
        };
        Some(from + step.after)
    }

    fn take_step(&mut self, now: Instant) -> bool {
        if self.step_due().is_none_or(|due| due > now) {
            return false;
        }
        let Some(step) = self.script.pop_front() else {
            return false;
        };
        self.cursor = self.happenings.len();
        self.stepped = Some(now);
        self.perform(step.action, now);
        true
    }

    fn keep_request(&mut self, request: &Request) {
        if self.requests.len() < MAX_KEPT {
            self.requests.push(request.clone());
        }
    }

    fn keep_response(&mut self, response: &Response) {
        if self.responses.len() < MAX_KEPT {
            self.responses.push(response.clone());
        }
    }
}

impl Node for Phone {
    fn owns(&self, address: SocketAddr) -> bool {
        let rtcp = SocketAddr::new(self.options.rtp.ip(), self.options.rtp.port().saturating_add(1));
        [self.options.sip, self.options.rtp, rtcp].contains(&address)
    }

    fn receive(&mut self, datagram: Datagram, now: Instant) {
        self.started.get_or_insert(now);
        if self.vanished {
            return;
        }
        if datagram.to == self.options.rtp {
            self.heard.receive(&datagram, now);
        } else if datagram.to == self.options.sip {
            let flow = Flow::udp(self.options.sip, datagram.from);
            self.endpoint.handle(Input::Packet { flow, bytes: datagram.bytes }, now);
            self.drain(now);
        }
    }

    fn poll_transmit(&mut self) -> Option<Datagram> {
        self.out.pop_front()
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        if self.vanished {
            return None;
        }
        let endpoint = self.endpoint.poll_timeout().map(|(at, _)| at);
        let retry = self.retry.as_ref().map(|(at, _)| *at);
        [endpoint, retry, self.ring_at, self.answer_at, self.step_due(), self.sender.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn timeout(&mut self, now: Instant) {
        self.started.get_or_insert(now);
        if self.vanished {
            return;
        }
        if self.endpoint.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.endpoint.handle(Input::Timeout, now);
        }
        if self.ring_at.is_some_and(|at| at <= now) {
            self.ring_at = None;
            self.perform(Action::Ring, now);
        }
        if self.answer_at.is_some_and(|at| at <= now) {
            self.answer_at = None;
            self.perform(Action::Answer, now);
        }
        if let Some((_, action)) = self.retry.take_if(|(at, _)| *at <= now) {
            self.perform(action, now);
        }
        self.sender.timeout(now);
        while let Some(packet) = self.sender.poll_transmit(now) {
            self.out.push_back(packet);
        }
        self.drain(now);
    }
}

fn header_lines(lines: &[(String, Bytes)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in lines {
        headers.push(Name::parse(name.as_bytes()), value.clone());
    }
    headers
}

/// The session description of a message; `Ok(None)` when it has none.
fn description(headers: &Headers, body: &Bytes) -> Result<Option<Session>, String> {
    let is_sdp = headers
        .get(Name::ContentType)
        .is_some_and(|value| value.trim_ascii_start().to_ascii_lowercase().starts_with(b"application/sdp"));
    if body.is_empty() || !is_sdp {
        return Ok(None);
    }
    Session::parse(body).map(Some).map_err(|error| error.to_string())
}
