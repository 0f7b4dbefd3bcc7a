//! The interaction model through call control: desktops and phones in virtual time, and the two views of who is in a call
//! stay the same whichever side moves first.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::call_world::*;
use crate::interaction_support::line;
use proptest::prelude::*;
use stickytape::call::Input;
use stickytape::call::fact::{Origin, What};
use stickytape::call::options::{DefaultOwner, Options, Route, RouteTarget};
use stickytape::call::request::{Ask, Request, Ticket};
use stickytape::id::ConnId;
use stickytape::testing::phone::{Action, Incoming};
use stickytape::views::interaction::event::{Event, Name};
use stickytape::views::interaction::message::{AgentId, ConnectionId, Message};
use stickytape::views::interaction::{self, AskId, Interactions, Output};

const AGENTS: [(&str, &str); 3] = [("anna", "2002"), ("ben", "2003"), ("carl", "2004")];
const ANSWERS: Incoming = Incoming::Answer { ring: Duration::ZERO, answer: Duration::from_millis(200) };

/// The caller is 2001, which dials 8001: a route with an origin to 2002, anna. Ben is 2003, carl 2004.
struct Office {
    world: World,
    model: Interactions,
    facts: usize,
    answers: usize,
    asks: HashMap<Ticket, AskId>,
    lines: Vec<String>,
    /// What reporting was told.
    reports: Vec<Event>,
    ticket: Option<String>,
    /// The call's ConnID and InteractionID.
    call: Option<(ConnId, String)>,
}

fn unrecorded() -> Options {
    let mut options = options();
    options.recording.default = DefaultOwner::None;
    options.plan.routes.push(Route {
        from: None,
        pattern: regex::Regex::new("^8001$").unwrap(),
        to: RouteTarget::Dn("2002".into()),
        rewrite: None,
        record: None,
        required: false,
        origin: Some(Origin::Queue("sales".into())),
    });
    options
}

impl Office {
    fn talking(bens: Incoming) -> Self {
        Self::talking_with(bens, unrecorded())
    }

    /// The caller talks to anna.
    fn talking_with(bens: Incoming, options: Options) -> Self {
        let mut world = World::new(options);
        for n in 1..=4 {
            world.phone(n, |o| o.incoming = if n == 3 { bens } else { ANSWERS });
        }
        let model = Interactions::new(interaction::Options {
            invitation_timeout: ms(30_000),
            is_dn: Box::new(|_| true),
            max_interactions: 10,
            seed: [3; 32],
        });
        let mut office = Self {
            world,
            model,
            facts: 0,
            answers: 0,
            asks: HashMap::new(),
            lines: vec![],
            reports: vec![],
            ticket: None,
            call: None,
        };
        for (n, (agent, dn)) in AGENTS.into_iter().enumerate() {
            office.model.connect(ConnectionId(n as u64), AgentId::new(agent).unwrap(), dn.into()).unwrap();
        }
        office.world.act(0, Action::call("8001"));
        office.run(1_000);
        let calls = office.world.proxy.calls.snapshot();
        office.call = Some((calls[0].conn_id, calls[0].call_uuid.to_string()));
        office
    }

    fn says(&mut self, agent: &str, message: Message) {
        let at = AGENTS.iter().position(|(name, _)| *name == agent).unwrap();
        let from = ConnectionId(at as u64);
        self.model.handle(interaction::Input::Message { from, reference: None, message }, self.world.net.now());
        self.take();
    }

    fn invite(&mut self, by: &str, agent: &str) {
        let interaction = self.call.as_ref().unwrap().1.clone();
        self.says(by, Message::Conference { interaction, agent: agent.into() });
    }

    fn accept(&mut self, agent: &str) {
        let ticket = self.ticket.clone().expect("invited");
        self.says(agent, Message::Accept { ticket });
    }

    fn leave(&mut self, agent: &str) {
        let interaction = self.call.as_ref().unwrap().1.clone();
        self.says(agent, Message::Leave { interaction });
    }

    fn request(&mut self, this_dn: &str, ask: Ask) {
        let ticket = Ticket(1_000_000 + self.answers as u64);
        let conn_id = self.call.as_ref().unwrap().0;
        let request = Request { conn_id, this_dn: this_dn.into(), reference: None, ask };
        self.world.tell(Input::Request(ticket, Box::new(request)));
        self.take();
    }

    /// So many milliseconds, the model's time-outs included.
    fn run(&mut self, time: u64) {
        let end = self.world.net.now() + ms(time);
        while self.world.net.now() < end {
            self.world.run(ms(50));
            self.take();
            if self.model.poll_timeout().is_some_and(|(at, _)| at <= self.world.net.now()) {
                self.model.handle(interaction::Input::Timeout, self.world.net.now());
                self.take();
            }
        }
    }

    /// Facts first: an answer comes after what it has caused.
    fn take(&mut self) {
        loop {
            while let Some(output) = self.model.poll_output() {
                self.carry_out(output);
            }
            if let Some(fact) = self.world.proxy.facts.get(self.facts).cloned() {
                self.facts += 1;
                self.model.handle(interaction::Input::Fact(&fact), self.world.net.now());
            } else if let Some((ticket, answer)) = self.world.proxy.answers.get(self.answers).cloned() {
                self.answers += 1;
                if let Some(id) = self.asks.remove(&ticket) {
                    self.model.handle(interaction::Input::Answered(id, Some(answer)), self.world.net.now());
                }
            } else {
                return;
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Tell(connection, event) => {
                let agent = AGENTS[connection.0 as usize].0;
                self.lines.push(format!("{agent} {}", line(&event)));
                self.ticket = event.ticket.map(|ticket| ticket.to_string()).or(self.ticket.take());
            }
            Output::Report(event) => {
                self.lines.push(format!("* {}", line(&event)));
                self.reports.push(event);
            }
            Output::Ask(id, request) => {
                let ticket = Ticket(id.0);
                self.asks.insert(ticket, id);
                self.world.tell(Input::Request(ticket, Box::new(request)));
            }
            Output::Replaced(_) => panic!("nobody registers twice"),
        }
    }

    #[track_caller]
    fn tells(&mut self, expected: &[&str]) {
        let told = std::mem::take(&mut self.lines);
        assert_eq!(told, expected, "\n{}\n", told.join("\n"));
    }

    /// Anna has invited ben, who has accepted and whose phone has answered.
    fn joined() -> Self {
        let mut office = Self::talking(ANSWERS);
        office.invite("anna", "ben");
        office.accept("ben");
        office.run(1_000);
        office.lines.clear();
        office
    }

    /// Everybody hangs up; nothing is left, neither in call control nor in the model.
    fn close(&mut self) -> Vec<String> {
        for phone in 0..4 {
            self.world.act(phone, Action::HangUp);
            self.run(500);
        }
        self.world.settle();
        self.take();
        assert!(self.model.is_empty());
        std::mem::take(&mut self.lines)
    }
}

#[test]
fn an_accepted_agent_is_called_into_the_conference_and_leaves_it_by_request() {
    let mut office = Office::talking(ANSWERS);
    office.tells(&[]);
    office.invite("anna", "ben");
    office
        .tells(&["ben Invite AgentID=anna Parties=2001,2002 with ticket", "* AgentInvited AgentID=ben InvitedBy=anna"]);
    office.run(1_000);
    assert!(!office.world.proxy.has_fact("invited by 2"), "nobody is called before the agent accepts");
    office.accept("ben");
    office.tells(&["ben Ack with ticket", "anna Ack AgentID=ben"]);
    office.run(1_000);
    let added = "PartyAdded AgentID=ben Party=2003 Parties=2001,2002,2003";
    office.tells(&[&format!("anna {added}"), &format!("ben {added}"), &format!("* {added}")]);
    assert_eq!(office.world.proxy.calls.snapshot()[0].parties.len(), 3);
    office.leave("ben");
    let removed = "PartyRemoved AgentID=ben Party=2003 Parties=2001,2002";
    office.tells(&["ben Ack", &format!("anna {removed}"), &format!("* {removed}")]);
    office.run(500);
    assert_eq!(office.world.proxy.calls.snapshot()[0].parties.len(), 2, "the leg got its BYE");
    let end = office.close();
    assert_eq!(end.iter().filter(|line| line.contains("Placed")).collect::<Vec<_>>(), ["* PlacedInQueue Queue=sales"]);
}

#[test]
fn an_agent_that_hangs_up_its_phone_has_left() {
    let mut office = Office::joined();
    office.world.act(2, Action::HangUp);
    office.run(500);
    let removed = "PartyRemoved AgentID=ben Party=2003 Parties=2001,2002";
    office.tells(&[&format!("anna {removed}"), &format!("ben {removed}"), &format!("* {removed}")]);
    office.leave("ben");
    office.tells(&["ben Error Code=not-a-party"]);
    office.close();
}

#[test]
fn a_desktop_and_its_phone_leave_at_once_and_are_told_once() {
    let mut office = Office::joined();
    office.world.act(2, Action::HangUp);
    office.leave("ben");
    office.run(500);
    let removed = "PartyRemoved AgentID=ben Party=2003 Parties=2001,2002";
    office.tells(&["ben Ack", &format!("anna {removed}"), &format!("* {removed}")]);
    office.close();
}

#[test]
fn a_busy_phone_is_an_error_to_both() {
    let mut office = Office::talking(Incoming::Refuse(486));
    office.invite("anna", "ben");
    office.accept("ben");
    office.lines.clear();
    office.run(1_000);
    office.tells(&["ben Error Code=busy with ticket", "anna Error AgentID=ben Code=busy"]);
    assert_eq!(office.world.proxy.calls.snapshot()[0].parties.len(), 2);
    office.close();
}

#[test]
fn call_control_may_refuse_an_accept() {
    let mut office = Office::talking(ANSWERS);
    office.invite("anna", "ben");
    office.request("2002", Ask::InitiateTransfer { to: "2004".into() });
    office.run(500);
    office.lines.clear();
    office.accept("ben");
    office.tells(&["ben Error Code=wrong-state with ticket", "anna Error AgentID=ben Code=wrong-state"]);
    office.close();
}

#[test]
fn an_inviter_that_hangs_up_revokes_its_invitations_and_the_running_call() {
    let mut office = Office::joined();
    office.invite("anna", "carl");
    office.lines.clear();
    office.world.act(1, Action::HangUp);
    office.run(500);
    let told = std::mem::take(&mut office.lines);
    assert_eq!(told[..2], ["carl Revoked Code=inviter-left with ticket", "anna Error AgentID=carl Code=inviter-left"]);
    assert!(told[2..].iter().all(|line| line.contains("PartyRemoved AgentID=anna")), "{told:?}");
    office.close();

    // Accepted, and the phone rings.
    let rings = Incoming::Answer { ring: ms(0), answer: ms(60_000) };
    let mut office = Office::talking(rings);
    office.request("2002", Ask::SingleStepConference { to: "2004".into(), hold: false });
    office.run(500);
    office.invite("anna", "ben");
    office.accept("ben");
    office.run(200);
    office.lines.clear();
    office.world.act(1, Action::HangUp);
    office.run(500);
    let told = std::mem::take(&mut office.lines);
    assert_eq!(told[..2], ["ben Error Code=abandoned with ticket", "anna Error AgentID=ben Code=abandoned"]);
    office.close();
}

#[test]
fn an_invitation_times_out_in_the_call_s_own_time() {
    let mut office = Office::talking(ANSWERS);
    office.invite("anna", "ben");
    office.lines.clear();
    office.run(29_000);
    office.tells(&[]);
    office.run(1_500);
    office.tells(&["ben Revoked Code=timed-out with ticket", "anna Error AgentID=ben Code=timed-out"]);
    office.accept("ben");
    office.tells(&["ben Error Code=unknown-ticket"]);
    office.run(1_000);
    assert_eq!(office.world.proxy.calls.snapshot()[0].parties.len(), 2);
    office.close();
}

#[test]
fn somebody_else_calls_the_invited_agent_in() {
    let mut office = Office::talking(ANSWERS);
    office.invite("anna", "ben");
    office.lines.clear();
    office.request("2002", Ask::SingleStepConference { to: "2003".into(), hold: false });
    office.run(100);
    office.accept("ben");
    office.tells(&["ben Ack with ticket", "anna Ack AgentID=ben"]);
    office.run(1_000);
    let parties = office.world.proxy.calls.snapshot()[0].parties.len();
    assert_eq!((parties, office.lines.len()), (3, 3), "called once, told once");
    office.close();
}

#[test]
fn who_owns_a_required_recording_stays() {
    let mut options = unrecorded();
    for dn in options.plan.dns.iter_mut().filter(|dn| dn.numbers.contains("2003")) {
        (dn.record, dn.required) = (Some(true), true);
    }
    let mut office = Office::talking_with(ANSWERS, options);
    office.invite("anna", "ben");
    office.accept("ben");
    office.run(1_000);
    office.lines.clear();
    office.leave("ben");
    office.tells(&["ben Error Code=recording-required"]);
    office.leave("anna");
    let told = std::mem::take(&mut office.lines);
    assert_eq!(told[0], "anna Ack", "the others may leave");
    office.close();
}

// Random sequences.

#[derive(Debug, Clone)]
enum Move {
    Dial {
        phone: usize,
        to: &'static str,
    },
    HangUp {
        phone: usize,
    },
    Invite {
        by: usize,
        agent: usize,
    },
    Answer {
        agent: usize,
        accept: bool,
    },
    Leave {
        agent: usize,
    },
    /// A request in the name of a DN, in the newest call that it is in.
    Ask {
        dn: usize,
        ask: usize,
        to: usize,
    },
    Wait {
        time: u64,
    },
}

const NUMBERS: [&str; 4] = ["2001", "2002", "2003", "2004"];

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let (number, agent) = (0..NUMBERS.len(), 0..AGENTS.len());
    let to = prop::sample::select(vec!["8001", "2002", "2003", "2004"]);
    let one = prop_oneof![
        2 => (number.clone(), to).prop_map(|(phone, to)| Move::Dial { phone, to }),
        1 => number.clone().prop_map(|phone| Move::HangUp { phone }),
        4 => (agent.clone(), agent.clone()).prop_map(|(by, agent)| Move::Invite { by, agent }),
        4 => (agent.clone(), prop::bool::weighted(0.9)).prop_map(|(agent, accept)| Move::Answer { agent, accept }),
        1 => agent.prop_map(|agent| Move::Leave { agent }),
        3 => (number.clone(), 0..9_usize, number).prop_map(|(dn, ask, to)| Move::Ask { dn, ask, to }),
        4 => prop_oneof![0..100_u64, 100..1_000_u64, 1_000..40_000_u64].prop_map(|time| Move::Wait { time }),
    ];
    prop::collection::vec(one, 1..40)
}

fn request(ask: usize, to: &str) -> Ask {
    let to = to.to_owned();
    match ask {
        0 => Ask::SingleStepConference { to, hold: false },
        1 => Ask::SingleStepTransfer { to },
        2 => Ask::InitiateConference { to },
        3 => Ask::CompleteConference { other: None },
        4 => Ask::CompleteTransfer { other: None },
        5 => Ask::ReconnectCall { other: None },
        6 => Ask::DeleteFromConference { party: to },
        7 => Ask::AlternateCall { other: None },
        _ => Ask::ReleaseCall,
    }
}

impl Office {
    fn apply(&mut self, one: &Move) {
        match *one {
            Move::Dial { phone, to } => self.world.act(phone, Action::call(to)),
            Move::HangUp { phone } => self.world.act(phone, Action::HangUp),
            Move::Invite { by, agent } => {
                if self.find(AGENTS[by].1) {
                    self.invite(AGENTS[by].0, AGENTS[agent].0);
                }
            }
            Move::Answer { agent, accept } => {
                if let Some(ticket) = self.ticket.clone() {
                    let message = if accept { Message::Accept { ticket } } else { Message::Reject { ticket } };
                    self.says(AGENTS[agent].0, message);
                }
            }
            Move::Leave { agent } => {
                if self.find(AGENTS[agent].1) {
                    self.leave(AGENTS[agent].0);
                }
            }
            Move::Ask { dn, ask, to } => {
                if self.find(NUMBERS[dn]) {
                    self.request(NUMBERS[dn], request(ask, NUMBERS[to]));
                }
            }
            Move::Wait { time } => self.run(time),
        }
        self.take();
    }

    /// Makes the newest call that the DN is in the one that is meant. False: there is none.
    fn find(&mut self, dn: &str) -> bool {
        let calls = self.world.proxy.calls.snapshot();
        let own = calls.iter().rev().find(|call| call.parties.iter().any(|party| party.dn.as_deref() == Some(dn)));
        self.call = own.map(|call| (call.conn_id, call.call_uuid.to_string()));
        self.call.is_some()
    }

    /// Of each call in which the parties talk and nothing else goes on: reporting knows who they are.
    fn check(&self, begun: &mut BTreeMap<String, Vec<String>>) {
        for call in self.world.proxy.calls.snapshot() {
            let settled = matches!(call.state, "talking" | "held" | "conference") && call.answered.is_some();
            // Who is only consulted is no party.
            if !settled
                || call.previous_conn_id.is_some()
                || call.parties.iter().any(|party| party.state != "established")
            {
                continue;
            }
            let mut parties: Vec<String> = call.parties.iter().filter_map(|party| party.dn.clone()).collect();
            parties.sort_unstable();
            let interaction = call.call_uuid.to_string();
            let told = self.reports.iter().rev().find(|event| {
                let of_parties = matches!(event.name, Name::EventPartyAdded | Name::EventPartyRemoved);
                of_parties && event.interaction.as_ref() == Some(&interaction)
            });
            let mut told = match told {
                Some(told) => told.parties.clone().expect("all that are left"),
                // Nobody has come or gone since it was answered.
                None => begun.entry(interaction).or_insert_with(|| parties.clone()).clone(),
            };
            told.sort_unstable();
            assert_eq!(told, parties, "{call:#?}");
        }
    }

    /// Each answered call that came out of a queue has gone back to it, once, and no other.
    fn check_places(&self) {
        let facts = &self.world.proxy.facts;
        let answered =
            |conn_id| facts.iter().any(|fact| fact.conn_id == conn_id && matches!(fact.what, What::Answered { .. }));
        let came = facts.iter().filter_map(|fact| match &fact.what {
            What::CallStarted { call_uuid, consult_of: None, origin: Some(_), .. } if answered(fact.conn_id) => {
                Some(call_uuid.to_string())
            }
            _ => None,
        });
        let placed = self.reports.iter().filter(|event| event.name == Name::EventPlacedInQueue);
        let mut placed: Vec<String> = placed.filter_map(|event| event.interaction.clone()).collect();
        let mut came: Vec<String> = came.collect();
        placed.sort_unstable();
        came.sort_unstable();
        assert_eq!(placed, came);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whoever_moves_first_reporting_knows_who_is_in_which_call(moves in moves()) {
        let mut office = Office::talking(ANSWERS);
        let mut begun = BTreeMap::new();
        office.check(&mut begun);
        for one in &moves {
            office.apply(one);
            office.check(&mut begun);
        }
        office.run(5_000);
        office.check(&mut begun);
        office.close();
        office.check_places();
    }
}
