//! `stickytape check`: what the configuration means, in words, without binding or writing anything.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, refuse};
use crate::audio::signal::Ringback;
use crate::call::options::{
    Conference, Contact, DefaultOwner, Dn, Listener, Numbers, PeerAddress, Route, RouteRecord, RouteTarget, Transport,
    Trunk, WhenAlone,
};
use crate::config::{Config, Sound, capacity};
use crate::record::mark::Layout;
use crate::runtime::event_log;
use crate::sip::values::Algorithm;

/// `stickytape check …`.
#[derive(Debug, Args)]
pub struct Check {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigFile,
}

/// Does it. Exit code 0: right; 64: wrong, with every mistake on stderr.
pub fn run(args: &Check) -> ExitCode {
    let loaded = args.config.load(None).and_then(|config| Ok((config.carried_calls()?, config)));
    match loaded {
        Ok((calls, config)) => {
            print!("{}", explain(&config, calls));
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

/// The whole explanation. `calls` is what `max-calls` comes to on this machine.
pub fn explain(config: &Config, calls: usize) -> String {
    let mut page = Page::default();
    match &config.file {
        Some(file) => page.title(&format!("{} is right", file.display())),
        None => page.title("No configuration file: built-in defaults"),
    }
    sip(config, calls, &mut page);
    media(config, &mut page);
    recording(config, &mut page);
    page.title("HTTP");
    page.row(
        "listens on",
        &match (config.api.listen, &config.api.token) {
            (None, _) => "nothing".to_owned(),
            (Some(address), Some(_)) => format!("{address}, with the token only"),
            (Some(address), None) => format!("{address}, without a token: loopback only"),
        },
    );
    events(config, &mut page);
    ivr(config, &mut page);
    plan(config, &mut page);
    page.text
}

fn events(config: &Config, page: &mut Page) {
    let events = &config.events;
    page.title("Events");
    page.row("replayed", &format!("the last {}", events.keep));
    page.row(
        "written to",
        &match &events.file {
            None => "no file".to_owned(),
            Some(file) => format!(
                "{}; at {} it becomes {}.1, of which {} are kept",
                file.display(),
                bytesize::ByteSize(event_log::MAX_BYTES),
                file.display(),
                event_log::GENERATIONS
            ),
        },
    );
}

fn ivr(config: &Config, page: &mut Page) {
    let Some(address) = config.ivr.listen else { return };
    page.title("IVR drivers");
    let open = if address.ip().is_loopback() { "" } else { "; whoever reaches it controls the IVR's calls" };
    page.row("listens on", &format!("{address}{open}"));
    page.row("busy", &join(&config.sip.ivr_busy));
}

fn sip(config: &Config, calls: usize, page: &mut Page) {
    let sip = &config.sip;
    page.title("SIP");
    page.row("listens on", &join(config.listen.iter().map(listener)));
    page.row(
        "shows peers",
        &match sip.advertise {
            None => "the address that reaches them".to_owned(),
            Some(address) if sip.local_networks.is_empty() => address.to_string(),
            Some(address) => format!("{address}; in {} the address that reaches them", join(&sip.local_networks)),
        },
    );
    if !sip.trusted_proxies.is_empty() {
        page.row("trusts", &format!("the Via headers of {}", join(&sip.trusted_proxies)));
    }
    page.row("calls", &format!("at most {calls} at once"));
    page.row("ringing", &format!("at most {:?}", sip.ring_timeout));
    page.row("stopping", &format!("calls may go on for {:?}", sip.drain_timeout));
}

fn media(config: &Config, page: &mut Page) {
    let threads = &config.threads;
    page.title("Media");
    let pairs = capacity::pairs(&threads.ports);
    let (first, last) = (threads.ports.start(), threads.ports.end());
    page.row("ports", &format!("{first}-{last} (UDP): {pairs} pairs, two a call, reused after {:?}", threads.cooldown));
    if let Some(address) = config.media.advertise {
        page.row("shows peers", &address.to_string());
    }
    page.row("codecs", &join(&config.media.codecs));
    page.row(
        "ringback",
        &match &config.sounds.ringback {
            Sound::Tone(Ringback::Europe) => "425 Hz, 1 s on, 4 s off (ringback = \"eu\")".to_owned(),
            Sound::Tone(Ringback::NorthAmerica) => "440 and 480 Hz, 2 s on, 4 s off (ringback = \"us\")".to_owned(),
            Sound::File(file) => played(file, &config.media.ringback),
        },
    );
    page.row(
        "on hold",
        &match (&config.sounds.hold_audio, &config.media.hold_audio) {
            (Some(file), Some(samples)) => played(file, samples),
            _ => "silence (hold-audio = \"none\")".to_owned(),
        },
    );
    page.row("threads", &format!("{}, {:?} priority", threads.count(), threads.priority).to_lowercase());
    if !threads.kernel_forwarding.is_empty() {
        page.row("in kernel", &format!("steady streams that come by {}", join(&threads.kernel_forwarding)));
    }
    page.row(
        "silence",
        &format!("a leg without media for {:?} is asked whether it lives", config.media.inactivity_timeout),
    );
}

/// `hold.wav, 12.5 s, again and again`.
fn played(file: &Path, samples: &[i16]) -> String {
    format!("{}, {:.1} s, again and again", file.display(), samples.len() as f64 / 8_000.0)
}

fn recording(config: &Config, page: &mut Page) {
    let (recording, storage) = (&config.recording, &config.storage);
    page.title("Recordings");
    page.row("go to", &storage.directory.display().to_string());
    page.row(
        "belong to",
        match recording.default {
            DefaultOwner::None => "nobody by default; DNs, trunks and routes below may record",
            DefaultOwner::Origination => "the leg that calls (default = \"origination\")",
            DefaultOwner::Termination => "the leg that answers (default = \"termination\")",
            DefaultOwner::Both => "each of the two legs: two recordings a call (default = \"both\")",
        },
    );
    page.row(
        "hold",
        &format!(
            "{} at {} Hz",
            match recording.layout {
                Layout::Mixed => "one channel with everybody",
                Layout::Stereo => "two channels: left who called, right everybody else",
                Layout::Tracks => "one channel with everybody, and a file for each party",
            },
            recording.sample_rate
        ),
    );
    page.row(
        "begin",
        match recording.early_media {
            true => "with early media",
            false => "with the answer",
        },
    );
    page.row(
        "required",
        match recording.required {
            true => "yes: a call that cannot be recorded is refused or ended",
            false => "no: a call that cannot be recorded goes on",
        },
    );
    let size = |bytes: u64| bytesize::ByteSize(bytes).to_string();
    page.row(
        "space",
        &format!(
            "no new ones below {} free; files of at most {}",
            size(storage.min_free_space),
            size(storage.max_file_size)
        ),
    );
}

fn plan(config: &Config, page: &mut Page) {
    let plan = &config.plan;
    page.title("Trunks");
    for one in &plan.trunks {
        page.row(&one.name, &trunk(one));
    }
    page.none_unless(!plan.trunks.is_empty());
    page.title("DNs");
    for one in &plan.dns {
        page.row(&numbers(&one.numbers), &dn(one));
    }
    page.none_unless(!plan.dns.is_empty());
    page.title("Dial-in rooms");
    for one in &plan.conferences {
        page.row(&one.number, &room(one, config.recording.default));
    }
    page.none_unless(!plan.conferences.is_empty());
    page.title(
        "A called number goes to the room or the DN of that number, else by the first route that matches, else 404",
    );
    for (index, one) in plan.routes.iter().enumerate() {
        page.row(&format!("route {}", index + 1), &route(one));
    }
    page.none_unless(!plan.routes.is_empty());
    if plan.trunks.is_empty() && plan.dns.is_empty() {
        page.title("Nobody may call: there is no [[trunk]] and no [[dn]] (or try `serve --to HOST:PORT`)");
    }
}

fn trunk(trunk: &Trunk) -> String {
    let mut parts = Vec::new();
    if !trunk.addresses.is_empty() {
        parts.push(format!("calls out to {}", trunk.addresses.iter().map(address).collect::<Vec<_>>().join(", then ")));
    }
    let mut from: Vec<String> = trunk.from.iter().map(ToString::to_string).collect();
    if !trunk.addresses.is_empty() {
        from.push("its address".to_owned());
    }
    parts.push(format!("calls in from {}", from.join(", ")));
    if let Some(credentials) = &trunk.credentials {
        parts.push(format!("answers challenges as {:?}", credentials.username));
    }
    if let Some(number) = &trunk.caller_id {
        parts.push(format!("shows {number} as caller"));
    }
    if trunk.trusted {
        parts.push("identity headers pass".to_owned());
    }
    if trunk.follow_redirect {
        parts.push("redirects are followed".to_owned());
    }
    if trunk.max_calls > 0 {
        parts.push(format!("at most {} calls", trunk.max_calls));
    }
    parts.extend(recorded(trunk.record, trunk.required));
    parts.join("; ")
}

fn dn(dn: &Dn) -> String {
    let mut parts = vec![match &dn.contact {
        Contact::At(contact) => format!("at {}", address(contact)),
        Contact::Registered(account) => {
            let algorithms = join(account.algorithms.iter().map(Algorithm::as_str));
            format!("where it registers, with its number and password ({algorithms})")
        }
    }];
    if !dn.pickup_group.is_empty() {
        parts.push(format!("picks up for the group `{}`", dn.pickup_group));
    }
    parts.extend(recorded(dn.record, dn.required));
    parts.extend(dn.ivr.then(|| "an IVR port".to_owned()));
    parts.join("; ")
}

fn room(room: &Conference, default: DefaultOwner) -> String {
    let entry = match room.pin {
        Some(_) => "who may call and enters the PIN",
        None => "everybody who may call",
    };
    let alone = match room.when_alone {
        WhenAlone::End => "ends when one is left",
        WhenAlone::Wait => "goes on while one is left",
    };
    let recorded = match room.record {
        Some(true) => "recorded",
        Some(false) => "not recorded",
        None if default == DefaultOwner::None => "not recorded by default",
        None => "recorded by default",
    };
    format!("{entry}; at most {} members; {alone}; {recorded}", room.max_members)
}

fn recorded(record: Option<bool>, required: bool) -> Vec<String> {
    let words = match record {
        Some(true) => Some("its leg is recorded in every call"),
        Some(false) => Some("its leg is not recorded by default"),
        None => None,
    };
    words.into_iter().chain(required.then_some("recording is required")).map(str::to_owned).collect()
}

fn route(route: &Route) -> String {
    let mut line = format!("{} ", route.pattern);
    if let Some(from) = &route.from {
        let _ = write!(line, "from trunk {from} ");
    }
    let _ = match &route.to {
        RouteTarget::Trunk(name) => write!(line, "→ trunk {name}"),
        RouteTarget::Dn(number) => write!(line, "→ DN {number}"),
        RouteTarget::Uri(peer) => write!(line, "→ {}", address(peer)),
    };
    if let Some(rewrite) = &route.rewrite {
        let _ = write!(line, ", dialled as {rewrite}");
    }
    let words = route.record.map(|record| match record {
        RouteRecord::Source => "; records the trunk's side",
        RouteRecord::Destination => "; records the DN's side",
        RouteRecord::DisableSource => "; the trunk's side is not recorded",
        RouteRecord::DisableDestination => "; the DN's side is not recorded",
    });
    line.push_str(words.unwrap_or_default());
    if route.required {
        line.push_str("; recording is required");
    }
    if let Some(origin) = &route.origin {
        let _ = write!(line, "; goes back to {origin}");
    }
    line
}

fn numbers(numbers: &Numbers) -> String {
    match numbers {
        Numbers::One(number) => number.clone(),
        Numbers::Range { first, last, width } => format!("{first:0width$}-{last:0width$}"),
    }
}

fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
    }
}

fn listener(listener: &Listener) -> String {
    format!("{}:{}", transport(listener.transport), listener.address)
}

fn address(peer: &PeerAddress) -> String {
    let user = peer.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
    let parameter = peer.transport.map(|t| format!(";transport={}", transport(t))).unwrap_or_default();
    format!("sip:{user}{}:{}{parameter}", peer.host, peer.port)
}

fn join(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// Titles and rows of plain text.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn title(&mut self, title: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.text, "{gap}{title}");
    }

    fn row(&mut self, name: &str, meaning: &str) {
        let _ = writeln!(self.text, "  {name:<12} {meaning}");
    }

    fn none_unless(&mut self, some: bool) {
        if !some {
            let _ = writeln!(self.text, "  none");
        }
    }
}
