//! `[[trunk]]`, `[[dn]]`, `[[conference]]`, `[[route]]`, and whether they fit together.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;

use super::conference;
use super::raw::{Document, Problems, Section, Spot};
use super::sections::secret;
use super::values::{boolean, choice, duration, ip, network, number, numbers, sip_address, sip_uri, some_text, text};
use crate::call::fact::Origin;
use crate::call::options::{
    Account, Contact, Credentials, Dn, DnRole, Dtmf, HoldBy, MonitorConsult, Nat, Numbers, Password, Plan, Route,
    RouteRecord, RouteTarget, Supervision, Trunk,
};
use crate::call::request::{MonitorMode, MonitorScope};
use crate::sip::values::Algorithm;

/// Limits of the lists: routing looks through them for every call.
const MAX_ENTRIES: usize = 10_000;

/// Reads the four lists. `has_ivr`: there is somebody to whom IVR ports belong.
pub(super) fn read(document: &mut Document<'_, '_>, has_ivr: bool, problems: &mut Problems) -> Plan {
    let mut plan = Plan::default();
    for mut section in limited("trunk", document, problems) {
        plan.trunks.extend(read_trunk(&mut section, &plan.trunks, problems));
        section.finish(problems);
    }
    for mut section in limited("dn", document, problems) {
        let dn = read_dn(&mut section, &plan.dns, problems);
        if dn.as_ref().is_some_and(|dn| dn.ivr) && !has_ivr {
            let suggestion = Some("add `listen = \"127.0.0.1:8090\"` to [ivr]".to_owned());
            problems.add(&section.spot_of("ivr"), "an IVR port without [ivr] `listen` belongs to nobody", suggestion);
        }
        plan.dns.extend(dn);
        section.finish(problems);
    }
    for mut section in limited("conference", document, problems) {
        let room = conference::read(&mut section, &plan, problems);
        plan.conferences.extend(room.map(Arc::new));
        section.finish(problems);
    }
    let mut section = document.section("supervision", problems);
    let mode = section.read_or("mode", MonitorMode::default(), problems, choice(MODE));
    let scope = section.read_or("scope", MonitorScope::default(), problems, choice(SCOPE));
    plan.supervision = Supervision { mode, scope };
    section.finish(problems);
    for mut section in limited("route", document, problems) {
        plan.routes.extend(read_route(&mut section, &plan, problems));
        section.finish(problems);
    }
    plan
}

fn limited<'d, 'i>(
    name: &'static str,
    document: &mut Document<'d, 'i>,
    problems: &mut Problems,
) -> Vec<Section<'d, 'i>> {
    let mut sections = document.sections(name, problems);
    if let Some(beyond) = sections.get(MAX_ENTRIES) {
        problems.add(&beyond.spot(), format!("at most {MAX_ENTRIES} [[{name}]]"), None);
        sections.truncate(MAX_ENTRIES);
    }
    sections
}

const DTMF: &[(&str, Dtmf)] = &[("rfc4733", Dtmf::Rfc4733), ("info", Dtmf::Info)];
const ROLE: &[(&str, DnRole)] = &[("agent", DnRole::Agent), ("supervisor", DnRole::Supervisor)];
const MONITOR: &[(&str, MonitorConsult)] = &[
    ("none", MonitorConsult::None),
    ("orig", MonitorConsult::Orig),
    ("dest", MonitorConsult::Dest),
    ("all", MonitorConsult::All),
];
const MODE: &[(&str, MonitorMode)] =
    &[("mute", MonitorMode::Mute), ("coach", MonitorMode::Coach), ("connect", MonitorMode::Connect)];
const SCOPE: &[(&str, MonitorScope)] = &[("call", MonitorScope::Call), ("agent", MonitorScope::Agent)];
const HOLD: &[(&str, HoldBy)] = &[("media", HoldBy::Media), ("notify", HoldBy::Notify)];
const NAT: &[(&str, Nat)] = &[("auto", Nat::Auto), ("yes", Nat::Yes), ("no", Nat::No)];

fn read_trunk(section: &mut Section<'_, '_>, others: &[Trunk], problems: &mut Problems) -> Option<Trunk> {
    let name = section.require("name", problems, some_text);
    if let Some(name) = &name
        && others.iter().any(|other| *other.name == **name)
    {
        problems.add(&section.spot_of("name"), format!("there is another trunk {name:?}"), None);
    }
    let mut trunk = Trunk::new(name.as_deref().unwrap_or_default());
    trunk.addresses = section.read_list("address", problems, sip_address).unwrap_or_default();
    if trunk.addresses.iter().any(|address| address.user.is_some()) {
        let suggestion = Some("leave out what stands before @; `rewrite` of a route sets the number".to_owned());
        problems.add(&section.spot_of("address"), "a trunk's address has no user part", suggestion);
    }
    trunk.from = section.read_list("from", problems, network).unwrap_or_default();
    if trunk.addresses.is_empty() && trunk.from.is_empty() && !section.has("address") && !section.has("from") {
        let suggestion = Some("`address` to call through it, `from` for who may call in, or both".to_owned());
        problems.add(&section.spot(), "a trunk without `address` and `from` carries no calls", suggestion);
    }
    trunk.credentials = read_credentials(section, problems).map(Into::into);
    trunk.record = section.read("record", problems, boolean);
    trunk.required = section.read_or("required", false, problems, boolean);
    trunk.trusted = section.read_or("trusted", false, problems, boolean);
    trunk.transfer = section.read_or("transfer", false, problems, boolean);
    trunk.follow_redirect = section.read_or("follow-redirect", false, problems, boolean);
    trunk.caller_id = section.read("caller-id", problems, some_text).filter(|caller| caller != "pass");
    let attempt = duration(Duration::from_millis(500)..=Duration::from_secs(32));
    trunk.attempt_timeout = section.read_or("attempt-timeout", trunk.attempt_timeout, problems, attempt);
    trunk.nat = section.read_or("nat", trunk.nat, problems, choice(NAT));
    trunk.dtmf = section.read_or("dtmf", trunk.dtmf, problems, choice(DTMF));
    trunk.max_calls = section.read_or("max-calls", 0, problems, number(0..=100_000)) as usize;
    trunk.sip_advertise = section.read("advertise", problems, ip);
    trunk.media_advertise = section.read("media-advertise", problems, ip).or(trunk.sip_advertise);
    name.is_some().then_some(trunk)
}

fn read_credentials(section: &mut Section<'_, '_>, problems: &mut Problems) -> Option<Credentials> {
    let username = section.read("username", problems, some_text);
    let password = secret(section, "password-file", "password-env", problems);
    match (username, password) {
        (Some(username), Some(password)) => {
            let password = crate::sip::auth::Password::new(password.reveal());
            Some(Credentials { username, password, realm: None })
        }
        (Some(_), None) if !section.has("password-file") && !section.has("password-env") => {
            let suggestion = Some("add `password-file` or `password-env`".to_owned());
            problems.add(&section.spot_of("username"), "a user name without a password", suggestion);
            None
        }
        (None, Some(_)) => {
            problems.add(&section.spot(), "a password without a `username`", None);
            None
        }
        _ => None,
    }
}

fn read_dn(section: &mut Section<'_, '_>, others: &[Dn], problems: &mut Problems) -> Option<Dn> {
    let numbers = section.require("number", problems, numbers);
    if let Some(numbers) = &numbers
        && others.iter().any(|other| overlap(&other.numbers, numbers))
    {
        problems.add(&section.spot_of("number"), "another [[dn]] has this number already", None);
    }
    if !section.has("contact") && !section.has("registration") {
        let suggestion = "where the device is: sip:HOST:PORT; or `registration = { password-file = \"…\" }`";
        problems.add(&section.spot(), "`contact` is missing", Some(suggestion.to_owned()));
    }
    let contact = section.read("contact", problems, sip_address).map(Contact::At);
    let registration = read_registration(section, problems);
    if section.has("contact") && section.has("registration") {
        problems.add(&section.spot_of("registration"), "`contact` and `registration` exclude each other", None);
    }
    let record = section.read("record", problems, boolean);
    let record_consult = section.read_or("record-consult-calls", false, problems, boolean);
    let pickup_group = section.read_or("pickup-group", String::new(), problems, text).into();
    let role = section.read_or("role", DnRole::Agent, problems, choice(ROLE));
    let monitor_consult = section.read_or("monitor-consult-calls", MonitorConsult::None, problems, choice(MONITOR));
    let intrusion = section.read_or("intrusion", false, problems, boolean);
    let required = section.read_or("required", false, problems, boolean);
    let trusted = section.read_or("trusted", false, problems, boolean);
    let nat = section.read_or("nat", Nat::Auto, problems, choice(NAT));
    let dtmf = section.read_or("dtmf", Dtmf::default(), problems, choice(DTMF));
    let hold = section.read_or("hold", HoldBy::default(), problems, choice(HOLD));
    let ivr = section.read_or("ivr", false, problems, boolean);
    let (numbers, contact) = (numbers?, contact.or(registration)?);
    let dn = match contact {
        Contact::At(contact) => Dn::new(numbers, contact),
        Contact::Registered(account) => Dn::registered(numbers, account),
    };
    Some(Dn {
        role,
        monitor_consult,
        intrusion,
        record,
        record_consult,
        pickup_group,
        required,
        trusted,
        nat,
        dtmf,
        hold,
        ivr,
        ..dn
    })
}

/// `registration = { password-file = "…", algorithms = ["MD5"] }`. MD5 alone is the default: many phones take a challenge
/// that offers SHA-256 beside it for one that they cannot answer, against RFC 8760 §2.4.
fn read_registration(section: &mut Section<'_, '_>, problems: &mut Problems) -> Option<Contact> {
    let mut inner = section.inner("registration", problems)?;
    let password = secret(&mut inner, "password-file", "password-env", problems);
    if password.is_none() && !inner.has("password-file") && !inner.has("password-env") {
        problems.add(&inner.spot(), "`password-file` or `password-env` is missing", None);
    }
    let algorithm = choice(&[("MD5", Algorithm::Md5), ("SHA-256", Algorithm::Sha256)]);
    let algorithms = inner.read_list("algorithms", problems, algorithm).unwrap_or_else(|| vec![Algorithm::Md5]);
    let is_repeated = |(at, one)| algorithms[..at].contains(one);
    if algorithms.is_empty() || algorithms.iter().enumerate().any(is_repeated) {
        problems.add(&inner.spot_of("algorithms"), "name \"SHA-256\", \"MD5\" or both, each once", None);
    }
    inner.finish(problems);
    password.map(|password| Contact::Registered(Account { password: Password::new(password.reveal()), algorithms }))
}

fn overlap(a: &Numbers, b: &Numbers) -> bool {
    match (a, b) {
        (Numbers::One(a), Numbers::One(b)) => a == b,
        (Numbers::One(one), range) | (range, Numbers::One(one)) => range.contains(one),
        (
            Numbers::Range { first, last, width },
            Numbers::Range { first: other_first, last: other_last, width: other_width },
        ) => width == other_width && first <= other_last && other_first <= last,
    }
}

fn read_route(section: &mut Section<'_, '_>, plan: &Plan, problems: &mut Problems) -> Option<Route> {
    let pattern = section.require("match", problems, |value| {
        let text = text(value)?;
        Regex::new(&text).map_err(|error| {
            // The crate draws the place over several lines; the last one says what it is.
            let text = error.to_string();
            format!("not a regular expression: {}", text.lines().last().unwrap_or_default().trim())
        })
    });
    let from: Option<Arc<str>> = section.read("from", problems, some_text).map(Arc::from);
    if let Some(from) = &from {
        known_trunk(from, plan, &section.spot_of("from"), problems);
    }
    let to = section.require("to", problems, |value| route_target(&some_text(value)?));
    let groups = pattern.as_ref().map(group_names);
    match &to {
        Some(RouteTarget::Trunk(name)) => known_trunk(name, plan, &section.spot_of("to"), problems),
        Some(RouteTarget::Dn(number)) if number.contains('$') => {
            check_groups(number, groups.as_ref(), &section.spot_of("to"), problems);
        }
        Some(RouteTarget::Dn(number))
            if !plan.dns.iter().any(|dn| dn.numbers.contains(number))
                && !plan.conferences.iter().any(|room| room.number == *number) =>
        {
            problems.add(&section.spot_of("to"), format!("no [[dn]] has the number {number:?}"), None);
        }
        _ => {}
    }
    let rewrite = section.read("rewrite", problems, some_text);
    if let Some(rewrite) = &rewrite {
        check_groups(rewrite, groups.as_ref(), &section.spot_of("rewrite"), problems);
    }
    let record = choice(&[
        ("source", RouteRecord::Source),
        ("destination", RouteRecord::Destination),
        ("disable-source", RouteRecord::DisableSource),
        ("disable-destination", RouteRecord::DisableDestination),
    ]);
    let record = section.read("record", problems, record);
    let required = section.read_or("required", false, problems, boolean);
    let origin = section.read("origin", problems, |value| origin(&text(value)?)).flatten();
    Some(Route { from, pattern: pattern?, to: to?, rewrite, record, required, origin })
}

/// Empty, the default: from nowhere.
fn origin(text: &str) -> Result<Option<Origin>, String> {
    match text.split_once(':') {
        None if text.is_empty() => Ok(None),
        Some(("queue", name)) if !name.is_empty() => Ok(Some(Origin::Queue(name.into()))),
        Some(("workbin", name)) if !name.is_empty() => Ok(Some(Origin::Workbin(name.into()))),
        _ => Err(format!("expected queue:NAME or workbin:NAME, found {text:?}")),
    }
}

fn route_target(text: &str) -> Result<RouteTarget, String> {
    match text.split_once(':') {
        Some(("trunk", name)) if !name.is_empty() => Ok(RouteTarget::Trunk(name.into())),
        Some(("dn", number)) if !number.is_empty() => Ok(RouteTarget::Dn(number.to_owned())),
        Some(("sip" | "sips", _)) => sip_uri(text).map(RouteTarget::Uri),
        _ => Err(format!("expected trunk:NAME, dn:NUMBER or sip:URI, found {text:?}")),
    }
}

fn known_trunk(name: &str, plan: &Plan, spot: &Spot, problems: &mut Problems) {
    let Some(trunk) = plan.trunks.iter().find(|trunk| &*trunk.name == name) else {
        let near = plan.trunks.iter().map(|trunk| (strsim::jaro_winkler(name, &trunk.name), &trunk.name));
        let near = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness > 0.8);
        let suggestion = near.map(|(_, name)| format!("did you mean {name:?}?"));
        problems.add(spot, format!("there is no trunk {name:?}"), suggestion);
        return;
    };
    if trunk.addresses.is_empty() && spot.key().ends_with(".to") {
        problems.add(spot, format!("the trunk {name:?} has no `address` to call"), None);
    }
}

/// What `$…` may name.
fn group_names(pattern: &Regex) -> HashSet<String> {
    let numbered = (0..pattern.captures_len()).map(|index| index.to_string());
    numbered.chain(pattern.capture_names().flatten().map(str::to_owned)).collect()
}

/// A `$name` that the pattern has no group for would silently become nothing.
fn check_groups(template: &str, groups: Option<&HashSet<String>>, spot: &Spot, problems: &mut Problems) {
    let Some(groups) = groups else { return };
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
            continue;
        }
        let (name, braced) = match rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((name, _)) => (name, true),
            None => (&rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())], false),
        };
        if groups.contains(name) {
            continue;
        }
        let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
        let suggestion = (!braced && !digits.is_empty() && groups.contains(&digits))
            .then(|| format!("write ${{{digits}}} when more text follows"));
        problems.add(spot, format!("${name} names no group of `match`"), suggestion);
    }
}
