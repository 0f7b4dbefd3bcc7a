//! Supervisors that go with their agent into a consultation over a dialog of its own (spec/recording.md §4.4, §4.6).
//!
//! ```text
//!                      the agent talks in its consult call, and its DN lets its supervisors come
//!   in the main call ───────────────────────────────────────────────────────────────────────────► in the consult call
//!          ▲                                                                                        │   │
//!          │ it talks there no more; the consult call ends, or becomes one with the main call       │   │ the main call
//!          └────────────────────────────────────────────────────────────────────────────────────────┘   ▼ ends
//!                                                                                         a supervisor of that call
//! ```
//! The leg is in one call at a time, and the other one's parties do not hear it. To everybody outside it stays in the main
//! call, as it does over one dialog: events, requests, views and recordings of it are that call's.

use super::Calls;
use super::call::{Call, Purpose};
use super::core::{Core, Key};
use super::fact::What;
use super::leg::Leg;
use super::pairs::{Left, Note};
use super::recording::held_conversation;
use super::request::{Ask, OwnerWish, Request};
use super::second::Away;
use super::supervision::{Observer, told};
use super::talk::Exchange;
use super::view::PartyView;
use crate::id::{ConnId, LegId};
use crate::record::mark::StopCause;
use crate::sip::endpoint::RequestId;
use crate::sip::headers::Headers;

/// Where a supervisor in a consult call has come from.
#[derive(Debug, Clone)]
pub(super) struct Home {
    /// Its agent's leg in the main call.
    pub main: LegId,
    /// The main call.
    pub conn_id: ConnId,
}

/// A supervisor between two calls, with what is open in its dialog.
#[derive(Debug)]
pub(super) struct Companion {
    leg: Box<Leg>,
    observer: Observer,
    pending: Vec<(RequestId, Purpose)>,
    exchange: Option<Exchange>,
}

/// A supervisor as a view of its main call shows it.
pub(super) struct CompanionView {
    pub conn_id: ConnId,
    pub party: PartyView,
}

impl Calls {
    /// The supervisors of a device are where it talks: in this consult call, else in the call that it holds.
    pub(super) fn accompany(&mut self, main: LegId, active: Option<LegId>) {
        for second in self.seconds_of(main).into_iter().filter(|second| Some(*second) != active) {
            let supervisors: Vec<LegId> = match self.call_with(second) {
                Some(call) => call.companions_of(main).collect(),
                None => continue,
            };
            for supervisor in supervisors {
                self.go_home(supervisor);
            }
        }
        if let Some(second) = active {
            self.go_along(main, second);
        }
    }

    fn key_of(&self, leg: LegId) -> Option<Key> {
        self.core.index.legs.get(&leg).copied()
    }

    /// Supervisors in the main call go into the consult call in which their agent talks.
    fn go_along(&mut self, main: LegId, second: LegId) {
        let (Some(key), Some(there)) = (self.key_of(main), self.key_of(second)) else { return };
        let Some(call) = self.calls.get(&key) else { return };
        let home = Home { main, conn_id: call.conn_id };
        let leaving = call.supervisors_to_leave(main);
        let Some(call) = self.calls.get_mut(&there) else { return };
        call.are_from(&home);
        if call.talk().is_none_or(|talk| talk.waits_for_answer()) {
            return;
        }
        for supervisor in leaving {
            if self.calls.get(&there).is_none_or(|call| call.must_be_mixable().is_err()) {
                self.with(Some(key), |call, core| call.stays_behind(core, supervisor, second));
                continue;
            }
            let mut companion = None;
            self.with(Some(key), |call, core| companion = call.let_go_along(core, main, supervisor));
            let Some(companion) = companion else { continue };
            let home = Some(home.clone());
            self.with(Some(there), |call, core| call.take_in(core, companion, second, home));
        }
    }

    /// A supervisor goes back to the main call of its agent.
    pub(super) fn go_home(&mut self, supervisor: LegId) {
        let mut companion = None;
        self.with(self.key_of(supervisor), |call, core| companion = call.let_out(core, supervisor));
        self.core.pairs.homeless.extend(companion);
        self.take_home();
    }

    /// Takes supervisors back into the main calls of their agents.
    pub(super) fn take_home(&mut self) {
        for companion in std::mem::take(&mut self.core.pairs.homeless) {
            let Some(main) = companion.observer.home.as_ref().map(|home| home.main) else { continue };
            let key = self.key_of(main);
            match key.filter(|key| self.calls.get(key).is_some_and(|call| call.talk().is_some())) {
                Some(key) => self.with(Some(key), |call, core| call.take_in(core, companion, main, None)),
                None => companion.hang_up(&mut self.core),
            }
        }
    }

    /// The main call of a device goes on without it, or has ended: supervisors that are with it are supervisors of the
    /// consult call, and so are their recordings.
    pub(super) fn settle_down(&mut self, second: LegId) {
        let Some(key) = self.key_of(second) else { return };
        let Some(call) = self.calls.get_mut(&key) else { return };
        for (supervisor, home) in call.settle_companions(&mut self.core, second) {
            let before = self.core.index.conns.get(&home.conn_id).copied();
            if let Some(before) = before.and_then(|before| self.calls.get_mut(&before)) {
                before.leave_to(&mut self.core, supervisor);
            }
            self.core.fact(Some(home.conn_id), What::ObserverLeft { leg: supervisor });
            if let Some(call) = self.calls.get(&key) {
                call.show_observer(&mut self.core, supervisor);
            }
        }
    }
}

impl Companion {
    /// There is no call for it any more.
    fn hang_up(self, core: &mut Core) {
        let Self { leg, pending, .. } = self;
        for (request, _) in pending {
            core.index.requests.remove(&request);
        }
        if let Some(dialog) = leg.dialog {
            core.bye(dialog, Headers::new(), None);
        }
        leg.end(core);
    }
}

impl Call {
    /// The supervisors that have come with a device, by its main leg.
    fn companions_of(&self, main: LegId) -> impl Iterator<Item = LegId> {
        let observers = self.talk().into_iter().flat_map(|talk| &talk.observers);
        observers.filter(move |o| o.home.as_ref().is_some_and(|home| home.main == main)).map(|observer| observer.leg)
    }

    pub(super) fn home_of(&self, supervisor: LegId) -> Option<&Home> {
        self.observer(supervisor)?.home.as_ref()
    }

    /// Who of the main call goes with its agent.
    fn supervisors_to_leave(&self, agent: LegId) -> Vec<LegId> {
        let goes = self.leg(agent).is_some_and(|leg| leg.identity.monitor_consult.has_placed());
        let observers = self.talk().filter(|_| goes).into_iter().flat_map(|talk| &talk.observers);
        observers.filter(|o| o.agent == agent && o.home.is_none()).map(|o| o.leg).collect()
    }

    /// The consult call cannot be mixed: told once.
    fn stays_behind(&mut self, core: &mut Core, supervisor: LegId, second: LegId) {
        let observer = self.talk_mut().and_then(|t| t.observers.iter_mut().find(|o| o.leg == supervisor));
        if observer.is_some_and(|observer| observer.left_behind.replace(second) != Some(second)) {
            self.fact(core, What::Warning { text: "a supervisor cannot go with its agent into a consult call" });
        }
    }

    /// The main call has the ConnID that is known, whatever it has become one with.
    fn are_from(&mut self, home: &Home) {
        let observers = self.talk_mut().into_iter().flat_map(|talk| &mut talk.observers);
        for known in observers.filter_map(|o| o.home.as_mut()).filter(|known| known.main == home.main) {
            known.conn_id = home.conn_id;
        }
    }

    /// Takes a supervisor out as it is; the others go on.
    fn let_out(&mut self, core: &mut Core, supervisor: LegId) -> Option<Companion> {
        let companion = self.take_out(core, supervisor)?;
        self.go_on_without(core);
        Some(companion)
    }

    /// Lets a supervisor go with its agent. Its recordings stay, silent until it is known what they are told.
    fn let_go_along(&mut self, core: &mut Core, main: LegId, supervisor: LegId) -> Option<Companion> {
        let companion = self.take_out(core, supervisor)?;
        let conversation = held_conversation(self, main, &companion.leg);
        self.away.push(Away::of_supervisor(main, supervisor, conversation));
        self.go_on_without(core);
        Some(companion)
    }

    /// Takes a supervisor out with what is open in its dialog; the call is to be settled.
    fn take_out(&mut self, core: &mut Core, supervisor: LegId) -> Option<Companion> {
        let at = self.legs.iter().position(|leg| leg.id == supervisor)?;
        let talk = self.talk_mut()?;
        let observer = talk.observers.remove(talk.observers.iter().position(|o| o.leg == supervisor)?);
        let is_its = |exchange: &mut Exchange| match exchange {
            Exchange::InAck { leg, .. } => *leg == supervisor,
            Exchange::Own { to } => *to == supervisor,
            Exchange::Passed { .. } => false,
        };
        let exchange = talk.exchange.take_if(is_its);
        let (pending, staying) =
            std::mem::take(&mut self.pending).into_iter().partition(|(_, purpose)| purpose.is_of(supervisor));
        self.pending = staying;
        self.forget_leg(core, supervisor);
        let mut leg = Box::new(self.legs.remove(at));
        leg.stand_up(core);
        Some(Companion { leg, observer, pending, exchange })
    }

    /// Takes in a supervisor of `agent`.
    fn take_in(&mut self, core: &mut Core, companion: Companion, agent: LegId, home: Option<Home>) {
        let Companion { mut leg, observer, pending, exchange } = companion;
        let id = leg.id;
        core.index.legs.insert(id, self.key);
        if let Some(dialog) = leg.dialog {
            core.index.dialogs.insert(dialog, self.key);
        }
        for (request, purpose) in pending {
            core.index.requests.insert(request, self.key);
            self.pending.push((request, purpose));
        }
        match &home {
            Some(home) => _ = core.pairs.companions.insert(id, home.main),
            None => _ = core.pairs.companions.remove(&id),
        }
        // Sessions of the other call may name it until they are told.
        leg.lend();
        self.away.iter_mut().for_each(|away| away.forget(id));
        if let Some(talk) = self.talk_mut() {
            talk.exchange = talk.exchange.or(exchange);
            talk.observers.push(Observer { agent, home, ..observer });
        }
        self.legs.push(*leg);
        self.settle(core);
        self.rebridge(core, id);
    }

    /// Its supervisors that have come from another call are to go back there: the call ends.
    pub(super) fn send_all_home(&mut self, core: &mut Core) {
        let observers = self.talk().into_iter().flat_map(|talk| &talk.observers);
        let companions: Vec<LegId> = observers.filter(|o| o.home.is_some()).map(|o| o.leg).collect();
        for supervisor in companions {
            let companion = self.take_out(core, supervisor);
            core.pairs.homeless.extend(companion);
        }
    }

    /// Those that have come with an agent are to go back: it leaves.
    pub(super) fn send_home(&mut self, core: &mut Core, agent: LegId) {
        let observers = self.talk().into_iter().flat_map(|talk| &talk.observers);
        let companions = observers.filter(|o| o.agent == agent && o.home.is_some()).map(|o| o.leg);
        for supervisor in companions.collect::<Vec<_>>() {
            let companion = self.let_out(core, supervisor);
            core.pairs.homeless.extend(companion);
        }
    }

    /// The call is about to become one with the main call of `main`: its companions are that call's supervisors.
    pub(super) fn are_home(&mut self, core: &mut Core, main: LegId) {
        let observers = self.talk_mut().into_iter().flat_map(|talk| &mut talk.observers);
        for observer in observers.filter(|o| o.home.as_ref().is_some_and(|home| home.main == main)) {
            (observer.agent, observer.home) = (main, None);
            core.pairs.companions.remove(&observer.leg);
        }
    }

    /// Its companions are supervisors like others from now on, and have been called in for their agent.
    fn settle_companions(&mut self, core: &mut Core, agent: LegId) -> Vec<(LegId, Home)> {
        let dn = |call: &Self, leg| call.leg(leg).and_then(|leg| leg.identity.dn.clone());
        let observers = self.talk_mut().into_iter().flat_map(|talk| &mut talk.observers);
        let come = observers.filter(|o| o.agent == agent);
        let come: Vec<(LegId, Home)> = come.filter_map(|o| Some((o.leg, o.home.take()?))).collect();
        for (supervisor, _) in &come {
            core.pairs.companions.remove(supervisor);
            let called = dn(self, *supervisor);
            if let (Some(talk), Some(called)) = (self.talk_mut(), called) {
                talk.supervised.push((agent, called));
            }
        }
        come
    }

    /// Sessions of a supervisor that is in another call for good go on there.
    fn leave_to(&mut self, core: &mut Core, supervisor: LegId) {
        let (required, conn_id) = (self.recording.required, self.conn_id);
        let sessions = std::mem::take(&mut self.recording.sessions).into_iter();
        let (leaving, staying) = sessions.partition(|session| session.owner == supervisor);
        self.recording.sessions = staying;
        let leaving: Vec<_> = leaving;
        for session in leaving {
            let cause = StopCause::OwnerLeft;
            core.pairs.left.push(Left { owner: supervisor, session, required, conn_id, cause });
        }
    }

    /// Tells that a supervisor is in this call that was told of in another one.
    pub(super) fn show_observer(&self, core: &mut Core, supervisor: LegId) {
        let Some(&Observer { agent, mode, .. }) = self.observer(supervisor) else { return };
        let Some(party) = self.leg(supervisor).map(Self::party) else { return };
        let conn_id = Some(self.told_as(supervisor));
        core.fact(conn_id, What::PartyInvited { by: agent, to: party.clone(), observer: true });
        core.fact(conn_id, What::ObserverJoined { leg: supervisor, party, agent, mode: told(mode) });
    }

    /// What the sessions of this call are told of a supervisor that is in a consult call.
    pub(super) fn on_note(&mut self, core: &mut Core, note: &Note) {
        if note.has_left {
            self.hand_over(core, note.supervisor, None);
        }
        self.note(core, note.name, note.supervisor);
    }

    /// The supervisor that a request concerns and that is in a consult call, or has come from there.
    pub(super) fn companion(&self, core: &Core, request: &Request) -> Option<LegId> {
        let companion = |dn: &String| {
            let legs = core.index.dns.get(dn)?;
            let is_ours = |leg: &LegId| {
                let main = core.pairs.companions.get(leg);
                main.is_some_and(|main| self.leg(*main).is_some()) || self.home_of(*leg).is_some()
            };
            legs.iter().copied().find(is_ours)
        };
        let is_here = self.legs.iter().any(|leg| leg.identity.dn.as_ref() == Some(&request.this_dn));
        let named = match &request.ask {
            Ask::RecordStart { owner: OwnerWish::Dn(dn) } => return companion(dn),
            Ask::ListenDisconnect { party } | Ask::ListenReconnect { party } => party.as_ref(),
            Ask::DeleteFromConference { party } => Some(party),
            _ => None,
        };
        let own = || companion(&request.this_dn).filter(|leg| !is_here || self.leg(*leg).is_some());
        named.and_then(companion).or_else(own)
    }

    /// Companions as views of their main calls show them.
    pub(super) fn companion_views(&self, core: &Core) -> impl Iterator<Item = CompanionView> {
        let observers = self.talk().into_iter().flat_map(|talk| &talk.observers);
        observers.filter_map(|observer| {
            let conn_id = observer.home.as_ref()?.conn_id;
            Some(CompanionView { conn_id, party: self.party_view(core, self.leg(observer.leg)?) })
        })
    }
}

impl Purpose {
    /// It is a request of ours in the dialog of a leg that only observes, and is about nobody else.
    fn is_of(&self, supervisor: LegId) -> bool {
        match self {
            Self::OwnOffer { to } => *to == supervisor,
            Self::Announce(announcement) => announcement.to == supervisor,
            Self::Probe { leg } => *leg == supervisor,
            _ => false,
        }
    }
}
