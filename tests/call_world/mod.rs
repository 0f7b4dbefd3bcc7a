//! Call control between simulated phones and hand-written peers, in virtual time. The media threads are a stand-in that
//! binds what it is asked to bind; what they and the recorders are told is kept for assertions.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod mixed;
pub mod rooms;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use stickytape::bridge::command::mix::MixCommand;
use stickytape::bridge::command::{Command, Notice, PortPair};
use stickytape::call::fact::{Fact, What};
use stickytape::call::options::{
    Dn, Host, Listener, MediaOptions, Numbers, Options, PeerAddress, Plan, RecordingOptions, SipOptions, Transport,
    Trunk,
};
use stickytape::call::request::{Accepted, Denied, Ticket};
use stickytape::call::{Calls, Input, Output, Reach, Seats};
use stickytape::id::{LegId, PortId, RecorderId, WorkerId};
use stickytape::record::mark::{Change, Mark, StopCause};
use stickytape::sip::endpoint::{self, Flow};
use stickytape::sip::headers::Headers;
use stickytape::sip::message::{Message, Request, Response};
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;
use stickytape::testing::network::{Datagram, Link, Network, Node};
use stickytape::testing::phone::{self, Phone};

pub const PROXY: &str = "192.0.2.1:5060";
pub const PROXY6: &str = "[2001:db8::1]:5060";

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Call control with a stand-in for the media threads.
pub struct Proxy {
    pub calls: Calls,
    start: Instant,
    out: VecDeque<Datagram>,
    pub facts: Vec<Fact>,
    pub marks: Vec<(RecorderId, Mark)>,
    /// Every command except port binding, in order.
    pub commands: Vec<(WorkerId, Command)>,
    pub resolves: Vec<String>,
    pub answers: Vec<(Ticket, Result<Accepted, Denied>)>,
    /// What the mixer was told, in order.
    pub mixes: Vec<MixCommand>,
    pub dn_answers: Vec<(Ticket, Result<(), Denied>)>,
    pub drained: bool,
    /// Pairs that the media threads still have.
    pub pairs_left: usize,
    next_port: u32,
    /// Where this proxy sends nothing: the failure comes back.
    pub unreachable: Vec<SocketAddr>,
    /// How long a leg is on its way to another media thread.
    pub move_time: Duration,
    /// Legs on their way: when they arrive, and where.
    moving: Vec<(Instant, LegId, WorkerId)>,
}

impl Proxy {
    pub fn new(options: Options, start: Instant) -> Self {
        Self::with_pairs(options, start, 1_000)
    }

    pub fn with_pairs(options: Options, start: Instant, pairs_left: usize) -> Self {
        let seats = Seats {
            mixers: vec![stickytape::id::MixerId(0)],
            workers: vec![WorkerId(0), WorkerId(1)],
            recorders: vec![RecorderId(0), RecorderId(1)],
            reach: Reach::new(|_| None),
            seed: 7,
        };
        let mut proxy = Self {
            calls: Calls::new(options, seats, start),
            start,
            out: VecDeque::new(),
            facts: Vec::new(),
            marks: Vec::new(),
            commands: Vec::new(),
            resolves: Vec::new(),
            answers: Vec::new(),
            mixes: Vec::new(),
            dn_answers: Vec::new(),
            drained: false,
            pairs_left,
            next_port: 0,
            unreachable: Vec::new(),
            move_time: Duration::ZERO,
            moving: Vec::new(),
        };
        proxy.drain(start);
        proxy
    }

    pub fn wall(&self, now: Instant) -> Timestamp {
        let since = SignedDuration::try_from(now - self.start).unwrap();
        "2026-11-20T10:00:00Z".parse::<Timestamp>().unwrap() + since
    }

    pub fn input(&mut self, input: Input, now: Instant) {
        self.calls.handle(input, now, self.wall(now));
        self.drain(now);
    }

    fn drain(&mut self, now: Instant) {
        loop {
            let mut back = Vec::new();
            while let Some(output) = self.calls.poll_output() {
                match output {
                    Output::Sip(transmit) if self.unreachable.contains(&transmit.flow.remote) => {
                        back.push(Input::Sip(endpoint::Input::Failed(transmit.token)));
                    }
                    Output::Sip(transmit) => self.out.push_back(Datagram {
                        from: transmit.flow.local,
                        to: transmit.flow.remote,
                        bytes: transmit.bytes,
                    }),
                    Output::Media(worker, Command::BindPorts { address, count }) => {
                        let given = count.min(self.pairs_left);
                        self.pairs_left -= given;
                        let pairs = (0..given).map(|_| {
                            self.next_port += 1;
                            let port = 10_000 + 2 * self.next_port as u16;
                            PortPair { id: PortId(self.next_port), rtp: (address, port).into() }
                        });
                        back.push(Input::Media(worker, Notice::PortsBound(pairs.collect())));
                        if given < count {
                            let missing = count - given;
                            back.push(Input::Media(worker, Notice::PortsFailed { address, missing }));
                        }
                    }
                    Output::Media(worker, command) => {
                        if let Command::Move { leg, to } = &command {
                            match self.move_time {
                                Duration::ZERO => back.push(Input::Media(*to, Notice::Moved { leg: *leg })),
                                time => self.moving.push((now + time, *leg, *to)),
                            }
                        }
                        if let Command::RemoveLeg(leg) = &command {
                            self.pairs_left += 1;
                            let stats = Default::default();
                            // A leg that is on its way is removed where it arrives.
                            let found = self.moving.iter().find(|(_, moving, _)| moving == leg);
                            let at = found.map_or(worker, |(_, _, to)| *to);
                            back.push(Input::Media(at, Notice::Removed { leg: *leg, stats }));
                        }
                        self.commands.push((worker, command));
                    }
                    Output::Mix(_, command) => self.mixes.push(command),
                    Output::DnAnswer(ticket, answer) => self.dn_answers.push((ticket, answer)),
                    Output::Mark(recorder, mark) => self.marks.push((recorder, mark)),
                    Output::Fact(fact) => self.facts.push(fact),
                    Output::Answer(ticket, answer) => self.answers.push((ticket, answer)),
                    Output::Resolve { host } => self.resolves.push(host.to_string()),
                    Output::Drained => {
                        assert!(!self.drained, "said once");
                        self.drained = true;
                    }
                }
            }
            if back.is_empty() {
                return;
            }
            for input in back {
                self.calls.handle(input, now, self.wall(now));
            }
        }
    }

    /// The facts as short words, without times: `answered`, `released busy`, …
    pub fn story(&self) -> Vec<String> {
        self.facts.iter().map(|f| tell(&f.what)).collect()
    }

    pub fn has_fact(&self, wanted: &str) -> bool {
        self.story().iter().any(|s| s == wanted)
    }

    /// Marks as short words.
    pub fn mark_story(&self) -> Vec<String> {
        self.marks.iter().map(|(_, m)| tell_mark(&m.change)).collect()
    }

    pub fn starts(&self) -> Vec<(Instant, stickytape::record::mark::SessionStart)> {
        let start = |m: &Mark| match &m.change {
            Change::Start(start) => Some((m.at, (**start).clone())),
            _ => None,
        };
        self.marks.iter().filter_map(|(_, m)| start(m)).collect()
    }

    pub fn stops(&self) -> Vec<(Instant, StopCause)> {
        let stop = |m: &Mark| match &m.change {
            Change::Stop { cause, .. } => Some((m.at, *cause)),
            _ => None,
        };
        self.marks.iter().filter_map(|(_, m)| stop(m)).collect()
    }

    pub fn commands_of(&self, leg: LegId) -> Vec<String> {
        self.commands.iter().filter_map(|(_, c)| tell_command(c, leg)).collect()
    }
}

fn tell(what: &What) -> String {
    match what {
        What::CallStarted { .. } => "started".into(),
        What::NotMade { cause, .. } => format!("not made {}", cause.label()),
        What::Refused { code, .. } => format!("refused {code}"),
        What::Ringing { early_media, .. } => format!("ringing{}", if *early_media { " with media" } else { "" }),
        What::Answered { .. } => "answered".into(),
        What::TransferStarted { how, .. } => format!("transfer {}", how.label()),
        What::Transferred { by, stays, target, .. } => format!("transferred {stays} from {by} to {target}"),
        What::TransferFailed { cause, .. } => format!("transfer failed {}", cause.label()),
        What::PartyInvited { by, .. } => format!("invited by {by}"),
        What::PartyAdded { leg, by, consult, .. } => {
            format!("added {leg} by {by}{}", if consult.is_some() { " consulted" } else { "" })
        }
        What::RoomEntered { leg, opened, .. } => format!("{} {leg}", if *opened { "opened" } else { "entered" }),
        What::PartyNotAdded { cause, .. } => format!("not added {}", cause.label()),
        What::PartyDeleted { leg, by, left } => format!("deleted {leg} by {by}, {left} left"),
        What::MuteChanged { leg, muted } => format!("{} {leg}", if *muted { "muted" } else { "unmuted" }),
        What::ListenChanged { leg, deaf } => format!("{} {leg}", if *deaf { "deafened" } else { "undeafened" }),
        What::Monitoring { on, .. } => format!("monitoring {on}"),
        What::ObserverJoined { leg, agent, mode, .. } => format!("observer {leg} of {agent} {}", mode.as_str()),
        What::ObserverLeft { leg } => format!("observer {leg} left"),
        What::MonitorMode { leg, mode, .. } => format!("observer {leg} {}", mode.as_str()),
        What::PartyLeft { leg } => format!("left {leg}"),
        What::Redirected { .. } => "redirected".into(),
        What::Replaced { leg, by, .. } => format!("replaced {leg} by {by}"),
        What::Preference { wish, .. } => format!("preference {wish}"),
        What::RecordingPaused { .. } => "paused".into(),
        What::RecordingResumed { .. } => "resumed".into(),
        What::OwnerChanged { owner, .. } => format!("owner {owner}"),
        What::Held { leg } => format!("held {leg}"),
        What::Retrieved { leg } => format!("retrieved {leg}"),
        What::Released { cause, .. } => format!("released {}", cause.label()),
        What::RecordingStarted { side, .. } => format!("recording {side:?}"),
        What::RecordingStopped { cause, .. } => format!("stopped {cause:?}"),
        What::RecordingFailed { cause, required, .. } => format!("failed {cause}{}", if *required { " !" } else { "" }),
        What::RecordingBegun { .. } => "begun".into(),
        What::RecordingPublished { .. } => "published".into(),
        What::Warning { text } => format!("warning {text}"),
    }
}

fn tell_mark(change: &Change) -> String {
    match change {
        Change::Payloads { leg, .. } => format!("payloads {leg}"),
        Change::LegEnded(leg) => format!("ended {leg}"),
        Change::Start(start) => format!("start {:?} early={}", start.side, start.conversation.early),
        Change::Conversation { conversation, .. } => {
            let members = conversation.members.iter();
            let members: Vec<String> =
                members.map(|m| format!("{}{}", m.leg, if m.holds { " holds" } else { "" })).collect();
            format!("conversation [{}] early={}", members.join(", "), conversation.early)
        }
        Change::Pause(_) => "pause".into(),
        Change::Resume(_) => "resume".into(),
        Change::Event { name, .. } => format!("event {name}"),
        Change::Stop { cause, .. } => format!("stop {cause:?}"),
    }
}

fn tell_command(command: &Command, wanted: LegId) -> Option<String> {
    let (leg, text) = match command {
        Command::AddLeg(new) => (new.leg, "add".into()),
        Command::SetRemote { leg, remote } => (*leg, format!("remote {:?}", remote.direction)),
        Command::Route { from, to } => (*from, format!("route to {}", to.map_or("nobody".into(), |t| t.to_string()))),
        Command::Tap { leg, recorders } => (*leg, format!("tap {}", recorders.len())),
        Command::Watch { leg, timeout } => (*leg, format!("watch {}", timeout.is_some())),
        Command::RemoveLeg(leg) => (*leg, "remove".into()),
        Command::Play { leg, .. } => (*leg, "play".into()),
        _ => return None,
    };
    (leg == wanted).then_some(text)
}

impl Node for Proxy {
    fn owns(&self, address: SocketAddr) -> bool {
        address == addr(PROXY) || address == addr(PROXY6)
    }

    fn receive(&mut self, datagram: Datagram, now: Instant) {
        let flow = Flow::udp(datagram.to, datagram.from);
        self.input(Input::Sip(endpoint::Input::Packet { flow, bytes: datagram.bytes }), now);
    }

    fn poll_transmit(&mut self) -> Option<Datagram> {
        self.out.pop_front()
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let arrival = self.moving.iter().map(|(at, ..)| *at).min();
        self.calls.poll_timeout().map(|(at, _)| at).into_iter().chain(arrival).min()
    }

    fn timeout(&mut self, now: Instant) {
        let (arrived, moving) = std::mem::take(&mut self.moving).into_iter().partition(|(at, ..)| *at <= now);
        self.moving = moving;
        let arrived: Vec<(Instant, LegId, WorkerId)> = arrived;
        for (_, leg, worker) in arrived {
            self.input(Input::Media(worker, Notice::Moved { leg }), now);
        }
        self.input(Input::Timeout, now);
    }
}

/// What a hand-written peer can send.
pub trait Wire {
    fn wire(&self) -> Bytes;
}

impl Wire for Request {
    fn wire(&self) -> Bytes {
        self.encode()
    }
}

impl Wire for Response {
    fn wire(&self) -> Bytes {
        self.encode()
    }
}

/// A peer whose messages a test writes by hand.
pub struct Raw {
    pub address: SocketAddr,
    pub got: Vec<Message>,
    out: VecDeque<Datagram>,
}

impl Raw {
    pub fn new(address: &str) -> Self {
        Self { address: addr(address), got: Vec::new(), out: VecDeque::new() }
    }

    pub fn send(&mut self, message: impl Wire) {
        let bytes = message.wire();
        let to = addr(if self.address.is_ipv4() { PROXY } else { PROXY6 });
        self.out.push_back(Datagram { from: self.address, to, bytes });
    }

    /// Requests of a method that have come, retransmissions included.
    pub fn requests(&self, method: Method) -> Vec<Request> {
        let wanted = |m: &Message| match m {
            Message::Request(r) if r.method == method => Some(r.clone()),
            _ => None,
        };
        self.got.iter().filter_map(wanted).collect()
    }

    pub fn responses(&self, method: &str) -> Vec<Response> {
        let wanted = |m: &Message| match m {
            Message::Response(r) if text(r.headers.get(Name::CSeq)).ends_with(method) => Some(r.clone()),
            _ => None,
        };
        self.got.iter().filter_map(wanted).collect()
    }

    pub fn codes(&self, method: &str) -> Vec<u16> {
        let mut codes: Vec<u16> = self.responses(method).iter().map(|r| r.code).collect();
        codes.dedup();
        codes
    }

    /// A new INVITE of this peer.
    pub fn invite(&self, to: &str, call: &str, sdp: Option<&str>) -> Request {
        let mut request = Request::new(Method::Invite, format!("sip:{to}@192.0.2.1"));
        let address = self.address;
        let mut add = |name, value: String| request.headers.push(name, value);
        add(Name::Via, format!("SIP/2.0/UDP {address};branch=z9hG4bK-{call}"));
        add(Name::MaxForwards, "70".into());
        add(Name::From, format!("\"Zoë\" <sip:raw@{}>;tag=f-{call}", address.ip()));
        add(Name::To, format!("<sip:{to}@192.0.2.1>"));
        add(Name::CallId, call.into());
        add(Name::CSeq, "1 INVITE".into());
        add(Name::Contact, format!("<sip:raw@{address}>"));
        if let Some(sdp) = sdp {
            add(Name::ContentType, "application/sdp".into());
            request.body = Bytes::copy_from_slice(sdp.as_bytes());
        }
        request
    }

    /// A further request in the dialog that `response` to our `invite` has made.
    pub fn in_dialog(&self, invite: &Request, response: &Response, method: Method, cseq: u32) -> Request {
        let target = text(response.headers.get(Name::Contact));
        let uri = target.split(['<', '>']).nth(1).unwrap_or("sip:x@192.0.2.1").to_owned();
        let mut request = Request::new(method.clone(), uri);
        let call = text(invite.headers.get(Name::CallId));
        let mut add = |name, value: String| request.headers.push(name, value);
        add(Name::Via, format!("SIP/2.0/UDP {};branch=z9hG4bK-{call}-{method}-{cseq}", self.address));
        add(Name::MaxForwards, "70".into());
        add(Name::From, text(invite.headers.get(Name::From)));
        add(Name::To, text(response.headers.get(Name::To)));
        add(Name::CallId, call);
        add(Name::CSeq, format!("{cseq} {method}"));
        add(Name::Contact, format!("<sip:raw@{}>", self.address));
        request
    }

    /// A request from the called side of the dialog that `invite` (received) with our `tag` has made.
    pub fn as_callee(&self, invite: &Request, tag: &str, method: Method, cseq: u32) -> Request {
        let target = text(invite.headers.get(Name::Contact));
        let uri = target.split(['<', '>']).nth(1).unwrap_or("sip:x@192.0.2.1").to_owned();
        let mut request = Request::new(method.clone(), uri);
        let call = text(invite.headers.get(Name::CallId));
        let mut add = |name, value: String| request.headers.push(name, value);
        add(Name::Via, format!("SIP/2.0/UDP {};branch=z9hG4bK-r{method}-{cseq}-{tag}", self.address));
        add(Name::MaxForwards, "70".into());
        add(Name::From, format!("{};tag={tag}", text(invite.headers.get(Name::To))));
        add(Name::To, text(invite.headers.get(Name::From)));
        add(Name::CallId, call);
        add(Name::CSeq, format!("{cseq} {method}"));
        add(Name::Contact, format!("<sip:raw@{}>", self.address));
        request
    }

    /// An answer to a request that has come.
    pub fn reply(&self, request: &Request, code: u16, tag: &str, sdp: Option<&str>) -> Response {
        let mut response = Response::new(code, "Whatever");
        let copy = |headers: &mut Headers, name| {
            for line in request.headers.all(name) {
                headers.push_line(line.clone());
            }
        };
        for name in [Name::Via, Name::From] {
            copy(&mut response.headers, name);
        }
        let to = text(request.headers.get(Name::To));
        let to = if tag.is_empty() || to.contains("tag=") { to } else { format!("{to};tag={tag}") };
        response.headers.push(Name::To, to);
        for name in [Name::CallId, Name::CSeq] {
            copy(&mut response.headers, name);
        }
        response.headers.push(Name::Contact, format!("<sip:raw@{}>", self.address));
        if let Some(sdp) = sdp {
            response.headers.push(Name::ContentType, "application/sdp");
            response.body = Bytes::copy_from_slice(sdp.as_bytes());
        }
        response
    }
}

impl Node for Raw {
    fn owns(&self, address: SocketAddr) -> bool {
        address == self.address
    }

    fn receive(&mut self, datagram: Datagram, _now: Instant) {
        match Message::parse(&datagram.bytes) {
            Ok(message) => self.got.push(message),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn poll_transmit(&mut self) -> Option<Datagram> {
        self.out.pop_front()
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }

    fn timeout(&mut self, _now: Instant) {}
}

pub fn text(value: Option<std::borrow::Cow<'_, [u8]>>) -> String {
    String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
}

/// An audio description of a hand-written peer.
pub fn sdp(host: &str, port: u16, codecs: &str, direction: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio {port} RTP/AVP {codecs}\r\n\
         a=rtpmap:101 telephone-event/8000\r\na={direction}\r\n"
    )
}

/// Everybody and the wire between them.
pub struct World {
    pub net: Network,
    pub proxy: Proxy,
    pub phones: Vec<Phone>,
    pub raws: Vec<Raw>,
    pub start: Instant,
}

impl World {
    pub fn new(options: Options) -> Self {
        Self::with_pairs(options, 1_000)
    }

    pub fn with_pairs(options: Options, pairs: usize) -> Self {
        Self::linked(options, pairs, Link::delayed(ms(5)))
    }

    pub fn linked(options: Options, pairs: usize, link: Link) -> Self {
        let start = stickytape::clock::now();
        let net = Network::new(start, 1, link);
        let proxy = Proxy::with_pairs(options, start, pairs);
        Self { net, proxy, phones: Vec::new(), raws: Vec::new(), start }
    }

    /// A phone at 10.0.0.N with number N.
    pub fn phone(&mut self, n: u8, change: impl FnOnce(&mut phone::Options)) -> usize {
        let mut options = phone::Options::new(
            &format!("20{n:02}"),
            addr(&format!("10.0.0.{n}:5060")),
            addr(&format!("10.0.0.{n}:4000")),
            addr(PROXY),
        );
        change(&mut options);
        self.phones.push(Phone::new(options));
        self.phones.len() - 1
    }

    pub fn raw(&mut self, address: &str) -> usize {
        self.raws.push(Raw::new(address));
        self.raws.len() - 1
    }

    pub fn run(&mut self, time: Duration) {
        let mut nodes: Vec<&mut dyn Node> = vec![&mut self.proxy];
        nodes.extend(self.phones.iter_mut().map(|p| p as &mut dyn Node));
        nodes.extend(self.raws.iter_mut().map(|p| p as &mut dyn Node));
        self.net.run_for(&mut nodes, time);
    }

    pub fn act(&mut self, phone: usize, action: phone::Action) {
        let now = self.net.now();
        self.phones[phone].act(action, now);
    }

    pub fn tell(&mut self, input: Input) {
        let now = self.net.now();
        self.proxy.input(input, now);
    }

    /// Waits until everything that retransmits or lingers is over, then nothing must be left.
    pub fn settle(&mut self) {
        self.run(Duration::from_secs(150));
        assert!(self.proxy.calls.is_empty(), "left over: {:#?}", self.proxy.calls);
        assert_eq!(self.proxy.starts().len(), self.proxy.stops().len(), "every Start gets one Stop");
        let count = |wanted: fn(&Command) -> bool| self.proxy.commands.iter().filter(|(_, c)| wanted(c)).count();
        assert_eq!(count(|c| matches!(c, Command::AddLeg(_))), count(|c| matches!(c, Command::RemoveLeg(_))));
    }
}

/// DNs 2001–2099 at 10.0.0.1 … by number, and a trunk at 198.51.100.10.
pub fn options() -> Options {
    let contact = |n: u32| PeerAddress {
        user: Some("{number}".into()),
        host: Host::Ip(format!("10.0.0.{n}").parse().unwrap()),
        port: 5060,
        transport: Some(Transport::Udp),
    };
    let dns = (1..=20).map(|n| Dn::new(Numbers::One(format!("20{n:02}")), contact(n))).collect();
    Options {
        listeners: vec![Listener { transport: Transport::Udp, address: addr(PROXY) }],
        sip: SipOptions::default(),
        media: MediaOptions { ports_ahead: 8, ..MediaOptions::default() },
        recording: RecordingOptions::default(),
        plan: Plan { dns, trunks: vec![trunk("carrier", &["198.51.100.10"])], ..Plan::default() },
    }
}

pub fn trunk(name: &str, hosts: &[&str]) -> Trunk {
    let address = |host: &&str| PeerAddress {
        user: None,
        host: Host::Ip(host.parse().unwrap()),
        port: 5060,
        transport: Some(Transport::Udp),
    };
    Trunk {
        addresses: hosts.iter().map(address).collect(),
        from: vec!["198.51.100.0/24".parse().unwrap()],
        ..Trunk::new(name)
    }
}
