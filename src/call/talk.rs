//! Who talks to whom in an answered call, and the one step that makes media, recorder and phones agree with it.
//!
//! Every flow (hold, transfer, consultation) only changes the state below and calls [`Call::settle`]. What each leg
//! hears is a pure function of the state: [`Call::hears`].
//!
//! ```text
//!               REFER, single-step-transfer          initiate-transfer
//!   Transfer ◄──────────────────────────── Nothing ───────────────────► Consult
//!      │   the target answers: bridged        ▲       the target is dropped │ complete-transfer while it rings
//!      └──────────────────────────────────────┴─────────────────────────────┴──► Transfer
//!          the target fails: as before
//! ```

use super::call::{Call, State};
use super::conference::Invited;
use super::consult::{Consult, Target};
use super::core::{Core, Timer};
use super::dial::{Dial, DialId, Purpose};
use super::digits::Pressing;
use super::leg::{Leg, Plays};
use super::make::Make;
use super::supervision::Observer;
use super::transfer::Transfer;
use crate::id::{LegId, RecorderId};

/// An answered call.
#[derive(Debug)]
pub(super) struct Talk {
    /// The parties of the call under its own ConnID, in the order of their joining: two, more in a conference, one while
    /// the transferor of a running transfer has left or a call is being made, and in a dial-in room that the others have
    /// left or not yet entered, none before the first party of a call that is being made has answered.
    pub members: Vec<LegId>,
    pub exchange: Option<Exchange>,
    /// A leg whose offer met a 491: it is sent again when [`Timer::Glare`] fires.
    pub again: Option<LegId>,
    /// A leg whose counterpart is still to be looked at after a re-bridging.
    pub next: Option<LegId>,
    /// The leg of a re-bridging that has met an open exchange: its counterpart is looked at when that has ended.
    pub fresh: Option<LegId>,
    /// Legs of a conference whose descriptions are still to be looked at after a re-bridging.
    pub unaligned: Vec<LegId>,
    pub doing: Doing,
    /// Who is called into the call.
    pub invited: Vec<Invited>,
    /// Supervisors in it, in the order of their joining.
    pub observers: Vec<Observer>,
    /// Digits by request that are being pressed.
    pub pressing: Option<Pressing>,
    /// Agents, and the supervisors that have been called into the call for them.
    pub supervised: Vec<(LegId, String)>,
}

/// What goes on beside talking.
#[derive(Debug)]
pub(super) enum Doing {
    Nothing,
    /// Somebody is being transferred.
    Transfer(Box<Transfer>),
    /// One party has a second call over its one dialog.
    Consult(Box<Consult>),
    /// The parties are still being called, one after the other.
    Make(Box<Make>),
}

/// The open offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exchange {
    /// Our offer stood in a 2xx; the ACK brings the answer. `first`: it is the call's first offer.
    InAck { leg: LegId, first: bool },
    /// The offer of this leg waits for the other one.
    Passed { from: LegId },
    /// Our own offer.
    Own { to: LegId },
}

/// What a leg hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hears {
    /// Another leg.
    Leg(LegId),
    /// A mixer: several legs.
    Mixer,
    /// Something that we play.
    Us(Plays),
}

impl Talk {
    pub(super) fn new(members: Vec<LegId>, exchange: Option<Exchange>) -> Self {
        Self {
            members,
            exchange,
            again: None,
            next: None,
            fresh: None,
            unaligned: Vec::new(),
            doing: Doing::Nothing,
            invited: Vec::new(),
            observers: Vec::new(),
            pressing: None,
            supervised: Vec::new(),
        }
    }

    /// A party is called into the call, supervisors apart.
    pub(super) fn invites_members(&self) -> bool {
        self.invited.iter().any(Invited::is_member)
    }

    pub(super) fn dials(&self) -> impl Iterator<Item = &Dial> {
        self.doing.dial().into_iter().chain(self.invited.iter().map(|i| &*i.dial))
    }

    pub(super) fn dials_mut(&mut self) -> impl Iterator<Item = &mut Dial> {
        self.doing.dial_mut().into_iter().chain(self.invited.iter_mut().map(|i| &mut *i.dial))
    }

    pub(super) fn purpose(&self, dial: DialId) -> Option<Purpose> {
        let invited = self.invited.iter().any(|i| i.dial.id == dial);
        self.doing.purpose(dial).or(invited.then_some(Purpose::Invite))
    }

    /// The call's first answer is still to come.
    pub(super) fn waits_for_answer(&self) -> bool {
        matches!(self.exchange, Some(Exchange::InAck { first: true, .. }))
    }

    /// The other member of two.
    pub(super) fn opposite(&self, leg: LegId) -> Option<LegId> {
        match self.members.as_slice() {
            [a, b] if *a == leg => Some(*b),
            [a, b] if *b == leg => Some(*a),
            _ => None,
        }
    }
}

impl Doing {
    pub(super) fn dial(&self) -> Option<&Dial> {
        match self {
            Self::Nothing => None,
            Self::Transfer(transfer) => transfer.dial(),
            Self::Consult(consult) => consult.dial(),
            Self::Make(make) => Some(make.dial()),
        }
    }

    pub(super) fn dial_mut(&mut self) -> Option<&mut Dial> {
        match self {
            Self::Nothing => None,
            Self::Transfer(transfer) => transfer.dial_mut(),
            Self::Consult(consult) => consult.dial_mut(),
            Self::Make(make) => Some(make.dial_mut()),
        }
    }

    pub(super) fn purpose(&self, dial: DialId) -> Option<Purpose> {
        let purpose = match self {
            Self::Nothing => return None,
            Self::Transfer(_) => Purpose::Transfer,
            Self::Consult(_) => Purpose::Consult,
            Self::Make(_) => Purpose::Make,
        };
        self.dial().is_some_and(|d| d.id == dial).then_some(purpose)
    }
}

impl Call {
    pub(super) fn talk(&self) -> Option<&Talk> {
        match &self.state {
            State::Talking(talk) => Some(talk),
            _ => None,
        }
    }

    pub(super) fn talk_mut(&mut self) -> Option<&mut Talk> {
        match &mut self.state {
            State::Talking(talk) => Some(talk),
            _ => None,
        }
    }

    pub(super) fn transfer(&self) -> Option<&Transfer> {
        match &self.talk()?.doing {
            Doing::Transfer(transfer) => Some(transfer),
            _ => None,
        }
    }

    pub(super) fn transfer_mut(&mut self) -> Option<&mut Transfer> {
        match &mut self.talk_mut()?.doing {
            Doing::Transfer(transfer) => Some(transfer),
            _ => None,
        }
    }

    pub(super) fn consult(&self) -> Option<&Consult> {
        match &self.talk()?.doing {
            Doing::Consult(consult) => Some(consult),
            _ => None,
        }
    }

    pub(super) fn consult_mut(&mut self) -> Option<&mut Consult> {
        match &mut self.talk_mut()?.doing {
            Doing::Consult(consult) => Some(consult),
            _ => None,
        }
    }

    /// The leg bridged to this one by the relay: what one says the other hears, and offers, INFO and digits cross.
    pub(super) fn other(&self, leg: LegId) -> Option<LegId> {
        let circle = self.circle_of(leg)?;
        let [a, b] = circle.members[..] else { return None };
        let held = self.legs.iter().any(|l| l.on_hold && circle.members.contains(&l.id));
        let is_party = circle.members.contains(&leg);
        let other = if a == leg { b } else { a };
        (is_party && !held && !self.is_mixed(&circle)).then_some(other)
    }

    /// What a leg hears.
    pub(super) fn hears(&self, core: &Core, leg: LegId) -> Hears {
        if self.hears_mixer(leg) {
            return Hears::Mixer;
        }
        if let Some(other) = self.other(leg) {
            let holds = self.leg(other).is_some_and(Leg::holds) && core.options.media.hold_audio.is_some();
            return if holds { Hears::Us(Plays::Hold) } else { Hears::Leg(other) };
        }
        let Some(talk) = self.talk() else { return Hears::Us(Plays::Nothing) };
        if let Some(plays) = self.plays_at_door() {
            return Hears::Us(plays);
        }
        match &talk.doing {
            Doing::Transfer(transfer) if transfer.stays == leg => self.progress(leg, transfer.dial(), Plays::Hold),
            Doing::Consult(consult) if consult.by == leg && !consult.is_mute && consult.is_active => {
                self.progress(leg, consult.dial(), Plays::Silence)
            }
            Doing::Make(make) => self.progress(leg, Some(make.dial()), Plays::Silence),
            // Who has put the other side on hold, or is about to leave, hears nothing.
            Doing::Transfer(_) => Hears::Us(Plays::Silence),
            Doing::Consult(consult) if consult.by == leg => Hears::Us(Plays::Silence),
            Doing::Consult(consult) if consult.dials(leg) => Hears::Us(Plays::Nothing),
            _ if talk.observers.iter().any(|o| o.leg == leg) => Hears::Us(Plays::Silence),
            _ if self.leg(leg).is_some_and(|l| l.on_hold) => Hears::Us(Plays::Silence),
            _ => Hears::Us(Plays::Hold),
        }
    }

    /// What somebody hears who waits for a party that is being called: its early media, else our ringback once it
    /// rings, else `before`.
    fn progress(&self, listener: LegId, dial: Option<&Dial>, before: Plays) -> Hears {
        let Some(dial) = dial else { return Hears::Us(before) };
        let thread = |id| self.leg(id).map(|l| l.worker);
        match dial.early {
            Some(early) if thread(early) == thread(listener) => Hears::Leg(early),
            _ if dial.is_ringing() => Hears::Us(Plays::Ringback),
            _ => Hears::Us(before),
        }
    }

    /// A leg that is only being called.
    fn is_dialled(&self, leg: LegId) -> bool {
        self.dials().any(|d| d.branches.iter().any(|b| b.leg == leg))
    }

    /// Makes media threads and recorders agree with the state. Idempotent: only differences are told. While a leg is on
    /// its way to another media thread nothing is: its arrival settles.
    pub(super) fn settle(&mut self, core: &mut Core) {
        if self.talk().is_none() || self.legs.iter().any(Leg::is_moving) || self.gather(core) {
            return;
        }
        self.unlink_pairs(core);
        // Before anything is played: its first packet is recorded, too.
        self.settle_music(core);
        self.settle_routes(core);
        for index in 0..self.legs.len() {
            let id = self.legs[index].id;
            // Who is alone in a room, or at its door, sends us what nobody hears yet.
            let bridged = self.other(id).is_some() || self.hears_mixer(id) || self.room.is_some();
            let leg = &mut self.legs[index];
            if leg.dialog.is_none() {
                continue;
            }
            if let Some(negotiated) = leg.sdp.negotiated().cloned() {
                leg.apply(core, &negotiated);
            }
            leg.choose_digits(core);
            leg.watch(core, bridged);
        }
        self.settle_seats(core);
        self.settle_taps(core);
        self.update_conversations(core);
        self.settle_pairs(core);
    }

    fn settle_routes(&mut self, core: &mut Core) {
        let hears: Vec<(LegId, Hears)> =
            self.legs.iter().filter(|l| !self.is_dialled(l.id)).map(|l| (l.id, self.hears(core, l.id))).collect();
        let listener = |speaker: LegId| hears.iter().find(|(_, h)| *h == Hears::Leg(speaker)).map(|(l, _)| *l);
        // Playing and a route exclude each other: first what ends, then what is played, then what begins.
        for leg in &mut self.legs {
            if leg.routed() != listener(leg.id) {
                leg.route(core, None);
            }
        }
        for (id, hears) in &hears {
            let plays = match hears {
                Hears::Leg(_) | Hears::Mixer => Plays::Nothing,
                Hears::Us(plays) => *plays,
            };
            if let Some(leg) = self.leg_mut(*id) {
                leg.play(core, plays);
            }
        }
        for leg in &mut self.legs {
            let to = listener(leg.id);
            leg.route(core, to);
        }
    }

    /// The recorders of the call's sessions.
    pub(super) fn recorders(&self) -> Vec<RecorderId> {
        let mut recorders: Vec<RecorderId> = self.recording.sessions.iter().map(|s| s.recorder).collect();
        recorders.sort();
        recorders.dedup();
        recorders
    }

    /// Every leg is copied to the recorders of all sessions. A recorder that has no session any more goes on for a
    /// moment: packets of the session's last half second may still be on their way.
    pub(super) fn settle_taps(&mut self, core: &mut Core) {
        let wanted = self.wanted_taps();
        let mut lingers = false;
        for (leg, (wanted, at_once)) in self.legs.iter_mut().zip(&wanted) {
            let mut taps = if *at_once { Vec::new() } else { leg.taps().to_vec() };
            taps.extend(wanted.iter().filter(|r| !taps.contains(r)).copied().collect::<Vec<_>>());
            lingers |= taps.len() > wanted.len();
            leg.tap(core, &taps);
        }
        if lingers {
            core.arm(self.key, Timer::Untap, super::recording::LINGER);
        }
    }

    /// Packets of sessions that have ended are not waited for any more.
    pub(super) fn on_untap(&mut self, core: &mut Core) {
        let wanted = self.wanted_taps();
        for (leg, (wanted, _)) in self.legs.iter_mut().zip(&wanted) {
            leg.tap(core, wanted);
        }
    }

    /// A leg has arrived at another media thread.
    pub(super) fn on_moved(&mut self, core: &mut Core, leg: LegId, worker: crate::id::WorkerId) {
        let Some(leg) = self.leg_mut(leg) else { return };
        leg.moved(worker);
        if !self.legs.iter().any(Leg::is_moving) {
            self.go_on_transfer(core);
        }
    }

    /// Whom a party of a consultation that has not been answered calls.
    pub(super) fn consulted(&self) -> Option<LegId> {
        match self.consult()?.target {
            Target::Talking(leg) => Some(leg),
            Target::Dialing(_) => None,
        }
    }
}
