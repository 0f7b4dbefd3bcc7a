//! Two phones call each other over the simulated network: the phones themselves, before they test anything else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stickytape::codec::{Codec, Direction};
use stickytape::testing::ladder;
use stickytape::testing::network::{Fate, Link, Network};
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
    let contact = run.ann.responses()[0].headers.get(stickytape::sip::name::Name::Contact).unwrap().into_owned();
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
