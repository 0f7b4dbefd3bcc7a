//! A SIP phone that is a value: scripted in tests, real in the demo. It has lines, as desk phones have: a call on each.
//!
//! It is a user agent of its own on [`Endpoint`] and [`Local`]; it knows the proxy by its SIP address only. As a
//! [`Node`] it takes datagrams (SIP on [`Options::sip`], RTP from [`Options::rtp`] on) and gives datagrams; [`Phone::act`]
//! and its script make it do things, [`Phone::happenings`] tells what it saw.

mod actions;
mod answer;
mod heard;
mod line;
mod media;
mod outgoing;
mod refer;
mod script;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

pub use heard::{Continuity, Heard, MAX_HEARD, Packet, StreamReport};
pub use media::Spoken;
pub use refer::DialogName;
pub use script::{Action, Happened, Happening, HoldForm, Incoming, Leave, MAX_LINES, Options, Refer, Signal, Step};

use self::line::{Call, Line, Open};
use self::media::Sender;
use self::refer::Referring;
use super::network::{Datagram, Node};
use crate::codec::{Codec, Direction};
use crate::sdp::{Local, Refusal, Session, Terms};
use crate::sip::endpoint::{
    self, Body, DialogId, Endpoint, Failure, Flow, Input, InviteId, Listener, OutgoingInvite, Output, Peer, Reply,
    RequestId, ServerTx, Transport,
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
    lines: Vec<Line>,
    /// The line that actions without a line are for.
    active: usize,
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

impl Phone {
    /// A phone on hook.
    pub fn new(options: Options) -> Self {
        let mut abilities = endpoint::Options {
            user_agent: format!("stickytape-phone/{}", env!("CARGO_PKG_VERSION")),
            listeners: vec![Listener { transport: Transport::Udp, local: options.sip }],
            seed: options.seed,
            ..endpoint::Options::default()
        };
        abilities.allow.push(Method::Notify);
        if options.record_aware {
            abilities.supported.push("record-aware");
        }
        Self {
            endpoint: Endpoint::new(abilities),
            lines: (0..options.lines.clamp(1, MAX_LINES)).map(|index| Line::new(&options, index)).collect(),
            active: 0,
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

    /// Everything it has heard on line 0.
    pub fn heard(&self) -> &Heard {
        self.heard_on(0)
    }

    /// Everything it has heard on a line.
    ///
    /// # Panics
    /// Without such a line.
    pub fn heard_on(&self, line: usize) -> &Heard {
        &self.lines[line].heard
    }

    /// What came in the last call of a line.
    ///
    /// # Panics
    /// Without such a line.
    pub fn stream_report(&self, line: usize) -> StreamReport {
        self.lines[line].heard.report()
    }

    /// When it spoke on line 0: what stands in a recording at these instants is what it said.
    pub fn spoken(&self) -> &[Spoken] {
        self.spoken_on(0)
    }

    /// When it spoke on a line.
    ///
    /// # Panics
    /// Without such a line.
    pub fn spoken_on(&self, line: usize) -> &[Spoken] {
        &self.lines[line].sender.spoken
    }

    /// RTP packets that it made on all lines, lost ones too.
    pub fn sent_packets(&self) -> u64 {
        self.lines.iter().map(|line| line.sender.sent).sum()
    }

    /// The states of a recording that it was told (`a=record`), in order, with their instants and lines.
    pub fn record_states(&self) -> impl Iterator<Item = (Instant, usize, &str)> {
        self.happenings.iter().filter_map(|happened| match &happened.what {
            Happening::Recording { state } => Some((happened.at, happened.line, state.as_str())),
            _ => None,
        })
    }

    /// The RTP address of a line.
    ///
    /// # Panics
    /// Without such a line.
    pub fn rtp_address(&self, line: usize) -> SocketAddr {
        self.lines[line].rtp
    }

    /// All its addresses: SIP, then RTP and RTCP of each line.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let media = self.lines.iter().flat_map(Line::addresses);
        std::iter::once(self.options.sip).chain(media).collect()
    }

    /// The requests that reached it as a user agent (INVITE, re-INVITE, BYE, INFO …), the first [`MAX_KEPT`].
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// The answers to its requests, the first [`MAX_KEPT`].
    pub fn responses(&self) -> &[Response] {
        &self.responses
    }

    /// Its own description on line 0, while there is a call.
    pub fn local(&self) -> Option<&Local> {
        self.local_on(0)
    }

    /// Its own description on a line, while there is a call.
    pub fn local_on(&self, line: usize) -> Option<&Local> {
        self.lines.get(line)?.local.as_ref()
    }

    /// The line that actions without a line are for.
    pub fn active_line(&self) -> usize {
        self.active
    }

    /// True when there is no call on any line.
    pub fn is_idle(&self) -> bool {
        self.lines.iter().all(Line::is_idle)
    }

    /// True in an established call, on whichever line.
    pub fn is_talking(&self) -> bool {
        self.lines.iter().any(Line::is_talking)
    }

    /// True when the call of a line is established.
    pub fn is_talking_on(&self, line: usize) -> bool {
        self.lines.get(line).is_some_and(Line::is_talking)
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

    fn note(&mut self, line: usize, what: Happening, now: Instant) {
        self.happenings.push(Happened { at: now, line, what });
    }

    /// The line whose call is like this.
    fn line_of(&self, is: impl Fn(&Call) -> bool) -> Option<usize> {
        self.lines.iter().position(|line| is(&line.call))
    }

    fn line_of_dialog(&self, dialog: DialogId) -> Option<usize> {
        self.line_of(|call| call.dialog() == Some(dialog))
    }

    fn go_idle(&mut self, line: usize, what: Happening, now: Instant) {
        self.lines[line].call = Call::Idle;
        self.lines[line].end(now);
        self.leave_line(line);
        self.note(line, what, now);
    }

    /// The line is of no use any more: the next action is for one that is.
    fn leave_line(&mut self, line: usize) {
        if self.active == line {
            self.active = self.lines.iter().position(Line::is_in_use).unwrap_or(line);
        }
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
                let wanted = |happened: &&Happened| {
                    signal.matches(&happened.what) && step.line.is_none_or(|line| line == happened.line)
                };
                self.happenings.get(self.cursor..)?.iter().find(wanted)?.at
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
        self.options.sip == address || self.lines.iter().any(|line| line.addresses().contains(&address))
    }

    fn receive(&mut self, datagram: Datagram, now: Instant) {
        self.started.get_or_insert(now);
        if self.vanished {
            return;
        }
        if datagram.to == self.options.sip {
            let flow = Flow::udp(self.options.sip, datagram.from);
            self.endpoint.handle(Input::Packet { flow, bytes: datagram.bytes }, now);
            self.drain(now);
        } else if let Some(line) = self.lines.iter_mut().find(|line| line.rtp == datagram.to) {
            line.heard.receive(&datagram, now);
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
        let lines = self.lines.iter().flat_map(Line::timeouts);
        lines.chain([endpoint, self.step_due()]).flatten().min()
    }

    fn timeout(&mut self, now: Instant) {
        self.started.get_or_insert(now);
        if self.vanished {
            return;
        }
        if self.endpoint.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.endpoint.handle(Input::Timeout, now);
        }
        for index in 0..self.lines.len() {
            while let Some(action) = self.lines[index].take_due(now) {
                self.perform(Action::on(index, action), now);
            }
            let line = &mut self.lines[index];
            line.sender.timeout(now);
            while let Some(packet) = line.sender.poll_transmit(now) {
                self.out.push_back(packet);
            }
        }
        self.drain(now);
    }
}

fn code_of(failure: &Failure) -> Option<u16> {
    match failure {
        Failure::Response(response) => Some(response.code),
        Failure::Timeout | Failure::Transport | Failure::Ended => None,
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
