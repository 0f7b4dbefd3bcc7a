//! The rows of fixtures/sticky.toml, and the runs that each stands for.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The whole file: groups of rows by flow.
pub type Table = BTreeMap<String, Vec<Row>>;

/// One row; fixtures/sticky.toml explains each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub name: String,
    /// The paragraph that says so.
    pub from: String,
    /// The paragraph leaves a choice: why this one.
    pub ours: Option<String>,
    #[serde(default)]
    pub set: BTreeMap<String, toml::Value>,
    #[serde(default = "everywhere")]
    pub places: Vec<Place>,
    #[serde(default = "every_default")]
    pub defaults: Vec<String>,
    /// Where D3 is.
    #[serde(default, rename = "d3")]
    pub third: Third,
    pub flow: Vec<String>,
    #[serde(default)]
    pub answers: Vec<String>,
    #[serde(default, rename = "session")]
    pub sessions: Vec<Session>,
    #[serde(default)]
    pub heard: BTreeMap<String, String>,
    #[serde(default)]
    pub telephony: Vec<String>,
    /// Whose leg owns decides: with the wrong owner the row turns red, and no other does.
    #[serde(default)]
    pub sticky: bool,
    /// A supervisor's mode decides who hears it: were every supervisor connected, the row would turn red.
    #[serde(default)]
    pub hidden: bool,
}

/// One expected recording.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    pub owner: String,
    #[serde(default = "default_trigger")]
    pub trigger: String,
    /// Of a session that `recording.default` does not choose: D1 origination, others termination, unless it says so.
    pub side: Option<String>,
    pub end: f64,
    #[serde(default = "released")]
    pub stop: String,
    pub segments: Vec<String>,
    /// By stream: `mixed`, or `left` and `right`, `party-1` …, `supervisor-1` …: who is heard in each whole second.
    pub mixed: Option<String>,
    pub left: Option<String>,
    pub right: Option<String>,
    #[serde(rename = "party-1")]
    pub party_1: Option<String>,
    #[serde(rename = "party-2")]
    pub party_2: Option<String>,
    #[serde(rename = "party-3")]
    pub party_3: Option<String>,
    #[serde(rename = "party-4")]
    pub party_4: Option<String>,
    #[serde(rename = "supervisor-1")]
    pub supervisor_1: Option<String>,
    #[serde(rename = "supervisor-2")]
    pub supervisor_2: Option<String>,
    #[serde(default)]
    pub events: Vec<String>,
    #[serde(default)]
    pub masks: Vec<String>,
}

/// Who is customer and who is agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A customer (D1, by trunk) calls in; D2 is the agent.
    In,
    /// The same flow after an agent (D1) has called out: D1 and D2 change their parts in everything but the call.
    Out,
    /// D1 is an agent who calls a customer (D2, by trunk), the parts as written.
    Outbound,
    /// D1 and D2 are DNs.
    Internal,
}

/// Where D3 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Third {
    #[default]
    Dn,
    Trunk,
}

fn everywhere() -> Vec<Place> {
    vec![Place::In, Place::Out]
}

fn every_default() -> Vec<String> {
    ["origination", "termination", "both"].map(String::from).into()
}

fn default_trigger() -> String {
    "default".into()
}

fn released() -> String {
    "released".into()
}

/// One run of a row.
#[derive(Debug, Clone)]
pub struct Run {
    pub group: String,
    pub row: Row,
    pub place: Place,
    /// `recording.default`.
    pub default: String,
}

impl Run {
    /// Names it in messages.
    pub fn name(&self) -> String {
        let place = format!("{:?}", self.place).to_lowercase();
        format!("{} / {} [{place}, default = {}]", self.group, self.row.name, self.default)
    }
}

/// Reads the file.
pub fn table() -> Table {
    let text = include_str!("../../fixtures/sticky.toml");
    toml::from_str(text).unwrap_or_else(|error| panic!("fixtures/sticky.toml: {error}"))
}

impl Row {
    /// Every place and default that it is to hold for.
    pub fn runs(&self, group: &str) -> Vec<Run> {
        let mut runs = Vec::new();
        for place in &self.places {
            for default in &self.defaults {
                let row = self.placed(*place, default);
                runs.push(Run { group: group.to_owned(), row, place: *place, default: default.clone() });
            }
        }
        runs
    }

    /// Gives the session of D1's leg what D2's should hold, and the reverse. False: there are not both.
    pub fn exchange_owners(&mut self) -> bool {
        let owned_by = |who: &str| self.sessions.iter().position(|session| session.owner == who);
        let (Some(first), Some(second)) = (owned_by("D1"), owned_by("D2")) else { return false };
        let relabelled = |holds: &Session, label: &Session| Session {
            owner: label.owner.clone(),
            trigger: label.trigger.clone(),
            side: label.side.clone(),
            ..holds.clone()
        };
        let (one, two) = (&self.sessions[first], &self.sessions[second]);
        let exchanged = (relabelled(two, one), relabelled(one, two));
        (self.sessions[first], self.sessions[second]) = exchanged;
        true
    }

    /// The row as it reads in a place, with the sessions of a default.
    fn placed(&self, place: Place, default: &str) -> Self {
        let mut row = self.clone();
        if place == Place::Out {
            row.flow = self.flow.iter().map(|step| if sets_up(step) { step.clone() } else { swap(step) }).collect();
            row.set = self.set.iter().map(|(key, value)| (swap(key), value.clone())).collect();
            row.heard = self.heard.iter().map(|(who, heard)| (swap(who), swap_digits(heard))).collect();
            row.sessions = self.sessions.iter().map(Session::swapped).collect();
            row.telephony = self.telephony.iter().map(|line| swap(line)).collect();
        }
        let chosen = |session: &Session| session.trigger != "default" || default == "both" || default == session.side();
        row.sessions.retain(chosen);
        row
    }
}

impl Session {
    /// Its side.
    pub fn side(&self) -> &str {
        match &self.side {
            Some(side) => side,
            None if self.owner == "D1" => "origination",
            None => "termination",
        }
    }

    fn swapped(&self) -> Self {
        let digits = |seconds: &Option<String>| seconds.as_deref().map(swap_digits);
        let lines = |lines: &[String]| lines.iter().map(|line| swap(line)).collect();
        Self {
            owner: swap(&self.owner),
            segments: self.segments.iter().map(|segment| sorted(&swap(segment))).collect(),
            mixed: digits(&self.mixed),
            left: digits(&self.left),
            right: digits(&self.right),
            party_1: digits(&self.party_1),
            party_2: digits(&self.party_2),
            party_3: digits(&self.party_3),
            party_4: digits(&self.party_4),
            supervisor_1: digits(&self.supervisor_1),
            supervisor_2: digits(&self.supervisor_2),
            events: lines(&self.events),
            masks: lines(&self.masks),
            ..self.clone()
        }
    }

    /// What is heard in each file and channel.
    pub fn streams(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("left", &self.left),
            ("mixed", &self.mixed),
            ("party-1", &self.party_1),
            ("party-2", &self.party_2),
            ("party-3", &self.party_3),
            ("party-4", &self.party_4),
            ("right", &self.right),
            ("supervisor-1", &self.supervisor_1),
            ("supervisor-2", &self.supervisor_2),
        ];
        all.into_iter().filter_map(|(name, seconds)| Some((name, seconds.as_deref()?))).collect()
    }
}

/// A step of the call's set-up: who calls whom stays.
fn sets_up(step: &str) -> bool {
    step.ends_with("D1 calls D2") || step.contains("D2 rings") || step.contains("D2 answers")
}

fn swap(text: &str) -> String {
    text.replace("D1", "D\u{1}").replace("D2", "D1").replace("D\u{1}", "D2")
}

/// A segment whose names are in order.
fn sorted(segment: &str) -> String {
    let in_order = |text: &str| {
        let (mut names, mut others): (Vec<&str>, Vec<&str>) =
            text.split(' ').filter(|word| !word.is_empty()).partition(|word| word.starts_with(['D', 'S']));
        names.sort_unstable();
        names.append(&mut others);
        names.join(" ")
    };
    let parts = segment.split_once('[').and_then(|(head, rest)| Some((head, rest.split_once(']')?)));
    let Some((head, (members, rest))) = parts else { return segment.to_owned() };
    format!("{head}[{}] {}", in_order(members), in_order(rest))
}

fn swap_digits(text: &str) -> String {
    let swapped = text.split(' ').map(|token| {
        let mut letters: Vec<char> = token
            .chars()
            .map(|c| match c {
                '1' => '2',
                '2' => '1',
                other => other,
            })
            .collect();
        letters.sort_unstable();
        letters.into_iter().collect::<String>()
    });
    swapped.collect::<Vec<_>>().join(" ")
}
