//! What `GET /v1/calls` shows of media and recordings is what happens: through the whole program, with sound.

use std::time::Duration;

use crate::whole::{Threads, World, addr};
use serde_json::{Value, json};
use stickytape::call::options::{
    Dn, Host, Listener, MediaOptions, Numbers, Options, PeerAddress, Plan, RecordingOptions, SipOptions, Transport,
};
use stickytape::call::request::{Ask, Request};
use stickytape::record::mark::Layout;
use stickytape::testing::network::Link;
use stickytape::testing::phone::{self, Action, Phone};
use stickytape::testing::tones::Voice;

const PROXY: &str = "192.0.2.1:5060";

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// 2001 speaks at −15 dBFS with a clock that is 80 ppm fast; 2002 is silent. 2001 has called.
fn talking() -> World {
    let contact = |n: usize| PeerAddress {
        user: Some("{number}".into()),
        host: Host::Ip(format!("10.0.0.{n}").parse().unwrap()),
        port: 5060,
        transport: Some(Transport::Udp),
    };
    let mut world = World::new(
        Options {
            listeners: vec![Listener { transport: Transport::Udp, address: addr(PROXY) }],
            sip: SipOptions::default(),
            media: MediaOptions { ports_ahead: 8, ..MediaOptions::default() },
            recording: RecordingOptions { layout: Layout::Stereo, ..RecordingOptions::default() },
            plan: Plan {
                dns: (1..=2).map(|n| Dn::new(Numbers::One(format!("200{n}")), contact(n))).collect(),
                ..Plan::default()
            },
        },
        Threads::default(),
    );
    for n in 1..=2 {
        let at = |port| addr(&format!("10.0.0.{n}:{port}"));
        let mut options = phone::Options::new(&format!("200{n}"), at(5060), at(4000), addr(PROXY));
        options.voice = if n == 1 { Voice::Tone { hz: 500.0, dbfs: -15.0 } } else { Voice::Silence };
        world.phone(Phone::new(options));
    }
    world.act(0, Action::Skew(80.0));
    world.act(0, Action::call("2002"));
    world
}

fn shown(world: &World) -> Value {
    let calls = serde_json::to_value(world.product.calls.snapshot()).unwrap();
    calls[0].clone()
}

#[track_caller]
fn near(value: &Value, wanted: f64, tolerance: f64) {
    let found = value.as_f64().unwrap_or_else(|| panic!("{value} is no number"));
    assert!((found - wanted).abs() <= tolerance, "{found} is not {wanted} ± {tolerance}");
}

#[test]
fn a_call_shows_codec_packets_jitter_skew_address_and_levels() {
    let mut world = talking();
    world.run_until(s(30));
    let call = shown(&world);
    let [ann, bob] = [&call["parties"][0], &call["parties"][1]];
    assert_eq!((&ann["codec"], &ann["media"]), (&json!("PCMU/8000"), &json!("10.0.0.1:4000")));
    near(&ann["received"], 29.0 * 50.0, 60.0);
    near(&ann["sent"], 29.0 * 50.0, 60.0);
    assert_eq!((&ann["lost"], &ann["refused"]), (&json!(0), &json!(0)));
    near(&ann["jitterMs"], 0.0, 0.2);
    near(&ann["clockSkewPpm"], 80.0, 8.0);
    near(&bob["clockSkewPpm"], 0.0, 8.0);
    let recording = &call["recordings"][0];
    assert_eq!(recording["state"], "recording");
    let [left, right] = [&recording["levels"][0], &recording["levels"][1]];
    assert_eq!((&left["file"], &left["channel"], &right["channel"]), (&json!("mixed.wav"), &json!(0), &json!(1)));
    near(&left["peakDbfs"], -15.0, 0.3);
    near(&left["rmsDbfs"], -15.0, 0.3);
    assert!(right["rmsDbfs"].as_f64().is_none_or(|level| level < -60.0), "{right}");
}

#[test]
fn jitter_and_loss_of_a_bad_network_are_shown_for_the_leg_that_has_them() {
    let mut world = talking();
    let bad = Link { loss: 0.1, jitter: Duration::from_millis(12), ..Link::delayed(Duration::from_millis(20)) };
    world.act(0, Action::Faults(bad));
    world.run_until(s(20));
    let call = shown(&world);
    let [ann, bob] = [&call["parties"][0], &call["parties"][1]];
    near(&ann["lost"], 95.0, 45.0);
    near(&ann["jitterMs"], 4.0, 3.5);
    assert_ne!(ann["jitterMs"], json!(0.0));
    assert_eq!((&bob["lost"], &bob["jitterMs"]), (&json!(0), &json!(0.0)));
}

#[test]
fn a_paused_recording_shows_silence_and_a_silent_phone_when_it_was_heard_last() {
    let mut world = talking();
    world.run_until(s(5));
    let conn_id = world.product.calls.snapshot()[0].conn_id;
    let request =
        Request { conn_id, this_dn: "2001".into(), reference: None, ask: Ask::RecordPause { recording: None } };
    world.ask(request);
    world.act(1, Action::Stall(s(60)));
    world.run_until(s(10));
    let call = shown(&world);
    let recording = &call["recordings"][0];
    assert_eq!((&recording["state"], &recording["paused"]), (&json!("paused"), &json!(true)));
    let levels = recording["levels"].as_array().unwrap();
    assert_eq!(levels.len(), 2);
    assert!(levels.iter().all(|level| level["peakDbfs"].is_null() && level["rmsDbfs"].is_null()), "{levels:?}");
    let last =
        |party: usize| -> jiff::Timestamp { call["parties"][party]["lastPacket"].as_str().unwrap().parse().unwrap() };
    let apart = last(0).duration_since(last(1)).as_secs_f64();
    assert!((3.5..=5.5).contains(&apart), "{apart} s between the last packets of the two phones");
}
