//! spec/events.md §2 through call control: a caller, an IVR port and third parties in virtual time; what the driver sends
//! and what drivers are told, row by row.

use std::collections::HashMap;
use std::time::Duration;

use crate::call_world::*;
use stickytape::call::Input;
use stickytape::call::fact::{Fact, Party, ReleaseCause, What};
use stickytape::call::options::{Conference, DefaultOwner, Options};
use stickytape::call::request::{Accepted, Ticket};
use stickytape::id::{CallUuid, ConnId};
use stickytape::testing::phone::{Action, Incoming};
use stickytape::views::ivr::message::{Audience, DriverId, Message, Say, Telling};
use stickytape::views::ivr::{self, AskId, Ivr, Output};

/// The caller is 2001, the IVR port 2002, third parties 2003 and 2004.
const CALLER: usize = 0;
const PORT: usize = 1;
const THIRD: usize = 2;
const ONE: DriverId = DriverId(1);
/// Rings at once and is answered after 200 ms.
const ANSWERS: Incoming = Incoming::Answer { ring: Duration::ZERO, answer: Duration::from_millis(200) };

struct Desk {
    world: World,
    ivr: Ivr,
    /// Facts and answers that the view has been told.
    facts: usize,
    answers: usize,
    asks: HashMap<Ticket, AskId>,
    conns: Vec<ConnId>,
    lines: Vec<String>,
}

impl Desk {
    fn new(third: Incoming, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = options();
        options.recording.default = DefaultOwner::None;
        options.plan.dns[PORT].ivr = true;
        change(&mut options);
        let busy = options.sip.ivr_busy.clone();
        let ports = options.plan.dns.clone();
        let is_port = move |number: &str| ports.iter().any(|dn| dn.ivr && dn.numbers.contains(number));
        let ivr = Ivr::new(ivr::Options { busy, is_port: Box::new(is_port), max_calls: 20 });
        let mut world = World::new(options);
        for n in 1..=4 {
            world.phone(n, |o| {
                (o.lines, o.seed) = (2, u64::from(n));
                if n == 3 {
                    o.incoming = third;
                }
            });
        }
        Self { world, ivr, facts: 0, answers: 0, asks: HashMap::new(), conns: vec![], lines: vec![] }
    }

    /// The caller talks to the port.
    fn talking(third: Incoming) -> Self {
        Self::talking_with(third, |_| {})
    }

    fn talking_with(third: Incoming, change: impl FnOnce(&mut Options)) -> Self {
        let mut desk = Self::new(third, change);
        desk.act(CALLER, Action::call("2002"));
        desk.tells(500, &["C1 Ringing", "C1 Established"]);
        desk
    }

    fn act(&mut self, phone: usize, action: Action) {
        self.world.act(phone, action);
    }

    fn sends(&mut self, call: usize, message: Message) {
        self.send_as(ONE, call, None, message);
    }

    fn send_as(&mut self, driver: DriverId, call: usize, req_id: Option<&str>, message: Message) {
        let outputs = self.ivr.message(driver, self.conns[call - 1], req_id.map(Into::into), message);
        self.carry_out(outputs);
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Tell(telling) => {
                    let line = self.line(&telling);
                    self.lines.push(line);
                }
                Output::Ask(id, request) => {
                    let ticket = Ticket(id.0);
                    self.asks.insert(ticket, id);
                    self.world.tell(Input::Request(ticket, Box::new(request)));
                }
            }
        }
        self.take();
    }

    /// Facts first: an answer comes after what it has caused.
    fn take(&mut self) {
        while let Some(fact) = self.world.proxy.facts.get(self.facts).cloned() {
            self.facts += 1;
            if let Some(conn_id) = fact.conn_id.filter(|conn_id| !self.conns.contains(conn_id)) {
                self.conns.push(conn_id);
            }
            let outputs = self.ivr.fact(&fact);
            self.carry_out(outputs);
        }
        while let Some((ticket, answer)) = self.world.proxy.answers.get(self.answers).cloned() {
            self.answers += 1;
            let id = self.asks.remove(&ticket).expect("asked");
            let outputs = self.ivr.answered(id, Some(answer));
            self.carry_out(outputs);
        }
    }

    fn line(&self, telling: &Telling) -> String {
        let call = self.conns.iter().position(|conn_id| *conn_id == telling.call).expect("a known call") + 1;
        match (&telling.say, telling.to) {
            (Say::Status(status), Audience::All) => format!("C{call} {status}"),
            (Say::Error(error), Audience::Driver(DriverId(driver))) => {
                let code = error.code.map(|code| format!(" {code}")).unwrap_or_default();
                let req_id = error.req_id.as_ref().map(|id| format!(" {id}")).unwrap_or_default();
                format!("C{call} CallError {}{code}{req_id} to {driver}", error.failed)
            }
            other => panic!("{other:?}: who is told what"),
        }
    }

    /// Runs for so many milliseconds; this and nothing else has been told since the last time.
    #[track_caller]
    fn tells(&mut self, time: u64, expected: &[&str]) {
        for _ in 0..time / 5 {
            self.world.run(ms(5));
            self.take();
        }
        let told = std::mem::take(&mut self.lines);
        assert_eq!(told, expected, "\n{}\n", told.join("\n"));
    }

    fn state(&self) -> Vec<String> {
        self.ivr.state().iter().map(|telling| self.line(telling)).collect()
    }

    /// Everybody hangs up; nothing is left, neither in call control nor in the view.
    fn close(mut self) {
        for phone in 0..4 {
            self.act(phone, Action::HangUp);
        }
        self.world.run(ms(1_000));
        self.take();
        self.world.settle();
        self.take();
        assert!(self.ivr.is_empty(), "{} calls are left", self.ivr.calls());
    }
}

fn init_conf(to: &str) -> Message {
    Message::InitConf { to: to.into() }
}

fn init_xfer(to: &str) -> Message {
    Message::InitXfer { to: to.into() }
}

fn one_step_xfer(to: &str) -> Message {
    Message::OneStepXfer { to: to.into() }
}

#[test]
fn a_call_to_a_port_is_told_from_its_ringing_to_its_end() {
    let mut desk = Desk::talking(ANSWERS);
    desk.act(CALLER, Action::HangUp);
    desk.tells(200, &["C1 Released"]);
    desk.close();
}

#[test]
fn a_call_that_a_port_does_not_answer_is_released() {
    let mut desk = Desk::new(ANSWERS, |_| {});
    desk.act(CALLER, Action::call("2002"));
    desk.tells(100, &["C1 Ringing"]);
    desk.act(CALLER, Action::Cancel);
    desk.tells(500, &["C1 Released"]);
    desk.close();
}

#[test]
fn calls_between_others_are_none_of_the_interface() {
    let mut desk = Desk::new(ANSWERS, |_| {});
    desk.act(CALLER, Action::call("2003"));
    desk.tells(1_000, &[]);
    desk.sends(1, Message::EndCall);
    desk.tells(0, &["C1 CallError NoSuchCall 56 to 1"]);
    assert!(desk.world.phones[CALLER].is_talking(), "and nothing has happened to it");
    desk.close();
}

#[test]
fn a_call_that_the_port_places_itself_is_told_too() {
    let mut desk = Desk::new(ANSWERS, |_| {});
    desk.act(PORT, Action::call("2003"));
    desk.tells(1_000, &["C1 Dialing", "C1 Established"]);
    desk.sends(1, Message::EndCall);
    desk.tells(200, &["C1 Released"]);
    desk.close();

    for (code, told) in [(486, &["C1 Dialing", "C1 Busy", "C1 Released"][..]), (404, &["C1 Dialing", "C1 Released"])] {
        let mut desk = Desk::new(Incoming::Refuse(code), |_| {});
        desk.act(PORT, Action::call("2003"));
        desk.tells(1_000, told);
        desk.close();
    }
}

#[test]
fn end_call_ends_the_call() {
    let mut desk = Desk::talking(ANSWERS);
    desk.sends(1, Message::EndCall);
    desk.tells(200, &["C1 Released"]);
    assert!(desk.world.phones[CALLER].is_idle() && desk.world.phones[PORT].is_idle());
    desk.sends(1, Message::EndCall);
    desk.tells(0, &["C1 CallError NoSuchCall 56 to 1"]);
    desk.close();
}

#[test]
fn a_consultation_goes_from_held_over_dialing_to_established_and_back_to_retrieved() {
    for message in [init_conf, init_xfer] {
        let mut desk = Desk::talking(ANSWERS);
        desk.sends(1, message("2003"));
        desk.tells(100, &["C1 Held", "C1 Dialing"]);
        desk.tells(500, &["C1 Established"]);
        desk.sends(1, Message::RetrieveCall);
        desk.tells(500, &["C1 Retrieved"]);
        assert!(desk.world.phones[THIRD].is_idle() && desk.world.phones[CALLER].is_talking());
        desk.close();
    }
}

#[test]
fn a_consultation_can_be_given_up_while_its_target_rings() {
    let mut desk = Desk::talking(ANSWERS);
    desk.sends(1, init_conf("2003"));
    desk.tells(100, &["C1 Held", "C1 Dialing"]);
    desk.sends(1, Message::RetrieveCall);
    desk.tells(1_000, &["C1 Retrieved"]);
    assert!(desk.world.phones[THIRD].is_idle());
    desk.close();
}

#[test]
fn a_busy_target_is_no_error_and_the_call_stays_held_until_it_is_retrieved() {
    for (message, code) in [(init_conf as fn(&str) -> Message, 486), (init_conf, 600), (init_xfer, 486)] {
        let mut desk = Desk::talking(Incoming::Refuse(code));
        desk.sends(1, message("2003"));
        desk.tells(5_000, &["C1 Held", "C1 Dialing", "C1 Busy"]);
        assert_eq!(desk.state(), ["C1 Ringing", "C1 Established", "C1 Held"]);
        desk.sends(1, Message::RetrieveCall);
        desk.tells(100, &["C1 Retrieved"]);
        desk.close();
    }
}

#[test]
fn a_target_that_is_not_reached_is_an_error_and_the_call_is_retrieved_by_itself() {
    for (code, number) in [(404, 415), (480, 232), (500, 234), (603, 233)] {
        let mut desk = Desk::talking(Incoming::Refuse(code));
        desk.send_as(ONE, 1, Some("r7"), init_conf("2003"));
        let error = format!("C1 CallError InitConf {number} r7 to 1");
        desk.tells(1_000, &["C1 Held", "C1 Dialing", &error, "C1 Retrieved"]);
        assert_eq!(desk.state(), ["C1 Ringing", "C1 Established"]);
        // 000: retrieving after that is an error of its own.
        desk.send_as(ONE, 1, Some("r8"), Message::RetrieveCall);
        desk.tells(100, &["C1 CallError RetrieveCall 43 r8 to 1"]);
        assert!(desk.world.phones[CALLER].is_talking());
        desk.close();
    }
}

#[test]
fn a_target_that_does_not_answer_in_time_is_an_error() {
    let mut desk = Desk::talking_with(Incoming::Answer { ring: ms(0), answer: ms(60_000) }, |options| {
        options.sip.ring_timeout = ms(2_000);
    });
    desk.sends(1, init_xfer("2003"));
    desk.tells(1_500, &["C1 Held", "C1 Dialing"]);
    desk.tells(2_000, &["C1 CallError InitXfer 232 to 1", "C1 Retrieved"]);
    desk.close();
}

#[test]
fn the_answers_that_count_as_busy_are_configured() {
    let busy = |options: &mut Options| options.sip.ivr_busy = vec![480];
    let mut desk = Desk::talking_with(Incoming::Refuse(480), busy);
    desk.sends(1, init_conf("2003"));
    desk.tells(2_000, &["C1 Held", "C1 Dialing", "C1 Busy"]);
    desk.sends(1, Message::RetrieveCall);
    desk.tells(100, &["C1 Retrieved"]);
    desk.close();

    let mut desk = Desk::talking_with(Incoming::Refuse(486), busy);
    desk.sends(1, init_conf("2003"));
    desk.tells(2_000, &["C1 Held", "C1 Dialing", "C1 CallError InitConf 231 to 1", "C1 Retrieved"]);
    desk.close();
}

#[test]
fn a_target_that_leads_nowhere_is_an_error_and_nothing_has_changed() {
    for (message, failed) in
        [(init_conf as fn(&str) -> Message, "InitConf"), (init_xfer, "InitXfer"), (one_step_xfer, "OneStepXfer")]
    {
        let mut desk = Desk::talking(ANSWERS);
        desk.send_as(ONE, 1, Some("x"), message("nowhere"));
        desk.tells(500, &[&format!("C1 CallError {failed} 415 x to 1")]);
        assert!(desk.world.phones[CALLER].is_talking());
        desk.close();
    }
}

#[test]
fn the_third_party_may_hang_up_before_the_caller_or_after_it() {
    let mut desk = Desk::talking(ANSWERS);
    desk.sends(1, init_conf("2003"));
    desk.tells(1_000, &["C1 Held", "C1 Dialing", "C1 Established"]);
    desk.act(THIRD, Action::HangUp);
    desk.tells(500, &["C1 ConfPartyDel"]);
    desk.sends(1, Message::RetrieveCall);
    desk.tells(100, &["C1 Retrieved"]);
    desk.sends(1, Message::EndCall);
    desk.tells(100, &["C1 Released"]);
    desk.close();

    let mut desk = Desk::talking(ANSWERS);
    desk.sends(1, init_conf("2003"));
    desk.tells(1_000, &["C1 Held", "C1 Dialing", "C1 Established"]);
    desk.act(CALLER, Action::HangUp);
    desk.tells(500, &["C1 Released", "C2 Established"]);
    assert!(desk.world.phones[THIRD].is_talking(), "the third party goes on");
    assert_eq!(desk.state(), ["C2 Ringing", "C2 Established"]);
    desk.sends(2, Message::EndCall);
    desk.tells(100, &["C2 Released"]);
    desk.close();
}

#[test]
fn the_caller_may_hang_up_while_the_third_party_rings() {
    let mut desk = Desk::talking(ANSWERS);
    desk.sends(1, init_conf("2003"));
    desk.tells(100, &["C1 Held", "C1 Dialing"]);
    desk.act(CALLER, Action::HangUp);
    desk.tells(1_000, &["C1 Released", "C2 Dialing", "C2 Established"]);
    desk.close();
}

#[test]
fn end_call_ends_a_consultation_too() {
    for time in [100, 1_000] {
        let mut desk = Desk::talking(ANSWERS);
        desk.sends(1, init_conf("2003"));
        desk.world.run(ms(time));
        desk.take();
        desk.lines.clear();
        desk.sends(1, Message::EndCall);
        desk.tells(1_000, &["C1 Released"]);
        for phone in [CALLER, PORT, THIRD] {
            assert!(desk.world.phones[phone].is_idle(), "{phone}");
        }
        desk.close();
    }
}

#[test]
fn a_transfer_after_a_consultation_leaves_the_other_two_connected() {
    let mut desk = Desk::talking(ANSWERS);
    desk.sends(1, init_xfer("2003"));
    desk.tells(1_000, &["C1 Held", "C1 Dialing", "C1 Established"]);
    desk.sends(1, Message::CompleteXfer);
    desk.tells(500, &["C1 XferComplete", "C1 Released"]);
    assert!(desk.world.phones[CALLER].is_talking() && desk.world.phones[THIRD].is_talking());
    assert!(desk.world.phones[PORT].is_idle());
    desk.sends(1, Message::RetrieveCall);
    desk.tells(0, &["C1 CallError NoSuchCall 56 to 1"]);
    desk.close();
}

#[test]
fn a_transfer_may_be_completed_while_its_target_rings() {
    let mut desk = Desk::talking(ANSWERS);
    desk.sends(1, init_xfer("2003"));
    desk.tells(100, &["C1 Held", "C1 Dialing"]);
    desk.sends(1, Message::CompleteXfer);
    desk.tells(1_000, &["C1 XferComplete", "C1 Released"]);
    desk.close();

    let mut desk = Desk::talking(Incoming::Manual);
    desk.sends(1, init_xfer("2003"));
    desk.tells(100, &["C1 Held", "C1 Dialing"]);
    desk.act(THIRD, Action::Ring);
    desk.send_as(ONE, 1, Some("done"), Message::CompleteXfer);
    desk.tells(100, &[]);
    desk.act(THIRD, Action::Refuse { code: 404, headers: vec![] });
    desk.tells(1_000, &["C1 CallError CompleteXfer 415 done to 1", "C1 Retrieved"]);
    assert!(desk.world.phones[CALLER].is_talking() && desk.world.phones[PORT].is_talking());
    desk.close();
}

#[test]
fn a_transfer_without_a_consultation_cannot_be_completed() {
    let mut desk = Desk::talking(ANSWERS);
    desk.sends(1, Message::CompleteXfer);
    desk.tells(100, &["C1 CallError CompleteXfer to 1"]);
    desk.close();
}

#[test]
fn a_one_step_transfer_succeeds_or_leaves_the_call_as_it_was() {
    let rows: [(Incoming, &[&str]); 3] = [
        (ANSWERS, &["C1 Held", "C1 Dialing", "C1 XferComplete", "C1 Released"]),
        (Incoming::Refuse(486), &["C1 Held", "C1 Dialing", "C1 Busy", "C1 Retrieved"]),
        (Incoming::Refuse(404), &["C1 Held", "C1 Dialing", "C1 CallError OneStepXfer 415 r1 to 1", "C1 Retrieved"]),
    ];
    for (third, told) in rows {
        let mut desk = Desk::talking(third);
        desk.send_as(ONE, 1, Some("r1"), one_step_xfer("2003"));
        desk.tells(1_000, told);
        assert_eq!(desk.world.phones[PORT].is_talking(), third != ANSWERS);
        assert!(desk.world.phones[CALLER].is_talking());
        desk.close();
    }
}

fn one_step_conf(to: &str) -> Message {
    Message::OneStepConf { to: to.into() }
}

/// A one-step conference of the caller, the port and 2003.
fn conference() -> Desk {
    let mut desk = Desk::talking(ANSWERS);
    desk.sends(1, one_step_conf("2003"));
    desk.tells(1_000, &["C1 Held", "C1 Dialing", "C1 Retrieved", "C1 ConfPartyAdd"]);
    assert_eq!(desk.state(), ["C1 Ringing", "C1 Established", "C1 ConfPartyAdd"]);
    desk
}

#[test]
fn one_step_conference() {
    let mut desk = conference();
    desk.act(THIRD, Action::HangUp);
    desk.tells(500, &["C1 ConfPartyDel"]);
    desk.sends(1, Message::EndCall);
    desk.tells(500, &["C1 Released"]);
    desk.close();

    // The port leaves first: the other two go on.
    let mut desk = conference();
    desk.sends(1, Message::EndCall);
    desk.tells(500, &["C1 Released"]);
    assert!(desk.world.phones[CALLER].is_talking() && desk.world.phones[THIRD].is_talking());
    desk.close();
}

#[test]
fn one_step_conference_scenario_2_the_caller_disconnects_first() {
    let mut desk = conference();
    desk.act(CALLER, Action::HangUp);
    desk.tells(500, &["C1 Released", "C1 Established"]);
    assert!(desk.world.phones[THIRD].is_talking(), "the third party goes on");
    desk.sends(1, Message::EndCall);
    desk.tells(500, &["C1 Released"]);
    assert!(desk.world.phones[THIRD].is_idle());
    desk.close();
}

#[test]
fn a_one_step_conference_that_fails_leaves_the_call_as_it_was_and_busy_leaves_it_held() {
    let mut desk = Desk::talking(Incoming::Refuse(404));
    desk.send_as(ONE, 1, Some("c"), one_step_conf("2003"));
    desk.tells(1_000, &["C1 Held", "C1 Dialing", "C1 CallError OneStepConf 415 c to 1", "C1 Retrieved"]);
    desk.sends(1, Message::RetrieveCall);
    desk.tells(100, &["C1 CallError RetrieveCall 43 to 1"]);
    desk.close();

    for code in [486, 600] {
        let mut desk = Desk::talking(Incoming::Refuse(code));
        desk.sends(1, one_step_conf("2003"));
        desk.tells(3_000, &["C1 Held", "C1 Dialing", "C1 Busy"]);
        desk.sends(1, Message::RetrieveCall);
        desk.tells(100, &["C1 Retrieved"]);
        desk.close();
    }

    let mut desk = Desk::talking_with(Incoming::Refuse(480), |options| options.sip.ivr_busy = vec![480]);
    desk.sends(1, one_step_conf("2003"));
    desk.tells(3_000, &["C1 Held", "C1 Dialing", "C1 Busy"]);
    desk.close();
}

#[test]
fn conference_consult_call_in_both_hang_up_orders() {
    let rows: [(usize, &[&str]); 2] = [(THIRD, &["C1 ConfPartyDel"]), (CALLER, &["C1 Released", "C1 Established"])];
    for (leaves, told) in rows {
        let mut desk = Desk::talking(ANSWERS);
        desk.sends(1, init_conf("2003"));
        desk.tells(1_000, &["C1 Held", "C1 Dialing", "C1 Established"]);
        desk.sends(1, Message::CompleteConf);
        desk.tells(500, &["C1 Retrieved", "C1 ConfPartyAdd"]);
        desk.act(leaves, Action::HangUp);
        desk.tells(500, told);
        desk.sends(1, Message::EndCall);
        desk.tells(500, &["C1 Released"]);
        desk.close();
    }
}

#[test]
fn a_conference_that_cannot_be_completed_ends_the_second_call_and_retrieves_the_first() {
    let mut desk = Desk::talking(Incoming::Manual);
    desk.sends(1, init_conf("2003"));
    desk.tells(100, &["C1 Held", "C1 Dialing"]);
    desk.send_as(ONE, 1, Some("early"), Message::CompleteConf);
    desk.tells(500, &["C1 CallError CompleteConf early to 1", "C1 Retrieved"]);
    assert!(desk.world.phones[THIRD].is_idle() && desk.world.phones[CALLER].is_talking());
    desk.sends(1, Message::RetrieveCall);
    desk.tells(100, &["C1 CallError RetrieveCall 43 to 1"]);
    desk.close();
}

#[test]
fn a_call_transferred_to_a_port_becomes_one_of_the_interface() {
    let mut desk = Desk::new(ANSWERS, |options| {
        options.plan.dns[PORT].ivr = false;
        options.plan.dns[THIRD].ivr = true;
    });
    desk.act(CALLER, Action::call("2002"));
    desk.tells(500, &[]);
    let refer = stickytape::testing::phone::Refer::to("2003");
    desk.act(PORT, Action::Refer(refer));
    desk.tells(2_000, &["C1 Ringing", "C1 Established"]);
    desk.sends(1, Message::EndCall);
    desk.tells(500, &["C1 Released"]);
    desk.close();
}

#[test]
fn a_port_hands_its_call_to_another_port() {
    for consult in [false, true] {
        let mut desk = Desk::talking_with(ANSWERS, |options| options.plan.dns[THIRD].ivr = true);
        if consult {
            desk.sends(1, init_xfer("2003"));
            desk.tells(1_000, &["C1 Held", "C1 Dialing", "C2 Ringing", "C1 Established", "C2 Established"]);
            desk.sends(1, Message::CompleteXfer);
            desk.tells(500, &["C2 Released", "C1 XferComplete", "C1 Released", "C1 Ringing", "C1 Established"]);
        } else {
            desk.sends(1, one_step_xfer("2003"));
            let told = ["C1 Held", "C1 Dialing", "C1 XferComplete", "C1 Released", "C1 Ringing", "C1 Established"];
            desk.tells(1_000, &told);
        }
        desk.sends(1, Message::EndCall);
        desk.tells(500, &["C1 Released"]);
        desk.close();
    }
}

#[test]
fn a_port_s_own_hold_is_told_and_a_caller_s_hold_is_not() {
    use stickytape::testing::phone::HoldForm;
    let mut desk = Desk::talking(ANSWERS);
    desk.act(CALLER, Action::Hold(HoldForm::SendOnly));
    desk.tells(500, &[]);
    desk.act(PORT, Action::Hold(HoldForm::SendOnly));
    desk.tells(500, &["C1 Held"]);
    desk.act(CALLER, Action::Retrieve);
    desk.tells(500, &[]);
    desk.act(PORT, Action::Retrieve);
    desk.tells(500, &["C1 Retrieved"]);
    desk.close();
}

#[test]
fn messages_for_a_call_are_taken_one_after_the_other() {
    let mut desk = Desk::talking(ANSWERS);
    let first = desk.ivr.message(ONE, desk.conns[0], None, init_conf("2003"));
    let [Output::Ask(..)] = &first[..] else { panic!("{first:?}") };
    // The first one has no answer yet: what comes waits, and only so much of it.
    for n in 0..8 {
        assert!(desk.ivr.message(ONE, desk.conns[0], Some(format!("{n}").into()), init_conf("2004")).is_empty());
    }
    desk.send_as(ONE, 1, Some("9"), Message::RetrieveCall);
    desk.tells(0, &["C1 CallError NotAllowed 9 to 1"]);
    desk.carry_out(first);
    let refused: Vec<String> = (0..8).map(|n| format!("C1 CallError InitConf {n} to 1")).collect();
    let mut told = vec!["C1 Held", "C1 Dialing"];
    told.extend(refused.iter().map(String::as_str));
    told.push("C1 Established");
    desk.tells(1_000, &told);
    desk.close();
}

#[test]
fn an_error_goes_to_who_has_asked_and_the_state_to_every_driver() {
    let mut desk = Desk::talking(Incoming::Refuse(404));
    desk.send_as(DriverId(2), 1, Some("mine"), init_conf("2003"));
    desk.tells(1_000, &["C1 Held", "C1 Dialing", "C1 CallError InitConf 415 mine to 2", "C1 Retrieved"]);
    desk.close();
}

#[test]
fn a_driver_that_connects_is_told_the_state_of_every_call() {
    let mut desk = Desk::talking(Incoming::Manual);
    assert_eq!(desk.state(), ["C1 Ringing", "C1 Established"]);
    desk.sends(1, init_conf("2003"));
    desk.tells(100, &["C1 Held", "C1 Dialing"]);
    assert_eq!(desk.state(), ["C1 Ringing", "C1 Established", "C1 Held", "C1 Dialing"]);
    desk.act(THIRD, Action::Answer);
    desk.tells(100, &["C1 Established"]);
    assert_eq!(desk.state(), ["C1 Ringing", "C1 Established", "C1 Held", "C1 Dialing", "C1 Established"]);
    desk.close();
}

#[test]
fn a_reload_makes_other_ports_and_leaves_running_calls_theirs() {
    let mut desk = Desk::talking(ANSWERS);
    desk.ivr.reload(Box::new(|number| number == "2003"));
    desk.sends(1, Message::EndCall);
    desk.tells(200, &["C1 Released"]);
    desk.act(CALLER, Action::call("2002"));
    desk.tells(500, &[]);
    desk.close();
}

#[test]
fn calls_beyond_the_limit_are_not_told() {
    let mut desk = Desk::new(ANSWERS, |_| {});
    let is_port = Box::new(|number: &str| number == "2002");
    desk.ivr = Ivr::new(ivr::Options { busy: vec![486], is_port, max_calls: 0 });
    desk.act(CALLER, Action::call("2002"));
    desk.tells(1_000, &[]);
    desk.close();
}

/// The caller talks to the port, whose phone takes a second call.
fn making(port: Incoming, third: Incoming) -> Desk {
    let mut desk = Desk::talking(third);
    desk.world.phones.remove(PORT);
    desk.world.phone(2, |o| {
        (o.lines, o.call_waiting, o.incoming) = (2, true, port);
    });
    let port = desk.world.phones.pop().expect("just made");
    desk.world.phones.insert(PORT, port);
    desk.send_as(ONE, 1, Some("m1"), Message::MakeCall { to: "2003".into() });
    desk
}

#[test]
fn a_call_that_a_driver_makes_is_told_under_a_call_id_of_its_own() {
    let mut desk = making(ANSWERS, ANSWERS);
    desk.tells(150, &[]);
    desk.tells(1_000, &["C2 Dialing", "C2 Established"]);
    desk.sends(2, Message::EndCall);
    desk.tells(200, &["C2 Released"]);
    desk.close();
}

#[test]
fn a_call_that_a_driver_makes_and_that_fails_is_busy_or_an_error() {
    let mut desk = making(ANSWERS, Incoming::Refuse(486));
    desk.tells(1_000, &["C2 Dialing", "C2 Busy", "C2 Released"]);
    desk.close();
    let mut desk = making(ANSWERS, Incoming::Refuse(404));
    desk.tells(1_000, &["C2 Dialing", "C2 CallError MakeCall 415 m1 to 1", "C2 Released"]);
    desk.close();
    // The port itself does not take it: there is no second call.
    let mut desk = making(Incoming::Refuse(603), ANSWERS);
    desk.tells(1_000, &["C1 CallError MakeCall 233 m1 to 1"]);
    desk.close();
}

#[test]
fn a_call_that_cannot_be_made_at_all_is_an_error_at_once() {
    let mut desk = Desk::talking(ANSWERS);
    desk.send_as(ONE, 1, Some("m1"), Message::MakeCall { to: "7777".into() });
    desk.tells(0, &["C1 CallError MakeCall 415 m1 to 1"]);
    desk.close();
}

#[test]
fn a_call_that_is_over_before_its_request_is_answered_is_an_error_and_leaves_nothing() {
    let mut desk = Desk::talking(ANSWERS);
    let asked = desk.ivr.message(ONE, desk.conns[0], Some("m1".into()), Message::MakeCall { to: "2003".into() });
    let [Output::Ask(id, request)] = &asked[..] else { panic!("{asked:?}") };
    desk.world.phones[PORT].act(Action::HangUp, desk.world.net.now());
    let new = ConnId(99);
    let party = |dn: &str| Party { dn: Some(dn.into()), trunk: None, number: dn.into() };
    let what = What::NotMade {
        call_uuid: CallUuid(uuid::Uuid::nil()),
        this: party(&request.this_dn),
        to: party("2003"),
        cause: ReleaseCause::Rejected(486),
    };
    let (at, wall) = (desk.world.net.now(), desk.world.proxy.wall(desk.world.net.now()));
    let told = desk.ivr.fact(&Fact { at, wall, conn_id: Some(new), cause: None, what });
    assert!(told.is_empty(), "whose it is nobody knows yet: {told:?}");
    let told = desk.ivr.answered(*id, Some(Ok(Accepted::new(new))));
    desk.carry_out(told);
    desk.tells(500, &["C1 CallError MakeCall 231 m1 to 1", "C1 Released"]);
    desk.close();
}

#[test]
fn a_port_in_a_dial_in_room_is_told_who_comes_and_goes() {
    let mut desk = Desk::new(ANSWERS, |o| o.plan.conferences.push(Conference::new("800").into()));
    desk.act(PORT, Action::call("800"));
    desk.tells(200, &["C1 Dialing", "C1 Established"]);
    desk.act(CALLER, Action::call("800"));
    desk.tells(200, &["C1 ConfPartyAdd"]);
    desk.act(THIRD, Action::call("800"));
    desk.tells(200, &["C1 ConfPartyAdd"]);
    desk.act(THIRD, Action::HangUp);
    desk.tells(200, &["C1 ConfPartyDel"]);
    desk.act(CALLER, Action::HangUp);
    desk.tells(200, &["C1 Released"]);
    desk.close();
}
