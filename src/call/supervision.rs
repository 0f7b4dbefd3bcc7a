//! Supervisors: who watches whose next call, how they join, what they may say (spec/events.md §1 rows 18 to 21,
//! spec/recording.md §4.6).
//!
//! ```text
//!   monitor-next-call ──► Monitor ──the agent talks──► invited ──2xx──► Observer
//!                            │ cancel-monitoring                          │ mute ⇄ coach ⇄ connect
//!                            ▼                                            ▼ hangs up, or the agent leaves (scope agent)
//! ```

use super::Calls;
use super::call::Call;
use super::companions::Home;
use super::conference::{Invitation, Joins};
use super::core::{Core, Key};
use super::dial::DialId;
use super::fact::What;
use super::mixing::Place;
use super::options::DnRole;
use super::pairs::Note;
use super::request::{Code, Denied, DnAsk, DnRequest, MonitorMode, MonitorNextCall, MonitorScope, Ticket};
use super::talk::Doing;
use crate::bridge::command::mix::Mode;
use crate::id::{ConnId, LegId};

/// Most subscriptions of all supervisors.
const MAX_MONITORS: usize = 10_000;

/// A supervisor in a call.
#[derive(Debug)]
pub(super) struct Observer {
    pub leg: LegId,
    /// The supervised agent's leg; it may have left.
    pub agent: LegId,
    pub mode: Mode,
    pub scope: MonitorScope,
    /// It has come with its agent from the call that this one holds.
    pub home: Option<Home>,
    /// The agent's leg in a consult call into which it could not follow.
    pub left_behind: Option<LegId>,
}

/// How a supervisor joins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch {
    pub mode: Mode,
    pub scope: MonitorScope,
}

/// A supervisor waits for calls of an agent.
#[derive(Debug)]
pub(super) struct Monitor {
    pub supervisor: String,
    pub agent: String,
    watch: Watch,
    /// It goes on after the first call.
    all: bool,
    /// Calls that were there before it.
    skips: Vec<Key>,
}

impl From<MonitorMode> for Mode {
    fn from(mode: MonitorMode) -> Self {
        match mode {
            MonitorMode::Mute => Self::Mute,
            MonitorMode::Coach => Self::Coach,
            MonitorMode::Connect => Self::Connect,
        }
    }
}

pub(super) fn told(mode: Mode) -> MonitorMode {
    match mode {
        Mode::Mute => MonitorMode::Mute,
        Mode::Coach => MonitorMode::Coach,
        Mode::Connect => MonitorMode::Connect,
    }
}

impl Calls {
    /// A request of a DN that concerns no call yet.
    pub(super) fn on_dn_request(&mut self, ticket: Ticket, request: &DnRequest) {
        let answer = match &request.ask {
            DnAsk::MonitorNextCall(wish) => self.monitor(request, wish),
            DnAsk::CancelMonitoring { agent } => self.cancel_monitoring(request, agent),
        };
        self.core.push(super::Output::DnAnswer(ticket, answer));
    }

    fn monitor(&mut self, request: &DnRequest, wish: &MonitorNextCall) -> Result<(), Denied> {
        let core = &mut self.core;
        let supervisor = core.directory.dn(&request.this_dn);
        let supervisor =
            supervisor.ok_or_else(|| denied(Code::UnknownDn, "ThisDN is no configured directory number"))?;
        if supervisor.role != DnRole::Supervisor {
            return Err(denied(Code::NotAllowed, "ThisDN is no supervisor"));
        }
        let agent = core.directory.dn(&wish.agent);
        let agent = agent.ok_or_else(|| denied(Code::UnknownTarget, "OtherDN is no configured directory number"))?;
        if wish.agent == request.this_dn {
            return Err(denied(Code::NotAllowed, "nobody supervises himself"));
        }
        if wish.intrusion && !agent.intrusion {
            return Err(denied(Code::NotAllowed, "OtherDN may not be joined in a call"));
        }
        let defaults = core.directory.supervision();
        let mode = wish.mode.unwrap_or(defaults.mode).into();
        let watch = Watch { mode, scope: wish.scope.unwrap_or(defaults.scope) };
        let is_same = |m: &Monitor| m.supervisor == request.this_dn && m.agent == wish.agent;
        core.monitors.retain(|m| !is_same(m));
        if core.monitors.len() == MAX_MONITORS {
            return Err(denied(Code::Limit, "too many DNs are monitored"));
        }
        let is_in = |call: &Call| call.legs.iter().any(|l| l.identity.dn.as_ref() == Some(&wish.agent));
        let busy: Vec<Key> = self.calls.values().filter(|call| is_in(call)).map(|call| call.key).collect();
        let skips = if wish.intrusion { Vec::new() } else { busy.clone() };
        let (supervisor, agent) = (request.this_dn.clone(), wish.agent.clone());
        core.monitors.push(Monitor { supervisor, agent, watch, all: wish.all, skips });
        self.tell_monitoring(request, &wish.agent, true);
        if wish.intrusion {
            busy.into_iter().for_each(|key| self.with(Some(key), |call, _| call.may_come_back(&request.this_dn)));
        }
        Ok(())
    }

    fn cancel_monitoring(&mut self, request: &DnRequest, agent: &str) -> Result<(), Denied> {
        let before = self.core.monitors.len();
        self.core.monitors.retain(|m| !(m.supervisor == request.this_dn && m.agent == agent));
        if self.core.monitors.len() == before {
            return Err(denied(Code::WrongState, "ThisDN does not wait for a call of OtherDN"));
        }
        self.tell_monitoring(request, agent, false);
        Ok(())
    }

    fn tell_monitoring(&mut self, request: &DnRequest, agent: &str, on: bool) {
        let asked = super::fact::Asked { dn: request.this_dn.clone(), reference: request.reference.clone() };
        self.core.asked = Some(asked.into());
        self.core.fact(None, What::Monitoring { supervisor: request.this_dn.clone(), agent: agent.to_owned(), on });
        self.core.asked = None;
    }
}

fn denied(code: Code, detail: &str) -> Denied {
    Denied { code, detail: detail.to_owned(), state: "none".to_owned() }
}

impl Call {
    pub(super) fn observer(&self, leg: LegId) -> Option<&Observer> {
        self.talk()?.observers.iter().find(|o| o.leg == leg)
    }

    /// Which conversation a supervisor is in: with an agent that consults it goes when that one's DN says so; with one
    /// that is consulted it came.
    pub(super) fn place_of(&self, observer: &Observer) -> Place {
        let follows = |agent| self.leg(agent).is_some_and(|l| l.identity.monitor_consult.has_placed());
        match self.consult() {
            Some(_) if self.consulted() == Some(observer.agent) => Place::Consult,
            Some(consult) if consult.is_active && consult.by == observer.agent && follows(consult.by) => Place::Consult,
            _ => Place::Main,
        }
    }

    /// The ConnID under which a party and its supervisors are told of the call: a consulted one has no other than the
    /// consult call's, a supervisor of who consults has the main call's.
    pub(super) fn told_as(&self, leg: LegId) -> ConnId {
        if let Some(home) = self.home_of(leg) {
            return home.conn_id;
        }
        let agent = self.observer(leg).map_or(leg, |observer| observer.agent);
        match self.consult() {
            Some(consult) if self.consulted() == Some(agent) => consult.conn_id,
            _ => self.conn_id,
        }
    }

    /// The consultation ends: the supervisors of who was consulted leave with it.
    pub(super) fn consulted_is_let_go(&mut self, core: &mut Core) {
        let Some(consulted) = self.consulted() else { return };
        self.let_go(core, consulted, |_| true);
    }

    /// A supervisor that has gone with its agent into a consultation.
    pub(super) fn is_with_consult(&self, leg: LegId) -> bool {
        self.observer(leg).is_some_and(|observer| self.place_of(observer) == Place::Consult)
    }

    pub(super) fn observers_at(&self, place: Place) -> Vec<LegId> {
        let observers = self.talk().map(|t| t.observers.as_slice()).unwrap_or_default();
        observers.iter().filter(|o| self.place_of(o) == place).map(|o| o.leg).collect()
    }

    /// Calls in the supervisors that wait for a call of one of the parties.
    pub(super) fn call_supervisors(&mut self, core: &mut Core) {
        if core.monitors.is_empty() || self.is_at_door() {
            return;
        }
        let Some(talk) = self.talk() else { return };
        if talk.waits_for_answer() || matches!(talk.doing, Doing::Transfer(_) | Doing::Make(_)) {
            return;
        }
        for agent in talk.members.iter().copied().chain(self.consulted()).collect::<Vec<_>>() {
            if !self.may_be_supervised(core, agent) {
                continue;
            }
            let Some(dn) = self.leg(agent).and_then(|l| l.identity.dn.clone()) else { continue };
            let mut waiting = Vec::new();
            core.monitors.retain(|monitor| {
                let is_due = monitor.agent == dn && !monitor.skips.contains(&self.key) && self.is_new(agent, monitor);
                if is_due {
                    waiting.push((monitor.supervisor.clone(), monitor.watch));
                }
                !is_due || monitor.all
            });
            for (supervisor, watch) in waiting {
                self.call_supervisor(core, agent, supervisor, watch);
            }
        }
    }

    /// In a consult call, over the same dialog or one of its own, supervisors come for who is consulted, when its DN says
    /// so. Those of who consults are called into the call that it holds.
    fn may_be_supervised(&self, core: &Core, agent: LegId) -> bool {
        let is_reached = self.consulted() == Some(agent) || self.consults.is_some();
        let is_consulting = self.consults.is_some() && core.pairs.main_of(agent).is_some();
        !is_consulting && (!is_reached || self.leg(agent).is_some_and(|l| l.identity.monitor_consult.has_reached()))
    }

    /// A supervisor has not been called into this call for this agent yet.
    fn is_new(&self, agent: LegId, monitor: &Monitor) -> bool {
        self.talk().is_some_and(|t| !t.supervised.iter().any(|(a, s)| *a == agent && *s == monitor.supervisor))
    }

    /// A supervisor that has left asks for the call again.
    fn may_come_back(&mut self, supervisor: &str) {
        if self.legs.iter().any(|l| l.identity.dn.as_deref() == Some(supervisor)) {
            return;
        }
        if let Some(talk) = self.talk_mut() {
            talk.supervised.retain(|(_, called)| called != supervisor);
        }
    }

    fn call_supervisor(&mut self, core: &mut Core, agent: LegId, supervisor: String, watch: Watch) {
        if let Some(talk) = self.talk_mut() {
            talk.supervised.push((agent, supervisor.clone()));
        }
        if self.legs.iter().any(|l| l.identity.dn.as_ref() == Some(&supervisor)) {
            // It is in the call as a party, or for another agent.
            return;
        }
        let destination = match (self.must_be_mixable(), self.target(core, agent, &supervisor)) {
            (Ok(()), Ok(destination)) => destination,
            _ => return self.fact(core, What::Warning { text: "a supervisor cannot be called into a call" }),
        };
        self.invite(core, Invitation::new(agent, destination, supervisor, Joins::Observer(watch)));
    }

    /// A supervisor has answered.
    pub(super) fn observer_joined(&mut self, core: &mut Core, agent: LegId, leg: LegId, watch: Watch) {
        let Some(party) = self.leg(leg).map(Self::party) else { return };
        let Watch { mode, scope } = watch;
        if let Some(talk) = self.talk_mut() {
            talk.observers.push(Observer { leg, agent, mode, scope, home: None, left_behind: None });
        }
        self.note(core, "supervisor-joined", leg);
        core.fact(Some(self.told_as(leg)), What::ObserverJoined { leg, party, agent, mode: told(mode) });
        if !self.start_own(core, leg) {
            return self.end_leg(core, leg, leg);
        }
        self.settle(core);
        self.rebridge(core, leg);
    }

    /// A supervisor has left.
    pub(super) fn observer_left(&mut self, core: &mut Core, leg: LegId) {
        let conn_id = self.told_as(leg);
        let name = "supervisor-left";
        if let Some(main) = self.home_of(leg).map(|home| home.main) {
            core.pairs.notes.push(Note { main, supervisor: leg, name, has_left: true });
        }
        if let Some(talk) = self.talk_mut() {
            talk.observers.retain(|o| o.leg != leg);
        }
        self.hand_over(core, leg, None);
        self.note(core, name, leg);
        self.remove_leg(core, leg);
        core.fact(Some(conn_id), What::ObserverLeft { leg });
        self.go_on_without(core);
    }

    /// An agent has left a call that goes on: those who supervise the agent leave too, those who supervise the call stay
    /// (spec/events.md §1 row 20). Who has come with it from another call goes back there.
    pub(super) fn agent_left(&mut self, core: &mut Core, agent: LegId) {
        self.send_home(core, agent);
        self.let_go(core, agent, |observer| observer.scope == MonitorScope::Agent);
    }

    /// Supervisors of a party leave, and none is called in for it any more.
    fn let_go(&mut self, core: &mut Core, agent: LegId, leaves: impl Fn(&Observer) -> bool) {
        let Some(talk) = self.talk() else { return };
        let leaving = talk.observers.iter().filter(|o| o.agent == agent && leaves(o));
        let leaving: Vec<LegId> = leaving.map(|o| o.leg).collect();
        let is_called = |joins: &Joins| matches!(joins, Joins::Observer(_));
        let called = talk.invited.iter().filter(|i| i.by == agent && is_called(&i.joins));
        let called: Vec<DialId> = called.map(|i| i.dial.id).collect();
        called.into_iter().for_each(|id| self.revoke(core, id));
        leaving.into_iter().for_each(|leg| self.end_leg(core, leg, leg));
    }

    /// Row 21.
    pub(super) fn set_mode(&mut self, core: &mut Core, leg: LegId, muted: bool, coach: bool) {
        let mode = match (coach, muted) {
            (true, _) => Mode::Coach,
            (false, true) => Mode::Mute,
            (false, false) => Mode::Connect,
        };
        let Some(observer) = self.talk_mut().and_then(|t| t.observers.iter_mut().find(|o| o.leg == leg)) else {
            return;
        };
        if std::mem::replace(&mut observer.mode, mode) == mode {
            return;
        }
        let main = observer.home.as_ref().map(|home| home.main);
        let agent = main.unwrap_or(observer.agent);
        let conn_id = self.told_as(leg);
        if let Some(main) = main {
            core.pairs.notes.push(Note { main, supervisor: leg, name: "monitor-mode", has_left: false });
        }
        core.fact(Some(conn_id), What::MuteChanged { leg, muted });
        core.fact(Some(conn_id), What::MonitorMode { leg, agent, mode: told(mode) });
        self.note(core, "monitor-mode", leg);
        self.settle(core);
        self.rebridge(core, leg);
    }
}
