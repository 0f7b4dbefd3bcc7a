//! The table of fixtures/sticky.toml (spec/recording.md §5): every row is played by the whole program in virtual time,
//! and what comes out must be what the row says.

mod judge;
mod play;
mod row;
#[path = "../whole/mod.rs"]
mod whole;

use row::{Row, table};

/// Rows whose feature is not built yet, as `group / row`. One that turns green fails the test: the list only shrinks.
const PENDING: &[&str] = &[];

/// The runs of a row that are red, each with its difference.
fn red(group: &str, row: &Row) -> Vec<String> {
    let mut red = Vec::new();
    for run in row.runs(group) {
        let wrong = match play::play(&run) {
            Err(why) => Some(format!("    cannot be played: {why}")),
            Ok(played) => judge::judge(&run.row, &played),
        };
        if let Some(wrong) = wrong {
            red.push(format!("{}\n  ({})\n{wrong}", run.name(), row.from));
        }
    }
    red
}

/// Plays every row of a group and reports all red ones at once.
#[track_caller]
fn hold(group: &str) {
    let table = table();
    let rows = table.get(group).unwrap_or_else(|| panic!("fixtures/sticky.toml has no group {group}"));
    let mut wrong = Vec::new();
    for row in rows {
        let red = red(group, row);
        let pending = PENDING.contains(&format!("{group} / {}", row.name).as_str());
        match (pending, red.is_empty()) {
            (false, false) => wrong.extend(red),
            (true, true) => wrong.push(format!("{group} / {} is green: take it off PENDING", row.name)),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "\n{} red\n\n{}\n", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn a_basic_call_is_recorded_as_the_table_says() {
    hold("basic");
}

#[test]
fn each_trigger_chooses_its_owner() {
    hold("triggers");
}

#[test]
fn hold_and_retrieve_are_recorded_as_the_table_says() {
    hold("hold");
}

#[test]
fn a_blind_transfer_is_recorded_as_the_table_says() {
    hold("blind");
}

#[test]
fn termination_on_transfer_is_as_the_table_says() {
    hold("maintain");
}

#[test]
fn an_attended_transfer_is_recorded_as_the_table_says() {
    hold("attended");
}

#[test]
fn invite_with_replaces_is_recorded_as_the_table_says() {
    hold("replaces");
}

#[test]
fn transfers_by_request_are_recorded_as_the_table_says() {
    hold("requests");
}

#[test]
fn a_consultation_is_recorded_as_the_table_says() {
    hold("consult");
}

#[test]
fn recording_by_request_is_as_the_table_says() {
    hold("record");
}

#[test]
fn each_layout_has_everybody_in_its_place() {
    hold("layouts");
}

#[test]
fn messages_that_cross_are_recorded_as_the_table_says() {
    hold("glare");
}

#[test]
fn every_row_names_its_paragraph_and_why_it_reads_it_so() {
    let paragraph = regex::Regex::new(r"^(recording|sip|events|interface)\.md §\d").unwrap();
    let mut names = std::collections::HashSet::new();
    for (group, rows) in table() {
        for row in rows {
            let name = format!("{group} / {}", row.name);
            assert!(paragraph.is_match(&row.from), "{name}: {} is no paragraph", row.from);
            assert!(row.ours.is_none_or(|why| why.len() > 20), "{name}: why?");
            assert!(names.insert(name.clone()), "{name} is there twice");
        }
    }
    for pending in PENDING {
        assert!(names.contains(*pending), "{pending} is pending, but no row");
    }
}
