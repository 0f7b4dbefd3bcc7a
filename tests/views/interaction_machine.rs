//! The interaction model alone: each row of spec/events.md §3, every pair of crossing inputs, random sequences.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::interaction_support::line;
use proptest::prelude::*;
use stickytape::call::fact::{Fact, Origin, Party, ReleaseCause, Transfer, What};
use stickytape::call::request::{Accepted, Ask, Code, Denied, Request};
use stickytape::id::{CallUuid, ConnId, LegId, RecordingId};
use stickytape::record::mark::{Side, StopCause};
use stickytape::views::interaction::message::{AgentId, ConnectionId, Message};
use stickytape::views::interaction::{
    AskId, Input, Interactions, MAX_INVITATIONS_OF_AGENT, NotRegistered, Options, Output, Reason,
};
use uuid::Uuid;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A customer (leg 1), anna (leg 2, DN 2001) and carl (leg 3, DN 2003) are in the call; ben has DN 2002.
struct Desk {
    model: Interactions,
    now: Instant,
    /// Connections by agent, the newest last.
    connections: Vec<(ConnectionId, String)>,
    /// Who was told what: `ben Ack with ticket`; `*` is reporting.
    told: Vec<String>,
    /// Tickets in the order of their first EventInvite.
    tickets: Vec<String>,
    asks: Vec<(AskId, Request)>,
}

fn uuid(n: u64) -> CallUuid {
    CallUuid(Uuid::from_u128(u128::from(n)))
}

fn id(n: u64) -> String {
    uuid(n).to_string()
}

fn dn(number: &str) -> Party {
    Party { dn: Some(number.into()), trunk: None, number: number.into() }
}

fn customer() -> Party {
    Party { dn: None, trunk: Some("carrier".into()), number: "+49301".into() }
}

fn options() -> Options {
    Options {
        invitation_timeout: TIMEOUT,
        is_dn: Box::new(|number| number.starts_with("20")),
        max_interactions: 10,
        seed: [7; 32],
    }
}

impl Desk {
    fn empty() -> Self {
        Self {
            model: Interactions::new(options()),
            now: stickytape::clock::now(),
            connections: Vec::new(),
            told: Vec::new(),
            tickets: Vec::new(),
            asks: Vec::new(),
        }
    }

    /// The customer talks to anna; all three agents are registered.
    fn call() -> Self {
        Self::call_from(Some(Origin::Queue("sales".into())))
    }

    fn call_from(origin: Option<Origin>) -> Self {
        let mut desk = Self::empty();
        for (agent, dn) in [("anna", "2001"), ("ben", "2002"), ("carl", "2003")] {
            desk.connect(agent, dn).unwrap();
        }
        desk.begin(1, 1, customer(), dn("2001"), origin);
        assert_eq!(desk.told(), [""; 0], "nobody is told of a call that two have begun");
        desk
    }

    /// And carl has joined.
    fn conference() -> Self {
        let mut desk = Self::call();
        desk.joins(1, 3, "2003", 2);
        desk.told();
        desk
    }

    /// And ben is invited by anna.
    fn invited() -> Self {
        let mut desk = Self::conference();
        desk.invite("anna", "ben", 1);
        desk.told();
        desk
    }

    fn connect(&mut self, agent: &str, dn: &str) -> Result<(), NotRegistered> {
        let connection = ConnectionId(self.connections.len() as u64);
        self.connections.push((connection, agent.into()));
        let done = self.model.connect(connection, AgentId::new(agent).unwrap(), dn.into());
        self.drain();
        done
    }

    fn connection(&self, agent: &str) -> ConnectionId {
        self.connections.iter().rfind(|(_, name)| name == agent).expect("connected").0
    }

    fn input(&mut self, input: Input<'_>) {
        self.model.handle(input, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.model.poll_output() {
            match output {
                Output::Tell(connection, event) => {
                    let agent = &self.connections[connection.0 as usize].1;
                    self.told.push(format!("{agent} {}", line(&event)));
                    let ticket = event.ticket.map(|ticket| ticket.to_string());
                    if let Some(ticket) = ticket.filter(|ticket| !self.tickets.contains(ticket)) {
                        self.tickets.push(ticket);
                    }
                }
                Output::Report(event) => {
                    assert!(event.ticket.is_none(), "a ticket is the invited agent's alone");
                    self.told.push(format!("* {}", line(&event)));
                }
                Output::Ask(id, request) => self.asks.push((id, request)),
                Output::Replaced(connection) => {
                    self.told.push(format!("{} replaced", self.connections[connection.0 as usize].1));
                }
            }
        }
    }

    /// What was told since this was asked last.
    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    fn says(&mut self, agent: &str, message: Message) {
        let from = self.connection(agent);
        self.input(Input::Message { from, reference: Some(format!("{agent}'s").into()), message });
    }

    fn invite(&mut self, by: &str, agent: &str, interaction: u64) {
        self.says(by, Message::Conference { interaction: id(interaction), agent: agent.into() });
    }

    /// Ben answers the newest ticket.
    fn accept(&mut self) {
        let ticket = self.tickets.last().expect("invited").clone();
        self.says("ben", Message::Accept { ticket });
    }

    fn reject(&mut self) {
        let ticket = self.tickets.last().expect("invited").clone();
        self.says("ben", Message::Reject { ticket });
    }

    fn leave(&mut self, agent: &str) {
        self.says(agent, Message::Leave { interaction: id(1) });
    }

    fn fact(&mut self, conn_id: u64, what: What) {
        let wall = "2026-11-20T10:00:00Z".parse().unwrap();
        let fact = Fact { at: self.now, wall, conn_id: Some(ConnId(conn_id)), cause: None, what };
        self.input(Input::Fact(&fact));
    }

    /// A call of its own interaction is answered: legs 10·conn_id − 9 and − 8.
    fn begin(&mut self, conn_id: u64, interaction: u64, caller: Party, called: Party, origin: Option<Origin>) {
        let leg = LegId(10 * conn_id - 9);
        let answered = What::Answered { leg: LegId(leg.0 + 1), party: called.clone() };
        let (call_uuid, consult_of) = (uuid(interaction), None);
        self.fact(conn_id, What::CallStarted { call_uuid, leg, caller, called, consult_of, origin });
        self.fact(conn_id, answered);
    }

    /// A consult call of the call 1.
    fn consults(&mut self, conn_id: u64, by: LegId, caller: &str, leg: u64, called: &str) {
        let consult_of = Some(ConnId(1));
        let (caller, called) = (dn(caller), dn(called));
        let party = called.clone();
        self.fact(conn_id, What::CallStarted { call_uuid: uuid(1), leg: by, caller, called, consult_of, origin: None });
        self.fact(conn_id, What::Answered { leg: LegId(leg), party });
    }

    fn calls_in(&mut self, number: &str) {
        self.fact(1, What::PartyInvited { by: LegId(2), to: dn(number), observer: false });
    }

    fn not_reached(&mut self, number: &str, cause: ReleaseCause) {
        self.fact(1, What::PartyNotAdded { by: LegId(2), to: dn(number), cause });
    }

    fn joins(&mut self, conn_id: u64, leg: u64, number: &str, by: u64) {
        self.fact(conn_id, What::PartyAdded { leg: LegId(leg), party: dn(number), by: LegId(by), consult: None });
    }

    fn leaves(&mut self, leg: u64) {
        self.fact(1, What::PartyDeleted { leg: LegId(leg), by: LegId(leg), left: 2 });
    }

    fn released(&mut self, conn_id: u64) {
        self.fact(conn_id, What::Released { cause: ReleaseCause::Released, by: None, answered: true });
    }

    fn answers(&mut self, answer: Option<Result<Accepted, Denied>>) {
        let (id, _) = self.asks.remove(0);
        self.input(Input::Answered(id, answer));
    }

    fn takes(&mut self) {
        self.answers(Some(Ok(Accepted::new(ConnId(1)))));
    }

    fn refuses(&mut self) {
        let denied = Denied { code: Code::WrongState, detail: "not now".into(), state: "talking".into() };
        self.answers(Some(Err(denied)));
    }

    fn waits(&mut self, time: Duration) {
        self.now += time;
        while let Some((at, Reason::InvitationTimeout)) = self.model.poll_timeout().filter(|(at, _)| *at <= self.now) {
            self.model.handle(Input::Timeout, at);
            self.drain();
        }
    }
}

#[track_caller]
fn tells(desk: &mut Desk, expected: &[&str]) {
    let told = desk.told();
    assert_eq!(told, expected, "\n{}\n", told.join("\n"));
}

// The rows.

#[test]
fn an_invitation_is_told_to_the_invited_agent_and_to_reporting() {
    let mut desk = Desk::call();
    desk.invite("anna", "ben", 1);
    tells(
        &mut desk,
        &["ben Invite AgentID=anna Parties=+49301,2001 with ticket", "* AgentInvited AgentID=ben InvitedBy=anna"],
    );
    assert_eq!(desk.asks, [], "nobody is called before the agent accepts");
}

#[test]
fn an_accept_is_acknowledged_to_both_and_the_joined_party_told_to_all() {
    let mut desk = Desk::invited();
    desk.accept();
    tells(&mut desk, &[]);
    let (_, request) = desk.asks[0].clone();
    assert_eq!((request.conn_id, request.this_dn.as_str()), (ConnId(1), "2001"), "in the inviter's name");
    assert_eq!(request.reference.as_deref(), Some("anna's"));
    assert_eq!(request.ask, Ask::SingleStepConference { to: "2002".into(), hold: false });
    desk.calls_in("2002");
    desk.takes();
    tells(&mut desk, &["ben Ack ReferenceID=ben's with ticket", "anna Ack AgentID=ben ReferenceID=anna's"]);
    desk.joins(1, 4, "2002", 2);
    let added = "PartyAdded AgentID=ben Party=2002 Parties=+49301,2001,2003,2002";
    tells(&mut desk, &["anna", "ben", "carl", "*"].map(|to| format!("{to} {added}")).each_ref().map(String::as_str));
}

#[test]
fn a_reject_is_acknowledged_and_told_to_the_inviter_and_to_reporting() {
    let mut desk = Desk::invited();
    desk.reject();
    tells(
        &mut desk,
        &[
            "ben Ack ReferenceID=ben's with ticket",
            "anna Error AgentID=ben ReferenceID=anna's Code=rejected",
            "* Rejected AgentID=ben InvitedBy=anna",
        ],
    );
}

#[test]
fn an_invitation_that_is_not_answered_in_time_is_revoked() {
    let mut desk = Desk::invited();
    desk.waits(TIMEOUT - Duration::from_nanos(1));
    tells(&mut desk, &[]);
    desk.waits(Duration::from_nanos(1));
    tells(
        &mut desk,
        &["ben Revoked Code=timed-out with ticket", "anna Error AgentID=ben ReferenceID=anna's Code=timed-out"],
    );
    assert_eq!(desk.model.poll_timeout(), None);
    desk.accept();
    tells(&mut desk, &["ben Error ReferenceID=ben's Code=unknown-ticket"]);
    assert_eq!(desk.asks, []);
}

#[test]
fn an_invalid_invitation_is_refused_at_once_and_nobody_is_invited() {
    let mut desk = Desk::call();
    let conference = |interaction: &str, agent: &str| Message::Conference {
        interaction: interaction.to_owned(),
        agent: agent.to_owned(),
    };
    let cases = [
        ("anna", id(9), "ben", "unknown-interaction"),
        ("anna", "no uuid".to_owned(), "ben", "unknown-interaction"),
        ("anna", id(1), "dora", "unknown-agent"),
        ("anna", id(1), "", "unknown-agent"),
        ("ben", id(1), "carl", "not-a-party"),
        ("anna", id(1), "anna", "already-a-party"),
    ];
    for (by, interaction, agent, code) in cases {
        desk.says(by, conference(&interaction, agent));
        tells(&mut desk, &[&format!("{by} Error ReferenceID={by}'s Code={code}")]);
    }
    desk.invite("anna", "ben", 1);
    desk.told();
    desk.invite("anna", "ben", 1);
    tells(&mut desk, &["anna Error ReferenceID=anna's Code=already-invited"]);
    assert_eq!(desk.asks, []);
}

#[test]
fn a_connection_that_was_replaced_is_not_registered() {
    let mut desk = Desk::call();
    let old = desk.connection("anna");
    desk.connect("anna", "2001").unwrap();
    tells(&mut desk, &["anna replaced"]);
    let message = Message::Conference { interaction: id(1), agent: "ben".into() };
    desk.input(Input::Message { from: old, reference: None, message });
    tells(&mut desk, &["anna Error Code=not-registered"]);
    desk.input(Input::Disconnected(old));
    assert_eq!(desk.model.agents(), 3, "the end of the old connection is not the end of the new one");
}

#[test]
fn a_leave_is_acknowledged_and_told_to_the_others_and_to_reporting() {
    let mut desk = Desk::conference();
    desk.leave("carl");
    tells(&mut desk, &[]);
    let (_, request) = desk.asks[0].clone();
    assert_eq!((request.conn_id, request.this_dn.as_str(), request.ask), (ConnId(1), "2003", Ask::ReleaseCall));
    desk.leaves(3);
    desk.takes();
    let removed = "PartyRemoved AgentID=carl Party=2003 Parties=+49301,2001";
    tells(&mut desk, &["carl Ack ReferenceID=carl's", &format!("anna {removed}"), &format!("* {removed}")]);
    desk.leave("carl");
    tells(&mut desk, &["carl Error ReferenceID=carl's Code=not-a-party"]);
}

#[test]
fn the_last_leave_places_the_interaction_once_where_it_came_from() {
    for (origin, placed) in [
        (Some(Origin::Queue("sales".into())), Some("* PlacedInQueue Queue=sales")),
        (Some(Origin::Workbin("anna".into())), Some("* PlacedInWorkbin Workbin=anna")),
        (None, None),
    ] {
        let mut desk = Desk::call_from(origin);
        desk.leave("anna");
        desk.released(1);
        desk.takes();
        let mut expected = vec![
            "anna Ack ReferenceID=anna's".to_owned(),
            "* PartyRemoved AgentID=anna Party=2001 Parties=+49301".to_owned(),
            "* PartyRemoved Party=+49301 Parties=".to_owned(),
        ];
        expected.extend(placed.map(str::to_owned));
        assert_eq!(desk.told(), expected);
        assert!(desk.model.is_empty());
    }
}

#[test]
fn who_hangs_up_leaves_first() {
    for (by, expected) in [
        (
            1,
            ["anna PartyRemoved Party=+49301 Parties=2001", "anna PartyRemoved AgentID=anna Party=2001 Parties="]
                .as_slice(),
        ),
        (2, &["anna PartyRemoved AgentID=anna Party=2001 Parties=+49301"]),
    ] {
        let mut desk = Desk::call();
        desk.fact(1, What::Released { cause: ReleaseCause::Released, by: Some(LegId(by)), answered: true });
        let told = desk.told();
        let told: Vec<_> = told.iter().filter(|line| !line.starts_with('*')).collect();
        assert_eq!(told, expected);
    }
}

#[test]
fn a_call_that_nobody_has_answered_is_placed_nowhere() {
    let mut desk = Desk::empty();
    let origin = Some(Origin::Queue("sales".into()));
    let (leg, caller, called) = (LegId(1), customer(), dn("2001"));
    desk.fact(1, What::CallStarted { call_uuid: uuid(1), leg, caller, called, consult_of: None, origin });
    desk.fact(1, What::Released { cause: ReleaseCause::Abandoned, by: Some(leg), answered: false });
    tells(&mut desk, &[]);
    assert!(desk.model.is_empty());
}

#[test]
fn a_leave_is_refused_with_nothing_changed() {
    let mut desk = Desk::conference();
    desk.leave("ben");
    tells(&mut desk, &["ben Error ReferenceID=ben's Code=not-a-party"]);
    desk.says("ben", Message::Leave { interaction: id(9) });
    tells(&mut desk, &["ben Error ReferenceID=ben's Code=unknown-interaction"]);
    let recording = RecordingId(Uuid::from_u128(1));
    let started = |required| What::RecordingStarted {
        id: recording,
        owner: LegId(3),
        side: Side::Termination,
        trigger: "dn",
        required,
    };
    desk.fact(1, started(true));
    desk.leave("carl");
    tells(&mut desk, &["carl Error ReferenceID=carl's Code=recording-required"]);
    assert_eq!(desk.asks, [], "nobody is asked");
    desk.fact(1, What::OwnerChanged { id: recording, owner: LegId(2) });
    desk.leave("anna");
    tells(&mut desk, &["anna Error ReferenceID=anna's Code=recording-required"]);
    desk.fact(1, What::RecordingStopped { id: recording, cause: StopCause::Released });
    desk.fact(1, started(false));
    desk.leave("carl");
    desk.leave("carl");
    tells(&mut desk, &["carl Error ReferenceID=carl's Code=already-leaving"]);
    desk.refuses();
    tells(&mut desk, &["carl Error ReferenceID=carl's Code=wrong-state"]);
    desk.leave("carl");
    assert_eq!(desk.asks.len(), 1, "it may ask again");
}

// What happens beside the rows.

#[test]
fn an_agent_that_leaves_by_its_phone_is_told_as_the_others_are() {
    let mut desk = Desk::conference();
    desk.leaves(3);
    let removed = "PartyRemoved AgentID=carl Party=2003 Parties=+49301,2001";
    tells(&mut desk, &[&format!("anna {removed}"), &format!("carl {removed}"), &format!("* {removed}")]);
}

#[test]
fn an_accepted_agent_that_is_not_reached_has_never_joined() {
    let busy = ReleaseCause::Rejected(486);
    let failed =
        ["ben Error ReferenceID=ben's Code=busy with ticket", "anna Error AgentID=ben ReferenceID=anna's Code=busy"];
    let mut desk = Desk::invited();
    desk.accept();
    desk.calls_in("2002");
    desk.takes();
    desk.told();
    desk.not_reached("2002", busy);
    tells(&mut desk, &failed);
    // The call fails before the request is answered.
    let mut desk = Desk::invited();
    desk.accept();
    desk.calls_in("2002");
    desk.not_reached("2002", busy);
    tells(&mut desk, &[]);
    desk.takes();
    tells(&mut desk, &failed);
    // Call control refuses.
    let mut desk = Desk::invited();
    desk.accept();
    desk.refuses();
    tells(
        &mut desk,
        &[
            "ben Error ReferenceID=ben's Code=wrong-state with ticket",
            "anna Error AgentID=ben ReferenceID=anna's Code=wrong-state",
        ],
    );
    desk.invite("anna", "ben", 1);
    assert_eq!(desk.tickets.len(), 2, "it may be invited again");
    assert_ne!(desk.tickets[0], desk.tickets[1]);
}

#[test]
fn an_accept_waits_for_a_call_to_the_same_dn_that_is_under_way() {
    let mut desk = Desk::invited();
    desk.calls_in("2002");
    desk.accept();
    assert_eq!(desk.asks, [], "it is called already");
    tells(&mut desk, &["ben Ack ReferenceID=ben's with ticket", "anna Ack AgentID=ben ReferenceID=anna's"]);
    desk.calls_in("2002");
    desk.not_reached("2002", ReleaseCause::NoAnswer);
    tells(&mut desk, &[]);
    desk.joins(1, 4, "2002", 2);
    assert_eq!(desk.told().len(), 4);
}

#[test]
fn joining_by_the_phone_is_the_accept() {
    let mut desk = Desk::invited();
    desk.joins(1, 4, "2002", 3);
    let told = desk.told();
    assert_eq!(told[..2], ["ben Ack with ticket", "anna Ack AgentID=ben ReferenceID=anna's"]);
    assert_eq!(told.len(), 6, "{told:?}");
    desk.accept();
    tells(&mut desk, &["ben Error ReferenceID=ben's Code=unknown-ticket"]);
    assert_eq!(desk.asks, [], "it is not called once more");
}

#[test]
fn a_ticket_is_good_for_the_invited_agent_alone_and_once() {
    let mut desk = Desk::invited();
    let ticket = desk.tickets[0].clone();
    for wrong in [ticket.to_uppercase(), ticket[1..].to_owned(), format!("{ticket}0"), "0".repeat(32), String::new()] {
        desk.says("ben", Message::Accept { ticket: wrong });
        tells(&mut desk, &["ben Error ReferenceID=ben's Code=unknown-ticket"]);
    }
    for thief in ["anna", "carl"] {
        desk.says(thief, Message::Accept { ticket: ticket.clone() });
        desk.says(thief, Message::Reject { ticket: ticket.clone() });
        let error = format!("{thief} Error ReferenceID={thief}'s Code=unknown-ticket");
        tells(&mut desk, &[&error, &error]);
    }
    desk.accept();
    desk.accept();
    desk.reject();
    let error = "ben Error ReferenceID=ben's Code=unknown-ticket";
    tells(&mut desk, &[error, error]);
    assert_eq!(desk.asks.len(), 1);
}

#[test]
fn an_agent_that_comes_back_finds_its_open_invitations() {
    let mut desk = Desk::invited();
    let connection = desk.connection("ben");
    desk.input(Input::Disconnected(connection));
    desk.invite("carl", "ben", 1);
    tells(&mut desk, &["carl Error ReferenceID=carl's Code=unknown-agent"]);
    // It may come back at another desk.
    desk.connect("ben", "2005").unwrap();
    tells(&mut desk, &["ben Invite AgentID=anna Parties=+49301,2001,2003 with ticket"]);
    assert_eq!(desk.tickets.len(), 1, "the same ticket");
    desk.accept();
    assert_eq!(desk.asks[0].1.ask, Ask::SingleStepConference { to: "2005".into(), hold: false });
    desk.connect("ben", "2005").unwrap();
    tells(&mut desk, &["ben replaced"]);
}

#[test]
fn the_inviters_connection_is_not_its_leg() {
    let mut desk = Desk::invited();
    let connection = desk.connection("anna");
    desk.input(Input::Disconnected(connection));
    desk.accept();
    desk.takes_and_joins();
    let told = desk.told();
    assert!(told.iter().all(|line| !line.starts_with("anna")), "{told:?}");
    desk.connect("anna", "2001").unwrap();
    desk.leaves(4);
    let removed = "PartyRemoved AgentID=ben Party=2002 Parties=+49301,2001,2003";
    tells(&mut desk, &["anna", "ben", "carl", "*"].map(|to| format!("{to} {removed}")).each_ref().map(String::as_str));
}

#[test]
fn a_dn_is_one_agents_and_must_be_configured() {
    let mut desk = Desk::call();
    assert_eq!(desk.connect("dora", "2001"), Err(NotRegistered::DnInUse));
    assert_eq!(desk.connect("dora", "3001"), Err(NotRegistered::UnknownDn));
    let connection = desk.connection("carl");
    desk.input(Input::Disconnected(connection));
    assert_eq!(desk.connect("dora", "2003"), Ok(()));
    // An agent that moves to another DN leaves its own to others.
    assert_eq!(desk.connect("dora", "2004"), Ok(()));
    assert_eq!(desk.connect("carl", "2003"), Ok(()));
    desk.model.reload(Box::new(|_| false));
    assert_eq!(desk.connect("emil", "2005"), Err(NotRegistered::UnknownDn));
}

#[test]
fn no_more_invitations_are_open_than_may_be() {
    let mut desk = Desk::call();
    let limit = MAX_INVITATIONS_OF_AGENT;
    for n in 0..=limit {
        desk.connect(&format!("agent-{n}"), &format!("20{n:03}")).unwrap();
    }
    for n in 0..limit {
        desk.invite("anna", &format!("agent-{n}"), 1);
    }
    assert_eq!(desk.told().len(), 2 * limit);
    desk.invite("anna", &format!("agent-{limit}"), 1);
    tells(&mut desk, &["anna Error ReferenceID=anna's Code=limit"]);
    let ticket = desk.tickets[0].clone();
    desk.says("agent-0", Message::Reject { ticket });
    desk.told();
    desk.invite("anna", &format!("agent-{limit}"), 1);
    assert_eq!(desk.told().len(), 2);
}

#[test]
fn a_transfer_replaces_a_party_and_never_empties_the_interaction() {
    let mut desk = Desk::call();
    desk.invite("anna", "carl", 1);
    desk.told();
    let how = Transfer::SingleStep;
    let party = dn("2002");
    let (by, stays, target) = (LegId(2), LegId(1), LegId(5));
    desk.fact(1, What::Transferred { by, stays, target, party, how, consult: None });
    let (added, removed) = (
        "PartyAdded AgentID=ben Party=2002 Parties=+49301,2001,2002",
        "PartyRemoved AgentID=anna Party=2001 Parties=+49301,2002",
    );
    tells(
        &mut desk,
        &[
            &format!("anna {added}"),
            &format!("ben {added}"),
            &format!("* {added}"),
            "carl Revoked Code=inviter-left with ticket",
            "anna Error AgentID=carl ReferenceID=anna's Code=inviter-left",
            &format!("anna {removed}"),
            &format!("ben {removed}"),
            &format!("* {removed}"),
        ],
    );
}

#[test]
fn who_is_consulted_is_a_party_once_it_has_joined() {
    let mut desk = Desk::call();
    desk.consults(2, LegId(2), "2001", 5, "2002");
    tells(&mut desk, &[]);
    desk.invite("ben", "carl", 1);
    tells(&mut desk, &["ben Error ReferenceID=ben's Code=not-a-party"]);
    let (leg, party, by, consult) = (LegId(5), dn("2002"), LegId(2), Some(ConnId(2)));
    desk.fact(1, What::PartyAdded { leg, party, by, consult });
    let added = "PartyAdded AgentID=ben Party=2002 Parties=+49301,2001,2002";
    tells(&mut desk, &[&format!("anna {added}"), &format!("ben {added}"), &format!("* {added}")]);
    desk.released(1);
    assert!(desk.model.is_empty());
}

#[test]
fn a_consult_call_that_outlives_its_call_is_the_interaction() {
    let mut desk = Desk::call();
    desk.consults(2, LegId(2), "2001", 5, "2002");
    desk.released(1);
    let told = desk.told();
    assert_eq!(told[0], "anna PartyAdded AgentID=ben Party=2002 Parties=+49301,2001,2002");
    assert_eq!(told.last().unwrap(), "* PartyRemoved Party=+49301 Parties=2001,2002");
    assert_eq!(told.len(), 6, "{told:?}");
    desk.released(2);
    assert_eq!(desk.told().last().unwrap(), "* PlacedInQueue Queue=sales");
    assert!(desk.model.is_empty());
}

#[test]
fn an_agent_that_leaves_ends_its_consult_call_too() {
    let mut desk = Desk::call();
    desk.consults(2, LegId(2), "2001", 5, "2002");
    desk.leave("anna");
    let asked: Vec<_> = desk.asks.iter().map(|(_, request)| (request.conn_id.0, request.ask.name())).collect();
    assert_eq!(asked, [(2, "release-call"), (1, "release-call")]);
    desk.released(2);
    desk.takes();
    desk.released(1);
    desk.takes();
    assert_eq!(desk.told().iter().filter(|line| *line == "anna Ack ReferenceID=anna's").count(), 1);
    assert!(desk.model.is_empty());
}

#[test]
fn a_call_that_goes_on_in_another_one_is_not_placed() {
    let mut desk = Desk::call();
    desk.begin(2, 2, customer(), dn("2002"), Some(Origin::Workbin("ben".into())));
    desk.invite("ben", "carl", 2);
    desk.told();
    let (leg, party, by, consult) = (LegId(12), dn("2002"), LegId(2), Some(ConnId(2)));
    desk.fact(1, What::PartyAdded { leg, party, by, consult });
    let told = desk.told();
    assert!(told.iter().all(|line| !line.contains("Placed")), "{told:?}");
    assert!(told.contains(&"carl Revoked Code=inviter-left with ticket".to_owned()), "{told:?}");
    assert_eq!(told.last().unwrap(), "* PartyAdded AgentID=ben Party=2002 Parties=+49301,2001,2002");
    desk.says("ben", Message::Leave { interaction: id(2) });
    assert_eq!(desk.told(), ["ben Error ReferenceID=ben's Code=unknown-interaction"]);
    desk.released(1);
    assert_eq!(desk.told().iter().filter(|line| line.contains("Placed")).count(), 1);
    assert!(desk.model.is_empty());
}

#[test]
fn a_room_is_an_interaction_from_its_first_member_on() {
    let mut desk = Desk::call();
    let enters = |leg, party, opened| What::RoomEntered { call_uuid: uuid(8), room: "800".into(), leg, party, opened };
    desk.fact(8, enters(LegId(81), dn("2003"), true));
    desk.invite("carl", "ben", 8);
    assert_eq!(desk.told()[0], "ben Invite AgentID=carl Parties=2003 with ticket");
    desk.fact(8, enters(LegId(82), dn("2002"), false));
    let told = desk.told();
    assert_eq!(told[0], "ben Ack with ticket", "by the phone");
    assert_eq!(told.last().unwrap(), "* PartyAdded AgentID=ben Party=2002 Parties=2003,2002");
    desk.released(8);
    assert!(desk.told().iter().all(|line| !line.contains("Placed")), "a room is its own place");
}

#[test]
fn what_cannot_be_understood_is_an_error_to_its_sender() {
    let mut desk = Desk::call();
    let from = desk.connection("ben");
    desk.input(Input::Malformed { from, reason: "expected an object".into() });
    tells(&mut desk, &["ben Error Code=bad-request"]);
}

#[test]
fn a_server_that_stops_answers_what_is_open() {
    let mut desk = Desk::invited();
    desk.accept();
    desk.answers(None);
    desk.leave("carl");
    desk.answers(None);
    tells(
        &mut desk,
        &[
            "ben Error ReferenceID=ben's Code=unavailable with ticket",
            "anna Error AgentID=ben ReferenceID=anna's Code=unavailable",
            "carl Error ReferenceID=carl's Code=unavailable",
        ],
    );
}

// Crossing inputs.

impl Desk {
    fn takes_and_joins(&mut self) {
        self.calls_in("2002");
        self.takes();
        self.joins(1, 4, "2002", 2);
    }

    /// What may happen to ben's invitation, from either side, in any order. False: not now.
    fn cross(&mut self, what: &str) -> bool {
        match what {
            "accept" => self.accept(),
            "accept and call" => {
                self.accept();
                return self.cross("request taken");
            }
            "reject" => self.reject(),
            "time-out" => self.waits(TIMEOUT),
            "inviter hangs up" => self.leaves(2),
            "call ends" => self.released(1),
            "request taken" if !self.asks.is_empty() => {
                self.calls_in("2002");
                self.takes();
            }
            "request refused" if !self.asks.is_empty() => self.refuses(),
            "phone called" => self.calls_in("2002"),
            "phone busy" => self.not_reached("2002", ReleaseCause::Rejected(486)),
            "phone joins" => self.joins(1, 4, "2002", 2),
            "phone hangs up" => self.leaves(4),
            "leave" => self.leave("ben"),
            "reconnect" => self.connect("ben", "2002").unwrap(),
            _ => return false,
        }
        true
    }
}

const CROSSING: [&str; 14] = [
    "accept",
    "accept and call",
    "reject",
    "time-out",
    "inviter hangs up",
    "call ends",
    "request taken",
    "request refused",
    "phone called",
    "phone busy",
    "phone joins",
    "phone hangs up",
    "leave",
    "reconnect",
];

/// Of each pair the second one's events to ben, anna and reporting, in `fixtures/interaction/crossings.txt`.
#[test]
fn every_pair_of_crossing_inputs_ends_as_the_table_says() {
    let mut found = String::new();
    for first in CROSSING {
        for second in CROSSING {
            let mut desk = Desk::invited();
            if !desk.cross(first) {
                continue;
            }
            desk.told();
            if !desk.cross(second) {
                continue;
            }
            let concerned = |line: &String| !line.starts_with("carl");
            let told: Vec<String> = desk.told().into_iter().filter(concerned).map(shorten).collect();
            let told = if told.is_empty() { "nothing".to_owned() } else { told.join("; ") };
            found += &format!("{first}, then {second}: {told}\n");
        }
    }
    let expected = include_str!("../../fixtures/interaction/crossings.txt");
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "all pairs:\n{found}");
}

fn shorten(line: String) -> String {
    let words = line.split(' ').filter(|word| !word.contains('=') || word.starts_with("Code="));
    words.filter(|word| !["with", "ticket"].contains(word)).collect::<Vec<_>>().join(" ").replace("Code=", "")
}

// Random sequences.

const AGENTS: [(&str, &str); 4] = [("anna", "2001"), ("ben", "2002"), ("carl", "2003"), ("dora", "2004")];
const CALLS: u64 = 2;

#[derive(Debug, Clone)]
enum Move {
    Invite {
        by: usize,
        agent: usize,
        call: u64,
    },
    Answer {
        agent: usize,
        ticket: usize,
        accept: bool,
    },
    Leave {
        agent: usize,
        call: u64,
    },
    /// Call control decides the oldest request.
    Decide {
        refuse: bool,
    },
    /// Somebody else calls an agent into the call.
    Dial {
        agent: usize,
        call: u64,
    },
    /// The oldest dial of a call ends.
    Dialled {
        call: u64,
        answers: bool,
    },
    HangUp {
        agent: usize,
        call: u64,
    },
    Wait {
        seconds: u64,
    },
    Reconnect {
        agent: usize,
    },
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let (agent, call) = (0..AGENTS.len(), 1..=CALLS);
    let one = prop_oneof![
        3 => (agent.clone(), agent.clone(), call.clone()).prop_map(|(by, agent, call)| Move::Invite { by, agent, call }),
        3 => (agent.clone(), 0..8_usize, prop::bool::weighted(0.8))
            .prop_map(|(agent, ticket, accept)| Move::Answer { agent, ticket, accept }),
        1 => (agent.clone(), call.clone()).prop_map(|(agent, call)| Move::Leave { agent, call }),
        4 => prop::bool::weighted(0.1).prop_map(|refuse| Move::Decide { refuse }),
        1 => (agent.clone(), call.clone()).prop_map(|(agent, call)| Move::Dial { agent, call }),
        3 => (call.clone(), prop::bool::weighted(0.7)).prop_map(|(call, answers)| Move::Dialled { call, answers }),
        1 => (agent.clone(), call).prop_map(|(agent, call)| Move::HangUp { agent, call }),
        1 => (1..20_u64).prop_map(|seconds| Move::Wait { seconds }),
        1 => agent.prop_map(|agent| Move::Reconnect { agent }),
    ];
    prop::collection::vec(one, 1..60)
}

/// What call control would do, reduced to who is in a call and who is called into it.
#[derive(Default)]
struct Control {
    /// Leg and DN of the members of each live call; the customer has no DN.
    calls: BTreeMap<u64, Vec<(u64, Option<&'static str>)>>,
    /// Who is called, and by whom.
    dials: BTreeMap<u64, Vec<(&'static str, u64)>>,
    legs: u64,
}

struct Random {
    desk: Desk,
    control: Control,
    requests: u64,
    /// Every event told, with its recipient, before it becomes a line.
    parties: BTreeMap<String, Vec<String>>,
    placed: BTreeMap<String, usize>,
    /// Events with a ticket, by ticket; events with a reference of a RequestConference, by that.
    of_ticket: BTreeMap<String, Vec<String>>,
    of_reference: BTreeMap<String, Vec<String>>,
    taken: BTreeSet<AskId>,
}

impl Random {
    fn new() -> Self {
        let mut desk = Desk::empty();
        for (agent, dn) in AGENTS {
            desk.connect(agent, dn).unwrap();
        }
        let mut random = Self {
            desk,
            control: Control { legs: 100, ..Control::default() },
            requests: 0,
            parties: BTreeMap::new(),
            placed: BTreeMap::new(),
            of_ticket: BTreeMap::new(),
            of_reference: BTreeMap::new(),
            taken: BTreeSet::new(),
        };
        for call in 1..=CALLS {
            let (_, number) = AGENTS[call as usize - 1];
            random.desk.begin(call, call, customer(), dn(number), Some(Origin::Queue("sales".into())));
            let leg = 10 * call - 9;
            random.control.calls.insert(call, vec![(leg, None), (leg + 1, Some(number))]);
            random.parties.insert(id(call), vec!["+49301".to_owned(), number.to_owned()]);
        }
        random
    }

    fn fact(&mut self, call: u64, what: What) {
        let wall = "2026-11-20T10:00:00Z".parse().unwrap();
        let fact = Fact { at: self.desk.now, wall, conn_id: Some(ConnId(call)), cause: None, what };
        self.desk.model.handle(Input::Fact(&fact), self.desk.now);
        self.drain();
    }

    fn says(&mut self, agent: usize, reference: Option<String>, message: Message) {
        let from = self.desk.connection(AGENTS[agent].0);
        let reference = reference.map(Into::into);
        self.desk.model.handle(Input::Message { from, reference, message }, self.desk.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.desk.model.poll_output() {
            match output {
                Output::Tell(connection, event) => {
                    let agent = self.desk.connections[connection.0 as usize].1.clone();
                    let name = event.name.as_str().to_owned();
                    if let Some(ticket) = event.ticket.map(|ticket| ticket.to_string()) {
                        if !self.desk.tickets.contains(&ticket) {
                            self.desk.tickets.push(ticket.clone());
                        }
                        self.of_ticket.entry(ticket).or_insert_with(|| vec![agent]).push(name);
                    } else if let Some(reference) = event.reference {
                        self.of_reference.entry(reference.to_string()).or_default().push(name);
                    }
                }
                Output::Report(event) => {
                    let interaction = event.interaction.expect("reporting is told of interactions");
                    match event.name.as_str() {
                        "EventPartyAdded" | "EventPartyRemoved" => {
                            self.parties.insert(interaction, event.parties.expect("all that are left"));
                        }
                        "EventPlacedInQueue" => *self.placed.entry(interaction).or_default() += 1,
                        _ => {}
                    }
                }
                Output::Ask(id, request) => self.desk.asks.push((id, request)),
                Output::Replaced(_) => {}
            }
        }
    }

    fn apply(&mut self, one: &Move) {
        match *one {
            Move::Invite { by, agent, call } => {
                self.requests += 1;
                let reference = Some(format!("i{}", self.requests));
                let agent = AGENTS[agent].0.to_owned();
                self.says(by, reference, Message::Conference { interaction: id(call), agent });
            }
            Move::Answer { agent, ticket, accept } => {
                let tickets = &self.desk.tickets;
                let Some(ticket) = tickets.iter().rev().nth(ticket).cloned() else { return };
                let message = if accept { Message::Accept { ticket } } else { Message::Reject { ticket } };
                self.says(agent, None, message);
            }
            Move::Leave { agent, call } => self.says(agent, None, Message::Leave { interaction: id(call) }),
            Move::Decide { refuse } => self.decide(refuse),
            Move::Dial { agent, call } => self.dial(call, AGENTS[agent].1),
            Move::Dialled { call, answers } => self.dialled(call, answers),
            Move::HangUp { agent, call } => self.hang_up(call, AGENTS[agent].1),
            Move::Wait { seconds } => {
                self.desk.now += Duration::from_secs(seconds);
                while self.desk.model.poll_timeout().is_some_and(|(at, _)| at <= self.desk.now) {
                    self.desk.model.handle(Input::Timeout, self.desk.now);
                    self.drain();
                }
            }
            Move::Reconnect { agent } => {
                let (agent, dn) = AGENTS[agent];
                let connection = ConnectionId(self.desk.connections.len() as u64);
                self.desk.connections.push((connection, agent.into()));
                self.desk.model.connect(connection, AgentId::new(agent).unwrap(), dn.into()).unwrap();
                self.drain();
            }
        }
    }

    fn decide(&mut self, refuse: bool) {
        if self.desk.asks.is_empty() {
            return;
        }
        let (ask, request) = self.desk.asks.remove(0);
        assert!(self.taken.insert(ask), "each request is asked once");
        let call = request.conn_id.0;
        let is_party = |members: &Vec<(u64, Option<&str>)>| members.iter().any(|m| m.1 == Some(&*request.this_dn));
        let allowed = !refuse && self.control.calls.get(&call).is_some_and(is_party);
        if allowed {
            match &request.ask {
                Ask::SingleStepConference { to, .. } => {
                    let dn = AGENTS.iter().find(|(_, dn)| dn == to).expect("an agent").1;
                    self.dial(call, dn);
                }
                Ask::ReleaseCall => {
                    let dn = AGENTS.iter().find(|(_, dn)| **dn == request.this_dn).expect("an agent").1;
                    self.hang_up(call, dn);
                }
                other => panic!("{other:?}"),
            }
        }
        let denied = Denied { code: Code::WrongState, detail: String::new(), state: String::new() };
        let answer = if allowed { Ok(Accepted::new(ConnId(call))) } else { Err(denied) };
        self.desk.model.handle(Input::Answered(ask, Some(answer)), self.desk.now);
        self.drain();
    }

    fn dial(&mut self, call: u64, number: &'static str) {
        let Some(members) = self.control.calls.get(&call) else { return };
        if members.iter().any(|member| member.1 == Some(number)) {
            return;
        }
        let by = members[0].0;
        self.control.dials.entry(call).or_default().push((number, by));
        self.fact(call, What::PartyInvited { by: LegId(by), to: dn(number), observer: false });
    }

    fn dialled(&mut self, call: u64, answers: bool) {
        let Some(dials) = self.control.dials.get_mut(&call).filter(|dials| !dials.is_empty()) else { return };
        let (number, by) = dials.remove(0);
        let Some(members) = self.control.calls.get_mut(&call) else { return };
        let by = LegId(by);
        if !answers || members.iter().any(|member| member.1 == Some(number)) {
            return self.fact(call, What::PartyNotAdded { by, to: dn(number), cause: ReleaseCause::NoAnswer });
        }
        self.control.legs += 1;
        let leg = self.control.legs;
        members.push((leg, Some(number)));
        self.fact(call, What::PartyAdded { leg: LegId(leg), party: dn(number), by, consult: None });
    }

    fn hang_up(&mut self, call: u64, number: &str) {
        let Some(members) = self.control.calls.get_mut(&call) else { return };
        let Some(at) = members.iter().position(|member| member.1 == Some(number)) else { return };
        let (leg, _) = members.remove(at);
        let left = members.len();
        match left {
            0 | 1 => self.release(call, Some(LegId(leg))),
            _ => self.fact(call, What::PartyDeleted { leg: LegId(leg), by: LegId(leg), left }),
        }
    }

    fn release(&mut self, call: u64, by: Option<LegId>) {
        self.control.calls.remove(&call);
        self.control.dials.remove(&call);
        self.fact(call, What::Released { cause: ReleaseCause::Released, by, answered: true });
    }

    /// Reporting knows of each live call exactly who is in it.
    fn check_parties(&self) {
        for (call, members) in &self.control.calls {
            let mut are: Vec<&str> = members.iter().map(|member| member.1.unwrap_or("+49301")).collect();
            let mut told: Vec<&str> = self.parties[&id(*call)].iter().map(String::as_str).collect();
            are.sort_unstable();
            told.sort_unstable();
            assert_eq!(told, are, "call {call}");
        }
    }

    fn finish(mut self) {
        for call in self.control.calls.keys().copied().collect::<Vec<_>>() {
            self.release(call, None);
        }
        while !self.desk.asks.is_empty() {
            self.decide(false);
        }
        assert!(self.desk.model.is_empty(), "nothing is remembered");
        for call in 1..=CALLS {
            assert_eq!(self.placed.get(&id(call)), Some(&1), "placed once");
        }
        for (ticket, events) in &self.of_ticket {
            let outcome: Vec<&str> = events[1..].iter().map(String::as_str).filter(|e| *e != "EventInvite").collect();
            let is_one =
                matches!(outcome[..], ["EventAck"] | ["EventRevoked"] | ["EventError"] | ["EventAck", "EventError"]);
            assert!(is_one, "{ticket} of {}: {events:?}", events[0]);
        }
        for (reference, events) in &self.of_reference {
            let events: Vec<&str> = events.iter().map(String::as_str).collect();
            assert!(matches!(events[..], ["EventAck"] | ["EventError"] | ["EventAck", "EventError"]), "{reference}");
        }
        let invited = self.of_reference.len();
        assert_eq!(invited as u64, self.requests, "who invites hears of it");
        let distinct: BTreeSet<&String> = self.desk.tickets.iter().collect();
        assert_eq!(distinct.len(), self.desk.tickets.len(), "no ticket is given twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_each_invitation_has_one_outcome_and_each_interaction_one_place(moves in moves()) {
        let mut random = Random::new();
        for one in &moves {
            random.apply(one);
            random.check_parties();
        }
        random.finish();
    }
}
