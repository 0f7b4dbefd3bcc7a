//! spec/events.md §1 through call control: phones and requests in virtual time, and who is told what.

use std::cell::Cell;
use std::time::Duration;

use crate::call_world::*;
use crate::views_support::line;
use stickytape::call::Input;
use stickytape::call::options::{Conference, DefaultOwner, DnRole, MonitorConsult, Options, WhenAlone};
use stickytape::call::request::{
    Accepted, Ask, Code, Denied, DnAsk, DnRequest, MonitorNextCall, OwnerWish, Request, Ticket,
};
use stickytape::id::ConnId;
use stickytape::testing::phone::{Action, HoldForm, Incoming, Leave, Refer};
use stickytape::views::telephony::Telephony;

/// A is 2001, B 2002, C 2003; nothing is recorded unless asked for.
struct Office {
    world: World,
    view: Telephony,
    /// Facts that the view has been told.
    told: Cell<usize>,
    conns: Vec<ConnId>,
    tickets: u64,
}

fn unrecorded() -> Options {
    let mut options = options();
    options.recording.default = DefaultOwner::None;
    options
}

impl Office {
    fn new() -> Self {
        let mut world = World::new(unrecorded());
        for n in 1..=3 {
            world.phone(n, |o| o.lines = 2);
        }
        Self { world, view: Telephony::new(10), told: Cell::new(0), conns: Vec::new(), tickets: 0 }
    }

    /// A talks to B.
    fn talking() -> Self {
        let mut office = Self::new();
        office.act(0, Action::call("2002"));
        assert_eq!(office.events(1_000).len(), 4);
        office
    }

    fn act(&mut self, phone: usize, action: Action) {
        self.world.act(phone, action);
    }

    /// Runs for so many milliseconds and gives what was told, with A, B, C, C1, C2 for names and ConnIDs.
    fn events(&mut self, time: u64) -> Vec<String> {
        self.world.run(ms(time));
        let facts = &self.world.proxy.facts;
        let mut lines = Vec::new();
        for fact in &facts[self.told.get()..] {
            if let Some(conn_id) = fact.conn_id.filter(|conn_id| !self.conns.contains(conn_id)) {
                self.conns.push(conn_id);
            }
            lines.extend(self.view.project(fact).iter().map(line));
        }
        self.told.set(facts.len());
        lines.into_iter().map(|line| self.short(line)).collect()
    }

    fn short(&self, line: String) -> String {
        let mut line = line.replace("2001", "A").replace("2002", "B").replace("2003", "C").replace("2005", "S");
        for (at, conn_id) in self.conns.iter().enumerate() {
            let printed = conn_id.to_string();
            line = line.replace(&format!("C{}", printed.trim_start_matches('0')), &format!("C{}", at + 1));
        }
        line.replace(" ThisDNRole=", " ").replace(" CallState=", " ")
    }

    /// Asks in the name of a DN, for the newest call or the one before.
    fn ask(&mut self, this_dn: &str, call: usize, ask: Ask) -> Result<Accepted, Denied> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let reference = Some(format!("r{}", self.tickets).into());
        let conn_id = if matches!(ask, Ask::MakeCall { .. }) { Request::NO_CALL } else { self.conns[call - 1] };
        let request = Request { conn_id, this_dn: this_dn.into(), reference, ask };
        self.world.tell(Input::Request(ticket, Box::new(request)));
        self.world.run(ms(0));
        let answers = &mut self.world.proxy.answers;
        let at = answers.iter().position(|(answered, _)| *answered == ticket).expect("answered at once");
        answers.remove(at).1
    }

    fn asks(&mut self, this_dn: &str, call: usize, ask: Ask) {
        let answer = self.ask(this_dn, call, ask);
        assert!(answer.is_ok(), "{answer:?}");
    }

    /// B holds A and consults C, which answers.
    fn consulting() -> Self {
        let mut office = Self::talking();
        office.asks("2002", 1, Ask::InitiateTransfer { to: "2003".into() });
        assert_eq!(office.events(1_000).len(), 5);
        office
    }

    /// Everybody hangs up; nothing is left, neither in call control nor in the view.
    fn close(mut self) {
        for phone in 0..3 {
            self.act(phone, Action::HangUp);
        }
        self.events(1_000);
        self.world.settle();
        self.events(0);
        assert_eq!(self.view.calls(), 0);
    }
}

#[track_caller]
fn tells(found: Vec<String>, expected: &[&str]) {
    assert_eq!(found, expected, "\n{}\n", found.join("\n"));
}

#[test]
fn rows_1_and_13() {
    let mut office = Office::new();
    office.act(0, Action::call("2002"));
    tells(
        office.events(1_000),
        &[
            "A Dialing C1 Internal Origination OtherDN=B OtherDNRole=Destination OK",
            "B Ringing C1 Internal Destination OtherDN=A OtherDNRole=Origination OK",
            "A Established C1 Internal Origination OtherDN=B OtherDNRole=Destination OK",
            "B Established C1 Internal Destination OtherDN=A OtherDNRole=Origination OK",
        ],
    );
    office.act(1, Action::HangUp);
    tells(
        office.events(1_000),
        &[
            "A Released C1 Internal Origination OtherDN=B OtherDNRole=Destination OK",
            "B Released C1 Internal Destination OtherDN=A OtherDNRole=Origination OK",
        ],
    );
    office.close();
}

#[test]
fn rows_2_and_3() {
    let dialing = "A Dialing C1 Internal Origination OtherDN=B OtherDNRole=Destination OK";
    let ringing = "B Ringing C1 Internal Destination OtherDN=A OtherDNRole=Origination OK";
    let a = |what: &str| what.replace('*', "C1 Internal Origination OtherDN=B OtherDNRole=Destination");
    let abandoned = "B Abandoned C1 Internal Destination OtherDN=A OtherDNRole=Origination OK";
    let ring = || Incoming::Answer { ring: ms(10), answer: ms(600_000) };
    let cases: [(Incoming, Option<Action>, Vec<String>); 4] = [
        (
            Incoming::Refuse(486),
            None,
            vec![dialing.into(), a("A DestinationBusy * Busy Cause=Busy"), a("A Released * Busy Cause=Busy")],
        ),
        (Incoming::Refuse(603), None, vec![dialing.into(), a("A Released * RemoteRelease Cause=Reject")]),
        (
            ring(),
            None,
            vec![dialing.into(), ringing.into(), a("A Released * NoAnswer Cause=NoAnswer"), abandoned.into()],
        ),
        (ring(), Some(Action::Cancel), vec![dialing.into(), ringing.into(), abandoned.into(), a("A Released * OK")]),
    ];
    for (incoming, action, expected) in cases {
        let mut world = World::new(unrecorded());
        world.phone(1, |_| {});
        world.phone(2, |o| o.incoming = incoming);
        world.phone(3, |_| {});
        let mut office = Office { world, view: Telephony::new(10), told: Cell::new(0), conns: Vec::new(), tickets: 0 };
        office.act(0, Action::call("2002"));
        let mut found = office.events(500);
        if let Some(action) = action {
            office.act(0, action);
        }
        found.extend(office.events(70_000));
        assert_eq!(found, expected, "{incoming:?}");
        office.close();
    }
}

#[test]
fn row_4_by_request_and_by_the_hold_key_alike() {
    let held = "B Held C1 Internal Destination OtherDN=A OtherDNRole=Origination OK";
    let retrieved = "B Retrieved C1 Internal Destination OtherDN=A OtherDNRole=Origination OK";
    let mut office = Office::talking();
    office.asks("2002", 1, Ask::HoldCall);
    tells(office.events(1_000), &[&format!("{held} ReferenceID=r1")]);
    office.asks("2002", 1, Ask::RetrieveCall);
    tells(office.events(1_000), &[&format!("{retrieved} ReferenceID=r2")]);
    office.act(1, Action::Hold(HoldForm::SendOnly));
    tells(office.events(1_000), &[held]);
    office.act(1, Action::Retrieve);
    tells(office.events(1_000), &[retrieved]);
    office.close();
}

#[test]
fn row_5_a_consultation() {
    let mut office = Office::talking();
    office.asks("2002", 1, Ask::InitiateTransfer { to: "2003".into() });
    tells(
        office.events(1_000),
        &[
            "B Held C1 Internal Destination OtherDN=A OtherDNRole=Origination OK ReferenceID=r1",
            "B Dialing C2 Consult Origination OtherDN=C OtherDNRole=Destination PreviousConnID=C1 OK ReferenceID=r1",
            "C Ringing C2 Consult Destination OtherDN=B OtherDNRole=Origination OK",
            "B Established C2 Consult Origination OtherDN=C OtherDNRole=Destination OK",
            "C Established C2 Consult Destination OtherDN=B OtherDNRole=Origination OK",
        ],
    );
    office.close();
}

#[test]
fn row_6_completing_the_transfer() {
    let mut office = Office::consulting();
    office.asks("2002", 2, Ask::CompleteTransfer { other: None });
    tells(
        office.events(1_000),
        &[
            "B Released C1 Internal Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=C \
             ThirdPartyDNRole=Destination Transferred ReferenceID=r2",
            "B Released C2 Consult Origination OtherDN=C OtherDNRole=Destination Transferred ReferenceID=r2",
            "A PartyChanged C1 Internal Origination OtherDN=C OtherDNRole=Destination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C1 Transferred",
            "C PartyChanged C1 Internal Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C2 Transferred",
        ],
    );
    office.act(2, Action::HangUp);
    tells(
        office.events(1_000),
        &[
            "A Released C1 Internal Origination OtherDN=C OtherDNRole=Destination OK",
            "C Released C1 Internal Destination OtherDN=A OtherDNRole=Origination OK",
        ],
    );
    office.close();
}

#[test]
fn row_6_by_a_phone_with_two_lines() {
    let mut office = Office::talking();
    office.act(1, Action::Hold(HoldForm::SendOnly));
    office.events(500);
    office.act(1, Action::on(1, Action::call("2003")));
    assert_eq!(office.events(1_000).len(), 4);
    office.act(1, Action::on(0, Action::Refer(Refer::to_line(1))));
    // Whether the second call was a consultation is told when it begins.
    let kind = |line: String| line.replacen(" C2 Consult ", " C2 ", 1).replacen(" C2 Internal ", " C2 ", 1);
    tells(
        office.events(5_000).into_iter().map(kind).collect(),
        &[
            "B Released C1 Internal Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=C \
             ThirdPartyDNRole=Destination Transferred",
            "B Released C2 Origination OtherDN=C OtherDNRole=Destination Transferred",
            "A PartyChanged C1 Internal Origination OtherDN=C OtherDNRole=Destination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C1 Transferred",
            "C PartyChanged C1 Internal Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C2 Transferred",
        ],
    );
    office.close();
}

#[test]
fn row_6_while_the_target_rings() {
    let mut office = Office::talking();
    office.asks("2002", 1, Ask::InitiateTransfer { to: "2003".into() });
    // The phone rings for 200 ms.
    assert_eq!(office.events(100).len(), 3);
    office.asks("2002", 2, Ask::CompleteTransfer { other: None });
    let found = office.events(1_000);
    tells(
        found[2..].to_vec(),
        &[
            "A PartyChanged C1 Internal Origination OtherDN=C OtherDNRole=Destination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C1 Transferred",
            "C PartyChanged C1 Internal Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C2 Transferred",
            "C Established C1 Internal Destination OtherDN=A OtherDNRole=Origination OK",
        ],
    );
    assert!(found[0].starts_with("B Released C1") && found[1].starts_with("B Released C2"), "{found:?}");
    office.close();
}

#[test]
fn row_7_by_request_and_by_refer_alike() {
    let expected = |reference: &str| {
        [
            "C Ringing C1 Internal Destination OtherDN=A OtherDNRole=Origination Transferred".to_owned(),
            format!(
                "B Released C1 Internal Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=C \
                 ThirdPartyDNRole=Destination Transferred Cause=1stepTransfer{reference}"
            ),
            "A PartyChanged C1 Internal Origination OtherDN=C OtherDNRole=Destination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C1 Transferred"
                .to_owned(),
            "C Established C1 Internal Destination OtherDN=A OtherDNRole=Origination OK".to_owned(),
        ]
    };
    let mut office = Office::talking();
    office.asks("2002", 1, Ask::SingleStepTransfer { to: "2003".into() });
    let found = office.events(1_000);
    let without = |line: &String| line.replace(" ReferenceID=r1", "");
    assert_eq!(found.iter().map(without).collect::<Vec<_>>(), expected(""));
    office.close();

    let mut office = Office::talking();
    office.act(1, Action::Refer(Refer::to("2003")));
    assert_eq!(office.events(5_000), expected(""));
    office.close();
}

#[test]
fn row_7_a_transferor_that_hangs_up_at_once_has_left_before_the_target_rings() {
    let mut office = Office::talking();
    office.act(1, Action::Refer(Refer { leave: Leave::AtOnce, ..Refer::to("2003") }));
    let found = office.events(3_000);
    let told: Vec<String> = found.iter().map(|line| line.split(" C1").next().unwrap().to_owned()).collect();
    assert_eq!(told, ["B Released", "C Ringing", "A PartyChanged", "C Established"], "{found:?}");
    assert!(found[0].contains("ThirdPartyDN=C") && found[0].contains("Cause=1stepTransfer"), "{}", found[0]);
    office.close();
}

#[test]
fn row_7_a_busy_target_leaves_the_call_as_it_was() {
    let mut world = World::new(unrecorded());
    world.phone(1, |_| {});
    world.phone(2, |_| {});
    world.phone(3, |o| o.incoming = Incoming::Refuse(486));
    let mut office = Office { world, view: Telephony::new(10), told: Cell::new(0), conns: Vec::new(), tickets: 0 };
    office.act(0, Action::call("2002"));
    office.events(1_000);
    office.act(1, Action::Refer(Refer::to("2003")));
    tells(
        office.events(1_000),
        &["B Error C1 Internal Destination OtherDN=C OtherDNRole=Destination Busy Cause=Busy \
           Request=single-step-transfer Code=busy Reason=the target was not reached: the call is as before"],
    );
    office.act(0, Action::HangUp);
    assert_eq!(office.events(1_000).len(), 2, "A and B are released");
    office.close();
}

#[test]
fn row_8_a_mute_transfer() {
    let mut office = Office::talking();
    office.asks("2002", 1, Ask::MuteTransfer { to: "2003".into() });
    let found = office.events(2_000);
    let told: Vec<String> = found.iter().map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        told,
        [
            "B Held C1",
            "B Dialing C2",
            "C Ringing C2",
            "B Established C2",
            "C Established C2",
            "B Released C1",
            "B Released C2",
            "A PartyChanged C1",
            "C PartyChanged C1",
        ],
        "{found:?}"
    );
    office.close();
}

#[test]
fn row_9_alternating() {
    let mut office = Office::consulting();
    office.asks("2002", 2, Ask::AlternateCall { other: None });
    tells(
        office.events(1_000),
        &[
            "B Held C2 Consult Origination OtherDN=C OtherDNRole=Destination OK ReferenceID=r2",
            "B Retrieved C1 Internal Destination OtherDN=A OtherDNRole=Origination OK ReferenceID=r2",
        ],
    );
    office.asks("2002", 1, Ask::AlternateCall { other: None });
    tells(
        office.events(1_000),
        &[
            "B Held C1 Internal Destination OtherDN=A OtherDNRole=Origination OK ReferenceID=r3",
            "B Retrieved C2 Consult Origination OtherDN=C OtherDNRole=Destination OK ReferenceID=r3",
        ],
    );
    office.close();
}

#[test]
fn row_10_reconnecting() {
    let mut office = Office::consulting();
    office.asks("2002", 2, Ask::ReconnectCall { other: None });
    tells(
        office.events(1_000),
        &[
            "B Released C2 Consult Origination OtherDN=C OtherDNRole=Destination OK ReferenceID=r2",
            "C Released C2 Consult Destination OtherDN=B OtherDNRole=Origination OK",
            "B Retrieved C1 Internal Destination OtherDN=A OtherDNRole=Origination OK ReferenceID=r2",
        ],
    );
    office.close();
}

#[test]
fn row_10_while_the_consulted_party_rings() {
    let mut office = Office::talking();
    office.asks("2002", 1, Ask::InitiateTransfer { to: "2003".into() });
    assert_eq!(office.events(100).len(), 3);
    office.asks("2002", 2, Ask::ReconnectCall { other: None });
    tells(
        office.events(1_000),
        &[
            "C Abandoned C2 Consult Destination OtherDN=B OtherDNRole=Origination OK",
            "B Released C2 Consult Origination OtherDN=C OtherDNRole=Destination OK ReferenceID=r2",
            "B Retrieved C1 Internal Destination OtherDN=A OtherDNRole=Origination OK ReferenceID=r2",
        ],
    );
    office.close();
}

#[test]
fn who_is_held_may_hang_up_and_the_consultation_goes_on() {
    let mut office = Office::consulting();
    office.act(0, Action::HangUp);
    tells(
        office.events(1_000),
        &[
            "A Released C1 Internal Origination OtherDN=B OtherDNRole=Destination OK",
            "B Released C1 Internal Destination OtherDN=A OtherDNRole=Origination OK",
        ],
    );
    office.act(2, Action::HangUp);
    tells(
        office.events(1_000),
        &[
            "B Released C2 Consult Origination OtherDN=C OtherDNRole=Destination OK",
            "C Released C2 Consult Destination OtherDN=B OtherDNRole=Origination OK",
        ],
    );
    office.close();
}

#[test]
fn row_17_redirecting_a_ringing_call() {
    let mut office = Office::new();
    office.act(0, Action::call("2002"));
    assert_eq!(office.events(100).len(), 2);
    office.asks("2002", 1, Ask::RedirectCall { to: "2003".into() });
    tells(
        office.events(1_000),
        &[
            "B Released C1 Internal Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=C \
             ThirdPartyDNRole=Destination Redirected Cause=Redirect ReferenceID=r1",
            "C Ringing C1 Internal Destination OtherDN=A OtherDNRole=Origination Redirected",
            "A Established C1 Internal Origination OtherDN=C OtherDNRole=Destination OK",
            "C Established C1 Internal Destination OtherDN=A OtherDNRole=Origination OK",
        ],
    );
    office.close();
}

#[test]
fn row_22_a_recording_by_request() {
    let mut office = Office::talking();
    office.asks("2002", 1, Ask::RecordStart { owner: OwnerWish::Destination });
    let states = |found: Vec<String>| -> Vec<String> {
        let told = |line: &String| {
            let state = line.split("RecordingState=").nth(1).unwrap_or_default();
            format!("{} {state}", &line[..1])
        };
        found.iter().map(told).collect()
    };
    assert_eq!(states(office.events(1_000)), ["B Recording", "A Recording"], "who has asked, and the owner");
    office.asks("2001", 1, Ask::RecordPause { recording: None });
    assert_eq!(states(office.events(1_000)), ["B Paused", "A Paused"]);
    office.asks("2001", 1, Ask::RecordResume { recording: None });
    assert_eq!(states(office.events(1_000)), ["B Recording", "A Recording"]);
    office.asks("2001", 1, Ask::RecordStop { recording: None });
    assert_eq!(states(office.events(1_000)), ["B Stopped", "A Stopped"]);
    office.close();
}

#[test]
fn a_request_that_the_state_forbids_is_an_error_and_no_fact() {
    let mut office = Office::talking();
    let refused = office.ask("2002", 1, Ask::ReconnectCall { other: None }).unwrap_err();
    assert!(office.events(1_000).is_empty());
    let request = Request {
        conn_id: office.conns[0],
        this_dn: "2002".into(),
        reference: None,
        ask: Ask::ReconnectCall { other: None },
    };
    let event = Telephony::error(&request, &refused).unwrap();
    let told = office.short(line(&event));
    assert!(told.starts_with("B Error C1 Request=reconnect-call Code=wrong-state Reason="), "{told}");
    assert!(told.ends_with("State=talking"), "{told}");
    office.close();
}

// Conferences and supervision. Expected events are those of the table, by hand.

#[test]
fn row_12_a_one_step_conference_and_rows_14_and_15_who_leaves_it() {
    let mut office = Office::talking();
    office.world.phone(4, |_| {});
    office.ask("2002", 1, Ask::SingleStepConference { to: "2003".into(), hold: false }).unwrap();
    let expected = [
        "C Ringing C1 Internal ConferenceMember OK",
        "A PartyAdded C1 Internal Origination OtherDN=C OtherDNRole=NewParty \
         ThirdPartyDN=B ThirdPartyDNRole=AddedBy Conferenced",
        "B PartyAdded C1 Internal Destination OtherDN=C OtherDNRole=NewParty \
         ThirdPartyDN=B ThirdPartyDNRole=AddedBy Conferenced",
        "C Established C1 Internal ConferenceMember OK",
    ];
    assert_eq!(office.events(500), expected);
    office.ask("2002", 1, Ask::SingleStepConference { to: "2004".into(), hold: false }).unwrap();
    assert_eq!(office.events(500).len(), 5);
    office.ask("2001", 1, Ask::DeleteFromConference { party: "2002".into() }).unwrap();
    let deleted = "PartyDeleted C1 Internal ConferenceMember OtherDN=B OtherDNRole=DeletedParty \
                   ThirdPartyDN=A ThirdPartyDNRole=DeletedBy Conferenced";
    let expected = [
        "B Released C1 Internal ConferenceMember OK".to_owned(),
        format!("A {deleted} ReferenceID=r3"),
        format!("C {deleted}"),
        format!("2004 {deleted}"),
    ];
    assert_eq!(office.events(500), expected);
    office.act(2, Action::HangUp);
    let deleted = "PartyDeleted C1 Internal ConferenceMember OtherDN=C OtherDNRole=DeletedParty \
                   ThirdPartyDN=C ThirdPartyDNRole=DeletedBy OK";
    let released = "C Released C1 Internal ConferenceMember OK".to_owned();
    assert_eq!(office.events(500), [released, format!("A {deleted}"), format!("2004 {deleted}")]);
}

#[test]
fn a_party_that_does_not_come_is_told_of_as_one_that_has_left() {
    let mut office = Office::talking();
    office.world.phones.pop();
    office.world.phone(3, |o| o.incoming = Incoming::Manual);
    office.ask("2002", 1, Ask::SingleStepConference { to: "2003".into(), hold: false }).unwrap();
    office.events(100);
    office.act(2, Action::Ring);
    assert_eq!(office.events(100).len(), 3);
    office.act(2, Action::Refuse { code: 486, headers: vec![] });
    let deleted = "OtherDN=C OtherDNRole=DeletedParty ThirdPartyDN=C ThirdPartyDNRole=DeletedBy OK";
    let events = office.events(500);
    assert_eq!(events[1], format!("A PartyDeleted C1 Internal Origination {deleted}"));
    assert_eq!(events[2], format!("B PartyDeleted C1 Internal Destination {deleted}"));
    assert!(events[0].starts_with("C Released C1") && events[3].starts_with("B Error C1"), "{events:#?}");
    assert!(events[3].contains("Request=single-step-conference Code=busy"), "{events:#?}");
    assert_eq!(events.len(), 4);
}

#[test]
fn row_11_a_consultation_becomes_a_conference_and_row_14_a_member_leaves() {
    let mut office = Office::talking();
    office.ask("2002", 1, Ask::InitiateConference { to: "2003".into() }).unwrap();
    office.events(500);
    office.ask("2002", 2, Ask::CompleteConference { other: None }).unwrap();
    let added = "PartyAdded C1 Internal ConferenceMember OtherDN=C OtherDNRole=NewParty \
                 ThirdPartyDN=B ThirdPartyDNRole=AddedBy Conferenced";
    let expected = [
        "B Retrieved C1 Internal ConferenceMember Conferenced ReferenceID=r2".to_owned(),
        "B Released C2 Consult Origination OtherDN=C OtherDNRole=Destination Conferenced ReferenceID=r2".to_owned(),
        format!("A {added}"),
        format!("B {added} ReferenceID=r2"),
        "C PartyChanged C1 Internal ConferenceMember ThirdPartyDN=B ThirdPartyDNRole=ConferencedBy \
         PreviousConnID=C2 Conferenced"
            .to_owned(),
    ];
    assert_eq!(office.events(500), expected);
    office.act(1, Action::HangUp);
    let deleted = "PartyDeleted C1 Internal ConferenceMember OtherDN=B OtherDNRole=DeletedParty \
                   ThirdPartyDN=B ThirdPartyDNRole=DeletedBy OK";
    let released = "B Released C1 Internal ConferenceMember OK".to_owned();
    assert_eq!(office.events(500), [released, format!("A {deleted}"), format!("C {deleted}")]);
}

/// A is to talk to B; what they do with calls.
fn making(a: Incoming, b: Incoming) -> Office {
    let mut office = Office::new();
    office.world.phones.clear();
    for (n, does) in [(1, a), (2, b), (3, b)] {
        office.world.phone(n, |o| o.incoming = does);
    }
    office.asks("2001", 0, Ask::MakeCall { to: "2002".into() });
    office
}

const ANSWERS: Incoming = Incoming::Answer { ring: Duration::ZERO, answer: Duration::from_millis(200) };

#[test]
fn row_1_a_call_that_is_made_by_request_dials_once_its_own_phone_has_answered() {
    let mut office = making(ANSWERS, ANSWERS);
    assert!(office.events(150).is_empty(), "the phone of A rings");
    tells(
        office.events(1_000),
        &[
            "A Dialing C1 Internal Origination OtherDN=B OtherDNRole=Destination OK ReferenceID=r1",
            "B Ringing C1 Internal Destination OtherDN=A OtherDNRole=Origination OK",
            "A Established C1 Internal Origination OtherDN=B OtherDNRole=Destination OK",
            "B Established C1 Internal Destination OtherDN=A OtherDNRole=Origination OK",
        ],
    );
    office.close();
}

#[test]
fn row_2_the_other_one_is_busy_or_does_not_answer() {
    let mut office = making(ANSWERS, Incoming::Refuse(486));
    tells(
        office.events(1_000),
        &[
            "A Dialing C1 Internal Origination OtherDN=B OtherDNRole=Destination OK ReferenceID=r1",
            "A DestinationBusy C1 Internal Origination OtherDN=B OtherDNRole=Destination Busy Cause=Busy",
            "A Released C1 Internal Origination OtherDN=B OtherDNRole=Destination Busy Cause=Busy",
        ],
    );
    office.close();
}

#[test]
fn row_2_who_asks_for_a_call_and_is_busy_or_does_not_answer_itself_is_told_the_same() {
    let mut office = making(Incoming::Refuse(486), ANSWERS);
    let busy = "C1 Internal Origination OtherDN=B OtherDNRole=Destination Busy Cause=Busy ReferenceID=r1";
    let expected = [format!("A DestinationBusy {busy}"), format!("A Released {busy}")];
    assert_eq!(office.events(1_000), expected);
    office.close();
    let mut office = making(Incoming::Manual, ANSWERS);
    office.world.run(ms(100));
    office.act(0, Action::Ring);
    let no_answer = "A Released C1 Internal Origination OtherDN=B OtherDNRole=Destination NoAnswer Cause=NoAnswer";
    assert_eq!(office.events(70_000), [format!("{no_answer} ReferenceID=r1")]);
    office.close();
}

#[test]
fn a_call_that_is_not_made_is_an_error_without_a_connection() {
    let office = Office::new();
    let ask = Ask::MakeCall { to: "7777".into() };
    let request = Request { conn_id: Request::NO_CALL, this_dn: "2001".into(), reference: Some("r".into()), ask };
    let denied = Denied { code: Code::UnknownTarget, detail: "OtherDN leads nowhere".into(), state: "none".into() };
    let event = Telephony::error(&request, &denied).expect("told to a DN that is configured");
    assert_eq!((event.conn_id, event.request, event.code), (None, Some("make-call"), Some("unknown-target")));
    office.close();
}

#[test]
fn rows_19_and_6_the_supervisor_of_who_is_consulted_joins_the_consult_call_and_goes_on_with_it() {
    let mut options = unrecorded();
    options.plan.dns[4].role = DnRole::Supervisor;
    options.plan.dns[2].monitor_consult = MonitorConsult::Dest;
    let mut office = Office { world: World::new(options), ..Office::new() };
    for n in [1, 2, 3, 5] {
        office.world.phone(n, |o| o.lines = 2);
    }
    let wish = MonitorNextCall { agent: "2003".into(), mode: None, scope: None, all: false, intrusion: false };
    let request = DnRequest { this_dn: "2005".into(), reference: None, ask: DnAsk::MonitorNextCall(wish) };
    office.world.tell(Input::DnRequest(Ticket(1), Box::new(request)));
    office.act(0, Action::call("2002"));
    office.events(1_000);
    office.asks("2002", 1, Ask::InitiateTransfer { to: "2003".into() });
    let joined = [
        "S Ringing C2 Consult Observer Bridged",
        "C PartyAdded C2 Consult Destination OtherDN=S OtherDNRole=Observer Bridged",
        "S Established C2 Consult Observer Bridged",
    ];
    assert_eq!(office.events(1_000)[5..], joined);
    office.asks("2002", 2, Ask::CompleteTransfer { other: None });
    let expected = [
        "B Released C2 Consult Origination OtherDN=C OtherDNRole=Destination Transferred ReferenceID=r2",
        "S PartyChanged C1 Internal Observer ThirdPartyDN=B ThirdPartyDNRole=TransferredBy PreviousConnID=C2 Transferred",
    ];
    let told = office.events(500);
    assert!(expected.iter().all(|event| told.iter().any(|line| line == event)), "{told:#?}");
    office.act(0, Action::HangUp);
    let told = office.events(500);
    assert!(told.contains(&"S Released C1 Internal Observer OK".to_owned()), "{told:#?}");
    assert_eq!(office.view.calls(), 0);
}

/// A call that 2005 supervises; 2002's supervisors go with it into consultations.
fn accompanied() -> Office {
    let mut options = unrecorded();
    options.plan.dns[4].role = DnRole::Supervisor;
    options.plan.dns[1].monitor_consult = MonitorConsult::All;
    let mut office = Office { world: World::new(options), ..Office::new() };
    for n in [1, 2, 3, 5] {
        office.world.phone(n, |o| o.lines = 2);
    }
    let wish = MonitorNextCall { agent: "2002".into(), mode: None, scope: None, all: true, intrusion: false };
    let request = DnRequest { this_dn: "2005".into(), reference: None, ask: DnAsk::MonitorNextCall(wish) };
    office.world.tell(Input::DnRequest(Ticket(1), Box::new(request)));
    office.act(0, Action::call("2002"));
    office.events(1_000);
    office
}

#[test]
fn rows_19_to_21_a_supervisor_in_a_consult_call_is_told_of_the_held_one_until_that_ends() {
    for two_dialogs in [true, false] {
        let mut office = accompanied();
        match two_dialogs {
            true => {
                office.act(1, Action::Hold(HoldForm::SendOnly));
                office.events(300);
                office.act(1, Action::on(1, Action::call("2003")));
            }
            false => office.asks("2002", 1, Ask::InitiateTransfer { to: "2003".into() }),
        }
        let told = office.events(1_500);
        assert!(!told.iter().any(|line| line.starts_with("S ")), "{told:#?}");
        office.ask("2005", 1, Ask::SetMuteOff { coach: false }).unwrap();
        let reference = if two_dialogs { "r1" } else { "r2" };
        let expected = [
            format!("S MuteOff C1 Internal Observer OK ReferenceID={reference}"),
            format!("S PrivateInfo C1 Internal Observer ReferenceID={reference} MonitorMode=connect"),
            "B PrivateInfo C1 Internal Destination MonitorMode=connect".to_owned(),
        ];
        assert_eq!(office.events(100), expected, "two dialogs: {two_dialogs}");
        office.act(0, Action::HangUp);
        let told: Vec<String> = office.events(500).into_iter().filter(|line| line.contains('S')).collect();
        let joined = [
            "S Released C1 Internal Observer OK",
            "S Ringing C2 Consult Observer Bridged",
            "B PartyAdded C2 Consult Origination OtherDN=S OtherDNRole=Observer Bridged",
            "S Established C2 Consult Observer Bridged",
        ];
        assert_eq!(told, joined, "two dialogs: {two_dialogs}");
        office.act(2, Action::HangUp);
        let told = office.events(500);
        assert!(told.contains(&"S Released C2 Consult Observer OK".to_owned()), "{told:#?}");
        assert_eq!(office.view.calls(), 0);
    }
}

#[test]
fn rows_18_to_21_a_supervisor_joins_changes_its_mode_and_stays_when_the_agent_leaves() {
    let mut options = unrecorded();
    options.plan.dns[4].role = DnRole::Supervisor;
    options.plan.dns[1].intrusion = true;
    let mut office = Office { world: World::new(options), ..Office::new() };
    for n in [1, 2, 3, 5] {
        office.world.phone(n, |o| o.lines = 2);
    }
    office.act(0, Action::call("2002"));
    office.events(1_000);
    let wish = MonitorNextCall { agent: "2002".into(), mode: None, scope: None, all: false, intrusion: true };
    let ask = DnAsk::MonitorNextCall(wish);
    let request = DnRequest { this_dn: "2005".into(), reference: Some("r".into()), ask };
    office.world.tell(Input::DnRequest(Ticket(1), Box::new(request)));
    let expected = [
        "S MonitoringNextCall Observer OtherDN=B ReferenceID=r",
        "B MonitoringNextCall OtherDN=S OtherDNRole=Observer",
        "S Ringing C1 Internal Observer Bridged",
        "B PartyAdded C1 Internal Destination OtherDN=S OtherDNRole=Observer Bridged",
        "S Established C1 Internal Observer Bridged",
    ];
    assert_eq!(office.events(500), expected, "the customer gets nothing");
    office.ask("2005", 1, Ask::SetMuteOff { coach: false }).unwrap();
    let expected = [
        "S MuteOff C1 Internal Observer OK ReferenceID=r1",
        "S PrivateInfo C1 Internal Observer ReferenceID=r1 MonitorMode=connect",
        "B PrivateInfo C1 Internal Destination MonitorMode=connect",
    ];
    assert_eq!(office.events(100), expected);
    office.ask("2002", 1, Ask::SingleStepConference { to: "2003".into(), hold: false }).unwrap();
    assert_eq!(office.events(500).len(), 4, "the supervisor is no member");
    office.act(1, Action::HangUp);
    let deleted = "OtherDN=B OtherDNRole=DeletedParty ThirdPartyDN=B ThirdPartyDNRole=DeletedBy OK";
    let expected = [
        "B Released C1 Internal ConferenceMember OK".to_owned(),
        format!("A PartyDeleted C1 Internal ConferenceMember {deleted}"),
        format!("S PartyDeleted C1 Internal Observer {deleted}"),
        format!("C PartyDeleted C1 Internal ConferenceMember {deleted}"),
    ];
    assert_eq!(office.events(500), expected);
    office.act(3, Action::HangUp);
    assert_eq!(office.events(500), ["S Released C1 Internal Observer OK"]);
}

#[test]
fn row_12_for_who_enters_a_dial_in_room_by_itself() {
    let mut options = unrecorded();
    let room = Conference { when_alone: WhenAlone::Wait, ..Conference::new("800") };
    options.plan.conferences.push(room.into());
    let mut office = Office { world: World::new(options), ..Office::new() };
    for n in 1..=3 {
        office.world.phone(n, |o| o.seed = u64::from(n));
    }
    let enters = |who| {
        [
            format!("{who} Dialing C1 Internal Origination OtherDN=800 OtherDNRole=Destination OK"),
            format!("{who} Established C1 Internal ConferenceMember OK"),
        ]
    };
    let added = |who, new| {
        format!(
            "{who} PartyAdded C1 Internal ConferenceMember OtherDN={new} OtherDNRole=NewParty ThirdPartyDN={new} \
             ThirdPartyDNRole=AddedBy Conferenced"
        )
    };
    office.act(0, Action::call("800"));
    assert_eq!(office.events(500), enters("A"));
    office.act(1, Action::call("800"));
    let [dialing, _] = enters("B");
    // Of two each is the other's OtherDN.
    let established = "B Established C1 Internal ConferenceMember OtherDN=A OtherDNRole=ConferenceMember OK";
    assert_eq!(office.events(500), [dialing, added("A", "B"), established.to_owned()]);
    office.act(2, Action::call("800"));
    let [dialing, established] = enters("C");
    assert_eq!(office.events(500), [dialing, added("A", "C"), added("B", "C"), established]);
    office.act(0, Action::HangUp);
    let deleted = "PartyDeleted C1 Internal ConferenceMember OtherDN=A OtherDNRole=DeletedParty ThirdPartyDN=A \
                   ThirdPartyDNRole=DeletedBy OK";
    let released = |who| format!("{who} Released C1 Internal ConferenceMember");
    assert_eq!(office.events(500), [format!("{} OK", released("A")), format!("B {deleted}"), format!("C {deleted}")]);
    office.act(1, Action::HangUp);
    assert_eq!(office.events(500).len(), 2, "one waits, and is told");
    office.act(2, Action::HangUp);
    assert_eq!(office.events(500), [format!("{} OK", released("C"))]);
    office.close();
}
