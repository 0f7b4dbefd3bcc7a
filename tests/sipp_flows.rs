//! Every flow of a two-party call between two SIPp and the real server: what each side must see is in the scenarios of
//! `fixtures/sipp`, what must be recorded is here.

mod peers;

use std::time::Duration;

use peers::{Options, Server, Setup, Sipp, V4, V6, at, free_ports};
use serde_json::Value;

/// A caller, a callee, and what lies between.
struct Flow {
    uac: &'static str,
    uas: &'static str,
    uac_host: &'static str,
    uas_host: &'static str,
    tcp: bool,
    sip: &'static str,
    recording: &'static str,
}

impl Flow {
    fn of(uac: &'static str, uas: &'static str) -> Self {
        Self { uac, uas, uac_host: V4, uas_host: V4, tcp: false, sip: "", recording: "" }
    }

    /// Plays it once. The metadata of the `recordings` that it must leave, all verified.
    #[track_caller]
    fn leaves(self, recordings: usize) -> Vec<Value> {
        let port = free_ports(1);
        let transport = if self.tcp { ";transport=tcp" } else { "" };
        let mut hosts = vec![self.uac_host];
        if self.uas_host != self.uac_host {
            hosts.push(self.uas_host);
        }
        let mut server = Server::start(&Setup {
            hosts,
            sip: self.sip.into(),
            recording: self.recording.into(),
            plan: plan(&format!("sip:2001@{}:{port}{transport}", self.uas_host)),
            ..Setup::default()
        });
        let folder = server.folder.path().to_owned();
        let callee =
            Options { scenario: self.uas, host: self.uas_host, port, tcp: self.tcp, echo: true, ..Options::default() };
        let callee = Sipp::start(&folder, &callee);
        let caller = Options {
            scenario: self.uac,
            host: self.uac_host,
            tcp: self.tcp,
            target: Some(at(self.uac_host, server.sip)),
            ..Options::default()
        };
        Sipp::start(&folder, &caller).succeed(&server);
        callee.succeed(&server);
        finish(&mut server, recordings)
    }
}

fn plan(contact: &str) -> String {
    format!(
        "[[trunk]]\nname = \"callers\"\nfrom = [\"127.0.0.1\", \"::1\"]\n[[dn]]\nnumber = \"2001\"\ncontact = \"{contact}\"\n"
    )
}

/// Waits for the recordings, stops the server, verifies; nothing but these recordings may be left.
#[track_caller]
fn finish(server: &mut Server, recordings: usize) -> Vec<Value> {
    peers::wait_for("the end of the call", Duration::from_secs(10), || {
        server.json("/v1/calls")["calls"].as_array().unwrap().is_empty().then_some(())
    });
    server.published(recordings);
    server.stop_and_verify();
    let found = server.published(recordings);
    assert_eq!(found.len(), recordings, "{found:#?}");
    found
}

#[track_caller]
fn lasted(recording: &Value, milliseconds: std::ops::Range<u64>) {
    let duration = recording["durationMs"].as_u64().unwrap();
    assert!(milliseconds.contains(&duration), "{duration} ms is not in {milliseconds:?}");
}

#[test]
fn a_plain_call_is_recorded_from_answer_to_bye() {
    let recordings = Flow::of("uac_talk", "uas_answer").leaves(1);
    assert_eq!(recordings[0]["recordingSession"]["stopCause"], "released");
    assert_eq!(recordings[0]["dialedPhoneNumber"], "2001");
    lasted(&recordings[0], 500..1_500);
}

#[test]
fn the_called_side_may_hang_up() {
    let recordings = Flow::of("uac_wait_bye", "uas_hang_up").leaves(1);
    assert_eq!(recordings[0]["recordingSession"]["stopCause"], "released");
    lasted(&recordings[0], 900..1_600);
}

#[test]
fn early_media_passes_and_is_not_recorded_unless_asked_for() {
    let recordings = Flow::of("uac_early", "uas_early").leaves(1);
    lasted(&recordings[0], 500..1_000);
}

#[test]
fn early_media_is_recorded_when_asked_for() {
    let flow = Flow { recording: "early-media = true", ..Flow::of("uac_early", "uas_early") };
    let recordings = flow.leaves(1);
    lasted(&recordings[0], 1_100..1_900);
    assert_eq!(recordings[0]["segments"][0]["early"], true);
}

#[test]
fn a_caller_may_give_up_while_it_rings() {
    Flow::of("uac_cancel", "uas_ring_only").leaves(0);
}

#[test]
fn a_busy_callee_is_told_to_the_caller() {
    Flow::of("uac_busy", "uas_busy").leaves(0);
}

#[test]
fn a_callee_that_does_not_answer_is_given_up() {
    let flow = Flow { sip: "ring-timeout = \"2s\"", ..Flow::of("uac_no_answer", "uas_ring_only") };
    flow.leaves(0);
}

#[test]
fn hold_by_direction_reaches_the_other_side_and_is_a_segment() {
    let recordings = Flow::of("uac_hold_by_direction", "uas_hold").leaves(1);
    held(&recordings[0]);
}

#[test]
fn hold_by_address_zero_reaches_the_other_side_and_is_a_segment() {
    let recordings = Flow::of("uac_hold_by_address", "uas_hold").leaves(1);
    held(&recordings[0]);
}

#[test]
fn an_update_changes_the_direction_as_a_reinvite_does() {
    let recordings = Flow::of("uac_update", "uas_hold").leaves(1);
    held(&recordings[0]);
}

/// Talk, hold, talk: three segments, nobody speaks in the middle one.
#[track_caller]
fn held(recording: &Value) {
    let segments = recording["segments"].as_array().unwrap();
    let held: Vec<_> = segments.iter().map(|segment| segment["held"] == true).collect();
    assert_eq!(held, [false, true, false], "{segments:#?}");
    assert_eq!(segments[1]["speakers"], serde_json::json!([]));
    assert_eq!(segments[2]["speakers"].as_array().unwrap().len(), 2);
}

#[test]
fn a_call_without_an_offer_is_offered_ours() {
    Flow::of("uac_no_offer", "uas_answer").leaves(1);
}

#[test]
fn a_reinvite_without_an_offer_is_answered_with_our_full_offer() {
    Flow::of("uac_no_offer_reinvite", "uas_answer").leaves(1);
}

#[test]
fn a_digit_by_info_reaches_the_other_side() {
    Flow::of("uac_info", "uas_info").leaves(1);
}

#[test]
fn a_call_over_tcp_is_recorded() {
    Flow { tcp: true, ..Flow::of("uac_talk", "uas_answer") }.leaves(1);
}

#[test]
fn a_call_over_ipv6_is_recorded() {
    Flow { uac_host: V6, uas_host: V6, ..Flow::of("uac_talk", "uas_answer") }.leaves(1);
}

#[test]
fn a_call_from_ipv4_to_ipv6_is_recorded() {
    Flow { uas_host: V6, ..Flow::of("uac_talk", "uas_answer") }.leaves(1);
}

#[test]
fn both_legs_may_own_a_recording_each() {
    let flow = Flow { recording: "default = \"both\"\nlayout = \"tracks\"", ..Flow::of("uac_talk", "uas_answer") };
    let recordings = flow.leaves(2);
    let mut sides: Vec<_> = recordings.iter().map(|r| r["recordingSession"]["side"].as_str().unwrap()).collect();
    sides.sort_unstable();
    assert_eq!(sides, ["origination", "termination"]);
    assert_eq!(recordings[0]["mediaFiles"].as_array().unwrap().len(), 3);
}

#[test]
fn media_that_is_echoed_is_in_both_channels() {
    let port = free_ports(1);
    let mut server = Server::start(&Setup {
        recording: "layout = \"stereo\"".into(),
        plan: plan(&format!("sip:2001@{V4}:{port}")),
        ..Setup::default()
    });
    let folder = server.folder.path().to_owned();
    std::fs::write(folder.join("tone.ulaw"), tone()).unwrap();
    let callee = Sipp::start(&folder, &Options { scenario: "uas_answer", port, echo: true, ..Options::default() });
    let caller = Options {
        scenario: "uac_stream",
        target: Some(at(V4, server.sip)),
        talk: Duration::from_secs(3),
        ..Options::default()
    };
    Sipp::start(&folder, &caller).succeed(&server);
    callee.succeed(&server);
    let recordings = finish(&mut server, 1);
    let wav = std::path::Path::new(recordings[0]["folder"].as_str().unwrap()).join("mixed.wav");
    let bytes = std::fs::read(wav).unwrap();
    assert_eq!(u16::from_le_bytes([bytes[22], bytes[23]]), 2, "stereo");
    let samples: Vec<i16> = bytes[44..].chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect();
    for channel in 0..2 {
        let loud = samples.iter().skip(channel).step_by(2).filter(|sample| sample.unsigned_abs() > 1_000).count();
        // A second at the least of three, in each channel.
        assert!(loud > 8_000, "channel {channel} has {loud} loud samples of {}", samples.len() / 2);
    }
}

/// A second of a square wave of 500 Hz as µ-law.
fn tone() -> Vec<u8> {
    (0..8_000).map(|sample| if (sample / 8) % 2 == 0 { 0x20 } else { 0xa0 }).collect()
}

#[test]
fn a_redirect_of_a_trunk_that_may_is_followed() {
    let (forwarder, phone) = (free_ports(1), free_ports(1));
    let plan = plan(&format!("sip:2001@{V4}:{phone}"))
        + &format!(
            "[[trunk]]\nname = \"forwarder\"\naddress = \"sip:{V4}:{forwarder}\"\nfollow-redirect = true\n\
             [[route]]\nmatch = \"^77$\"\nto = \"trunk:forwarder\"\n"
        );
    let mut server = Server::start(&Setup { plan, ..Setup::default() });
    let folder = server.folder.path().to_owned();
    let first = Sipp::start(&folder, &Options { scenario: "uas_redirect", port: forwarder, ..Options::default() });
    let second = Sipp::start(&folder, &Options { scenario: "uas_answer", port: phone, ..Options::default() });
    let caller = Options { scenario: "uac_talk", number: "77", target: Some(at(V4, server.sip)), ..Options::default() };
    Sipp::start(&folder, &caller).succeed(&server);
    first.succeed(&server);
    second.succeed(&server);
    let recordings = finish(&mut server, 1);
    assert_eq!(recordings[0]["dialedPhoneNumber"], "77");
}

#[test]
fn with_to_alone_two_sipp_need_no_configuration() {
    let port = free_ports(1);
    // The ports of the test are in a file, so "alone" is shown by the defaults that matter: no trunk, no DN.
    let mut server = Server::start(&Setup {
        plan: "[[trunk]]\nname = \"callers\"\nfrom = [\"127.0.0.1\"]\n".into(),
        arguments: vec!["--to".into(), format!("{V4}:{port}")],
        ..Setup::default()
    });
    let folder = server.folder.path().to_owned();
    let callee = Sipp::start(&folder, &Options { scenario: "uas_answer", port, ..Options::default() });
    let caller =
        Options { scenario: "uac_talk", number: "anything", target: Some(at(V4, server.sip)), ..Options::default() };
    Sipp::start(&folder, &caller).succeed(&server);
    callee.succeed(&server);
    finish(&mut server, 1);
}

/// One request against a server without a callee; nothing is recorded.
#[track_caller]
fn alone(scenario: &'static str, number: &'static str, setup: Setup) {
    for tcp in [false, true] {
        let mut server = Server::start(&setup);
        let folder = server.folder.path().to_owned();
        let caller = Options { scenario, number, tcp, target: Some(at(V4, server.sip)), ..Options::default() };
        Sipp::start(&folder, &caller).succeed(&server);
        finish(&mut server, 0);
    }
}

fn nobody_home() -> Setup {
    Setup { plan: plan(&format!("sip:2001@{V4}:{}", free_ports(1))), ..Setup::default() }
}

#[test]
fn options_are_answered() {
    alone("uac_options", "2001", nobody_home());
}

#[test]
fn an_unknown_caller_is_refused_with_403() {
    alone("uac_refused_403", "2001", Setup::default());
}

#[test]
fn an_unknown_number_is_refused_with_404() {
    alone("uac_refused_404", "9999", nobody_home());
}

#[test]
fn a_known_method_that_is_not_served_is_refused_with_405() {
    alone("uac_refused_405", "2001", nobody_home());
}

#[test]
fn an_unknown_scheme_is_refused_with_416() {
    alone("uac_refused_416", "2001", nobody_home());
}

#[test]
fn an_unknown_required_extension_is_refused_with_420() {
    alone("uac_refused_420", "2001", nobody_home());
}

#[test]
fn a_request_in_no_dialog_is_refused_with_481() {
    alone("uac_refused_481", "2001", nobody_home());
}

#[test]
fn a_request_without_hops_is_refused_with_483() {
    alone("uac_refused_483", "2001", nobody_home());
}

#[test]
fn an_offer_of_srtp_alone_is_refused_with_488() {
    alone("uac_refused_488", "2001", nobody_home());
}

#[test]
fn an_unknown_method_is_refused_with_501() {
    alone("uac_refused_501", "2001", nobody_home());
}

#[test]
fn a_call_beyond_max_calls_is_refused_with_503_and_retry_after() {
    let port = free_ports(1);
    let mut server = Server::start(&Setup {
        sip: "max-calls = 1".into(),
        plan: plan(&format!("sip:2001@{V4}:{port}")),
        ..Setup::default()
    });
    let folder = server.folder.path().to_owned();
    let target = Some(at(V4, server.sip));
    let callee = Sipp::start(&folder, &Options { scenario: "uas_answer", port, ..Options::default() });
    let long = Options { scenario: "uac_talk", target, talk: Duration::from_secs(3), ..Options::default() };
    let long = Sipp::start(&folder, &long);
    peers::wait_for("the first call", Duration::from_secs(5), || {
        (server.json("/v1/calls")["calls"][0]["state"] == "talking").then_some(())
    });
    Sipp::start(&folder, &Options { scenario: "uac_refused_503", target, ..Options::default() }).succeed(&server);
    long.succeed(&server);
    callee.succeed(&server);
    finish(&mut server, 1);
}
