//! The one table of keys whose feature is not built yet. Who builds a feature deletes its rows and reads its keys.
//!
//! Such a key is known, but anything except its default is refused: an operator must never believe that a promise is
//! kept which nobody keeps.

use toml::de::DeValue;

use super::raw::{Problems, Spot, did_you_mean};

/// A key without its feature.
pub(super) struct Unbuilt {
    section: &'static str,
    key: &'static str,
    /// What may be written without asking for the feature.
    off: Off,
    /// In words, for the refusal.
    feature: &'static str,
}

/// The values that leave a feature off.
enum Off {
    /// None: the key asks for the feature whatever it says.
    Absent,
    Text(&'static [&'static str]),
    Bool(bool),
}

const fn row(section: &'static str, key: &'static str, off: Off, feature: &'static str) -> Unbuilt {
    Unbuilt { section, key, off, feature }
}

const TABLE: &[Unbuilt] = &[
    row("sip", "tls", Off::Absent, "SIP over TLS"),
    // The default means off until the timers of RFC 4028 are built.
    row("sip", "session-timer", Off::Text(&["1800s", "30m", "off"]), "session timers (RFC 4028)"),
    row("media", "srtp", Off::Text(&["off"]), "SRTP"),
    row("recording", "mask-dtmf", Off::Bool(false), "masking of in-band DTMF"),
    row("events", "nats", Off::Absent, "events over NATS"),
    row("library", "database", Off::Absent, "the searchable library"),
];

/// The row of a key.
pub(super) fn find(section: &str, key: &str) -> Option<&'static Unbuilt> {
    TABLE.iter().find(|row| row.section == section && row.key == key && !row.key.is_empty())
}

/// The keys of a section that are known though not built.
pub(super) fn keys(section: &'static str) -> impl Iterator<Item = &'static str> {
    TABLE.iter().filter(move |row| row.section == section && !row.key.is_empty()).map(|row| row.key)
}

/// The sections of the table.
pub(super) fn sections() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.section)
}

/// The feature that a whole section stands for, when nothing of the section is built.
pub(super) fn section(name: &str) -> Option<&'static str> {
    TABLE.iter().find(|row| row.section == name).map(|row| row.feature)
}

/// Checks the keys of a section of which nothing is built. True when the section as such asks for the feature.
pub(super) fn says_something(
    name: &str,
    value: &DeValue<'_>,
    problems: &mut Problems,
    spot: impl Fn(&str, usize) -> Spot,
) -> bool {
    let DeValue::Table(table) = value else { return true };
    for (key, value) in table {
        let spot = spot(key.get_ref(), key.span().start);
        match find(name, key.get_ref()) {
            Some(row) => check(row, value.get_ref(), &spot, problems),
            None => {
                let known = TABLE.iter().filter(|row| row.section == name && !row.key.is_empty()).map(|row| row.key);
                problems.add(&spot, "unknown key", did_you_mean(key.get_ref(), known));
            }
        }
    }
    false
}

/// Reports a value that asks for the feature.
pub(super) fn check(row: &Unbuilt, value: &DeValue<'_>, spot: &Spot, problems: &mut Problems) {
    let is_off = match (&row.off, value) {
        (Off::Text(texts), DeValue::String(found)) => texts.contains(&found.as_ref()),
        (Off::Bool(off), DeValue::Boolean(found)) => off == found,
        _ => false,
    };
    if is_off {
        return;
    }
    let suggestion = match row.off {
        Off::Absent => "leave the key out".to_owned(),
        Off::Text(texts) => format!("leave the key out or write {:?}", texts.last().copied().unwrap_or_default()),
        Off::Bool(off) => format!("leave the key out or write {off}"),
    };
    problems.add(spot, format!("not built yet: {}", row.feature), Some(suggestion));
}
