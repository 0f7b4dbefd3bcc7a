//! Two phones call each other over the simulated network: the phones themselves, before they test anything else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stickytape::codec::{Codec, Direction};
use stickytape::sip::name::Name;
use stickytape::testing::ladder;
use stickytape::testing::network::{Datagram, Fate, Link, Network};
use stickytape::testing::phone::{Action, Happening, HoldForm, Incoming, Options, Phone, Signal, Step};
use stickytape::testing::tones::{self, Voice};

const ANN: [&str; 2] = ["10.0.0.1:5060", "10.0.0.1:4000"];
const BOB: [&str; 2] = ["10.0.0.2:5060", "10.0.0.2:4000"];

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn options(number: &str, own: [&str; 2], other: [&str; 2], hz: f64) -> Options {
    Options {
        voice: Voice::Bursts { hz, dbfs: -15.0, on: ms(200), off: ms(300) },
        ..Options::new(number, address(own[0]), address(own[1]), address(other[0]))
    }
}

fn ann(script: Vec<Step>) -> Options {
    Options { script, ..options("1001", ANN, BOB, 400.0) }
}

fn bob(script: Vec<Step>) -> Options {
    Options { script, ..options("2001", BOB, ANN, 1_000.0) }
}

struct Run {
    start: Instant,
    network: Network,
    ann: Phone,
    bob: Phone,
}

impl Run {
    fn new(ann: Options, bob: Options) -> Self {
        let start = stickytape::clock::now();
        let network = Network::new(start, 1, Link::delayed(ms(10)));
        let (mut ann, mut bob) = (Phone::new(ann), Phone::new(bob));
        for phone in [&mut ann, &mut bob] {
            stickytape::testing::network::Node::timeout(phone, start);
        }
        Self { start, network, ann, bob }
    }

    fn go(&mut self, time: Duration) -> &mut Self {
        self.network.run_for(&mut [&mut self.ann, &mut self.bob], time);
        self
    }

    fn ladder(&self) -> String {
        let ann = ANN.map(address);
        let bob = BOB.map(address);
        ladder::draw(self.network.trace(), &[("Ann", &ann), ("Bob", &bob)], self.start)
    }

    /// What a phone saw, in short words.
    fn story(phone: &Phone) -> Vec<String> {
        phone
            .happenings()
            .iter()
            .map(|happened| match &happened.what {
                Happening::Progress { code, media } => format!("{code}{}", if *media { " media" } else { "" }),
                Happening::Agreed { direction } => format!("agreed {direction:?}"),
                Happening::Reoffered { direction } => format!("reoffered {direction:?}"),
                Happening::Failed { code } => format!("failed {code:?}"),
                Happening::Refused { code } => format!("refused {code:?}"),
                Happening::Ended { by_peer } => format!("ended {}", if *by_peer { "by peer" } else { "by us" }),
                Happening::Incoming { caller } => format!("incoming {caller}"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[track_caller]
    fn check(&self, ann: &[&str], bob: &[&str]) {
        assert_eq!(Self::story(&self.ann), ann, "Ann\n{}", self.ladder());
        assert_eq!(Self::story(&self.bob), bob, "Bob\n{}", self.ladder());
    }

    /// After 32 s of quiet nothing of SIP may be left.
    fn leaves_nothing(&mut self) {
        self.go(Duration::from_secs(70));
        assert!(self.ann.is_clean() && self.bob.is_clean(), "{}", self.ladder());
    }
}

fn talk_then_hang_up() -> Vec<Step> {
    vec![Step::after(ms(0), Action::call("2001")), Step::on(Signal::Established, ms(2_000), Action::HangUp)]
}

#[test]
fn a_call_rings_is_answered_heard_both_ways_and_ended() {
    let mut run = Run::new(ann(talk_then_hang_up()), bob(vec![]));
    run.go(ms(4_000));
    run.check(
        &["Calling", "180", "Established", "ended by us"],
        &["incoming 1001", "Rung", "Established", "Acknowledged", "ended by peer"],
    );
    for (phone, hears, misses) in [(&run.ann, 1_000.0, 400.0), (&run.bob, 400.0, 1_000.0)] {
        let continuity = phone.heard().continuity();
        assert!((98..=102).contains(&continuity.packets), "{continuity:?}");
        assert_eq!((continuity.sources.len(), continuity.missing, continuity.timestamp_steps), (1, 0, 0));
        let samples = phone.heard().samples(run.start, 8_000);
        assert!(tones::bursts(&samples, 8_000, hears, -30.0).len() >= 4);
        assert!(tones::bursts(&samples, 8_000, misses, -50.0).is_empty());
    }
    run.leaves_nothing();
}

#[test]
fn bursts_are_heard_when_the_log_says_that_they_were_said() {
    let mut run = Run::new(ann(talk_then_hang_up()), bob(vec![]));
    run.go(ms(4_000));
    let samples = run.bob.heard().samples(run.start, 8_000);
    let found = tones::bursts(&samples, 8_000, 400.0, -30.0);
    assert_eq!(found.len(), run.ann.spoken().len());
    for (burst, spoken) in found.iter().zip(run.ann.spoken()) {
        // The network takes 10 ms.
        let expected = (spoken.start + ms(10) - run.start).as_secs_f64();
        assert!((burst.start as f64 / 8_000.0 - expected).abs() < 0.002, "{burst:?} {expected}");
    }
}

#[test]
fn hold_silences_the_holder_in_every_form_and_retrieve_restores() {
    let forms = [
        (HoldForm::SendOnly, "SendOnly", "RecvOnly"),
        (HoldForm::Inactive, "Inactive", "Inactive"),
        // Written as sendrecv, answered recvonly.
        (HoldForm::NullAddress, "SendOnly", "RecvOnly"),
    ];
    for (form, holder, held) in forms {
        let script = vec![
            Step::on(Signal::Established, ms(1_000), Action::Hold(form)),
            Step::on(Signal::Agreed, ms(1_000), Action::Retrieve),
            Step::on(Signal::Agreed, ms(1_000), Action::HangUp),
        ];
        let mut run = Run::new(ann(vec![Step::after(ms(0), Action::call("2001"))]), bob(script));
        run.go(ms(6_000));
        let agreed = format!("agreed {holder}");
        run.check(
            &[
                "Calling",
                "180",
                "Established",
                &format!("reoffered {held}"),
                "Acknowledged",
                "reoffered SendRecv",
                "Acknowledged",
                "ended by peer",
            ],
            &["incoming 1001", "Rung", "Established", "Acknowledged", &agreed, "agreed SendRecv", "ended by us"],
        );
        let at = |phone: &Phone, signal: Signal, n: usize| {
            let seen = phone.happenings().iter().filter(|h| match signal {
                Signal::Agreed => matches!(h.what, Happening::Agreed { .. }),
                _ => matches!(h.what, Happening::Reoffered { .. }),
            });
            seen.map(|h| h.at).nth(n).unwrap()
        };
        let (from, to) = (at(&run.bob, Signal::Agreed, 0) + ms(30), at(&run.bob, Signal::Agreed, 1));
        let within = |phone: &Phone| phone.heard().packets.iter().filter(|p| p.at > from && p.at < to).count();
        assert_eq!(within(&run.bob), 0, "{form:?}: the held party sends nothing");
        assert_eq!(within(&run.ann), 0, "{form:?}: the holder has no music");
        let continuity = run.bob.heard().continuity();
        assert_eq!((continuity.sources.len(), continuity.missing), (1, 0));
    }
}

#[test]
fn a_call_is_cancelled_refused_or_rings_in_vain() {
    let manual = |script| Options { incoming: Incoming::Manual, ..bob(script) };
    let ring = vec![Step::on(Signal::Incoming, ms(100), Action::Ring)];
    let cancel = vec![Step::after(ms(0), Action::call("2001")), Step::on(Signal::Progress, ms(500), Action::Cancel)];
    let mut run = Run::new(ann(cancel), manual(ring));
    run.go(ms(3_000));
    run.check(&["Calling", "180", "Cancelled"], &["incoming 1001", "Rung", "Cancelled"]);
    run.leaves_nothing();

    let call = vec![Step::after(ms(0), Action::call("2001"))];
    let mut run = Run::new(ann(call.clone()), Options { incoming: Incoming::Refuse(486), ..bob(vec![]) });
    run.go(ms(1_000));
    run.check(&["Calling", "failed Some(486)"], &[]);
    run.leaves_nothing();

    let decline = vec![Step::on(
        Signal::Incoming,
        ms(100),
        Action::Refuse { code: 302, headers: vec![("Contact".to_owned(), Bytes::from_static(b"<sip:9@10.9.9.9>"))] },
    )];
    let mut run = Run::new(ann(call), manual(decline));
    run.go(ms(1_000));
    run.check(&["Calling", "failed Some(302)"], &["incoming 1001", "Cancelled"]);
    let contact = run.ann.responses()[0].headers.get(Name::Contact).unwrap().into_owned();
    assert_eq!(contact, b"<sip:9@10.9.9.9>");
    run.leaves_nothing();
}

#[test]
fn early_media_is_heard_before_the_answer() {
    let script = vec![Step::on(Signal::Incoming, ms(100), Action::EarlyMedia), Step::after(ms(1_000), Action::Answer)];
    let mut run = Run::new(ann(talk_then_hang_up()), Options { incoming: Incoming::Manual, ..bob(script) });
    run.go(ms(5_000));
    run.check(
        &["Calling", "183 media", "Established", "ended by us"],
        &["incoming 1001", "Established", "Acknowledged", "ended by peer"],
    );
    let answered = run.ann.happenings()[2].at;
    assert!(run.ann.heard().packets.iter().filter(|packet| packet.at < answered).count() > 45);
    assert_eq!(run.ann.heard().continuity().sources.len(), 1);
    run.leaves_nothing();
}

#[test]
fn an_invite_without_offer_is_answered_in_ack() {
    let call = Action::Call { to: "2001".to_owned(), offer: false, headers: vec![] };
    let script = vec![Step::after(ms(0), call), Step::on(Signal::Established, ms(1_000), Action::AskForOffer)];
    let mut run = Run::new(ann(script), bob(vec![]));
    run.go(ms(3_000));
    run.check(
        &["Calling", "180", "Established", "agreed SendRecv"],
        &["incoming 1001", "Rung", "Established", "Acknowledged", "reoffered SendRecv", "Acknowledged"],
    );
    assert!(run.bob.heard().packets.len() > 100 && run.ann.heard().packets.len() > 100);
}

#[test]
fn update_info_keys_and_another_codec_work_in_a_call() {
    let info = Action::Info {
        content_type: Bytes::from_static(b"application/dtmf-relay"),
        body: Bytes::from_static(b"Signal=5\r\nDuration=160\r\n"),
    };
    let script = vec![
        Step::after(ms(0), Action::call("2001")),
        Step::on(Signal::Established, ms(500), Action::Update(Direction::SendOnly)),
        Step::on(Signal::Agreed, ms(100), Action::Update(Direction::SendRecv)),
        Step::on(Signal::Agreed, ms(100), Action::Press('5')),
        Step::after(ms(500), info),
        Step::after(ms(100), Action::Recode(vec![Codec::pcma()])),
        Step::on(Signal::Agreed, ms(500), Action::HangUp),
    ];
    let mut run = Run::new(ann(script), bob(vec![]));
    run.go(ms(5_000));
    run.check(
        &["Calling", "180", "Established", "agreed SendOnly", "agreed SendRecv", "agreed SendRecv", "ended by us"],
        &[
            "incoming 1001",
            "Rung",
            "Established",
            "Acknowledged",
            "reoffered RecvOnly",
            "reoffered SendRecv",
            "Info { body: b\"Signal=5\\r\\nDuration=160\\r\\n\" }",
            "reoffered SendRecv",
            "Acknowledged",
            "ended by peer",
        ],
    );
    assert_eq!(run.bob.heard().keys(), "5");
    assert_eq!(run.bob.heard().continuity().payload_types, [0, 101, 8]);
    assert_eq!(run.bob.heard().continuity().sources.len(), 1);
}

#[test]
fn offers_that_cross_are_both_made_in_the_end() {
    let hold = || vec![Step::on(Signal::Established, ms(1_000), Action::Hold(HoldForm::SendOnly))];
    let mut caller = vec![Step::after(ms(0), Action::call("2001"))];
    caller.extend(hold());
    // Bob answers 20 ms of network later than Ann hears of it, so his step is earlier by as much.
    let mut run = Run::new(ann(caller), bob(vec![Step::on(Signal::Established, ms(1_010), hold()[0].action.clone())]));
    run.go(ms(12_000));
    for phone in [&run.ann, &run.bob] {
        let story = Run::story(phone);
        assert!(story.contains(&"refused Some(491)".to_owned()), "{story:?}\n{}", run.ladder());
        assert!(story.iter().any(|line| line.starts_with("agreed")), "{story:?}\n{}", run.ladder());
    }
}

#[test]
fn a_call_succeeds_on_a_network_that_loses_a_third_of_its_messages() {
    for seed in 0..20 {
        let mut run = Run::new(ann(talk_then_hang_up()), bob(vec![]));
        run.network = Network::new(run.start, seed, Link { loss: 0.33, ..Link::delayed(ms(10)) });
        run.go(Duration::from_secs(120));
        let story = Run::story(&run.ann);
        assert!(story.contains(&"ended by us".to_owned()) || story.contains(&"ended by peer".to_owned()), "{story:?}");
        assert!(run.ann.is_idle() && run.bob.is_idle(), "seed {seed}\n{}", run.ladder());
    }
}

#[test]
fn a_dead_phone_answers_nothing() {
    let script = vec![
        Step::after(ms(0), Action::call("2001")),
        Step::on(Signal::Established, ms(500), Action::Hold(HoldForm::SendOnly)),
    ];
    let mut run = Run::new(ann(script), bob(vec![Step::on(Signal::Established, ms(200), Action::Vanish)]));
    run.go(Duration::from_secs(60));
    let story = Run::story(&run.ann);
    assert_eq!(story[2..], ["Established", "refused None", "ended by us"], "{}", run.ladder());
}

#[test]
fn what_a_state_does_not_allow_is_reported() {
    let script = [Action::HangUp, Action::Cancel, Action::Answer, Action::Retrieve, Action::Press('1')];
    let steps = script.into_iter().map(|action| Step::after(ms(10), action)).collect();
    let mut run = Run::new(ann(steps), bob(vec![]));
    run.go(ms(1_000));
    let story = Run::story(&run.ann);
    assert!(story.len() == 5 && story.iter().all(|line| line.starts_with("NotPossible")), "{story:?}");
}

#[test]
fn lost_acks_are_repeated() {
    let mut run = Run::new(ann(talk_then_hang_up()), bob(vec![]));
    let mut acks = 0;
    run.network.set_fate(move |datagram, _| {
        let is_ack = datagram.bytes.starts_with(b"ACK ");
        acks += u32::from(is_ack);
        if is_ack && acks <= 2 { Fate::Drop } else { Fate::Deliver }
    });
    run.go(ms(5_000));
    assert!(Run::story(&run.bob).contains(&"Acknowledged".to_owned()), "{}", run.ladder());
    assert!(run.ann.is_idle() && run.bob.is_idle());
}

#[tokio::test(flavor = "multi_thread")]
async fn phones_call_each_other_over_real_sockets() {
    use stickytape::testing::driver::{self, Sockets};

    let (a, b) =
        (Sockets::bind([127, 0, 0, 1].into()).await.unwrap(), Sockets::bind([127, 0, 0, 1].into()).await.unwrap());
    let voice = |hz| Voice::Bursts { hz, dbfs: -15.0, on: ms(200), off: ms(300) };
    let (sip_a, sip_b) = (a.sip_address().unwrap(), b.sip_address().unwrap());
    let ann = Options {
        voice: voice(400.0),
        script: talk_then_hang_up(),
        ..Options::new("1001", sip_a, a.rtp_address().unwrap(), sip_b)
    };
    let bob = Options { voice: voice(1_000.0), ..Options::new("2001", sip_b, b.rtp_address().unwrap(), sip_a) };
    let bob = driver::start(Phone::new(bob), b);
    let mut ann = driver::start(Phone::new(ann), a);
    assert_eq!(ann.next().await.unwrap().what, Happening::Calling);
    let ann = ann.join().await;
    let bob = bob.join().await;
    let samples = bob.heard().samples(ann.happenings()[0].at, 8_000);
    let found = tones::bursts(&samples, 8_000, 400.0, -30.0);
    assert!(found.len() >= 4, "{found:?}");
    for (burst, spoken) in found.iter().zip(ann.spoken()) {
        let expected = (spoken.start - ann.happenings()[0].at).as_secs_f64();
        assert!((burst.start as f64 / 8_000.0 - expected).abs() < 0.02, "{burst:?} {expected}");
    }
}

const CID: [&str; 2] = ["10.0.0.3:5060", "10.0.0.3:4000"];
const CID_URI: &str = "sip:3001@10.0.0.3:5060";

/// Ann with two lines, Bob and Cid with one, who call each other by whole URIs.
struct Three {
    network: Network,
    phones: [Phone; 3],
}

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const HZ: [f64; 3] = [400.0, 1_000.0, 1_600.0];

impl Three {
    fn new(change: impl FnOnce(&mut [Options; 3])) -> Self {
        let tone = |hz| Voice::Tone { hz, dbfs: -15.0 };
        let phone =
            |number, own, n: usize| Options { voice: tone(HZ[n]), direct: true, ..options(number, own, ANN, HZ[n]) };
        let mut all = [phone("1001", ANN, A), phone("2001", BOB, B), phone("3001", CID, C)];
        all[A].lines = 2;
        change(&mut all);
        let start = stickytape::clock::now();
        let network = Network::new(start, 1, Link::delayed(ms(10)));
        Self { network, phones: all.map(Phone::new) }
    }

    fn go(&mut self, time: u64) {
        let [a, b, c] = &mut self.phones;
        self.network.run_for(&mut [a, b, c], ms(time));
    }

    fn act(&mut self, phone: usize, action: Action) {
        self.phones[phone].act(action, self.network.now());
    }

    /// Ann calls Bob and talks to him.
    fn ann_calls_bob(&mut self) {
        self.act(A, Action::call("sip:2001@10.0.0.2:5060"));
        self.go(500);
        assert!(self.phones[A].is_talking_on(0) && self.phones[B].is_talking());
    }

    /// The levels of the three voices, and of 620 Hz, on a line within the last `time` ms without its first 100.
    fn hears(&self, phone: usize, line: usize, time: u64) -> Vec<f64> {
        let to = self.network.now();
        let heard = self.phones[phone].heard_on(line);
        let (from, mut tones) = (to - ms(time - 100), HZ.to_vec());
        tones.push(620.0);
        let loud = |hz: &f64| heard.lowest_level(*hz, from, to) > -20.0;
        let quiet = |hz: &f64| heard.highest_level(*hz, from, to) < -50.0;
        assert!(tones.iter().all(|hz| loud(hz) || quiet(hz)), "on and off: {tones:?}");
        tones.into_iter().filter(loud).collect()
    }
}

#[test]
fn a_phone_holds_one_call_and_makes_another_on_its_second_line() {
    let mut three = Three::new(|_| {});
    three.ann_calls_bob();
    three.go(1_000);
    assert_eq!((three.hears(B, 0, 1_000), three.hears(A, 0, 1_000)), (vec![HZ[A]], vec![HZ[B]]));

    three.act(A, Action::Hold(HoldForm::SendOnly));
    three.go(100);
    three.act(A, Action::call(CID_URI));
    three.go(500);
    assert_eq!(three.phones[A].active_line(), 1);
    three.go(1_000);
    assert_eq!((three.hears(C, 0, 1_000), three.hears(A, 1, 1_000)), (vec![HZ[A]], vec![HZ[C]]));
    let now = three.network.now();
    for (phone, line) in [(B, 0), (A, 0)] {
        assert_eq!(three.phones[phone].heard_on(line).between(now - ms(1_000), now), [], "nothing on the held line");
    }

    three.act(A, Action::HangUp);
    three.go(100);
    assert_eq!((three.phones[A].active_line(), three.phones[A].is_talking_on(0)), (0, true));
    three.act(A, Action::Retrieve);
    three.go(1_000);
    assert_eq!((three.hears(B, 0, 900), three.hears(A, 0, 900)), (vec![HZ[A]], vec![HZ[B]]));
    let line = |phone: usize| three.phones[phone].happenings().iter().map(|h| (h.line, &h.what)).collect::<Vec<_>>();
    assert!(line(A).contains(&(1, &Happening::Ended { by_peer: false })), "{:?}", line(A));
    for (phone, line) in [(A, 0), (A, 1), (B, 0), (C, 0)] {
        let report = three.phones[phone].stream_report(line);
        assert!(report.is_unbroken() && report.packets > 50, "{phone} {line} {report:?}");
    }
    assert_eq!(three.phones[A].spoken_on(1).len(), 1);
    assert_eq!(three.phones[A].spoken_on(0).len(), 2, "before and after the hold");
}

#[test]
fn a_call_without_a_line_needs_a_held_one_and_a_named_line_does_not() {
    let mut three = Three::new(|_| {});
    three.ann_calls_bob();
    three.act(A, Action::call(CID_URI));
    assert!(matches!(three.phones[A].happenings().last().unwrap().what, Happening::NotPossible { .. }));
    three.act(A, Action::on(2, Action::call(CID_URI)));
    assert!(matches!(three.phones[A].happenings().last().unwrap().what, Happening::NotPossible { .. }), "no line 2");
    three.act(A, Action::on(1, Action::call(CID_URI)));
    three.go(500);
    three.go(1_000);
    assert_eq!((three.hears(C, 0, 900), three.hears(B, 0, 900)), (vec![HZ[A]], vec![HZ[A]]), "both lines are open");
    three.act(A, Action::on(1, Action::Speak(Voice::Silence)));
    three.go(1_000);
    assert_eq!((three.hears(C, 0, 900), three.hears(B, 0, 900)), (vec![], vec![HZ[A]]));
    let now = three.network.now();
    assert!(
        three.phones[C].heard().is_silent(now - ms(900), now) && !three.phones[B].heard().is_silent(now - ms(900), now)
    );
}

#[test]
fn a_holder_with_music_plays_it_and_says_nothing() {
    for form in [HoldForm::SendOnly, HoldForm::NullAddress, HoldForm::Inactive] {
        let mut three = Three::new(|all| all[A].music = Some(Voice::Tone { hz: 620.0, dbfs: -15.0 }));
        three.ann_calls_bob();
        three.act(A, Action::Hold(form));
        three.go(1_000);
        let expected = if form == HoldForm::Inactive { vec![] } else { vec![620.0] };
        assert_eq!(three.hears(B, 0, 900), expected, "{form:?}");
        let held = three.network.now() - ms(800);
        assert!(three.phones[A].spoken().iter().all(|spoken| spoken.end.is_some_and(|end| end < held)));
        three.act(A, Action::Retrieve);
        three.go(1_000);
        assert_eq!(three.hears(B, 0, 900), [HZ[A]], "{form:?}");
        assert!(three.phones[B].stream_report(0).is_unbroken(), "{:?}", three.phones[B].stream_report(0));
    }
}

#[test]
fn a_second_call_comes_in_only_where_call_waiting_is_on_and_a_line_is_free() {
    for (call_waiting, lines, comes) in [(false, 2, false), (true, 1, false), (true, 2, true)] {
        let mut three = Three::new(|all| {
            all[A] = Options { call_waiting, lines, incoming: Incoming::Manual, ..all[A].clone() };
        });
        three.ann_calls_bob();
        three.act(C, Action::call("1001"));
        three.go(200);
        let refused = Happening::Failed { code: Some(486) };
        let is_refused = three.phones[C].happenings().iter().any(|happened| happened.what == refused);
        assert_eq!(is_refused, !comes, "{call_waiting} {lines}");
        if !comes {
            continue;
        }
        assert_eq!(three.phones[A].active_line(), 0, "she still talks to Bob");
        three.act(A, Action::Hold(HoldForm::Inactive));
        three.go(100);
        three.act(A, Action::Answer);
        three.go(100);
        assert!(three.phones[A].is_talking_on(1) && three.phones[A].active_line() == 1);
        three.go(1_000);
        assert_eq!((three.hears(A, 1, 900), three.hears(A, 0, 900)), (vec![HZ[C]], vec![]));
        // To and fro.
        three.act(A, Action::Hold(HoldForm::Inactive));
        three.act(A, Action::on(0, Action::Retrieve));
        three.go(1_000);
        assert_eq!((three.hears(A, 1, 800), three.hears(A, 0, 800)), (vec![], vec![HZ[B]]));
        assert_eq!(three.phones[A].active_line(), 0);
    }
}

#[test]
fn a_step_may_wait_for_one_line_only() {
    let mut three = Three::new(|all| {
        all[A].script = vec![
            Step::after(ms(0), Action::call("sip:2001@10.0.0.2:5060")),
            Step::on(Signal::Established, ms(0), Action::on(1, Action::call(CID_URI))),
            Step::on_line(1, Signal::Agreed, ms(0), Action::on(1, Action::HangUp)),
        ];
    });
    three.act(A, Action::Dtx(false));
    three.go(1_000);
    three.act(A, Action::on(0, Action::Hold(HoldForm::SendOnly)));
    three.go(200);
    assert!(three.phones[A].is_talking_on(1), "line 0 has agreed, line 1 has not");
    three.act(A, Action::on(1, Action::Hold(HoldForm::SendOnly)));
    three.go(200);
    assert!(!three.phones[A].is_talking_on(1));
}

#[test]
fn a_fault_on_a_line_is_on_that_line_only() {
    let mut three = Three::new(|_| {});
    three.ann_calls_bob();
    three.act(A, Action::on(1, Action::call(CID_URI)));
    three.act(A, Action::on(1, Action::Faults(Link { loss: 0.5, ..Link::IDEAL })));
    three.go(4_000);
    assert_eq!(three.phones[B].stream_report(0).lost, 0);
    assert!(three.phones[C].stream_report(0).lost > 50, "{:?}", three.phones[C].stream_report(0));
    three.act(A, Action::Faults(Link { loss: 0.5, ..Link::IDEAL }));
    three.go(2_000);
    assert!(three.phones[B].stream_report(0).lost > 20, "without a line it is the phone's");
}

#[test]
fn packets_of_strangers_and_packets_after_the_end_are_told() {
    let mut three = Three::new(|_| {});
    three.ann_calls_bob();
    let packet = |from: &str| Datagram {
        from: address(from),
        to: address(BOB[1]),
        bytes: Bytes::from([&[0x80, 0, 0, 1][..], &[7; 8], &[0xff; 160]].concat()),
    };
    three.go(500);
    assert!(three.phones[B].stream_report(0).is_unbroken());
    three.network.send(packet("10.0.0.9:4000"));
    three.go(500);
    let report = three.phones[B].stream_report(0);
    assert_eq!((report.foreign, report.sources.len(), report.is_unbroken()), (1, 2, false));
    three.act(A, Action::HangUp);
    three.go(600);
    assert_eq!(three.phones[B].stream_report(0).strays, 0, "what was under way is none");
    three.network.send(packet(ANN[1]));
    three.go(100);
    assert_eq!(three.phones[B].stream_report(0).strays, 1);
    three.ann_calls_bob();
    three.go(500);
    assert!(three.phones[B].stream_report(0).is_unbroken(), "a report is of the last call");
}

#[test]
fn what_was_heard_is_told_in_every_codec_and_through_a_change() {
    let l16 = |rate| vec![Codec::new("L16", rate, 1)];
    for codecs in [vec![Codec::pcmu()], vec![Codec::pcma()], l16(8_000), l16(16_000)] {
        let mut three = Three::new(|all| all.iter_mut().for_each(|phone| phone.codecs.clone_from(&codecs)));
        three.ann_calls_bob();
        three.go(1_000);
        assert_eq!(three.hears(B, 0, 1_000), [HZ[A]], "{codecs:?}");
        let now = three.network.now();
        let level = three.phones[B].heard().level(HZ[A], now - ms(500), now);
        assert!((level + 15.0).abs() < 0.5, "{codecs:?} {level}");
        let absent = three.phones[B].heard().highest_level(HZ[B], now - ms(500), now);
        assert!(absent < -60.0, "{codecs:?} {absent}");
        three.act(A, Action::Speak(Voice::Silence));
        three.go(1_000);
        let now = three.network.now();
        let heard = three.phones[B].heard();
        assert!(heard.is_silent(now - ms(900), now), "{codecs:?}");
        assert!(!heard.is_silent(now - ms(1_200), now), "{codecs:?}");
        // A second with tone for half of it has half the power.
        let half = heard.level(HZ[A], now - ms(1_480), now - ms(480));
        assert!((half + 18.0).abs() < 1.0, "{codecs:?} {half}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lines_work_over_real_sockets() {
    use stickytape::testing::driver::{self, Sockets};

    let local = [127, 0, 0, 1].into();
    let (a, b, c) = (
        Sockets::bind_lines(local, 2).await.unwrap(),
        Sockets::bind(local).await.unwrap(),
        Sockets::bind(local).await.unwrap(),
    );
    let sip = |sockets: &Sockets| sockets.sip_address().unwrap();
    let (sip_b, sip_c) = (sip(&b), sip(&c));
    let tone = |hz| Voice::Tone { hz, dbfs: -15.0 };
    let script = vec![
        Step::after(ms(0), Action::call("2001")),
        Step::on(Signal::Established, ms(300), Action::Hold(HoldForm::Inactive)),
        Step::on(Signal::Agreed, ms(0), Action::Call { to: format!("sip:3001@{sip_c}"), offer: true, headers: vec![] }),
        Step::on_line(1, Signal::Established, ms(500), Action::HangUp),
        Step::after(ms(50), Action::Retrieve),
        Step::on(Signal::Agreed, ms(300), Action::HangUp),
    ];
    let phone = |number, sockets: &Sockets, proxy, hz| Options {
        voice: tone(hz),
        ..Options::new(number, sip(sockets), sockets.rtp_address().unwrap(), proxy)
    };
    let ann = Options { script, lines: 2, direct: true, ..phone("1001", &a, sip_b, HZ[A]) };
    let bob = driver::start(Phone::new(phone("2001", &b, sip_b, HZ[B])), b);
    let cid = driver::start(Phone::new(phone("3001", &c, sip_b, HZ[C])), c);
    let ann = driver::start(Phone::new(ann), a);
    let all = async { (ann.join().await, bob.join().await, cid.join().await) };
    let (ann, bob, cid) = tokio::time::timeout(ms(20_000), all).await.expect("the calls end");
    let heard = |phone: &Phone, line: usize| {
        let packets = &phone.heard_on(line).packets;
        let (from, to) = (packets[0].at + ms(100), packets.last().unwrap().at);
        HZ.map(|hz| phone.heard_on(line).highest_level(hz, from, to) > -25.0)
    };
    assert_eq!(heard(&ann, 0), [false, true, false], "{:?}", ann.happenings());
    assert_eq!(heard(&ann, 1), [false, false, true]);
    assert_eq!((heard(&bob, 0), heard(&cid, 0)), ([true, false, false], [true, false, false]));
    for (phone, line) in [(&ann, 0), (&ann, 1), (&bob, 0), (&cid, 0)] {
        assert_eq!(phone.stream_report(line).foreign, 0);
    }
}
