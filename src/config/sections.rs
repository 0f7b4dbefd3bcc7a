//! The sections that stand once: `[sip]`, `[media]`, `[recording]`, `[api]`, `[events]`, `[ivr]`, `[interaction]`.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::raw::{Document, Problems, Section};
use super::values::{
    boolean, choice, codec, duration, interface, ip, listener, network, number, ports, size, some_text,
};
use super::{Api, Config, Events, Interaction, Ivr, MAX_WORKERS, MaxCalls, Sound, Sounds, Storage, Threads, plan};
use crate::audio::signal::{self, Ringback};
use crate::bridge::command::LatchMode;
use crate::call::options::{
    Beep, BeepTo, DefaultOwner, Listener, MediaOptions, OnTransfer, RecordingOptions, Secret, SipOptions, Transport,
};
use crate::codec::Kind;
use crate::disk::{RealDisk, sound};
use crate::record::mark::Layout;
use crate::runtime::media::Priority;

/// Bytes of a secret file that are read at most.
const MAX_SECRET: u64 = 4_096;

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn seconds(range: RangeInclusive<u64>) -> RangeInclusive<Duration> {
    Duration::from_secs(*range.start())..=Duration::from_secs(*range.end())
}

/// Reads the whole document. What is wrong is in `problems`, and then the value is not to be used.
pub(super) fn read(document: &mut Document<'_, '_>, problems: &mut Problems) -> Config {
    let mut sip = document.section("sip", problems);
    let (listen, max_calls, mut sip_options) = read_sip(&mut sip, problems);
    sip.finish(problems);

    let mut media = document.section("media", problems);
    let (mut media_options, threads) = read_media(&mut media, problems);
    let sounds = read_sounds(&mut media, &mut media_options, problems);
    media_options.ports_ahead = ports_ahead(&threads, &listen, media_options.ports_ahead);
    media.finish(problems);

    let mut recording = document.section("recording", problems);
    let (recording_options, storage) = read_recording(&mut recording, problems);
    recording.finish(problems);

    let mut api = document.section("api", problems);
    let api_options = read_api(&mut api, problems);
    api.finish(problems);

    let mut events = document.section("events", problems);
    let event_options = read_events(&mut events, problems);
    events.finish(problems);

    let mut ivr = document.section("ivr", problems);
    let ivr_options = read_ivr(&mut ivr, &mut sip_options, problems);
    ivr.finish(problems);

    let mut interaction = document.section("interaction", problems);
    let invitation_timeout = duration(Duration::from_secs(1)..=DAY);
    let invitation_timeout =
        interaction.read_or("invitation-timeout", Duration::from_secs(30), problems, invitation_timeout);
    interaction.finish(problems);

    let plan = plan::read(document, ivr_options.listen.is_some(), problems);
    Config {
        file: None,
        listen,
        sip: sip_options,
        max_calls,
        media: media_options,
        sounds,
        threads,
        recording: recording_options,
        storage,
        plan,
        api: api_options,
        events: event_options,
        ivr: ivr_options,
        interaction: Interaction { invitation_timeout },
    }
}

/// Pairs bound ahead by all media threads for all addresses.
const PORTS_AHEAD: usize = 256;

/// Pairs bound ahead by each media thread for each address: where they are few, so many that a burst of a hundred calls
/// finds them bound; no more than half of what a small range gives them.
fn ports_ahead(threads: &Threads, listen: &[Listener], least: usize) -> usize {
    let addresses = listen.iter().map(|one| one.address.ip()).collect::<HashSet<_>>().len().max(1);
    let pools = threads.count() * addresses;
    (super::capacity::pairs(&threads.ports) / (2 * pools)).clamp(1, least.max(PORTS_AHEAD / pools))
}

fn read_sip(section: &mut Section<'_, '_>, problems: &mut Problems) -> (Vec<Listener>, MaxCalls, SipOptions) {
    let default = SipOptions::default();
    let any = |transport| Listener { transport, address: ([0, 0, 0, 0], 5060).into() };
    let listen = section
        .read_list("listen", problems, listener)
        .unwrap_or_else(|| vec![any(Transport::Udp), any(Transport::Tcp)]);
    if listen.is_empty() {
        problems.add(&section.spot_of("listen"), "needs at least one address", None);
    }
    for (index, one) in listen.iter().enumerate() {
        if one.address.port() != 0 && listen[..index].contains(one) {
            problems.add(&section.spot_of("listen"), format!("{} is listed twice", one.address), None);
        }
    }
    let max_calls = section
        .read("max-calls", problems, |value| match value.as_str() {
            Some("auto") => Ok(MaxCalls::Auto),
            Some(other) => Err(format!("expected \"auto\" or a number, found {other:?}")),
            None => number(1..=100_000)(value).map(|calls| MaxCalls::Exactly(calls as usize)),
        })
        .unwrap_or_default();
    let options = SipOptions {
        advertise: section.read("advertise", problems, ip),
        local_networks: section.read_list("local-networks", problems, network).unwrap_or_default(),
        trusted_proxies: section.read_list("trusted-proxies", problems, network).unwrap_or_default(),
        ring_timeout: section.read_or("ring-timeout", default.ring_timeout, problems, duration(seconds(1..=3_600))),
        drain_timeout: section.read_or("drain-timeout", default.drain_timeout, problems, duration(seconds(0..=86_400))),
        connected_id: section.read_or("connected-id", default.connected_id, problems, boolean),
        ..default
    };
    (listen, max_calls, options)
}

fn read_media(section: &mut Section<'_, '_>, problems: &mut Problems) -> (MediaOptions, Threads) {
    let default = MediaOptions::default();
    let codecs = section.read_list("codecs", problems, codec).unwrap_or(default.codecs);
    if !codecs.iter().any(|codec| !matches!(codec.kind(), Kind::TelephoneEvent | Kind::ComfortNoise)) {
        problems.add(&section.spot_of("codecs"), "needs at least one codec that carries speech", None);
    }
    let latch = choice(&[("strict", LatchMode::Strict), ("off", LatchMode::Off)]);
    let priority = choice(&[("realtime", Priority::Realtime), ("normal", Priority::Normal)]);
    let options = MediaOptions {
        advertise: section.read("advertise", problems, ip),
        codecs,
        latch: section.read_or("latch", default.latch, problems, latch),
        inactivity_timeout: section.read_or(
            "inactivity-timeout",
            default.inactivity_timeout,
            problems,
            duration(Duration::from_secs(1)..=DAY),
        ),
        ..MediaOptions::default()
    };
    let milliseconds = |range: RangeInclusive<u64>| {
        duration(Duration::from_millis(*range.start())..=Duration::from_millis(*range.end()))
    };
    let threads = Threads {
        ports: section.read_or("ports", 10_000..=32_767, problems, ports),
        cooldown: section.read_or("port-cooldown", Duration::from_secs(2), problems, duration(seconds(0..=600))),
        workers: section.read_or("workers", 0, problems, number(0..=MAX_WORKERS as u64)) as usize,
        batch_interval: section.read_or("batch-interval", Duration::from_millis(1), problems, milliseconds(0..=20)),
        priority: section.read_or("priority", Priority::default(), problems, priority),
        kernel_forwarding: section.read_list("kernel-forwarding", problems, interface).unwrap_or_default(),
    };
    (options, threads)
}

/// Reads the files too: what cannot be played is a mistake of the configuration, found before anything is bound.
fn read_sounds(section: &mut Section<'_, '_>, options: &mut MediaOptions, problems: &mut Problems) -> Sounds {
    let ringback = section.read("ringback", problems, some_text);
    let ringback = match ringback.as_deref() {
        None | Some("eu") => Sound::Tone(Ringback::Europe),
        Some("us") => Sound::Tone(Ringback::NorthAmerica),
        Some(file) => Sound::File(file.into()),
    };
    match &ringback {
        Sound::Tone(kind) => options.ringback = signal::ringback(*kind),
        Sound::File(file) => {
            let samples = read_sound(section, "ringback", file, "\"eu\", \"us\"", problems);
            options.ringback = samples.unwrap_or_else(|| options.ringback.clone());
        }
    }
    let hold_audio = section.read("hold-audio", problems, some_text).filter(|text| text != "none").map(PathBuf::from);
    if let Some(file) = &hold_audio {
        options.hold_audio = read_sound(section, "hold-audio", file, "\"none\"", problems);
    }
    Sounds { ringback, hold_audio }
}

/// `None`: reported.
fn read_sound(
    section: &Section<'_, '_>,
    key: &'static str,
    file: &Path,
    words: &str,
    problems: &mut Problems,
) -> Option<Arc<[i16]>> {
    let reason = match sound::load(&RealDisk, file) {
        Ok(samples) => return Some(samples),
        Err(reason) => reason,
    };
    let suggestion =
        format!("write {words} or a WAV file of 16-bit PCM, mono or stereo, 8000 to 48000 Hz, up to 10 min");
    problems.add(&section.spot_of(key), format!("{}: {reason}", file.display()), Some(suggestion));
    None
}

fn read_recording(section: &mut Section<'_, '_>, problems: &mut Problems) -> (RecordingOptions, Storage) {
    let owner = choice(&[
        ("none", DefaultOwner::None),
        ("origination", DefaultOwner::Origination),
        ("termination", DefaultOwner::Termination),
        ("both", DefaultOwner::Both),
    ]);
    let layout = choice(&[("mixed", Layout::Mixed), ("stereo", Layout::Stereo), ("tracks", Layout::Tracks)]);
    let default = RecordingOptions::default();
    let options = RecordingOptions {
        default: section.read_or("default", default.default, problems, owner),
        layout: section.read_or("layout", default.layout, problems, layout),
        sample_rate: section.read_or("sample-rate", default.sample_rate, problems, |value| {
            match number(0..=u64::from(u32::MAX))(value)? {
                rate @ (8_000 | 16_000 | 48_000) => Ok(rate as u32),
                rate => Err(format!("expected 8000, 16000 or 48000, found {rate}")),
            }
        }),
        early_media: section.read_or("early-media", default.early_media, problems, boolean),
        required: section.read_or("required", default.required, problems, boolean),
        termination_on_transfer: section.read_or(
            "termination-on-transfer",
            default.termination_on_transfer,
            problems,
            choice(&[("terminate", OnTransfer::Terminate), ("maintain", OnTransfer::Maintain)]),
        ),
        hold_music: section.read_or("hold-music", default.hold_music, problems, boolean),
        beep: read_beep(section, problems),
        honour_preference: section.read_or("honour-preference", default.honour_preference, problems, boolean),
    };
    const MIB: u64 = 1 << 20;
    // WAV counts its bytes in 32 bits; the default leaves room for the header (4,095 MiB < 4 GiB).
    let storage = Storage {
        directory: section
            .read_or("directory", PathBuf::from("recordings"), problems, |v| some_text(v).map(PathBuf::from)),
        min_free_space: section.read_or("min-free-space", 1024 * MIB, problems, size(0..=1 << 60)),
        max_file_size: section.read_or("max-file-size", 4_095 * MIB, problems, size(MIB..=4_095 * MIB)),
        buffer: section.read_or("buffer", 512 * MIB, problems, size(MIB..=1 << 40)),
    };
    (options, storage)
}

/// `beep = { every = "15s", to = "customer" }`. A missing `every` is a mistake: there is no usual interval that every
/// regulation takes.
fn read_beep(section: &mut Section<'_, '_>, problems: &mut Problems) -> Option<Beep> {
    let mut inner = section.inner("beep", problems)?;
    if !inner.has("every") {
        let suggestion = Some("write beep = { every = \"15s\", to = \"customer\" }".to_owned());
        problems.add(&inner.spot(), "`every` is missing", suggestion);
    }
    let every = inner.read("every", problems, duration(seconds(1..=3_600)));
    let to = choice(&[("customer", BeepTo::Customer), ("all", BeepTo::All)]);
    let to = inner.read_or("to", BeepTo::default(), problems, to);
    inner.finish(problems);
    every.map(|every| Beep { every, to })
}

fn read_api(section: &mut Section<'_, '_>, problems: &mut Problems) -> Api {
    let default = Some(([127, 0, 0, 1], 8080).into());
    let listen = section.read_or("listen", default, problems, |value| match value.as_str() {
        Some("off") => Ok(None),
        _ => super::values::socket(value).map(Some),
    });
    let token = secret(section, "token-file", "token-env", problems);
    if let Some(address) = listen
        && !address.ip().is_loopback()
        && token.is_none()
    {
        let suggestion = Some("name a file that holds the token, or listen on 127.0.0.1".to_owned());
        problems.add(&section.spot_of("token-file"), format!("required when listening on {address}"), suggestion);
    }
    Api { listen, token }
}

fn read_events(section: &mut Section<'_, '_>, problems: &mut Problems) -> Events {
    Events {
        file: section.read("file", problems, some_text).map(PathBuf::from),
        keep: section.read_or("keep", 100_000, problems, number(0..=1_000_000)) as usize,
    }
}

fn read_ivr(section: &mut Section<'_, '_>, sip: &mut SipOptions, problems: &mut Problems) -> Ivr {
    let listen = section.read("listen", problems, super::values::socket);
    if let Some(busy) = section.read_list("busy", problems, number(400..=699)) {
        sip.ivr_busy = busy.into_iter().map(|code| code as u16).collect();
    }
    Ivr { listen }
}

/// A secret from the file that `file_key` names or the environment variable that `env_key` names, line end removed.
/// A mistake names the key and the file, never the content.
pub(super) fn secret(
    section: &mut Section<'_, '_>,
    file_key: &'static str,
    env_key: &'static str,
    problems: &mut Problems,
) -> Option<Secret> {
    let file_spot = section.spot_of(file_key);
    let from_file = section.read(file_key, problems, some_text);
    let from_env = section.read(env_key, problems, |value| {
        let name = some_text(value)?;
        match std::env::var(&name) {
            Ok(secret) if !secret.is_empty() => Ok(Secret::new(secret)),
            _ => Err(format!("the environment variable {name:?} is not set")),
        }
    });
    let Some(file) = from_file else { return from_env };
    if from_env.is_some() {
        problems.add(&file_spot, format!("`{file_key}` and `{env_key}` exclude each other"), None);
    }
    match read_secret(&file) {
        Ok(secret) => Some(secret),
        Err(reason) => {
            problems.add(&file_spot, format!("{file}: {reason}"), None);
            None
        }
    }
}

fn read_secret(file: &str) -> Result<Secret, String> {
    use std::io::Read;
    let file = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(MAX_SECRET + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let secret = text.trim_end_matches(['\r', '\n']);
    match secret.len() as u64 {
        0 => Err("is empty".to_owned()),
        1..=MAX_SECRET => Ok(Secret::new(secret.to_owned())),
        _ => Err(format!("is longer than {MAX_SECRET} bytes")),
    }
}
