//! The table of fixtures/sticky.toml (spec/recording.md §5): every row is played by the whole program in virtual time,
//! and what comes out must be what the row says.

mod judge;
mod pending;
mod play;
mod row;
#[path = "../whole/mod.rs"]
mod whole;

use pending::PENDING;
use row::{Run, table};
use stickytape::bridge::command::mix::{Hearing, Mode, Role};
use whole::Threads;

/// What is wrong with a run; `None`: it is green.
fn wrong(run: &Run) -> Option<String> {
    wrong_with(run, Threads::default())
}

fn wrong_with(run: &Run, threads: Threads) -> Option<String> {
    let wrong = match play::play(run, threads) {
        Err(why) => Some(format!("    cannot be played: {why}")),
        Ok(played) => judge::judge(&run.row, &played),
    };
    wrong.map(|wrong| format!("{}\n  ({})\n{wrong}", run.name(), run.row.from))
}

/// Plays every row of a group and reports all red ones at once.
#[track_caller]
fn hold(group: &str) {
    let table = table();
    let rows = table.get(group).unwrap_or_else(|| panic!("fixtures/sticky.toml has no group {group}"));
    let mut red = Vec::new();
    for row in rows {
        let mut runs = row.runs(group).into_iter();
        if !PENDING.contains(&format!("{group} / {}", row.name).as_str()) {
            red.extend(runs.filter_map(|run| wrong(&run)));
        } else if runs.all(|run| wrong(&run).is_none()) {
            red.push(format!("{group} / {} is green: take it off the list in pending.rs", row.name));
        }
    }
    assert!(red.is_empty(), "\n{} red\n\n{}\n", red.len(), red.join("\n\n"));
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
fn a_conference_is_recorded_as_the_table_says() {
    hold("conference");
}

#[test]
fn a_consulted_party_joins_as_the_table_says() {
    hold("consult-conference");
}

#[test]
fn merged_calls_are_recorded_as_the_table_says() {
    hold("merge");
}

#[test]
fn mute_hold_and_pause_in_a_conference_are_as_the_table_says() {
    hold("conference-controls");
}

#[test]
fn supervisors_hear_and_are_recorded_as_the_table_says() {
    hold("supervision");
}

#[test]
fn a_recording_that_a_supervisor_owns_is_as_the_table_says() {
    hold("supervisor-owner");
}

#[test]
fn supervisors_change_their_mode_as_the_table_says() {
    hold("modes");
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

/// The owner rule broken: the leg of the other side owns what D1's and D2's legs own.
#[test]
fn with_the_wrong_owner_every_row_turns_red_in_which_the_owner_decides() {
    let (mut red, mut expected) = (Vec::new(), Vec::new());
    for (group, rows) in table() {
        for row in rows {
            let name = format!("{group} / {}", row.name);
            let Some(mut run) = row.runs(&group).into_iter().next_back() else { continue };
            if !run.row.exchange_owners() {
                assert!(!row.sticky, "{name}: there are no two owners to be mistaken for each other");
                continue;
            }
            if PENDING.contains(&name.as_str()) {
                continue;
            }
            if row.sticky {
                expected.push(name.clone());
            }
            if wrong(&run).is_some() {
                red.push(name);
            }
        }
    }
    assert_eq!(red, expected);
    assert!(!PENDING.is_empty() || red.len() > 30, "only {} rows depend on the owner", red.len());
}

/// The hearing rule broken: mixers let everybody hear every supervisor.
#[test]
fn with_every_supervisor_heard_by_all_every_row_turns_red_in_which_its_mode_decides() {
    let connected = |told: Hearing| match told.role {
        Role::Supervisor { agent, .. } => Hearing { role: Role::Supervisor { mode: Mode::Connect, agent }, ..told },
        Role::Member => told,
    };
    let (mut red, mut expected) = (Vec::new(), Vec::new());
    for (group, rows) in table() {
        for row in rows {
            let watched = row.flow.iter().any(|step| step.contains("monitor-next-call"));
            assert!(watched || !row.hidden, "{group} / {}: there is no supervisor", row.name);
            let Some(run) = row.runs(&group).into_iter().next_back().filter(|_| watched) else { continue };
            if row.hidden {
                expected.push(row.name);
            }
            if wrong_with(&run, Threads { taken_for: connected, ..Threads::default() }).is_some() {
                red.push(run.row.name);
            }
        }
    }
    assert_eq!(red, expected);
    assert!(red.len() > 10, "only {} rows depend on the hearing rule", red.len());
}
