//! Who has two calls, one of them a consultation over a dialog of its own, and what is left to do about it when the input
//! in hand is done ([`super::second`]).

use std::collections::{BTreeSet, VecDeque};

use super::companions::Companion;
use super::recording::Session;
use super::request::{Request, Ticket};
use crate::id::{ConnId, LegId, LegMap, RecorderId};
use crate::record::mark::{Channel, StopCause};

/// The legs of devices that consult over a second dialog.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// Of a leg in a consult call the leg in the call that is held.
    pub mains: LegMap<LegId>,
    /// The other way round, oldest first.
    pub seconds: LegMap<Vec<LegId>>,
    /// Main legs whose recordings and supervisors may be in another place by now.
    pub changed: BTreeSet<LegId>,
    /// Supervisors in consult calls, with the main leg of their agent.
    pub companions: LegMap<LegId>,
    /// Supervisors on their way out of a consult call that goes on without their agent, or not at all.
    pub homeless: Vec<Companion>,
    /// What the sessions of a main call are to be told of a supervisor that is not in it.
    pub notes: Vec<Note>,
    /// Second legs whose main leg is gone.
    pub parted: BTreeSet<LegId>,
    /// Legs of consult calls that have ended: told once no session of the main call names them any more.
    pub ended: Vec<(RecorderId, LegId)>,
    /// Second legs whose calls have been answered.
    pub talking: BTreeSet<LegId>,
    /// Sessions whose owners go on in another call than theirs, and devices that go on under the names of legs that end.
    pub left: Vec<Left>,
    pub devices: Vec<Device>,
    /// Requests that concern two calls.
    pub asked: VecDeque<Across>,
}

/// A request that concerns two calls of its DN.
#[derive(Debug)]
pub(super) enum Across {
    /// Complete, alternate, reconnect. `fetched`: its leg in the other call, which the phone holds no more.
    Two { ticket: Ticket, request: Box<Request>, fetched: Option<LegId> },
    /// A recording of the consulting device: it belongs to its leg in the call that is held.
    Recording { ticket: Ticket, request: Box<Request>, main: LegId },
    /// What a supervisor that is in a consult call hears and says is decided there.
    There { ticket: Ticket, request: Box<Request>, supervisor: LegId },
    /// Whether it owns a recording is decided in its agent's main call.
    AtHome { ticket: Ticket, request: Box<Request>, supervisor: LegId },
}

/// A session whose call has ended, or is no more its owner's, while that one goes on in the consult call.
#[derive(Debug)]
pub(super) struct Left {
    /// The owner's leg there.
    pub owner: LegId,
    pub session: Session,
    pub required: bool,
    pub conn_id: ConnId,
    pub cause: StopCause,
}

/// A device whose main call has ended, and that sessions know by its leg there.
#[derive(Debug)]
pub(super) struct Device {
    /// Its leg in the consult call.
    pub second: LegId,
    /// Under which leg recorders know it, and which of them do.
    pub recorded: LegId,
    pub known: Vec<(RecorderId, LegId)>,
    pub channel: Channel,
}

/// Something that the sessions of a main call are to be told of a supervisor that is not in it.
#[derive(Debug)]
pub(super) struct Note {
    /// The agent's leg there.
    pub main: LegId,
    pub supervisor: LegId,
    pub name: &'static str,
    /// It has hung up: its sessions end.
    pub has_left: bool,
}

impl Pairs {
    /// A device consults: `second` is its leg in the consult call.
    pub(super) fn link(&mut self, main: LegId, second: LegId) {
        self.mains.insert(second, main);
        self.seconds.entry(main).or_default().push(second);
        self.changed.insert(main);
    }

    /// The leg of a consulting device in the call that it holds.
    pub(super) fn main_of(&self, second: LegId) -> Option<LegId> {
        self.mains.get(&second).copied()
    }

    /// A leg's call has changed: where the recordings and supervisors of its device are is looked at when the input in
    /// hand is done.
    pub(super) fn look_at(&mut self, leg: LegId) {
        let main = self.main_of(leg).or_else(|| self.seconds.contains_key(&leg).then_some(leg));
        self.changed.extend(main.or_else(|| self.companions.get(&leg).copied()));
    }

    /// Something is to be looked at before the input in hand is done.
    pub(super) fn has_news(&self) -> bool {
        !(self.asked.is_empty()
            && self.changed.is_empty()
            && self.parted.is_empty()
            && self.ended.is_empty()
            && self.left.is_empty()
            && self.devices.is_empty()
            && self.homeless.is_empty()
            && self.notes.is_empty())
    }

    /// A leg ends, or its two calls become one.
    pub(super) fn forget(&mut self, leg: LegId) {
        self.changed.remove(&leg);
        self.parted.remove(&leg);
        self.talking.remove(&leg);
        self.companions.remove(&leg);
        if let Some(main) = self.mains.remove(&leg) {
            self.changed.insert(main);
            if let Some(seconds) = self.seconds.get_mut(&main) {
                seconds.retain(|second| *second != leg);
                if seconds.is_empty() {
                    self.seconds.remove(&main);
                }
            }
        }
        for second in self.seconds.remove(&leg).unwrap_or_default() {
            self.mains.remove(&second);
            self.parted.insert(second);
        }
    }

    /// The leg with which a device goes on when its main call ends.
    pub(super) fn heir(&self, main: LegId) -> Option<LegId> {
        let seconds = self.seconds.get(&main)?;
        seconds.iter().copied().find(|second| self.talking.contains(second))
    }

    /// A leg of a consult call has ended.
    pub(super) fn end_later(&mut self, recorder: RecorderId, leg: LegId) {
        self.ended.push((recorder, leg));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mains.is_empty()
            && self.seconds.is_empty()
            && self.talking.is_empty()
            && self.companions.is_empty()
            && !self.has_news()
    }
}
