//! The focus of a conference in virtual time: who may subscribe to its state, and what each subscriber is told (RFC 4579,
//! RFC 4575, spec/sip.md §5).

use std::sync::Arc;
use std::time::Duration;

use crate::call_world::mixed::*;
use crate::call_world::*;
use stickytape::call::Input;
use stickytape::call::options::{Conference, DefaultOwner, DnRole, Options, WhenAlone};
use stickytape::call::request::{Ask, DnAsk, DnRequest, MonitorMode, MonitorNextCall, Ticket};
use stickytape::sip::headers::Headers;
use stickytape::sip::message::{Request, Response};
use stickytape::sip::method::Method;
use stickytape::sip::name::Name;
use stickytape::testing::phone::{Action, Happened, Happening, HoldForm, Incoming, Refer};

const D1: usize = 0;
const D2: usize = 1;
const D3: usize = 2;
const D4: usize = 3;
const SUPERVISOR: usize = 5;
const FOCUS: &str = "<sip:800@192.0.2.1:5060>;isfocus";

/// Phones 2001 to 2006, the last a supervisor's, and the room 800, which waits for company.
fn world_with(change: impl FnOnce(&mut Options)) -> World {
    let mut options = options();
    options.plan.dns[5].role = DnRole::Supervisor;
    let mut room = Conference::new("800");
    room.when_alone = WhenAlone::Wait;
    options.plan.conferences.push(Arc::new(room));
    options.recording.default = DefaultOwner::None;
    change(&mut options);
    let mut world = World::new(options);
    for n in 1..=6 {
        world.phone(n, |o| {
            (o.lines, o.call_waiting, o.seed) = (2, true, u64::from(n));
            o.incoming = Incoming::Manual;
        });
    }
    world
}

/// So many phones are in the room.
fn meeting(phones: usize) -> World {
    let mut world = world_with(|_| {});
    for phone in 0..phones {
        enter(&mut world, phone);
    }
    world
}

fn enter(world: &mut World, phone: usize) {
    world.act(phone, Action::call("800"));
    world.run(ms(300));
    assert!(world.phones[phone].is_talking(), "phone {phone}");
}

fn leave(world: &mut World, phone: usize) {
    world.act(phone, Action::HangUp);
    world.run(ms(300));
}

/// A device that subscribes to conferences.
struct Watcher {
    raw: usize,
    number: String,
    answered: usize,
    /// Its last SUBSCRIBE.
    cseq: u32,
}

impl Watcher {
    /// A second device of a DN, or somebody else's address.
    fn new(world: &mut World, number: &str, address: &str) -> Self {
        Self { raw: world.raw(address), number: number.into(), answered: 0, cseq: 0 }
    }

    fn of_phone(world: &mut World, phone: usize) -> Self {
        let n = phone + 1;
        Self::new(world, &format!("20{n:02}"), &format!("10.0.0.{n}:5070"))
    }

    /// A request outside of a dialog, or in that of its subscription.
    fn request(&mut self, world: &World, method: Method, to: &str, lines: &[(Name<'static>, &str)]) -> Request {
        self.cseq += 1;
        let (raw, number, cseq) = (&world.raws[self.raw], &self.number, self.cseq);
        let ok = raw.responses(method.as_str()).into_iter().find(|r| r.code == 200);
        let to = match ok.filter(|_| method == Method::Subscribe) {
            Some(ok) => text(ok.headers.get(Name::To)),
            None => format!("<sip:{to}@192.0.2.1>"),
        };
        let mut request = Request::new(method.clone(), to.split(['<', '>']).nth(1).unwrap().to_owned());
        let mut add = |name, value: String| request.headers.push(name, value);
        add(Name::Via, format!("SIP/2.0/UDP {};branch=z9hG4bK-w{}-{method}-{cseq}", raw.address, self.raw));
        add(Name::MaxForwards, "70".into());
        add(Name::From, format!("<sip:{number}@{}>;tag=w{}", raw.address.ip(), self.raw));
        add(Name::To, to);
        add(Name::CallId, format!("watch-{}-{method}", self.raw));
        add(Name::CSeq, format!("{cseq} {method}"));
        add(Name::Contact, format!("<sip:{number}@{}>", raw.address));
        for (name, value) in lines {
            add(*name, (*value).to_owned());
        }
        request
    }

    /// Its SUBSCRIBE's final answer.
    fn subscribes(&mut self, world: &mut World, to: &str, expires: &str) -> Response {
        let lines = [(Name::Event, "conference"), (Name::Expires, expires)];
        let subscribe = self.request(world, Method::Subscribe, to, &lines);
        world.raws[self.raw].send(subscribe);
        self.runs(world, ms(100));
        world.raws[self.raw].responses("SUBSCRIBE").pop().expect("an answer")
    }

    /// Time passes while it answers its NOTIFYs.
    fn runs(&mut self, world: &mut World, time: Duration) {
        for _ in 0..time.as_millis().div_ceil(20) {
            world.run(ms(20));
            let notifies = world.raws[self.raw].requests(Method::Notify);
            for notify in &notifies[self.answered..] {
                let ok = world.raws[self.raw].reply(notify, 200, "", None);
                world.raws[self.raw].send(ok);
            }
            self.answered = notifies.len();
        }
    }

    /// What it has been told: state of the subscription and document of each NOTIFY.
    fn told(&self, world: &World) -> Vec<(String, String)> {
        let notifies = world.raws[self.raw].requests(Method::Notify);
        let read = |n: &Request| {
            assert_eq!(text(n.headers.get(Name::Event)), "conference");
            (text(n.headers.get(Name::SubscriptionState)), String::from_utf8(n.body.to_vec()).unwrap())
        };
        notifies.iter().map(read).collect()
    }

    /// The last document in short: its version, and `number status direction` of each endpoint.
    fn sees(&self, world: &World) -> (String, Vec<String>) {
        summary(&self.told(world).pop().expect("a NOTIFY").1)
    }
}

fn summary(document: &str) -> (String, Vec<String>) {
    let tree = roxmltree::Document::parse(document).unwrap_or_else(|e| panic!("{e}: {document}"));
    let root = tree.root_element();
    assert_eq!((root.attribute("entity"), root.attribute("state")), (Some("sip:800@192.0.2.1:5060"), Some("full")));
    let mut users = Vec::new();
    for user in root.descendants().filter(|n| n.tag_name().name() == "user") {
        for endpoint in user.children().filter(|n| n.tag_name().name() == "endpoint") {
            let states = endpoint.descendants().filter(|n| n.tag_name().name() == "status");
            let states: Vec<&str> = states.filter_map(|n| n.text()).collect();
            let entity = user.attribute("entity").unwrap().trim_start_matches("sip:");
            users.push(format!("{} {}", entity.split('@').next().unwrap(), states.join(" ")));
        }
    }
    (root.attribute("version").unwrap().to_owned(), users)
}

fn contact(headers: &Headers) -> String {
    text(headers.get(Name::Contact))
}

fn ok(response: &Response) -> (u16, String) {
    (response.code, text(response.headers.get(Name::Expires)))
}

fn connected(numbers: &[&str]) -> Vec<String> {
    numbers.iter().map(|number| format!("{number} connected sendrecv")).collect()
}

// Who is told that it talks to a conference.

#[test]
fn the_dialogs_of_a_room_say_isfocus_and_those_of_a_conference_made_from_calls_do_not() {
    let mut world = meeting(2);
    let answer = world.phones[D1].responses().last().unwrap().clone();
    assert_eq!(contact(&answer.headers), FOCUS);
    assert_eq!(text(answer.headers.get(Name::AllowEvents)), "conference");
    // What we send in the dialog says so as well.
    ask(&mut world, "2001", Ask::SingleStepConference { to: "2003".into(), hold: false }).unwrap();
    world.run(ms(100));
    let invite = world.phones[D3].requests().iter().find(|r| r.method == Method::Invite).unwrap().clone();
    assert_eq!(contact(&invite.headers), FOCUS);
    world.act(D3, Action::Answer);
    world.run(ms(300));
    world.act(D3, Action::Hold(HoldForm::SendOnly));
    world.run(ms(300));
    assert_eq!(contact(&world.phones[D3].responses().last().unwrap().headers), FOCUS);
    for phone in [D1, D2, D3] {
        leave(&mut world, phone);
    }
    world.settle();

    let mut calls = world_with(|_| {});
    calls.act(D1, Action::call("2002"));
    calls.run(ms(100));
    calls.act(D2, Action::Answer);
    calls.run(ms(300));
    ask(&mut calls, "2002", Ask::SingleStepConference { to: "2003".into(), hold: false }).unwrap();
    calls.run(ms(100));
    calls.act(D3, Action::Answer);
    calls.run(ms(300));
    assert_eq!(mixed(&calls).0.len(), 3);
    for phone in [D1, D2, D3] {
        let seen = calls.phones[phone].requests().iter().map(|r| contact(&r.headers));
        let all: Vec<String> =
            seen.chain(calls.phones[phone].responses().iter().map(|r| contact(&r.headers))).collect();
        assert!(!all.is_empty() && all.iter().all(|c| !c.contains("isfocus")), "{all:?}");
    }
    // It is invisible: a member cannot subscribe in its dialog.
    let headers = vec![("Event".to_owned(), "conference".into())];
    calls.act(D1, Action::Request { method: Method::Subscribe, headers, body: None });
    calls.run(ms(300));
    assert_eq!(calls.phones[D1].responses().last().unwrap().code, 403);
    for phone in [D1, D2, D3] {
        leave(&mut calls, phone);
    }
    calls.settle();
}

// Who may subscribe.

#[test]
fn members_and_supervisors_may_subscribe_and_nobody_else() {
    let mut world = meeting(2);
    let mut member = Watcher::of_phone(&mut world, D1);
    assert_eq!(ok(&member.subscribes(&mut world, "800", "600")), (200, "600".into()));
    let answer = world.raws[member.raw].responses("SUBSCRIBE").pop().unwrap();
    assert_eq!(contact(&answer.headers), FOCUS);
    let mut supervisor = Watcher::of_phone(&mut world, SUPERVISOR);
    assert_eq!(ok(&supervisor.subscribes(&mut world, "800", "600")), (200, "600".into()));
    assert_eq!(supervisor.sees(&world), ("1".into(), connected(&["2001", "2002"])));
    for (number, address, to, code) in [
        ("2003", "10.0.0.3:5070", "800", 403),
        ("2001", "198.51.100.10:5070", "800", 403),
        ("4930", "198.51.100.10:5080", "800", 403),
        ("2001", "10.9.9.9:5070", "800", 403),
        ("2002", "10.0.0.2:5070", "2001", 404),
        ("2002", "10.0.0.2:5080", "801", 404),
    ] {
        let mut other = Watcher::new(&mut world, number, address);
        assert_eq!(other.subscribes(&mut world, to, "600").code, code, "{number} at {address} to {to}");
        assert!(other.told(&world).is_empty());
    }
    let presence = member.request(&world, Method::Subscribe, "800", &[(Name::Event, "presence")]);
    world.raws[member.raw].send(presence);
    world.run(ms(100));
    let refused = world.raws[member.raw].responses("SUBSCRIBE").pop().unwrap();
    assert_eq!((refused.code, text(refused.headers.get(Name::AllowEvents))), (489, "conference".into()));
    for phone in [D1, D2] {
        world.act(phone, Action::HangUp);
    }
    for watcher in [&mut member, &mut supervisor] {
        watcher.runs(&mut world, ms(2_000));
    }
    world.settle();
}

#[test]
fn nobody_is_in_an_empty_room_to_be_told_of() {
    let mut world = world_with(|_| {});
    let mut supervisor = Watcher::of_phone(&mut world, SUPERVISOR);
    assert_eq!(supervisor.subscribes(&mut world, "800", "600").code, 480);
    world.settle();
}

#[test]
fn who_stands_at_the_door_is_no_member() {
    let secret = stickytape::call::options::Secret::new("1234".into());
    let mut world = world_with(|o| {
        let mut room = Conference::new("800");
        room.pin = Some(secret);
        o.plan.conferences[0] = Arc::new(room);
    });
    world.act(D1, Action::call("800"));
    world.run(ms(300));
    let headers = vec![("Event".to_owned(), "conference".into())];
    world.act(D1, Action::Request { method: Method::Subscribe, headers, body: None });
    world.run(ms(300));
    assert_eq!(world.phones[D1].responses().last().unwrap().code, 403);
    leave(&mut world, D1);
    world.settle();
}

// What subscribers are told.

#[test]
fn a_subscriber_is_told_who_comes_holds_is_muted_and_goes() {
    let mut world = meeting(2);
    let mut watcher = Watcher::of_phone(&mut world, SUPERVISOR);
    watcher.subscribes(&mut world, "800", "600");
    assert_eq!(watcher.sees(&world), ("1".into(), connected(&["2001", "2002"])));
    world.act(D3, Action::call("800"));
    watcher.runs(&mut world, ms(2_000));
    assert_eq!(watcher.sees(&world), ("2".into(), connected(&["2001", "2002", "2003"])));
    world.act(D2, Action::Hold(HoldForm::SendOnly));
    watcher.runs(&mut world, ms(2_000));
    assert_eq!(watcher.sees(&world).1[1], "2002 on-hold sendonly");
    world.act(D2, Action::Retrieve);
    watcher.runs(&mut world, ms(2_000));
    assert_eq!(watcher.sees(&world).1, connected(&["2001", "2002", "2003"]));
    ask(&mut world, "2001", Ask::SetMuteOn { coach: false }).unwrap();
    watcher.runs(&mut world, ms(2_000));
    assert_eq!(watcher.sees(&world).1[0], "2001 muted-via-focus recvonly");
    ask(&mut world, "2001", Ask::SetMuteOff { coach: false }).unwrap();
    ask(&mut world, "2001", Ask::ListenDisconnect { party: Some("2003".into()) }).unwrap();
    watcher.runs(&mut world, ms(2_000));
    let deaf = ["2001 connected sendrecv", "2002 connected sendrecv", "2003 connected sendonly"];
    assert_eq!(watcher.sees(&world).1, deaf);
    ask(&mut world, "2001", Ask::SingleStepConference { to: "2004".into(), hold: false }).unwrap();
    watcher.runs(&mut world, ms(1_500));
    assert_eq!(watcher.sees(&world).1[3], "2004 dialing-out");
    world.act(D4, Action::Ring);
    watcher.runs(&mut world, ms(2_000));
    assert_eq!(watcher.sees(&world).1[3], "2004 alerting");
    world.act(D4, Action::Answer);
    watcher.runs(&mut world, ms(2_000));
    assert_eq!(watcher.sees(&world).1[3], "2004 connected sendrecv");
    for phone in [D1, D2, D3] {
        world.act(phone, Action::HangUp);
        watcher.runs(&mut world, ms(1_500));
    }
    assert_eq!(watcher.sees(&world).1, connected(&["2004"]));
    let versions: Vec<String> = watcher.told(&world).iter().map(|(_, document)| summary(document).0).collect();
    let expected: Vec<String> = (1..=versions.len()).map(|n| n.to_string()).collect();
    assert_eq!(versions, expected, "each one more");
    world.act(D4, Action::HangUp);
    watcher.runs(&mut world, ms(1_500));
    assert_eq!(watcher.told(&world).pop().unwrap(), ("terminated;reason=noresource".into(), String::new()));
    world.settle();
}

#[test]
fn nothing_is_told_while_nothing_changes_and_a_refresh_is_answered_with_the_state() {
    let mut world = meeting(2);
    let mut watcher = Watcher::of_phone(&mut world, D1);
    watcher.subscribes(&mut world, "800", "60");
    watcher.runs(&mut world, Duration::from_secs(50));
    assert_eq!(watcher.told(&world).len(), 1);
    assert_eq!(ok(&watcher.subscribes(&mut world, "800", "60")), (200, "60".into()));
    assert_eq!(watcher.sees(&world), ("2".into(), connected(&["2001", "2002"])));
    watcher.runs(&mut world, Duration::from_secs(50));
    assert_eq!(ok(&watcher.subscribes(&mut world, "800", "0")), (200, "0".into()));
    let (state, document) = watcher.told(&world).pop().unwrap();
    assert_eq!((state.as_str(), summary(&document).0.as_str()), ("terminated;reason=timeout", "3"));
    for phone in [D1, D2] {
        leave(&mut world, phone);
    }
    assert_eq!(watcher.told(&world).len(), 3, "who has unsubscribed is told nothing");
    world.settle();
}

#[test]
fn a_subscription_ends_with_the_membership_and_tells_nothing_more_of_the_conference() {
    let mut world = meeting(3);
    let mut watcher = Watcher::of_phone(&mut world, D1);
    watcher.subscribes(&mut world, "800", "600");
    world.act(D1, Action::HangUp);
    watcher.runs(&mut world, ms(2_000));
    assert_eq!(watcher.told(&world).pop().unwrap(), ("terminated;reason=rejected".into(), String::new()));
    assert_eq!(watcher.told(&world).len(), 2);
    for phone in [D2, D3] {
        leave(&mut world, phone);
    }
    world.settle();
}

#[test]
fn a_member_may_subscribe_in_its_dialog_and_that_subscription_ends_with_it() {
    let mut world = meeting(2);
    let headers = vec![("Event".to_owned(), "conference".into()), ("Expires".to_owned(), "600".into())];
    world.act(D1, Action::Request { method: Method::Subscribe, headers, body: None });
    world.run(ms(300));
    assert_eq!(world.phones[D1].responses().last().unwrap().code, 200);
    enter(&mut world, D3);
    world.run(ms(1_500));
    let told = |world: &World| {
        let notifies = world.phones[D1].requests().iter().filter(|r| r.method == Method::Notify);
        notifies.map(|n| summary(std::str::from_utf8(&n.body).unwrap())).collect::<Vec<_>>()
    };
    let expected = [("1".into(), connected(&["2001", "2002"])), ("2".into(), connected(&["2001", "2002", "2003"]))];
    assert_eq!(told(&world), expected);
    leave(&mut world, D1);
    leave(&mut world, D3);
    world.run(ms(2_000));
    assert_eq!(told(&world).len(), 2);
    leave(&mut world, D2);
    world.settle();
}

fn monitor(world: &mut World, mode: MonitorMode) {
    let wish = MonitorNextCall { agent: "2001".into(), mode: Some(mode), scope: None, all: true, intrusion: true };
    let request = DnRequest { this_dn: "2006".into(), reference: None, ask: DnAsk::MonitorNextCall(wish) };
    world.tell(Input::DnRequest(Ticket(1), Box::new(request)));
    world.run(ms(100));
    world.act(SUPERVISOR, Action::Answer);
    world.run(ms(300));
    assert!(world.phones[SUPERVISOR].is_talking());
}

#[test]
fn others_hear_nothing_of_a_supervisor_until_it_speaks_to_all() {
    for mode in [MonitorMode::Mute, MonitorMode::Coach] {
        let mut world = world_with(|o| o.plan.dns[0].intrusion = true);
        for phone in [D1, D2, D3] {
            enter(&mut world, phone);
        }
        let mut member = Watcher::of_phone(&mut world, D2);
        member.subscribes(&mut world, "800", "600");
        monitor(&mut world, mode);
        let mut itself = Watcher::of_phone(&mut world, SUPERVISOR);
        itself.subscribes(&mut world, "800", "600");
        member.runs(&mut world, ms(3_000));
        assert_eq!(member.told(&world).len(), 1, "not even a NOTIFY that says nothing new");
        assert_eq!(itself.sees(&world).1.last().unwrap(), "2006 connected sendrecv");
        ask(&mut world, "2006", Ask::SetMuteOff { coach: false }).unwrap();
        member.runs(&mut world, ms(2_000));
        assert_eq!(member.sees(&world).1, connected(&["2001", "2002", "2003", "2006"]));
        for phone in [D1, D2, D3, SUPERVISOR] {
            world.act(phone, Action::HangUp);
        }
        member.runs(&mut world, ms(1_500));
        itself.runs(&mut world, ms(1_500));
        world.settle();
    }
}

#[test]
fn options_to_a_room_says_isfocus_to_who_may_enter_it_and_nothing_to_strangers() {
    let mut world = world_with(|_| {});
    for (number, address, to, says) in [
        ("2001", "10.0.0.1:5070", "800", FOCUS),
        ("4930", "198.51.100.10:5080", "800", FOCUS),
        ("2001", "10.9.9.9:5070", "800", ""),
        ("2001", "10.0.0.1:5080", "2002", ""),
    ] {
        let mut device = Watcher::new(&mut world, number, address);
        let options = device.request(&world, Method::Options, to, &[]);
        world.raws[device.raw].send(options);
        world.run(ms(100));
        let answer = world.raws[device.raw].responses("OPTIONS").pop().unwrap();
        assert_eq!((answer.code, contact(&answer.headers).as_str()), (200, says), "{number} at {address} to {to}");
        let events = if says.is_empty() { "" } else { "conference" };
        assert_eq!(text(answer.headers.get(Name::AllowEvents)), events);
        assert!(answer.headers.has(Name::Allow) && answer.headers.has(Name::Accept));
    }
    world.settle();
}

// REFER to the focus.

/// What the NOTIFYs of a REFER have told a phone.
fn notified(world: &World, phone: usize) -> Vec<String> {
    let told = |happened: &Happened| match &happened.what {
        Happening::Notified { code, state } if state == "terminated" => Some(format!("{code} end")),
        Happening::Notified { code, .. } => Some(code.to_string()),
        Happening::ReferRefused { code } => Some(format!("refused {}", code.unwrap_or(0))),
        _ => None,
    };
    world.phones[phone].happenings().iter().filter_map(told).collect()
}

fn refer(world: &mut World, phone: usize, to: &str) {
    world.act(phone, Action::Refer(Refer::to(to)));
    world.run(ms(300));
}

fn invite_to(world: &World, phone: usize) -> Request {
    world.phones[phone].requests().iter().rfind(|r| r.method == Method::Invite).expect("an INVITE").clone()
}

#[test]
fn a_member_calls_somebody_in_by_refer_in_its_dialog_and_is_told_how_it_goes() {
    let mut world = meeting(2);
    refer(&mut world, D1, "2003");
    let invite = invite_to(&world, D3);
    assert!(text(invite.headers.get(Name::From)).starts_with("<sip:800@192.0.2.1:5060>;tag="));
    assert_eq!(contact(&invite.headers), FOCUS);
    assert_eq!(text(invite.headers.get(Name::ReferredBy)), "<sip:2001@10.0.0.1:5060>");
    world.act(D3, Action::Ring);
    world.run(ms(300));
    assert_routed(&world, 1, 2);
    // Another one beside it.
    refer(&mut world, D2, "2004");
    world.act(D4, Action::Refuse { code: 486, headers: vec![] });
    world.act(D3, Action::Answer);
    world.run(ms(500));
    assert_eq!(notified(&world, D1), ["100", "180", "200 end"]);
    assert_eq!(notified(&world, D2), ["100", "486 end"]);
    assert_eq!(mixed(&world).0, [1, 2, 3]);
    world.run(Duration::from_secs(5));
    assert!(world.phones[..3].iter().all(|phone| phone.is_talking()), "nobody has been transferred");
    for phone in [D1, D2, D3] {
        leave(&mut world, phone);
    }
    world.settle();
}

#[test]
fn who_is_called_in_is_not_called_any_more_when_its_referrer_leaves_or_the_room_ends() {
    for leaving in [[D1, D2], [D2, D1]] {
        let mut world = meeting(2);
        refer(&mut world, D1, "2003");
        world.act(D3, Action::Ring);
        world.run(ms(300));
        leave(&mut world, leaving[0]);
        let rings = leaving[0] == D2;
        let is_cancelled = world.phones[D3].happenings().iter().any(|h| h.what == Happening::Cancelled);
        assert_eq!(is_cancelled, !rings);
        leave(&mut world, leaving[1]);
        assert!(world.phones.iter().all(|phone| phone.is_idle()));
        world.settle();
    }
}

#[test]
fn a_member_is_removed_by_refer_with_method_bye() {
    let mut world = meeting(4);
    refer(&mut world, D1, "sip:2003@192.0.2.1;method=BYE");
    assert_eq!(notified(&world, D1), ["200 end"]);
    assert!(world.phones[D3].is_idle());
    assert_eq!(mixed(&world).0, [1, 2, 4]);
    // Itself, and one that only rings.
    refer(&mut world, D2, "2005");
    refer(&mut world, D1, "sip:2005@192.0.2.1;method=BYE");
    assert_eq!(notified(&world, D2), ["100", "487 end"]);
    refer(&mut world, D2, "sip:2002@192.0.2.1;method=BYE");
    world.run(ms(500));
    assert!(world.phones[D2].is_idle());
    assert_routed(&world, 1, 4);
    refer(&mut world, D1, "sip:2003@192.0.2.1;method=BYE");
    assert_eq!(notified(&world, D1).last().unwrap(), "refused 404");
    for phone in [D1, D4] {
        leave(&mut world, phone);
    }
    world.settle();
}

#[test]
fn a_hidden_supervisor_cannot_be_removed_by_who_cannot_see_it() {
    let mut world = world_with(|o| o.plan.dns[0].intrusion = true);
    for phone in [D1, D2] {
        enter(&mut world, phone);
    }
    monitor(&mut world, MonitorMode::Mute);
    refer(&mut world, D2, "sip:2006@192.0.2.1;method=BYE");
    assert_eq!(notified(&world, D2), ["refused 404"]);
    assert!(world.phones[SUPERVISOR].is_talking());
    for phone in [D1, D2] {
        leave(&mut world, phone);
    }
    world.settle();
}

#[test]
fn a_refer_to_the_uri_of_the_room_is_for_its_members_and_its_notifies_have_a_dialog_of_their_own() {
    let mut world = meeting(2);
    let mut member = Watcher::of_phone(&mut world, D1);
    let add = member.request(&world, Method::Refer, "800", &[(Name::ReferTo, "<sip:2003@192.0.2.1>")]);
    world.raws[member.raw].send(add);
    member.runs(&mut world, ms(200));
    let accepted = world.raws[member.raw].responses("REFER").pop().unwrap();
    assert_eq!((accepted.code, contact(&accepted.headers)), (202, FOCUS.to_owned()));
    world.act(D3, Action::Answer);
    member.runs(&mut world, ms(500));
    let told: Vec<(String, String)> = world.raws[member.raw]
        .requests(Method::Notify)
        .iter()
        .map(|n| {
            assert_eq!(contact(&n.headers), FOCUS);
            (text(n.headers.get(Name::SubscriptionState)), String::from_utf8_lossy(&n.body).into_owned())
        })
        .collect();
    assert_eq!(told.first().unwrap().1, "SIP/2.0 100 Trying\r\n");
    assert_eq!(told.last().unwrap(), &("terminated;reason=noresource".into(), "SIP/2.0 200 OK\r\n".into()));
    assert_eq!(mixed(&world).0, [1, 2, 3]);
    for (number, address, to, code) in [
        ("2004", "10.0.0.4:5070", "800", 403),
        ("2006", "10.0.0.6:5070", "800", 403),
        ("2001", "10.9.9.9:5070", "800", 403),
        ("2001", "10.0.0.1:5080", "2002", 403),
        ("2001", "10.0.0.1:5090", "801", 403),
    ] {
        let mut other = Watcher::new(&mut world, number, address);
        let refer = other.request(&world, Method::Refer, to, &[(Name::ReferTo, "<sip:2005@192.0.2.1>")]);
        world.raws[other.raw].send(refer);
        world.run(ms(100));
        assert_eq!(world.raws[other.raw].codes("REFER"), [code], "{number} at {address} to {to}");
    }
    let mut other = Watcher::new(&mut world, "2002", "10.0.0.2:5070");
    let refer = other.request(&world, Method::Refer, "800", &[(Name::ReferTo, "<sip:2003@192.0.2.1;method=BYE>")]);
    world.raws[other.raw].send(refer);
    other.runs(&mut world, ms(500));
    assert_eq!(world.raws[other.raw].codes("REFER"), [202]);
    assert!(world.phones[D3].is_idle());
    for phone in [D1, D2] {
        leave(&mut world, phone);
    }
    world.settle();
}

#[test]
fn a_refer_to_the_focus_is_refused_where_nobody_can_come_in() {
    for (to, told) in
        [("7777", "refused 404"), ("800", "refused 404"), ("sip:2003@192.0.2.1;method=INFO", "refused 501")]
    {
        let mut world = meeting(2);
        refer(&mut world, D1, to);
        assert_eq!(notified(&world, D1), [told], "{to}");
        for phone in [D1, D2] {
            leave(&mut world, phone);
        }
        world.settle();
    }
    let mut full = world_with(|o| {
        let mut room = Conference::new("800");
        room.max_members = 2;
        o.plan.conferences[0] = Arc::new(room);
    });
    for phone in [D1, D2] {
        enter(&mut full, phone);
    }
    refer(&mut full, D1, "2003");
    assert_eq!(notified(&full, D1), ["refused 486"]);
    leave(&mut full, D2);
    full.settle();
    // A call of its own that is up is not pulled in.
    let mut busy = meeting(2);
    busy.act(D1, Action::Hold(HoldForm::SendOnly));
    busy.run(ms(300));
    busy.act(D1, Action::call("2004"));
    busy.run(ms(100));
    busy.act(D4, Action::Answer);
    busy.run(ms(300));
    busy.act(D1, Action::On(0, Box::new(Action::Refer(Refer::to_line(1)))));
    busy.run(ms(300));
    assert_eq!(notified(&busy, D1), ["refused 501"]);
    busy.act(D1, Action::On(1, Box::new(Action::HangUp)));
    busy.act(D1, Action::On(0, Box::new(Action::HangUp)));
    busy.run(ms(300));
    leave(&mut busy, D2);
    busy.settle();
}

// INVITE with Join.

/// D1 has called D2; both and D3 are of one pick-up group.
fn two_talk(change: impl FnOnce(&mut Options)) -> World {
    let mut world = world_with(|o| {
        o.plan.dns[..3].iter_mut().for_each(|dn| dn.pickup_group = "desk".into());
        change(o);
    });
    world.act(D1, Action::call("2002"));
    world.run(ms(100));
    world.act(D2, Action::Answer);
    world.run(ms(300));
    assert!(world.phones[D2].is_talking());
    world
}

/// Its dialog as Join names it to us.
fn dialog(world: &World, phone: usize) -> String {
    world.phones[phone].dialog(0).expect("a dialog").replaces()
}

fn join(world: &mut World, phone: usize, join: &str, offer: bool) -> Response {
    let line = |name: &str, value: &str| (name.to_owned(), value.to_owned().into());
    let headers = vec![line("Require", "join"), line("Join", join)];
    world.act(phone, Action::Call { to: "2002".into(), offer, headers });
    world.run(ms(500));
    world.phones[phone].responses().last().expect("an answer").clone()
}

fn subscribes_in_dialog(world: &mut World, phone: usize) -> u16 {
    let headers = vec![("Event".to_owned(), "conference".into())];
    world.act(phone, Action::Request { method: Method::Subscribe, headers, body: None });
    world.run(ms(300));
    world.phones[phone].responses().last().unwrap().code
}

#[test]
fn who_joins_a_call_makes_a_conference_that_says_so_to_it_alone() {
    for (joined, offer) in [(D1, true), (D2, true), (D2, false)] {
        let mut world = two_talk(|_| {});
        let named = dialog(&world, joined);
        let answer = join(&mut world, D3, &named, offer);
        let says = contact(&answer.headers);
        assert!(answer.code == 200 && says.ends_with(">;isfocus"), "{says}");
        assert_eq!((state(&world), mixed(&world).0), ("conference", vec![1, 2, 3]));
        assert!(world.phones[..2].iter().all(|phone| phone.is_talking()));
        assert_eq!(subscribes_in_dialog(&mut world, D3), 200);
        let notify = world.phones[D3].requests().iter().rfind(|r| r.method == Method::Notify).unwrap().clone();
        let document = String::from_utf8(notify.body.to_vec()).unwrap();
        let uri = says.trim_start_matches('<').split('>').next().unwrap();
        assert!(document.contains(&format!("entity=\"{uri}\"")), "{document}");
        assert_eq!(document.matches("<status>connected</status>").count(), 3);
        assert_eq!(subscribes_in_dialog(&mut world, D1), 403);
        // It is one with two as well, and the call goes on without who has come.
        leave(&mut world, D3);
        assert_routed(&world, 1, 2);
        assert_eq!(join(&mut world, D3, &named, true).code, 200);
        leave(&mut world, D1);
        assert_eq!(mixed(&world).0.len(), 0);
        leave(&mut world, D2);
        world.settle();
    }
}

#[test]
fn who_joins_a_member_of_a_room_is_in_the_room() {
    let mut world = world_with(|o| {
        o.plan.dns[..3].iter_mut().for_each(|dn| dn.pickup_group = "desk".into());
        let mut room = Conference::new("800");
        room.max_members = 3;
        o.plan.conferences[0] = Arc::new(room);
    });
    for phone in [D1, D2] {
        enter(&mut world, phone);
    }
    let named = dialog(&world, D1);
    let answer = join(&mut world, D3, &named, true);
    assert_eq!((answer.code, contact(&answer.headers)), (200, FOCUS.to_owned()));
    assert_eq!(mixed(&world).0.len(), 3);
    assert_eq!(join(&mut world, D4, &named, true).code, 403);
    // Another device of 2003: the room is full.
    let second = world.phone(3, |o| {
        (o.sip, o.rtp) = (addr("10.0.0.3:5080"), addr("10.0.0.3:4100"));
        o.seed = 33;
    });
    assert_eq!(join(&mut world, second, &named, true).code, 486);
    for phone in [D1, D2, D3] {
        leave(&mut world, phone);
    }
    world.settle();
}

#[test]
fn a_join_is_refused_as_rfc_3911_says() {
    let mut world = two_talk(|_| {});
    let named = dialog(&world, D1);
    let unknown = named.replace("to-tag=", "to-tag=x");
    for (phone, value, code) in
        [(D4, named.as_str(), 403), (D3, unknown.as_str(), 481), (D3, "malformed", 400), (D3, "a;to-tag=1", 400)]
    {
        assert_eq!(join(&mut world, phone, value, true).code, code, "{value}");
        assert_routed(&world, 1, 2);
    }
    // While somebody consults there is nothing to join.
    ask(&mut world, "2002", Ask::InitiateTransfer { to: "2004".into() }).unwrap();
    world.run(ms(100));
    assert_eq!(join(&mut world, D3, &named, true).code, 491);
    leave(&mut world, D1);
    for phone in [D2, D4] {
        world.act(phone, Action::HangUp);
    }
    world.run(ms(500));
    assert_eq!(join(&mut world, D3, &named, true).code, 603);
    // One that only rings.
    world.act(D1, Action::call("2002"));
    world.run(ms(100));
    world.act(D2, Action::Ring);
    world.run(ms(100));
    let early = dialog(&world, D2);
    assert_eq!(join(&mut world, D3, &early, true).code, 481);
    world.act(D1, Action::HangUp);
    world.settle();
}

#[test]
fn who_joins_without_a_codec_for_a_conference_changes_nothing() {
    let mut world = two_talk(|_| {});
    let named = dialog(&world, D1);
    let raw = world.raw("10.0.0.3:5070");
    let mut invite = world.raws[raw].invite("2002", "join-1", Some(&sdp("10.0.0.3", 4000, "18 101", "sendrecv")));
    invite.headers.set(Name::From, "<sip:2003@10.0.0.3>;tag=j");
    invite.headers.push(Name::Join, named);
    world.raws[raw].send(invite.clone());
    world.run(ms(300));
    let refused = world.raws[raw].responses("INVITE").pop().unwrap();
    assert_eq!(refused.code, 488);
    let ack = world.raws[raw].in_dialog(&invite, &refused, Method::Ack, 1);
    world.raws[raw].send(ack);
    assert_routed(&world, 1, 2);
    leave(&mut world, D1);
    world.settle();
}
