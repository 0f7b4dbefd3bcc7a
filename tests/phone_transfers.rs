//! What the simulated phones do beyond calling: REFER and NOTIFY, events of the switch, recording awareness. Their peer
//! here is written by hand, so that each message can be looked at.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stickytape::codec::Direction;
use stickytape::sip::endpoint::{
    self, Body, DialogId, Endpoint, Event, Flow, Input, Listener, OutgoingInvite, Output, Peer as Remote, Reply,
    Transport,
};
use stickytape::sip::headers::Headers;
use stickytape::sip::message::Request;
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;
use stickytape::testing::network::{Datagram, Link, Network, Node};
use stickytape::testing::phone::{Action, Happening, HoldForm, Incoming, Leave, Options, Phone, Refer};

const SWITCH: &str = "10.0.0.100:5060";
const ANN: [&str; 2] = ["10.0.0.1:5060", "10.0.0.1:4000"];
const CID: [&str; 2] = ["10.0.0.3:5060", "10.0.0.3:4000"];

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A peer that answers everything at once and sends what it is told to.
struct Switch {
    endpoint: Endpoint,
    out: VecDeque<Datagram>,
    dialog: Option<DialogId>,
    /// What REFER gets.
    refer_code: u16,
    requests: Vec<Request>,
    /// Codes of the answers to its own requests.
    codes: Vec<(Method, u16)>,
}

fn sdp(more: &str) -> Body {
    let text = "v=0\r\no=- 1 1 IN IP4 10.0.0.100\r\ns=-\r\nc=IN IP4 10.0.0.100\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0\r\n";
    Body::sdp(format!("{text}{more}"))
}

fn text(value: Option<std::borrow::Cow<'_, [u8]>>) -> String {
    String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
}

impl Switch {
    fn new() -> Self {
        let mut options = endpoint::Options {
            listeners: vec![Listener { transport: Transport::Udp, local: address(SWITCH) }],
            ..endpoint::Options::default()
        };
        options.allow.extend([Method::Refer, Method::Notify]);
        options.supported.push("replaces");
        Self {
            endpoint: Endpoint::new(options),
            out: VecDeque::new(),
            dialog: None,
            refer_code: 202,
            requests: Vec::new(),
            codes: Vec::new(),
        }
    }

    fn request(&mut self, method: Method, lines: &[(Name<'static>, &str)], body: Option<Body>, now: Instant) {
        let mut headers = Headers::new();
        for (name, value) in lines {
            headers.push(*name, value.to_string());
        }
        self.endpoint.request(self.dialog.unwrap(), method, headers, body, now).unwrap();
        self.drain(now);
    }

    fn notify(&mut self, state: &str, fragment: &str, now: Instant) {
        let lines = [(Name::Event, "refer"), (Name::SubscriptionState, state)];
        let body = Body { content_type: "message/sipfrag".into(), bytes: Bytes::copy_from_slice(fragment.as_bytes()) };
        self.request(Method::Notify, &lines, Some(body), now);
    }

    fn call(&mut self, to: &str, now: Instant) {
        let invite = OutgoingInvite {
            flow: Flow::udp(address(SWITCH), address(to)),
            peer: Remote::new(address(SWITCH)),
            request_uri: format!("sip:x@{to}").into(),
            from: format!("<sip:switch@{SWITCH}>").into(),
            to: format!("<sip:x@{to}>").into(),
            max_forwards: 70,
            headers: Headers::new(),
            body: Some(sdp("")),
        };
        self.endpoint.invite(invite, now).unwrap();
        self.drain(now);
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit(transmit) => {
                    let (from, to, bytes) = (address(SWITCH), transmit.flow.remote, transmit.bytes);
                    self.out.push_back(Datagram { from, to, bytes });
                }
                Output::Event(event) => self.on_event(event, now),
            }
        }
    }

    fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Invite { tx, request, .. } => {
                let dialog = self.endpoint.open_dialog(tx, Remote::new(address(SWITCH))).unwrap();
                self.dialog = Some(dialog);
                self.requests.push(request);
                let reply = Reply { body: Some(sdp("")), ..Reply::new(200) };
                self.endpoint.respond(tx, Some(dialog), reply, now).unwrap();
            }
            Event::Request { tx, request, .. } => {
                let reply = match request.method {
                    Method::Refer => Reply::new(self.refer_code),
                    Method::Invite => Reply { body: Some(sdp("")), ..Reply::new(200) },
                    _ => Reply::new(200),
                };
                self.requests.push(request);
                self.endpoint.respond(tx, None, reply, now).unwrap();
            }
            Event::Provisional { dialog, .. } => self.dialog = dialog.or(self.dialog),
            Event::Answered { dialog, .. } => {
                self.dialog = Some(dialog);
                self.endpoint.ack(dialog, None, now).unwrap();
            }
            Event::Response { dialog, outcome, .. } => {
                let response = outcome.unwrap_or_else(|failure| match failure {
                    endpoint::Failure::Response(response) => response,
                    other => panic!("{other:?}"),
                });
                let method = text(response.headers.get(Name::CSeq)).split(' ').nth(1).unwrap().to_owned();
                let method = Method::parse(method.as_bytes()).unwrap();
                if method == Method::Invite && response.code == 200 {
                    self.endpoint.ack(dialog.unwrap(), None, now).unwrap();
                }
                self.codes.push((method, response.code));
            }
            _ => {}
        }
    }

    fn last(&self, method: Method) -> &Request {
        self.requests.iter().rfind(|request| request.method == method).expect("it has come")
    }

    fn has(&self, method: Method) -> bool {
        self.requests.iter().any(|request| request.method == method)
    }
}

impl Node for Switch {
    fn owns(&self, own: SocketAddr) -> bool {
        own == address(SWITCH)
    }

    fn receive(&mut self, datagram: Datagram, now: Instant) {
        let flow = Flow::udp(address(SWITCH), datagram.from);
        self.endpoint.handle(Input::Packet { flow, bytes: datagram.bytes }, now);
        self.drain(now);
    }

    fn poll_transmit(&mut self) -> Option<Datagram> {
        self.out.pop_front()
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.endpoint.poll_timeout().map(|(at, _)| at)
    }

    fn timeout(&mut self, now: Instant) {
        self.endpoint.handle(Input::Timeout, now);
        self.drain(now);
    }
}

/// Ann, whose proxy is the switch, and Cid, whom she calls past it.
struct World {
    network: Network,
    switch: Switch,
    ann: Phone,
    cid: Phone,
}

impl World {
    fn new(change: impl FnOnce(&mut Options, &mut Options)) -> Self {
        let options = |number, own: [&str; 2]| Options {
            direct: true,
            ..Options::new(number, address(own[0]), address(own[1]), address(SWITCH))
        };
        let (mut ann, mut cid) = (options("1001", ANN), options("3001", CID));
        ann.lines = 2;
        change(&mut ann, &mut cid);
        let network = Network::new(stickytape::clock::now(), 1, Link::delayed(ms(10)));
        Self { network, switch: Switch::new(), ann: Phone::new(ann), cid: Phone::new(cid) }
    }

    /// Ann talks to the switch.
    fn talking() -> Self {
        let mut world = Self::new(|_, _| {});
        world.ann(Action::call("9000"));
        world.go(200);
        assert!(world.ann.is_talking_on(0));
        world
    }

    fn go(&mut self, time: u64) {
        self.network.run_for(&mut [&mut self.switch, &mut self.ann, &mut self.cid], ms(time));
    }

    fn now(&self) -> Instant {
        self.network.now()
    }

    /// Ann does something; the others hear of it.
    fn ann(&mut self, action: Action) {
        self.ann.act(action, self.network.now());
        self.go(50);
    }

    fn notify(&mut self, state: &str, fragment: &str) {
        self.switch.notify(state, fragment, self.network.now());
        self.go(50);
    }

    /// What has happened to Ann on a line.
    fn story(&self, line: usize) -> Vec<Happening> {
        self.ann.happenings().iter().filter(|h| h.line == line).map(|h| h.what.clone()).collect()
    }
}

fn notified(code: u16, state: &str) -> Happening {
    Happening::Notified { code, state: state.to_owned() }
}

#[test]
fn a_transfer_is_told_to_its_end_and_the_phone_leaves_when_it_was_told_to() {
    for leave in [Leave::AtOnce, Leave::WhenDone, Leave::Never] {
        let mut world = World::talking();
        world.ann(Action::Refer(Refer { leave, ..Refer::to("3001") }));
        let refer = world.switch.last(Method::Refer);
        assert_eq!(text(refer.headers.get(Name::ReferTo)), format!("<sip:3001@{SWITCH}>"));
        assert_eq!(text(refer.headers.get(Name::ReferredBy)), format!("<sip:1001@{}>", ANN[0]));
        assert!(!refer.headers.has(Name::ReferSub) && refer.headers.has(Name::Contact));
        assert_eq!(world.switch.has(Method::Bye), leave == Leave::AtOnce, "{leave:?}");
        let told = world.story(0);
        assert!(told.contains(&Happening::Referred { code: 202 }), "{told:?}");
        if leave == Leave::AtOnce {
            continue;
        }
        world.notify("active;expires=60", "SIP/2.0 100 Trying\r\n");
        world.notify("active;expires=50", "SIP/2.0 180 Ringing\r\n");
        assert!(!world.switch.has(Method::Bye));
        world.notify("terminated;reason=noresource", "SIP/2.0 200 OK\r\n");
        let all = [notified(100, "active"), notified(180, "active"), notified(200, "terminated")];
        let told = world.story(0);
        assert_eq!(told.iter().filter(|h| matches!(h, Happening::Notified { .. })).cloned().collect::<Vec<_>>(), all);
        assert_eq!(world.switch.codes, vec![(Method::Notify, 200); 3]);
        assert_eq!(world.switch.has(Method::Bye), leave == Leave::WhenDone, "{leave:?}");
        if leave == Leave::Never {
            let now = world.now();
            world.switch.request(Method::Bye, &[], None, now);
            world.go(50);
            assert_eq!(world.story(0).last(), Some(&Happening::Ended { by_peer: true }));
        }
        assert!(world.ann.is_idle());
    }
}

#[test]
fn a_transfer_that_fails_leaves_the_call() {
    let mut world = World::talking();
    world.ann(Action::Refer(Refer { leave: Leave::WhenDone, ..Refer::to("3001") }));
    world.notify("terminated;reason=noresource", "SIP/2.0 486 Busy Here\r\n");
    assert_eq!(world.story(0).last(), Some(&notified(486, "terminated")));
    for code in [403, 491, 603] {
        world.switch.refer_code = code;
        world.ann(Action::Refer(Refer { leave: Leave::AtOnce, ..Refer::to("3001") }));
        assert_eq!(world.story(0).last(), Some(&Happening::ReferRefused { code: Some(code) }));
    }
    assert!(world.ann.is_talking_on(0) && !world.switch.has(Method::Bye));
    let before = world.switch.codes.len();
    world.notify("active", "SIP/2.0 180 Ringing\r\n");
    assert_eq!(world.switch.codes[before..], [(Method::Notify, 481)], "no REFER is under way");
}

#[test]
fn a_transfer_without_subscription_and_without_referrer_says_so() {
    let mut world = World::talking();
    let refer = Refer { refer_sub: false, referred_by: false, ..Refer::to("tel:+4930123456") };
    let headers = vec![("X-Note".to_owned(), Bytes::from_static(b"kept"))];
    world.ann(Action::Refer(Refer { headers, ..refer }));
    let refer = world.switch.last(Method::Refer);
    assert_eq!(text(refer.headers.get(Name::ReferTo)), "<tel:+4930123456>");
    assert_eq!(text(refer.headers.get(Name::ReferSub)), "false");
    assert!(refer.headers.has_token(Name::Supported, b"norefersub") && !refer.headers.has(Name::ReferredBy));
    assert_eq!(text(refer.headers.get(Name::parse(b"X-Note"))), "kept");
}

/// Refer-To with its escapes resolved.
fn refer_to(world: &World) -> String {
    let value = text(world.switch.last(Method::Refer).headers.get(Name::ReferTo));
    assert!(!value[value.find('?').unwrap()..].contains([';', '@', '"']), "not escaped: {value}");
    value.replace("%3B", ";").replace("%3D", "=").replace("%40", "@")
}

#[test]
fn an_attended_transfer_names_the_dialog_of_the_other_line_as_its_far_end_knows_it() {
    let mut world = World::talking();
    world.ann(Action::Hold(HoldForm::SendOnly));
    world.ann(Action::call(&format!("sip:3001@{}", CID[0])));
    world.go(500);
    assert!(world.ann.is_talking_on(1) && world.ann.active_line() == 1);
    let cid = world.cid.dialog(0).unwrap();
    world.ann(Action::on(0, Action::Refer(Refer::to_line(1))));
    let value = refer_to(&world);
    let expected = format!("?Replaces={};to-tag={};from-tag={}>", cid.call_id, cid.local_tag, cid.remote_tag);
    assert!(value.ends_with(&expected), "{value} {expected}");
    let answer = world.ann.responses().iter().rfind(|r| text(r.headers.get(Name::Server)).contains("phone")).unwrap();
    let contact = text(answer.headers.get(Name::Contact));
    assert_eq!(value.split('?').next().unwrap(), contact.trim_end_matches('>'), "Cid's own Contact");

    world.ann(Action::on(0, Action::Refer(Refer { replaces: Some(1), ..Refer::to("3001") })));
    assert!(refer_to(&world).starts_with(&format!("<sip:3001@{SWITCH}?Replaces={}", cid.call_id)));
}

#[test]
fn a_half_attended_transfer_names_the_early_dialog() {
    let mut world = World::new(|_, cid| cid.incoming = Incoming::Manual);
    world.ann(Action::call("9000"));
    world.go(200);
    world.ann(Action::Hold(HoldForm::SendOnly));
    world.ann(Action::call(&format!("sip:3001@{}", CID[0])));
    assert_eq!(world.ann.dialog(1), None, "Cid has said nothing yet");
    world.ann(Action::on(0, Action::Refer(Refer::to_line(1))));
    assert!(matches!(world.ann.happenings().last().unwrap().what, Happening::NotPossible { .. }));
    world.cid.act(Action::Ring, world.network.now());
    world.go(50);
    let cid = world.cid.dialog(0).unwrap();
    assert_eq!(world.ann.dialog(1).unwrap().local_tag, cid.remote_tag);
    world.ann(Action::on(0, Action::Refer(Refer::to_line(1))));
    assert!(refer_to(&world).contains(&format!("{};to-tag={}", cid.call_id, cid.local_tag)));
    world.ann(Action::on(1, Action::Cancel));
    assert!(world.cid.is_idle() && world.ann.is_talking_on(0));
}

#[test]
fn a_pick_up_names_the_dialog_of_the_phone_that_rings() {
    let mut world = World::new(|ann, _| ann.incoming = Incoming::Manual);
    world.switch.call(ANN[0], world.network.now());
    world.go(50);
    world.ann(Action::Ring);
    let ann = world.ann.dialog(0).unwrap();
    let rings = world.switch.dialog.unwrap();
    let key = world.switch.endpoint.dialog(rings).unwrap().key.clone();
    assert_eq!((ann.remote_tag.as_bytes(), ann.local_tag.as_bytes()), (&key.local_tag[..], &key.remote_tag[..]));
    world.cid.act(Action::call_replacing("1001", &ann), world.network.now());
    world.go(50);
    let invite = world.switch.last(Method::Invite);
    assert!(invite.headers.has_token(Name::Require, b"replaces"));
    let expected = format!("{};to-tag={};from-tag={}", ann.call_id, ann.remote_tag, ann.local_tag);
    assert_eq!(text(invite.headers.get(Name::Replaces)), expected);
}

#[test]
fn a_phone_refuses_a_required_replaces_that_it_does_not_know() {
    let mut world = World::talking();
    let name = world.ann.dialog(0).unwrap();
    world.cid.act(Action::call_replacing(&format!("sip:1001@{}", ANN[0]), &name), world.network.now());
    world.go(50);
    assert_eq!(world.cid.happenings().last().unwrap().what, Happening::Failed { code: Some(420) });
    assert_eq!(text(world.cid.responses()[0].headers.get(Name::Unsupported)), "replaces");
    assert!(world.ann.is_talking_on(0));
}

#[test]
fn any_request_can_be_sent_and_its_answer_is_told() {
    let mut world = World::talking();
    world.switch.refer_code = 400;
    let line = |value: &'static str| ("Refer-To".to_owned(), Bytes::from_static(value.as_bytes()));
    let headers = vec![line("<sip:1@10.0.0.3>"), line("<sip:2@10.0.0.3>")];
    world.ann(Action::Request { method: Method::Refer, headers, body: None });
    assert_eq!(world.switch.last(Method::Refer).headers.count(Name::ReferTo), 2);
    let told = Happening::Responded { method: "REFER".to_owned(), code: Some(400) };
    assert_eq!(world.story(0).last(), Some(&told));
    world.ann(Action::Request { method: Method::Bye, headers: vec![], body: None });
    assert!(matches!(world.story(0).last(), Some(Happening::NotPossible { .. })) && world.ann.is_talking());
}

#[test]
fn talk_answers_and_takes_back_and_hold_holds_where_the_phone_obeys() {
    for talk in [true, false] {
        let mut world = World::new(|ann, _| (ann.talk, ann.incoming) = (talk, Incoming::Manual));
        world.switch.call(ANN[0], world.network.now());
        world.go(50);
        world.ann(Action::Ring);
        let event = |world: &mut World, event| {
            world.switch.request(Method::Notify, &[(Name::Event, event)], None, world.network.now());
            world.go(50);
        };
        event(&mut world, "talk");
        assert_eq!(world.ann.is_talking(), talk);
        assert!(world.story(0).contains(&Happening::Asked { event: "talk".to_owned() }));
        event(&mut world, "presence");
        assert_eq!(world.switch.codes, [(Method::Notify, 200), (Method::Notify, 489)]);
        if !talk {
            continue;
        }
        event(&mut world, "hold");
        assert_eq!(world.story(0).last(), Some(&Happening::Agreed { direction: Direction::SendOnly }));
        event(&mut world, "hold");
        assert_eq!(world.story(0).last(), Some(&Happening::Asked { event: "hold".to_owned() }), "held already");
        event(&mut world, "talk");
        assert_eq!(world.story(0).last(), Some(&Happening::Agreed { direction: Direction::SendRecv }));
    }
}

#[test]
fn allow_events_stands_in_what_makes_a_dialog_where_the_phone_obeys() {
    for talk in [true, false] {
        let mut world = World::new(|ann, cid| (ann.talk, cid.talk) = (talk, talk));
        world.ann(Action::call(&format!("sip:3001@{}", CID[0])));
        world.go(500);
        let invite = &world.cid.requests()[0];
        let answers = world.ann.responses();
        assert_eq!(answers.iter().map(|r| r.code).collect::<Vec<_>>(), [180, 200]);
        for headers in answers.iter().map(|r| &r.headers).chain([&invite.headers]) {
            assert_eq!(headers.has_token(Name::AllowEvents, b"talk"), talk);
            assert!(headers.has_token(Name::Allow, b"NOTIFY") && !headers.has_token(Name::Allow, b"REFER"));
        }
    }
}

#[test]
fn a_phone_that_is_aware_of_recording_collects_what_it_is_told_and_says_what_it_wants() {
    let mut world = World::new(|ann, _| ann.record_aware = true);
    world.ann(Action::call("9000"));
    world.go(200);
    assert!(world.switch.last(Method::Invite).headers.has_token(Name::Supported, b"record-aware"));
    let start = world.now();
    for (method, state) in [(Method::Invite, "on"), (Method::Update, "paused"), (Method::Invite, "off")] {
        world.switch.request(method, &[], Some(sdp(&format!("a=record:{state}\r\n"))), world.network.now());
        world.go(100);
    }
    let told: Vec<_> =
        world.ann.record_states().map(|(at, line, state)| ((at - start).as_millis(), line, state)).collect();
    assert_eq!(told, [(10, 0, "on"), (110, 0, "paused"), (210, 0, "off")]);

    let body = |world: &World| String::from_utf8_lossy(&world.switch.last(Method::Invite).body).into_owned();
    let first = body(&world);
    assert!(!first.contains("recordpref"));
    world.ann(Action::Prefer("off".to_owned()));
    let second = body(&world);
    assert!(second.ends_with("a=recordpref:off\r\n"), "{second}");
    let version = |body: &str| body.lines().nth(1).unwrap().split(' ').nth(2).unwrap().parse::<u64>().unwrap();
    // The answers to the three offers said the same as the first offer but for the codecs: one version more.
    assert_eq!(version(&second), version(&first) + 2);
    world.ann(Action::Hold(HoldForm::NullAddress));
    assert_eq!(version(&body(&world)), version(&first) + 3, "another body, another version");
    assert!(body(&world).contains("recordpref:off") && body(&world).contains("c=IN IP4 0.0.0.0"));
}
