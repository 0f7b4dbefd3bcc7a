//! Plays a row: the configuration, the phones, the steps of its flow.

use std::collections::HashMap;
use std::time::Duration;

use stickytape::call::fact::{Party, What};
use stickytape::call::options::Options;
use stickytape::call::request::{
    Ask, Denied, DnAsk, DnRequest, MonitorMode, MonitorNextCall, MonitorScope, OwnerWish, Request, Ticket,
};
use stickytape::config::Config;
use stickytape::id::{ConnId, LegId, RecordingId};
use stickytape::record::metadata::Role;
use stickytape::testing::phone::{self, Action, HoldForm, Incoming, Leave, Phone, Refer, StreamReport};
use stickytape::testing::tones::Voice;
use stickytape::views::telephony::Telephony;
use stickytape::views::telephony::event::{Event, Name};
use toml::{Table, Value};

use crate::row::{Place, Run, Third};
use crate::whole::{Tape, Threads, World, addr};

/// The parties, and what each says, in Hz: none is where the distortion of G.711 puts what two or three others make
/// together, those that we play included. `s` and `t` are the supervisors.
pub const TONES: [(char, f64); 6] =
    [('1', 300.0), ('2', 512.5), ('3', 812.5), ('4', 1_037.5), ('s', 1_350.0), ('t', 1_600.0)];
pub const PARTIES: [&str; 6] = ["D1", "D2", "D3", "D4", "S1", "S2"];
/// How loud: six of them together are no louder than a sample can be.
const VOICE_DBFS: f64 = -16.0;
/// What the program plays: ringback (eu), hold audio.
pub const PLAYED: [(char, f64); 2] = [('r', 425.0), ('m', 2_000.0)];

/// Lines of each phone.
const LINES: usize = 2;
const CUSTOMER: &str = "+4930900001";

/// What came out of a run.
pub struct Played {
    pub tapes: Vec<Tape>,
    /// `accepted` or the code of the refusal, in the order of the requests.
    pub answers: Vec<String>,
    /// Samples at 8,000 Hz from the start on, by party.
    pub heard: HashMap<String, Vec<i16>>,
    /// What is told to DNs after the answer of the first call, but news of recordings.
    pub telephony: Vec<String>,
    pub legs: HashMap<LegId, String>,
    pub conns: Vec<ConnId>,
    /// Wall-clock time of the start, in ms since 1970.
    pub start_ms: i64,
    /// What went wrong besides.
    pub complaints: Vec<String>,
}

/// A party's number.
fn number(run: &Run, who: &str) -> String {
    let who = who.split('.').next().unwrap_or(who);
    if is_customer(run, who) {
        return CUSTOMER.to_owned();
    }
    match (who, run.row.third) {
        ("D3", Third::Trunk) => "+4930900003".into(),
        (who, _) => format!("200{}", place(who)),
    }
}

/// Counts the parties from 1.
fn place(who: &str) -> usize {
    PARTIES.iter().position(|party| *party == who).map_or(0, |at| at + 1)
}

fn is_customer(run: &Run, who: &str) -> bool {
    match run.place {
        Place::In => who == "D1",
        Place::Out | Place::Outbound => who == "D2",
        Place::Internal => false,
    }
}

/// What one party dials to reach another: customers dial the outside number of an agent.
fn dialled(run: &Run, from: &str, to: &str) -> String {
    if to == "nobody" {
        return NOBODY.into();
    }
    let number = number(run, to);
    if is_customer(run, to) {
        return number.replace('+', "9");
    }
    match (to, run.row.third) {
        ("D3", Third::Trunk) => number.replace('+', "8"),
        _ if is_customer(run, from) => format!("+4930{number}"),
        _ => number,
    }
}

fn sip_address(run: &Run, who: &str) -> String {
    match (who, run.row.third) {
        _ if is_customer(run, who) => "198.51.100.10".into(),
        ("D3", Third::Trunk) => "198.51.100.20".into(),
        _ => format!("10.0.0.{}", place(who)),
    }
}

/// A number that leads nowhere.
const NOBODY: &str = "5999";

/// When a phone hangs up the call that it transfers: at NOTIFY 200, at the 202, or never by itself.
fn leave(words: &[&str]) -> Result<Leave, String> {
    match words {
        [] => Ok(Leave::WhenDone),
        ["and", "leaves"] => Ok(Leave::AtOnce),
        ["and", "stays"] => Ok(Leave::Never),
        _ => Err(format!("nobody knows how to refer {}", words.join(" "))),
    }
}

const BASE: &str = r#"
[sip]
listen = ["udp:192.0.2.1:5060"]
max-calls = 100

[media]

[recording]

[[trunk]]
name = "carrier"
address = "sip:198.51.100.10:5060"
from = ["198.51.100.10/32"]

[[trunk]]
name = "second"
address = "sip:198.51.100.20:5060"
from = ["198.51.100.20/32"]

[[route]]
match = "^9(\\d+)$"
to = "trunk:carrier"
rewrite = "+$1"

[[route]]
match = "^8(\\d+)$"
to = "trunk:second"
rewrite = "+$1"

[[route]]
from = "carrier"
match = "^\\+4930(\\d+)$"
to = "dn:$1"
"#;

/// The configuration of a run, by the names of spec/interface.md §2; what is not built yet is an error.
fn options(run: &Run) -> Result<Options, String> {
    let mut config: Table = BASE.parse().unwrap();
    let dn = |n: usize| {
        let mut dn = Table::new();
        dn.insert("number".into(), Value::String(format!("200{n}")));
        dn.insert("contact".into(), Value::String(format!("sip:200{n}@10.0.0.{n}:5060")));
        match PARTIES[n - 1].starts_with('S') {
            true => dn.insert("role".into(), Value::String("supervisor".into())),
            false => dn.insert("intrusion".into(), Value::Boolean(true)),
        };
        Value::Table(dn)
    };
    config.insert("dn".into(), Value::Array((1..=PARTIES.len()).map(dn).collect()));
    let recording = config["recording"].as_table_mut().unwrap();
    recording.insert("default".into(), Value::String(run.default.clone()));
    let hold_audio = tempfile::Builder::new().suffix(".wav").tempfile().map_err(|error| error.to_string())?;
    for (key, value) in &run.row.set {
        let value = match value.as_str() {
            Some("TONE") => {
                std::fs::write(hold_audio.path(), tone_wav()).map_err(|error| error.to_string())?;
                Value::String(hold_audio.path().display().to_string())
            }
            _ => value.clone(),
        };
        set(run, &mut config, key, &value);
    }
    let parsed = Config::parse(&config.to_string());
    let parsed = parsed.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let mut sip = parsed.sip;
    sip.max_calls = 100;
    let mut media = parsed.media;
    media.ports_ahead = 8;
    Ok(Options { listeners: parsed.listen, sip, media, recording: parsed.recording, plan: parsed.plan })
}

/// Two seconds of the tone of hold audio, as a file.
fn tone_wav() -> Vec<u8> {
    let mut samples = vec![0_i16; 16_000];
    Voice::Tone { hz: PLAYED[1].1, dbfs: -12.0 }.fill(0, 8_000, &mut samples);
    let (data, rate) = (samples.len() as u32 * 2, 8_000_u32);
    let mut wav = Vec::new();
    wav.extend(b"RIFF");
    wav.extend((36 + data).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend([1_u16, 1].into_iter().flat_map(u16::to_le_bytes));
    wav.extend([rate, rate * 2].into_iter().flat_map(u32::to_le_bytes));
    wav.extend([2_u16, 16].into_iter().flat_map(u16::to_le_bytes));
    wav.extend(b"data");
    wav.extend(data.to_le_bytes());
    wav.extend(samples.into_iter().flat_map(i16::to_le_bytes));
    wav
}

/// `section.key`, `D2.key` (its DN or trunk), `customer.key` (the trunk) or `route.key` (all routes).
fn set(run: &Run, config: &mut Table, key: &str, value: &Value) {
    let (section, key) = key.split_once('.').expect("section.key");
    let entries = |config: &'_ mut Table, list: &str| -> Vec<Value> { config[list].as_array().unwrap().clone() };
    let change = |config: &mut Table, list: &str, chosen: &dyn Fn(&Table) -> bool| {
        let mut all = entries(config, list);
        for entry in all.iter_mut().filter_map(Value::as_table_mut).filter(|entry| chosen(entry)) {
            entry.insert(key.to_owned(), value.clone());
        }
        config.insert(list.into(), Value::Array(all));
    };
    match section {
        "route" => change(config, "route", &|_| true),
        "customer" => change(config, "trunk", &|trunk| trunk["name"].as_str() == Some("carrier")),
        who if who.starts_with('D') && is_customer(run, who) => {
            change(config, "trunk", &|trunk| trunk["name"].as_str() == Some("carrier"));
        }
        "D3" if run.row.third == Third::Trunk => {
            change(config, "trunk", &|trunk| trunk["name"].as_str() == Some("second"));
        }
        who if PARTIES.contains(&who) => {
            let number = number(run, who);
            change(config, "dn", &|dn| dn["number"].as_str() == Some(&number));
        }
        section => {
            let table = config.entry(section).or_insert(Value::Table(Table::new()));
            table.as_table_mut().expect("a section").insert(key.to_owned(), value.clone());
        }
    }
}

/// Plays a run; `Err` when a step cannot be done (a feature that is not there yet).
pub fn play(run: &Run, threads: Threads) -> Result<Played, String> {
    let mut stage = Stage::new(run, threads)?;
    for line in &run.row.flow {
        stage.step(line)?;
    }
    Ok(stage.finish())
}

struct Stage<'a> {
    run: &'a Run,
    world: World,
    phones: HashMap<String, usize>,
    asked: Vec<Asked>,
    at: Duration,
}

/// A request and where its answer is found.
enum Asked {
    Call(Ticket),
    /// Decided at once.
    Dn(Result<(), Denied>),
}

impl<'a> Stage<'a> {
    fn new(run: &'a Run, threads: Threads) -> Result<Self, String> {
        let mut world = World::new(options(run)?, threads);
        let mut phones = HashMap::new();
        for (who, (_, hz)) in PARTIES.into_iter().zip(TONES) {
            let host = sip_address(run, who);
            let (sip, rtp) = (addr(&format!("{host}:5060")), addr(&format!("{host}:4000")));
            let mut options = phone::Options::new(&number(run, who), sip, rtp, addr("192.0.2.1:5060"));
            options.voice = Voice::Tone { hz, dbfs: VOICE_DBFS };
            options.incoming = Incoming::Manual;
            (options.lines, options.call_waiting) = (LINES, true);
            phones.insert(who.to_owned(), world.phone(Phone::new(options)));
        }
        Ok(Self { run, world, phones, asked: Vec::new(), at: Duration::ZERO })
    }

    /// `TIME WHO VERB …`.
    fn step(&mut self, line: &str) -> Result<(), String> {
        let (time, rest) = line.split_once(' ').ok_or(format!("no time: {line}"))?;
        let time: f64 = time.parse().map_err(|_| format!("no time: {line}"))?;
        let at = Duration::from_secs_f64(time);
        assert!(at >= self.at, "steps are in the order of time: {line}");
        self.at = at;
        self.world.run_until(at);
        if rest == "end" {
            return Ok(());
        }
        let (who, what) = rest.split_once(' ').ok_or(format!("nothing is done: {line}"))?;
        let words: Vec<&str> = what.split(' ').collect();
        if words[0] == "asks" {
            return self.ask(who, &words[1..]);
        }
        let action = self.action(who, &words)?;
        let (phone, line) = self.line(who)?;
        self.world.act(phone, Action::on(line, action));
        Ok(())
    }

    /// `D2` is line 1 of D2's phone, `D2.2` line 2.
    fn line(&self, who: &str) -> Result<(usize, usize), String> {
        let (who, line) = who.split_once('.').unwrap_or((who, "1"));
        let phone = *self.phones.get(who).ok_or(format!("nobody is called {who}"))?;
        let line: usize = line.parse().map_err(|_| format!("{who} has no line {line}"))?;
        Ok((phone, line - 1))
    }

    fn action(&self, who: &str, words: &[&str]) -> Result<Action, String> {
        Ok(match words {
            ["calls", "nobody"] => Action::call(NOBODY),
            ["calls", to] => Action::call(&dialled(self.run, who, to)),
            ["picks", "up", of] => {
                let (phone, line) = self.line(of)?;
                let dialog = self.world.phones[phone].dialog(line).ok_or(format!("{of} has no call"))?;
                Action::call_replacing(&dialled(self.run, who, of), &dialog)
            }
            ["refers", "line", "2", rest @ ..] => Action::Refer(Refer { leave: leave(rest)?, ..Refer::to_line(1) }),
            ["refers", "nobody", rest @ ..] => Action::Refer(Refer { leave: leave(rest)?, ..Refer::to(NOBODY) }),
            ["refers", to, rest @ ..] => {
                Action::Refer(Refer { leave: leave(rest)?, ..Refer::to(&dialled(self.run, who, to)) })
            }
            ["rings"] => Action::Ring,
            ["rings", "with", "media"] => Action::EarlyMedia,
            ["answers"] => Action::Answer,
            ["refuses", code] => Action::refuse(code.parse().map_err(|_| format!("{code} is no code"))?),
            ["cancels"] => Action::Cancel,
            ["holds", "sendonly"] => Action::Hold(HoldForm::SendOnly),
            ["holds", "inactive"] => Action::Hold(HoldForm::Inactive),
            ["holds", "null"] => Action::Hold(HoldForm::NullAddress),
            ["retrieves"] => Action::Retrieve,
            ["hangs", "up"] => Action::HangUp,
            ["vanishes"] => Action::Vanish,
            _ => return Err(format!("nobody knows how to: {}", words.join(" "))),
        })
    }

    /// `WHO asks [of CONN] REQUEST [ARGUMENT]`.
    fn ask(&mut self, who: &str, words: &[&str]) -> Result<(), String> {
        let (conn, words) = match words {
            ["of", conn, rest @ ..] => (*conn, rest),
            words => ("C1", words),
        };
        let (name, rest) = words.split_first().ok_or("asks for nothing")?;
        if let Some(ask) = self.monitoring(name, rest)? {
            let request = DnRequest { this_dn: number(self.run, who), reference: None, ask };
            let answer = self.world.ask_dn(request);
            self.asked.push(Asked::Dn(answer));
            return Ok(());
        }
        let to = || rest.first().map(|to| dialled(self.run, who, to)).ok_or(format!("{name} whom?"));
        let conns = conns(&self.world);
        let conn_of = |name: &str| name[1..].parse::<usize>().ok().and_then(|n| conns.get(n - 1)).copied();
        let other = || rest.first().map(|other| conn_of(other).ok_or("no such call")).transpose();
        let recording = || self.recording(rest.first().copied());
        let party = || rest.first().map(|party| number(self.run, party));
        let coach = rest == ["coach"];
        let ask = match *name {
            "single-step-conference" => Ask::SingleStepConference { to: to()?, hold: rest[1..] == ["hold"] },
            "initiate-conference" => Ask::InitiateConference { to: to()? },
            "complete-conference" => Ask::CompleteConference { other: other()? },
            "merge-calls" => Ask::MergeCalls { other: other()?.ok_or("merges with which call?")? },
            "delete-from-conference" => Ask::DeleteFromConference { party: party().ok_or("deletes whom?")? },
            "listen-disconnect" => Ask::ListenDisconnect { party: party() },
            "listen-reconnect" => Ask::ListenReconnect { party: party() },
            "set-mute-on" => Ask::SetMuteOn { coach },
            "set-mute-off" => Ask::SetMuteOff { coach },
            "release-call" => Ask::ReleaseCall,
            "hold-call" => Ask::HoldCall,
            "retrieve-call" => Ask::RetrieveCall,
            "initiate-transfer" => Ask::InitiateTransfer { to: to()? },
            "mute-transfer" => Ask::MuteTransfer { to: to()? },
            "complete-transfer" => Ask::CompleteTransfer { other: other()? },
            "single-step-transfer" => Ask::SingleStepTransfer { to: to()? },
            "alternate-call" => Ask::AlternateCall { other: other()? },
            "reconnect-call" => Ask::ReconnectCall { other: other()? },
            "redirect-call" => Ask::RedirectCall { to: to()? },
            "record-start" => Ask::RecordStart {
                owner: match rest {
                    [] | ["source"] => OwnerWish::Source,
                    ["destination"] => OwnerWish::Destination,
                    [dn, ..] => OwnerWish::Dn(number(self.run, dn)),
                },
            },
            "record-pause" => Ask::RecordPause { recording: recording()? },
            "record-resume" => Ask::RecordResume { recording: recording()? },
            "record-stop" => Ask::RecordStop { recording: recording()? },
            other => return Err(format!("there is no request {other}")),
        };
        let conn_id = conn_of(conn).unwrap_or(ConnId(u64::MAX));
        let this_dn = number(self.run, who);
        let ticket = self.world.ask(Request { conn_id, this_dn, reference: None, ask });
        self.asked.push(Asked::Call(ticket));
        Ok(())
    }

    /// `monitor-next-call AGENT [MODE] [SCOPE] [all] [intrusion]`, `cancel-monitoring AGENT`; `None`: it concerns a call.
    fn monitoring(&self, name: &str, rest: &[&str]) -> Result<Option<DnAsk>, String> {
        if !matches!(name, "monitor-next-call" | "cancel-monitoring") {
            return Ok(None);
        }
        let (agent, wishes) = rest.split_first().ok_or(format!("{name} of whom?"))?;
        let agent = number(self.run, agent);
        if name == "cancel-monitoring" {
            return Ok(Some(DnAsk::CancelMonitoring { agent }));
        }
        let mut wish = MonitorNextCall { agent, mode: None, scope: None, all: false, intrusion: false };
        for word in wishes {
            match *word {
                "mute" => wish.mode = Some(MonitorMode::Mute),
                "coach" => wish.mode = Some(MonitorMode::Coach),
                "connect" => wish.mode = Some(MonitorMode::Connect),
                "scope-call" => wish.scope = Some(MonitorScope::Call),
                "scope-agent" => wish.scope = Some(MonitorScope::Agent),
                "all" => wish.all = true,
                "intrusion" => wish.intrusion = true,
                other => return Err(format!("nobody monitors {other}")),
            }
        }
        Ok(Some(DnAsk::MonitorNextCall(wish)))
    }

    /// The running session that a party owns, by the party's name; none: not named.
    fn recording(&self, of: Option<&str>) -> Result<Option<RecordingId>, String> {
        let Some(of) = of else { return Ok(None) };
        let legs = legs(&self.world, self.run, &[]);
        let started = self.world.product.facts.iter().rev().find_map(|fact| match &fact.what {
            What::RecordingStarted { id, owner, .. } if legs.get(owner).is_some_and(|leg| leg == of) => Some(*id),
            _ => None,
        });
        started.map(Some).ok_or(format!("{of} owns no recording"))
    }

    fn answer(&self, asked: &Asked) -> String {
        let denied = match asked {
            Asked::Dn(answer) => answer.as_ref().err(),
            Asked::Call(ticket) => match self.world.answer(*ticket) {
                None => return "no answer".to_owned(),
                Some(answer) => answer.as_ref().err(),
            },
        };
        denied.map_or("accepted".to_owned(), |denied| denied.code.to_string())
    }

    fn finish(mut self) -> Played {
        let mut complaints = Vec::new();
        let until = self.at + Duration::from_secs(1);
        self.world.run_until(until);
        if !self.world.product.calls.snapshot().is_empty() {
            let states: Vec<&str> = self.world.product.calls.snapshot().iter().map(|call| call.state).collect();
            complaints.push(format!("a call is left after the last step: {}", states.join(", ")));
        }
        self.world.run_until(until + Duration::from_secs(150));
        let product = &self.world.product;
        if !product.is_idle() {
            complaints.push(format!("something is left: {:?}", product.calls));
        }
        complaints.extend(product.failures.iter().map(|failure| format!("media: {failure}")));
        for (who, phone) in &self.phones {
            for happened in self.world.phones[*phone].happenings() {
                if let phone::Happening::NotPossible { action } = &happened.what {
                    complaints.push(format!("{who} cannot: {action}"));
                }
            }
        }
        complaints.extend(self.phones.iter().flat_map(|(who, phone)| {
            let phone = &self.world.phones[*phone];
            (0..LINES)
                .filter_map(move |line| broken(&phone.stream_report(line)).map(|why| format!("{who} hears {why}")))
        }));
        let tapes = self.world.tapes();
        for tape in &tapes {
            complaints.extend(tape.wrong.iter().map(|wrong| format!("verify: {wrong}")));
        }
        let answers = self.asked.iter().map(|asked| self.answer(asked)).collect();
        let start = self.world.start;
        let heard = self.phones.iter().flat_map(|(who, phone)| {
            let phone = &self.world.phones[*phone];
            let name = move |line| if line == 0 { who.clone() } else { format!("{who}.{}", line + 1) };
            (0..LINES).map(move |line| (name(line), phone.heard_on(line).samples(start, 8_000)))
        });
        let heard = heard.collect();
        let legs = legs(&self.world, self.run, &tapes);
        let telephony = telephony(&self.world, self.run);
        let first_fact = self.world.product.facts.first();
        let start_ms = first_fact.map_or(0, |fact| {
            let after = fact.at.saturating_duration_since(start).as_millis() as i64;
            fact.wall.as_millisecond() - after
        });
        Played { tapes, answers, heard, telephony, legs, conns: conns(&self.world), start_ms, complaints }
    }
}

/// What breaks the one stream that a phone gets in a call, whoever it talks to (spec/sip.md §7 Continuity).
fn broken(report: &StreamReport) -> Option<String> {
    let breaks = (report.lost, report.reordered, report.duplicates, report.timestamp_jumps);
    let whole = report.sources.len() <= 1 && breaks == (0, 0, 0, 0);
    (!whole).then(|| format!("{} SSRCs, (lost, reordered, repeated, jumps) {breaks:?}", report.sources.len()))
}

/// The telephony events of a run as `RECIPIENT EVENT CONN`.
fn telephony(world: &World, run: &Run) -> Vec<String> {
    let (mut view, mut is_answered, mut lines) = (Telephony::new(100), false, Vec::new());
    let conns = conns(world);
    let line = |event: &Event| {
        let recipient = PARTIES.into_iter().find(|who| number(run, who) == event.this_dn);
        let conn = conns.iter().position(|conn| Some(*conn) == event.conn_id).map(|n| format!(" C{}", n + 1));
        let mode = event.monitor_mode.map(|mode| format!(" {mode}"));
        let words = [conn, mode].into_iter().flatten().collect::<String>();
        format!("{} {}{words}", recipient.unwrap_or("nobody"), event.name.as_str())
    };
    for fact in &world.product.facts {
        let events = view.project(fact);
        if is_answered {
            let of_recording = |event: &Event| event.name == Name::EventPrivateInfo && event.monitor_mode.is_none();
            lines.extend(events.iter().filter(|event| !of_recording(event)).map(line));
        }
        is_answered |= matches!(fact.what, What::Answered { .. });
    }
    lines
}

/// ConnIDs in the order in which their calls began: C1, C2, … .
fn conns(world: &World) -> Vec<ConnId> {
    let started = world.product.facts.iter().filter(|f| matches!(f.what, What::CallStarted { .. }));
    started.filter_map(|f| f.conn_id).collect()
}

/// Whose each leg is.
fn legs(world: &World, run: &Run, tapes: &[Tape]) -> HashMap<LegId, String> {
    let numbers: Vec<(String, &str)> = PARTIES.iter().map(|who| (number(run, who), *who)).collect();
    let name = |text: &str| {
        let found = numbers.iter().find(|(number, _)| text.contains(number.trim_start_matches('+')));
        found.map(|(_, who)| (*who).to_owned())
    };
    let participants = || tapes.iter().flat_map(|tape| &tape.recording.participants);
    let system = participants().filter(|participant| participant.role == Role::System);
    let mut legs: HashMap<LegId, String> = system.map(|participant| (participant.leg_id, "S".to_owned())).collect();
    let mut add = |leg: LegId, text: &str| {
        if let Some(who) = name(text) {
            legs.entry(leg).or_insert(who);
        }
    };
    let text = |party: &Party| party.dn.clone().unwrap_or_else(|| party.number.clone());
    for fact in &world.product.facts {
        match &fact.what {
            What::CallStarted { leg, caller, .. } => add(*leg, &text(caller)),
            What::Ringing { leg, party, .. } | What::Answered { leg, party } => add(*leg, &text(party)),
            What::Transferred { target, party, .. } => add(*target, &text(party)),
            What::Replaced { by, party, .. } => add(*by, &text(party)),
            What::PartyAdded { leg, party, .. } | What::ObserverJoined { leg, party, .. } => add(*leg, &text(party)),
            _ => {}
        }
    }
    for participant in participants() {
        add(participant.leg_id, participant.dn.as_deref().unwrap_or(&participant.uri));
    }
    legs
}
