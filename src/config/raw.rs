//! The file as typed: sections whose keys are asked for one by one, each with its place in the file.
//!
//! serde would stop at the first mistake and knows the place of few; here every key is read on its own, so that one run
//! names all mistakes. A key that nobody asked for is unknown: the list of known keys cannot fall behind the code.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::unbuilt;

/// Mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<(usize, Problem)>,
}

/// Where a key stands, for a mistake that is found later.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    offset: usize,
    key: String,
}

impl Spot {
    /// The key with its section.
    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

impl Problems {
    /// Adds one at `spot`.
    pub(super) fn add(&mut self, spot: &Spot, message: impl Into<String>, suggestion: Option<String>) {
        let problem = Problem { line: 0, key: spot.key.clone(), message: message.into(), suggestion };
        self.found.push((spot.offset, problem));
    }

    /// All of them with their lines, in the order of the file.
    pub(super) fn into_lines(mut self, text: &str) -> Vec<Problem> {
        self.found.sort_by_key(|(offset, _)| *offset);
        let place = |(offset, problem): (usize, Problem)| {
            let line = 1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count();
            Problem { line, ..problem }
        };
        self.found.into_iter().map(place).collect()
    }
}

/// Reads the syntax. Every syntax error found; a document with one is not looked into further.
pub(super) fn parse<'i>(text: &'i str, problems: &mut Problems) -> Option<Spanned<DeTable<'i>>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(document);
    }
    for error in errors {
        let offset = error.span().map_or(0, |span| span.start);
        problems.add(&Spot { offset, key: String::new() }, error.message(), None);
    }
    None
}

/// One table of the file, or the absence of it: then every key is missing.
pub(super) struct Section<'d, 'i> {
    /// `trunk`: how the table of unbuilt keys calls it.
    name: &'static str,
    /// `trunk[2]`: how a mistake calls it.
    label: String,
    offset: usize,
    table: Option<&'d DeTable<'i>>,
    asked: BTreeSet<&'static str>,
}

/// The sections of a document.
pub(super) struct Document<'d, 'i> {
    table: &'d DeTable<'i>,
    asked: BTreeSet<&'static str>,
}

impl<'d, 'i> Document<'d, 'i> {
    /// Looks into a parsed document.
    pub(super) fn new(document: &'d Spanned<DeTable<'i>>) -> Self {
        Self { table: document.get_ref(), asked: BTreeSet::new() }
    }

    /// `[name]`, absent or not.
    pub(super) fn section(&mut self, name: &'static str, problems: &mut Problems) -> Section<'d, 'i> {
        self.asked.insert(name);
        let mut section = Section { name, label: name.to_owned(), offset: 0, table: None, asked: BTreeSet::new() };
        if let Some((key, value)) = self.table.get_key_value(name) {
            section.offset = key.span().start;
            match value.get_ref() {
                DeValue::Table(table) => section.table = Some(table),
                other => {
                    let message = format!("expected a section [{name}], found {}", describe(other));
                    problems.add(&section.spot(), message, None);
                }
            }
        }
        section
    }

    /// Every `[[name]]` in the order of the file, numbered from 1.
    pub(super) fn sections(&mut self, name: &'static str, problems: &mut Problems) -> Vec<Section<'d, 'i>> {
        self.asked.insert(name);
        let Some((key, value)) = self.table.get_key_value(name) else { return Vec::new() };
        let spot = Spot { offset: key.span().start, key: name.to_owned() };
        let DeValue::Array(array) = value.get_ref() else {
            let suggestion = Some(format!("write [[{name}]], with two brackets, once for each"));
            problems.add(&spot, format!("expected [[{name}]], found {}", describe(value.get_ref())), suggestion);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let label = format!("{name}[{}]", index + 1);
            let offset = item.span().start;
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section { name, label, offset, table: Some(table), asked: BTreeSet::new() });
                }
                other => {
                    let message = format!("expected a table, found {}", describe(other));
                    problems.add(&Spot { offset, key: label }, message, None);
                }
            }
        }
        sections
    }

    /// Reports sections that nobody asked for, and those whose whole feature is not built.
    pub(super) fn finish(self, problems: &mut Problems) {
        for (key, value) in self.table {
            let name = key.get_ref().as_ref();
            let spot = Spot { offset: key.span().start, key: name.to_owned() };
            if self.asked.contains(name) {
                continue;
            }
            if let Some(feature) = unbuilt::section(name) {
                if unbuilt::says_something(name, value.get_ref(), problems, |key, offset| Spot {
                    offset,
                    key: format!("{name}.{key}"),
                }) {
                    problems.add(&spot, format!("not built yet: {feature}"), Some("leave the section out".to_owned()));
                }
                continue;
            }
            let known = self.asked.iter().copied().chain(unbuilt::sections());
            problems.add(&spot, "unknown section", did_you_mean(name, known));
        }
    }
}

impl<'d, 'i> Section<'d, 'i> {
    /// The whole section as a place.
    pub(super) fn spot(&self) -> Spot {
        Spot { offset: self.offset, key: self.label.clone() }
    }

    /// The table that is the value of `key`; `None` when it is missing or none (which is reported).
    pub(super) fn inner(&mut self, key: &'static str, problems: &mut Problems) -> Option<Section<'d, 'i>> {
        let spot = self.spot_of(key);
        match self.value(key)?.get_ref() {
            DeValue::Table(table) => Some(Section {
                name: key,
                label: spot.key,
                offset: spot.offset,
                table: Some(table),
                asked: BTreeSet::new(),
            }),
            other => {
                problems.add(&spot, format!("expected a table, {{ … }}, found {}", describe(other)), None);
                None
            }
        }
    }

    /// True when `key` is written, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Where `key` stands, or the section when it is missing.
    pub(super) fn spot_of(&self, key: &str) -> Spot {
        let offset = self.table.and_then(|table| table.get_key_value(key)).map_or(self.offset, |(k, _)| k.span().start);
        Spot { offset, key: format!("{}.{key}", self.label) }
    }

    fn value(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'i>>> {
        self.asked.insert(key);
        self.table?.get(key)
    }

    /// Reads `key` with `parse`; `None` when it is missing or wrong (wrong is reported).
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let spot = self.spot_of(key);
        match parse(self.value(key)?.get_ref()) {
            Ok(value) => Some(value),
            Err(message) => {
                problems.add(&spot, message, None);
                None
            }
        }
    }

    /// As [`Section::read`], with what stands for a missing key.
    pub(super) fn read_or<T>(
        &mut self,
        key: &'static str,
        default: T,
        problems: &mut Problems,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> T {
        self.read(key, problems, parse).unwrap_or(default)
    }

    /// As [`Section::read`]; a missing key is a mistake.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        if self.value(key).is_none() {
            problems.add(&self.spot(), format!("`{key}` is missing"), None);
        }
        self.read(key, problems, parse)
    }

    /// A list, or one value that stands for a list of one. `None` when it is missing, or an item is wrong (each wrong one
    /// is reported).
    pub(super) fn read_list<T>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
        parse: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let spot = self.spot_of(key);
        let value = self.value(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            return parse(value.get_ref()).map(|one| vec![one]).map_err(|m| problems.add(&spot, m, None)).ok();
        };
        let mut list = Vec::new();
        for item in items.iter() {
            match parse(item.get_ref()) {
                Ok(value) => list.push(value),
                Err(message) => problems.add(&Spot { offset: item.span().start, ..spot.clone() }, message, None),
            }
        }
        (list.len() == items.len()).then_some(list)
    }

    /// Reports keys that nobody asked for, and those whose feature is not built.
    pub(super) fn finish(self, problems: &mut Problems) {
        let Some(table) = self.table else { return };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if self.asked.contains(name) {
                continue;
            }
            let spot = self.spot_of(name);
            match unbuilt::find(self.name, name) {
                Some(row) => unbuilt::check(row, value.get_ref(), &spot, problems),
                None => {
                    let known = self.asked.iter().copied().chain(unbuilt::keys(self.name));
                    problems.add(&spot, "unknown key", did_you_mean(name, known));
                }
            }
        }
    }
}

/// The nearest of the known names, when it is near enough to be meant; else all of them when they are few.
pub(super) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let known: Vec<_> = known.collect();
    let typed = name.replace('_', "-").to_lowercase();
    let near = known.iter().map(|candidate| (strsim::jaro_winkler(&typed, candidate), candidate));
    match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((likeness, candidate)) if likeness > 0.84 => Some(format!("did you mean `{candidate}`?")),
        _ if known.is_empty() => None,
        _ => Some(format!("known are {}", known.join(", "))),
    }
}

/// `the text "60"`, `the number 60`: what was found where something else was expected.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {text:?}"),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(value) => format!("{value}"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
