//! `[[conference]]`: dial-in rooms.

use toml::de::DeValue;

use super::raw::{Problems, Section};
use super::values::{boolean, choice, number, numbers, text};
use crate::bridge::command::mix::MAX_MEMBERS;
use crate::call::options::{Conference, MAX_PIN, Numbers, Plan, Secret, WhenAlone};

const WHEN_ALONE: &[(&str, WhenAlone)] = &[("end", WhenAlone::End), ("wait", WhenAlone::Wait)];

/// Reads one room. `plan`: the DNs and the rooms before it.
pub(super) fn read(section: &mut Section<'_, '_>, plan: &Plan, problems: &mut Problems) -> Option<Conference> {
    let called = section.require("number", problems, one_number);
    if let Some(called) = &called {
        let taken = if plan.conferences.iter().any(|room| room.number == *called) {
            Some("another [[conference]] has this number already")
        } else if plan.dns.iter().any(|dn| dn.numbers.contains(called)) {
            Some("a [[dn]] has this number already")
        } else {
            None
        };
        if let Some(taken) = taken {
            problems.add(&section.spot_of("number"), taken, None);
        }
    }
    let defaults = Conference::new(called.as_deref().unwrap_or_default());
    let limit = number(2..=MAX_MEMBERS as u64);
    let room = Conference {
        pin: section.read("pin", problems, pin),
        max_members: section.read_or("max-members", defaults.max_members as u64, problems, limit) as usize,
        when_alone: section.read_or("when-alone", defaults.when_alone, problems, choice(WHEN_ALONE)),
        record: section.read("record", problems, boolean),
        ..defaults
    };
    called.map(|_| room)
}

fn one_number(value: &DeValue<'_>) -> Result<String, String> {
    match numbers(value)? {
        Numbers::One(number) => Ok(number),
        Numbers::Range { .. } => Err("a room has one number".to_owned()),
    }
}

/// Says nothing of what it has found: it may be the secret, mistyped.
fn pin(value: &DeValue<'_>) -> Result<Secret, String> {
    let text = text(value).map_err(|_| "expected digits in quotes".to_owned())?;
    let is_pin = (1..=MAX_PIN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if is_pin { Ok(Secret::new(text)) } else { Err(format!("expected 1 to {MAX_PIN} digits")) }
}
