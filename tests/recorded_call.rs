//! A call between two phones on real sockets through the real proxy: what each phone said stands in the recording where
//! and when it was said, and nowhere else. The phones log when they speak; the recording is read from the disk.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stickytape::app::Server;
use stickytape::codec::Codec;
use stickytape::config::Config;
use stickytape::disk::list::Filter;
use stickytape::disk::store::Store;
use stickytape::disk::{RealDisk, wav};
use stickytape::record::metadata::Recording;
use stickytape::testing::driver::{self, Sockets};
use stickytape::testing::network::Link;
use stickytape::testing::phone::{
    Action, Happened, Happening, HoldForm, Incoming, Options, Phone, Signal, Spoken, Step,
};
use stickytape::testing::tones::{self, Voice};

const ANN_HZ: f64 = 400.0;
const BOB_HZ: f64 = 1_000.0;
const TOLERANCE: Duration = Duration::from_millis(20);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn bursts(hz: f64, on: u64, off: u64) -> Voice {
    Voice::Bursts { hz, dbfs: -15.0, on: ms(on), off: ms(off) }
}

/// What a call left behind.
struct Outcome {
    ann: Phone,
    bob: Phone,
    recordings: Vec<(Recording, wav::Spec, Vec<i16>)>,
    /// One instant on both clocks.
    clocks: (Instant, jiff::Timestamp),
}

async fn call(address: IpAddr, layout: &str, ann: Vec<Step>, bob: Vec<Step>) -> Outcome {
    call_with(address, layout, ann, bob, "", |_| {}).await
}

/// `dn`: further lines of Bob's DN; `change`: Bob's phone.
async fn call_with(
    address: IpAddr,
    layout: &str,
    ann: Vec<Step>,
    bob: Vec<Step>,
    dn: &str,
    change: impl FnOnce(&mut Options),
) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Sockets::bind(address).await.unwrap(), Sockets::bind(address).await.unwrap());
    let (sip_a, sip_b) = (a.sip_address().unwrap(), b.sip_address().unwrap());
    let text = format!(
        "[sip]\nlisten = [\"udp:{}\"]\nmax-calls = 4\n[media]\nworkers = 2\npriority = \"normal\"\n\
         [recording]\nlayout = \"{layout}\"\nmin-free-space = \"16MiB\"\nbuffer = \"16MiB\"\n[api]\nlisten = \"off\"\n\
         [[trunk]]\nname = \"carrier\"\naddress = \"sip:{sip_a}\"\nfrom = [\"{address}\"]\n\
         [[dn]]\nnumber = \"2001\"\ncontact = \"sip:2001@{sip_b}\"\n{dn}",
        SocketAddr::new(address, 0)
    );
    let mut config = Config::parse(&text).unwrap_or_else(|problems| panic!("{problems:?}"));
    config.storage.directory = folder.path().to_owned();
    config.claim_capacity().unwrap();
    let server = Server::start(config).await.unwrap();
    let proxy = server.listeners()[0].address;
    let clocks = (stickytape::clock::now(), stickytape::clock::wall());

    let options = |number: &str, voice, script, sockets: &Sockets, sip| Options {
        voice,
        script,
        ..Options::new(number, sip, sockets.rtp_address().unwrap(), proxy)
    };
    let ann = options("+4930123456", bursts(ANN_HZ, 200, 300), ann, &a, sip_a);
    let mut bob = options("2001", bursts(BOB_HZ, 150, 250), bob, &b, sip_b);
    change(&mut bob);
    let bob = driver::start(Phone::new(bob), b);
    let ann = driver::start(Phone::new(ann), a);
    let both = async { (ann.join().await, bob.join().await) };
    let (ann, bob) = tokio::time::timeout(Duration::from_secs(40), both).await.expect("the call ends");
    server.drain();
    server.stop().await;
    Outcome { ann, bob, recordings: read(folder.path()), clocks }
}

fn read(folder: &Path) -> Vec<(Recording, wav::Spec, Vec<i16>)> {
    let store = Store::new(Arc::new(RealDisk), folder.to_owned());
    let page = store.list(&Filter::default(), 100, None).unwrap();
    let read = |recording: Recording| {
        let (_, wrong) = store.verify(recording.id).unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
        let file = store.find(recording.id).unwrap().folder.join("mixed.wav");
        let (spec, samples) = wav::read(&RealDisk, &file).unwrap();
        (recording, spec, samples)
    };
    page.recordings.into_iter().map(read).collect()
}

impl Outcome {
    fn only(&self) -> &(Recording, wav::Spec, Vec<i16>) {
        assert_eq!(self.recordings.len(), 1);
        &self.recordings[0]
    }

    fn channel(&self, index: usize) -> Vec<i16> {
        let (_, spec, samples) = self.only();
        samples.iter().skip(index).step_by(usize::from(spec.channels)).copied().collect()
    }

    /// The place of an instant in the recording, in seconds.
    fn place(&self, at: Instant) -> f64 {
        let start = self.only().0.start_time;
        let wall = self.clocks.1 + at.saturating_duration_since(self.clocks.0);
        wall.duration_since(start).as_secs_f64()
    }

    /// What was said within stretches of the recording (seconds), as it must stand there.
    fn said(&self, spoken: &[Spoken], within: &[Range<f64>]) -> Vec<Range<f64>> {
        let mut said = Vec::new();
        for spoken in spoken {
            let Some(end) = spoken.end else { continue };
            let (start, end) = (self.place(spoken.start), self.place(end));
            // A burst at an edge of a stretch may be cut: it is for the assertions on silence.
            let margin = 0.1;
            if within.iter().any(|range| start > range.start + margin && end < range.end - margin) {
                said.push(start..end);
            }
        }
        said
    }

    /// Stretches in which nobody holds, in seconds of the recording.
    fn open(&self) -> Vec<Range<f64>> {
        let (recording, spec, _) = self.only();
        let seconds = |sample: u64| sample as f64 / f64::from(spec.sample_rate);
        let open = recording.segments.iter().filter(|segment| !segment.held && !segment.paused);
        open.map(|segment| seconds(segment.start_sample)..seconds(segment.end_sample)).collect()
    }

    /// Every burst that was said stands in the channel within [`TOLERANCE`], and no other.
    #[track_caller]
    fn assert_said(&self, channel: &[i16], hz: f64, phone: &Phone) {
        let rate = self.only().1.sample_rate;
        let found: Vec<Range<f64>> = tones::bursts(channel, rate, hz, -30.0)
            .into_iter()
            .map(|burst| burst.start as f64 / f64::from(rate)..burst.end as f64 / f64::from(rate))
            .collect();
        let said = self.said(phone.spoken(), &self.open());
        assert!(said.len() >= 4, "too little was said: {said:?}");
        let tolerance = TOLERANCE.as_secs_f64();
        for burst in &said {
            let near = |found: &&Range<f64>| {
                (found.start - burst.start).abs() < tolerance && (found.end - burst.end).abs() < tolerance
            };
            assert!(found.iter().any(|found| near(&found)), "{hz} Hz at {burst:?} is missing in {found:?}");
        }
        let all: Vec<Range<f64>> = phone
            .spoken()
            .iter()
            .map(|spoken| self.place(spoken.start)..spoken.end.map_or(f64::MAX, |end| self.place(end)))
            .collect();
        for burst in &found {
            let covered = |said: &Range<f64>| burst.start > said.start - tolerance && burst.end < said.end + tolerance;
            assert!(all.iter().any(covered), "{hz} Hz at {burst:?} was not said then: {all:?}");
        }
    }
}

fn caller(more: Vec<Step>) -> Vec<Step> {
    // At once: a server that has started takes calls.
    let mut script = vec![Step::after(ms(0), Action::call("2001"))];
    script.extend(more);
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn each_voice_stands_on_its_own_channel_when_it_was_said() {
    let hang_up = Step::on(Signal::Established, ms(4_000), Action::HangUp);
    let outcome = call(Ipv4Addr::LOCALHOST.into(), "stereo", caller(vec![hang_up]), vec![]).await;
    let (recording, spec, samples) = outcome.only();
    assert_eq!((spec.channels, spec.sample_rate), (2, 8_000));
    let seconds = samples.len() as f64 / 16_000.0;
    assert!((3.9..4.3).contains(&seconds), "{seconds}");
    assert_eq!(recording.caller_phone_number, "+4930123456");
    assert_eq!(recording.dialed_phone_number, "2001");
    let (left, right) = (outcome.channel(0), outcome.channel(1));
    outcome.assert_said(&left, ANN_HZ, &outcome.ann);
    outcome.assert_said(&right, BOB_HZ, &outcome.bob);
    for (channel, hz) in [(&left, BOB_HZ), (&right, ANN_HZ)] {
        assert!(tones::bursts(channel, 8_000, hz, -50.0).is_empty(), "{hz} Hz crossed over");
    }
    // What each phone heard is what the other said, without a break.
    for phone in [&outcome.ann, &outcome.bob] {
        let continuity = phone.heard().continuity();
        assert_eq!((continuity.sources.len(), continuity.missing, continuity.timestamp_steps), (1, 0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_silent_in_the_recording_and_the_call_goes_on_after_it() {
    tokio::join!(hold(HoldForm::SendOnly), hold(HoldForm::NullAddress));
}

async fn hold(form: HoldForm) {
    let bob = vec![
        Step::on(Signal::Established, ms(2_500), Action::Hold(form)),
        Step::on(Signal::Agreed, ms(1_500), Action::Retrieve),
        Step::on(Signal::Agreed, ms(2_500), Action::HangUp),
    ];
    let music = |bob: &mut Options| bob.music = Some(bursts(BOB_HZ, 150, 250));
    let outcome = call_with(Ipv4Addr::LOCALHOST.into(), "stereo", caller(vec![]), bob, "", music).await;
    let (recording, spec, samples) = outcome.only();
    let held: Vec<_> = recording.segments.iter().filter(|segment| segment.held).collect();
    assert_eq!(held.len(), 1, "{form:?}: {:?}", recording.segments);
    let range = held[0].start_sample as usize..held[0].end_sample as usize;
    let length = range.len() as f64 / f64::from(spec.sample_rate);
    assert!((1.4..1.8).contains(&length), "{form:?}: {length}");
    let silence = &samples[2 * range.start..2 * range.end];
    assert!(silence.iter().all(|sample| *sample == 0), "{form:?}: sound in the hold");
    assert!(outcome.ann.heard().packets.len() > 300, "{form:?}: the holder's sound goes to the held party");
    outcome.assert_said(&outcome.channel(0), ANN_HZ, &outcome.ann);
    outcome.assert_said(&outcome.channel(1), BOB_HZ, &outcome.bob);
    assert_eq!(outcome.ann.heard().continuity().sources.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_answerer_says_ahead_of_its_200_is_heard_and_recorded_from_the_answer_on() {
    let bob = vec![
        Step::on(Signal::Incoming, ms(200), Action::SpeakAhead),
        Step::after(ms(70), Action::Answer),
        Step::after(ms(3_000), Action::HangUp),
    ];
    let manual = |bob: &mut Options| bob.incoming = Incoming::Manual;
    let outcome = call_with(Ipv4Addr::LOCALHOST.into(), "stereo", caller(vec![]), bob, "", manual).await;
    let (sent, heard) = (outcome.bob.sent_packets(), outcome.ann.heard().packets.len() as u64);
    assert!(sent > 140 && sent <= heard + 1, "{sent} sent, {heard} heard; the last one may meet the end of the call");
    let continuity = outcome.ann.heard().continuity();
    assert_eq!((continuity.sources.len(), continuity.missing, continuity.timestamp_steps), (1, 0, 0));
    // The first burst began 70 ms before the recording: the rest of it stands at the recording's beginning.
    let first = tones::bursts(&outcome.channel(1), 8_000, BOB_HZ, -30.0).remove(0);
    assert!(first.start < 160 && (480..800).contains(&first.end), "{first:?}");
    outcome.assert_said(&outcome.channel(1), BOB_HZ, &outcome.bob);
    outcome.assert_said(&outcome.channel(0), ANN_HZ, &outcome.ann);
}

/// Ann presses a key; Bob's phone takes no telephone events.
async fn press(dn: &str) -> (Outcome, Vec<f64>) {
    let ann = caller(vec![
        Step::on(Signal::Established, ms(1_000), Action::Press('5')),
        Step::after(ms(1_500), Action::HangUp),
    ]);
    let no_events = |bob: &mut Options| bob.codecs = vec![Codec::pcma()];
    let outcome = call_with(Ipv4Addr::LOCALHOST.into(), "stereo", ann, vec![], dn, no_events).await;
    let impossible = |happened: &&Happened| matches!(happened.what, Happening::NotPossible { .. });
    assert_eq!(outcome.ann.happenings().iter().find(impossible), None, "the caller may press keys");
    for channel in [0, 1] {
        let recorded = key_5(&outcome.channel(channel));
        assert!(recorded.is_empty(), "the key is in the recording: {recorded:?}");
    }
    outcome.assert_said(&outcome.channel(1), BOB_HZ, &outcome.bob);
    let heard = key_5(&outcome.bob.heard().samples(outcome.clocks.0, 8_000));
    (outcome, heard)
}

/// The two tones of the key 5 (ITU-T Q.23).
const KEY_5: [f64; 2] = [770.0, 1_336.0];

/// Those of them that are somewhere in the samples.
fn key_5(samples: &[i16]) -> Vec<f64> {
    KEY_5.into_iter().filter(|hz| !tones::bursts(samples, 8_000, *hz, -30.0).is_empty()).collect()
}

fn infos(phone: &Phone) -> Vec<String> {
    let info = |happened: &Happened| match &happened.what {
        Happening::Info { body } => Some(String::from_utf8_lossy(body).into_owned()),
        _ => None,
    };
    phone.happenings().iter().filter_map(info).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_heard_as_a_tone_by_a_phone_without_events_and_is_not_in_the_recording() {
    let (outcome, heard) = press("").await;
    assert_eq!((heard, infos(&outcome.bob)), (KEY_5.to_vec(), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_told_by_info_to_a_phone_that_wants_that_and_no_tone_is_heard() {
    let (outcome, heard) = press("dtmf = \"info\"\n").await;
    assert_eq!((heard, infos(&outcome.bob)), (vec![], vec!["Signal=5\r\nDuration=160\r\n".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mixed_recording_has_both_voices_in_one_channel() {
    let hang_up = Step::on(Signal::Established, ms(3_000), Action::HangUp);
    let outcome = call(Ipv4Addr::LOCALHOST.into(), "mixed", caller(vec![hang_up]), vec![]).await;
    assert_eq!(outcome.only().1.channels, 1);
    let mono = outcome.channel(0);
    outcome.assert_said(&mono, ANN_HZ, &outcome.ann);
    outcome.assert_said(&mono, BOB_HZ, &outcome.bob);
}

#[tokio::test(flavor = "multi_thread")]
async fn jitter_dtx_a_stall_and_a_new_source_move_nothing() {
    let jitter = Link { jitter: ms(60), reorder: true, ..Link::IDEAL };
    let ann = caller(vec![
        Step::after(ms(0), Action::Faults(jitter)),
        Step::on(Signal::Established, ms(6_000), Action::HangUp),
    ]);
    let bob = vec![
        Step::on(Signal::Established, ms(500), Action::Dtx(true)),
        Step::after(ms(1_500), Action::Stall(ms(300))),
        Step::after(ms(1_500), Action::NewSource),
    ];
    let outcome = call(Ipv4Addr::LOCALHOST.into(), "stereo", ann, bob).await;
    outcome.assert_said(&outcome.channel(0), ANN_HZ, &outcome.ann);
    outcome.assert_said(&outcome.channel(1), BOB_HZ, &outcome.bob);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_ipv6_is_recorded_likewise() {
    let hang_up = Step::on(Signal::Established, ms(3_000), Action::HangUp);
    let outcome = call(Ipv6Addr::LOCALHOST.into(), "stereo", caller(vec![hang_up]), vec![]).await;
    outcome.assert_said(&outcome.channel(0), ANN_HZ, &outcome.ann);
    outcome.assert_said(&outcome.channel(1), BOB_HZ, &outcome.bob);
}
