//! The recordings of one call: when sessions start and stop, and what the recorder must know in between
//! (spec/recording.md §2–4).

use super::call::{Call, Ending};
use super::core::Core;
use super::directory::Identity;
use super::fact::{ReleaseCause, What};
use super::leg::{Leg, carries_sound, in_use};
use super::mixing::Place;
use super::options::{OnTransfer, RouteRecord};
use super::owners::{Chooser, Owner, owners, roles};
use super::talk::Doing;
use crate::codec::{Codec, Kind};
use crate::id::{ConnId, LegId, RecorderId, RecordingId};
use crate::record::mark::{
    self, Change, Conversation, Level, Measured, Member, OWNER_CHANGED, Role, SessionStart, Side, StopCause,
};
use crate::sip::headers::Headers;
use crate::sip::name::Name;

/// How long a recorder without sessions still gets a leg's packets: what a session's last half second lacks may be on
/// its way.
pub(super) const LINGER: std::time::Duration = std::time::Duration::from_secs(1);

/// What is to be recorded of a call, and what is.
#[derive(Debug)]
pub(super) struct Recording {
    /// Where the call's own sessions begin: on one thread, so that each leg is decoded once.
    pub recorder: RecorderId,
    /// Sessions that the triggers ask for.
    pub wanted: Vec<Owner>,
    /// A call that cannot be recorded is refused or ended.
    pub required: bool,
    /// Running sessions.
    pub sessions: Vec<Session>,
}

/// One running session.
#[derive(Debug)]
pub(super) struct Session {
    pub id: RecordingId,
    /// It stays there when calls are joined.
    pub recorder: RecorderId,
    pub owner: LegId,
    pub side: Side,
    pub trigger: &'static str,
    pub is_paused: bool,
    /// Its files exist.
    pub has_begun: bool,
    /// Of the last second that was written.
    pub levels: Vec<Level>,
    /// The conversation that the recorder knows.
    told: Conversation,
}

/// Why a session cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unable {
    /// No shared codec that we decode.
    Codec,
    /// The disk is below its floor.
    NoSpace,
}

impl Unable {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Codec => "codec",
            Self::NoSpace => "no-space",
        }
    }
}

impl Recording {
    /// What the triggers ask for in a call between these two.
    pub(super) fn plan(
        core: &Core,
        recorder: RecorderId,
        caller: &Identity,
        called: &Identity,
        route: (Option<RouteRecord>, bool),
    ) -> Self {
        let (first, second) = roles(caller.class, called.class);
        let origination = Chooser { class: caller.class, role: first, record: caller.record };
        let termination = Chooser { class: called.class, role: second, record: called.record };
        let options = &core.options.recording;
        let wanted = owners(origination, termination, options.default, route.0);
        let required = options.required || caller.required || called.required || route.1;
        Self { recorder, required: required && !wanted.is_empty(), wanted, sessions: Vec::new() }
    }

    /// Nothing that begins by itself.
    pub(super) fn none(recorder: RecorderId) -> Self {
        Self { recorder, required: false, wanted: Vec::new(), sessions: Vec::new() }
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The codecs of `media.codecs` that a recorded call may use: those that we decode, and events.
    pub(super) fn allowed(&self, codecs: &[Codec]) -> Vec<Codec> {
        if !self.is_wanted() {
            return codecs.to_vec();
        }
        let usable = |c: &&Codec| c.is_decodable() || matches!(c.kind(), Kind::TelephoneEvent | Kind::ComfortNoise);
        let usable: Vec<Codec> = codecs.iter().filter(usable).cloned().collect();
        if usable.iter().any(carries_sound) { usable } else { codecs.to_vec() }
    }
}

impl Call {
    /// Starts the sessions that are wanted and do not run. False: recording is required and impossible, the call must
    /// not go on.
    #[must_use]
    pub(super) fn start_sessions(&mut self, core: &mut Core) -> bool {
        let parties: Vec<LegId> = self.legs.iter().map(|l| l.id).collect();
        if !self.recording.is_wanted() || self.is_declined(core, &parties) {
            return true;
        }
        if !core.space_ok {
            return self.unable(core, Unable::NoSpace);
        }
        let recorders = self.recorders_with(self.recording.recorder);
        for leg in &mut self.legs {
            leg.tap(core, &recorders);
            leg.announce(core);
        }
        if !self.legs.iter().all(is_decodable) {
            return self.unable(core, Unable::Codec);
        }
        for owner in self.recording.wanted.clone() {
            if !self.recording.sessions.iter().any(|s| s.side == owner.side) {
                let leg = self.legs.iter().find(|l| l.side == owner.side).map(|l| l.id);
                if let Some(leg) = leg {
                    self.start_session(core, leg, owner);
                }
            }
        }
        true
    }

    /// The recorders of the running sessions, and one more.
    pub(super) fn recorders_with(&self, one: RecorderId) -> Vec<RecorderId> {
        let mut recorders = self.recorders();
        if !recorders.contains(&one) {
            recorders.push(one);
        }
        recorders
    }

    /// The triggers of who has come by a transfer. Of a consult call that has become a call between others everybody
    /// has come; one that its consulting device stays in records nothing by itself. False: a recording is required and
    /// impossible.
    #[must_use]
    pub(super) fn start_own_of(&mut self, core: &mut Core, stays: LegId, target: LegId) -> bool {
        if self.consulting(core).is_some() {
            return true;
        }
        let alone = self.consults.take().is_some();
        (!alone || self.start_own(core, stays)) && self.start_own(core, target)
    }

    /// The own option of a party that has been transferred in starts its session (spec/recording.md §4.2). False: its
    /// recording is required and impossible.
    #[must_use]
    pub(super) fn start_own(&mut self, core: &mut Core, leg: LegId) -> bool {
        let Some(party) = self.leg(leg) else { return true };
        let owner = super::owners::own(party.side, party.identity.class, party.identity.record);
        let required = party.identity.required || core.options.recording.required;
        let Some(owner) = owner.filter(|_| !party.is_stopped && !self.is_declined(core, &[leg])) else { return true };
        if self.recording.sessions.iter().any(|s| s.owner == leg) {
            return true;
        }
        self.recording.required |= required;
        match self.record(core, leg, owner) {
            Ok(_) => true,
            Err(why) => {
                self.fact(core, What::RecordingFailed { id: None, cause: why.label(), required });
                !required
            }
        }
    }

    /// Starts a session in an answered call.
    pub(super) fn record(&mut self, core: &mut Core, leg: LegId, owner: Owner) -> Result<RecordingId, Unable> {
        if !core.space_ok {
            return Err(Unable::NoSpace);
        }
        if !self.legs.iter().filter(|l| l.dialog.is_some()).all(is_decodable) {
            return Err(Unable::Codec);
        }
        let recorders = self.recorders_with(self.recording.recorder);
        for leg in &mut self.legs {
            leg.tap(core, &recorders);
            leg.announce(core);
        }
        Ok(self.start_session(core, leg, owner))
    }

    /// The owner rule: a leg leaves while `stays` goes on. Its sessions end, or go over to the one that stays
    /// (`termination-on-transfer = "maintain"`), unless that has its own.
    pub(super) fn hand_over(&mut self, core: &mut Core, leg: LegId, stays: Option<LegId>) {
        let maintain = core.options.recording.termination_on_transfer == OnTransfer::Maintain;
        let owns = |sessions: &[Session], leg| sessions.iter().any(|s| s.owner == leg);
        let heir = stays.filter(|stays| maintain && !owns(&self.recording.sessions, *stays));
        let mut heirs = Vec::new();
        if let Some(heir) = heir
            && let Some(session) =
                self.recording.sessions.iter_mut().find(|s| s.owner == leg && s.side == Side::Termination)
        {
            session.owner = heir;
            heirs.push((session.id, session.recorder, heir));
        }
        for (id, recorder, owner) in heirs {
            let recorded = self.leg(owner).map_or(owner, Leg::recorded);
            let attributes = vec![("leg".into(), recorded.to_string().into())];
            core.mark(recorder, Change::Event { id, name: OWNER_CHANGED.into(), attributes });
            self.fact(core, What::OwnerChanged { id, owner });
        }
        self.stop_sessions_of(core, leg, StopCause::OwnerLeft);
    }

    /// Says once that the call is not recorded; false when that forbids it.
    #[must_use]
    pub(super) fn unable(&mut self, core: &mut Core, why: Unable) -> bool {
        self.recording.wanted.clear();
        let required = self.recording.required;
        self.fact(core, What::RecordingFailed { id: None, cause: why.label(), required });
        !required
    }

    fn start_session(&mut self, core: &mut Core, leg: LegId, owner: Owner) -> RecordingId {
        core.pairs.look_at(leg);
        let id = RecordingId(core.uuid());
        let conversation = conversation(self, leg);
        let owner_dn = self.leg(leg).and_then(|l| l.identity.dn.clone());
        let start = SessionStart {
            id,
            start_time: core.wall,
            call_uuid: self.uuid,
            caller_phone_number: self.caller_number.clone(),
            dialed_phone_number: self.dialed_number.clone(),
            owner_leg: conversation.owner,
            owner_dn,
            side: owner.side,
            trigger: owner.trigger.to_owned(),
            rule: owner.rule,
            layout: core.options.recording.layout,
            sample_rate: core.options.recording.sample_rate,
            conversation: conversation.clone(),
        };
        let (recorder, side, trigger) = (self.recording.recorder, owner.side, owner.trigger);
        let session = Session {
            id,
            recorder,
            owner: leg,
            side,
            trigger,
            is_paused: false,
            has_begun: false,
            levels: Vec::new(),
            told: conversation,
        };
        core.mark(self.recording.recorder, Change::Start(Box::new(start)));
        core.index.recordings.insert(id, self.key);
        core.count_session(self.recording.recorder, true);
        let required = self.recording.required;
        self.fact(core, What::RecordingStarted { id, owner: leg, side, trigger, required });
        self.recording.sessions.push(session);
        id
    }

    /// Tells the recorder where a session's conversation is no longer what it knows.
    pub(super) fn update_conversations(&mut self, core: &mut Core) {
        if !self.recording.sessions.is_empty() {
            // A recorder knows a leg before a conversation names it: of two calls that are joined each has its own recorder.
            self.settle_taps(core);
            self.legs.iter_mut().for_each(|leg| leg.announce(core));
        }
        let mut sessions = std::mem::take(&mut self.recording.sessions);
        for session in &mut sessions {
            let conversation = conversation(self, session.owner);
            if conversation != session.told {
                session.told = conversation.clone();
                core.mark(session.recorder, Change::Conversation { id: session.id, conversation });
            }
        }
        self.recording.sessions = sessions;
    }

    /// A leg that has been taken out of the call ends: no session names it any more when recorders hear of that, here or
    /// in the call that a device of this one holds.
    pub(super) fn let_end(&mut self, core: &mut Core, leg: Leg) {
        self.update_conversations(core);
        self.legs.iter().for_each(|leg| core.pairs.look_at(leg.id));
        leg.end(core);
    }

    /// Something that the metadata of every session tells.
    pub(super) fn note(&mut self, core: &mut Core, name: &str, leg: LegId) {
        let leg = self.leg(leg).map_or(leg, Leg::recorded);
        for session in &self.recording.sessions {
            let attributes = vec![("leg".into(), leg.to_string().into())];
            core.mark(session.recorder, Change::Event { id: session.id, name: name.into(), attributes });
        }
    }

    /// Ends every session.
    pub(super) fn stop_sessions(&mut self, core: &mut Core, cause: StopCause) {
        for session in std::mem::take(&mut self.recording.sessions) {
            self.end_session(core, &session, cause);
        }
    }

    /// Ends the sessions that a leg owns: it leaves.
    pub(super) fn stop_sessions_of(&mut self, core: &mut Core, leg: LegId, cause: StopCause) {
        let (ending, going_on) =
            std::mem::take(&mut self.recording.sessions).into_iter().partition(|s: &Session| s.owner == leg);
        self.recording.sessions = going_on;
        for session in &ending {
            self.end_session(core, session, cause);
        }
    }

    pub(super) fn end_session(&mut self, core: &mut Core, session: &Session, cause: StopCause) {
        core.end_session(Some(self.conn_id), session, cause);
    }

    /// What the recorder says of a running session.
    pub(super) fn on_record(&mut self, core: &mut Core, notice: mark::Notice) {
        match notice {
            mark::Notice::Begun(id) => {
                if let Some(session) = self.recording.sessions.iter_mut().find(|session| session.id == id) {
                    session.has_begun = true;
                }
                self.fact(core, What::RecordingBegun { id });
            }
            mark::Notice::Measured { id, measured } => self.on_measured(id, measured),
            mark::Notice::Published(id) => self.fact(core, What::RecordingPublished { id }),
            mark::Notice::Failed { id, cause, .. } => {
                let Some(at) = self.recording.sessions.iter().position(|s| s.id == id) else { return };
                let session = self.recording.sessions.remove(at);
                self.end_session(core, &session, cause);
                let label = if cause == StopCause::DiskFull { "disk-full" } else { "write-error" };
                let required = self.recording.required;
                self.recording.wanted.retain(|w| w.side != session.side);
                self.fact(core, What::RecordingFailed { id: Some(id), cause: label, required });
                if required {
                    self.refuse_unrecorded(core);
                }
            }
        }
    }

    /// Figures of a session and its legs: nothing follows from them.
    fn on_measured(&mut self, id: RecordingId, measured: Measured) {
        for (leg, ppm) in measured.clock_skew_ppm {
            // Of a leg that is in a call beside this one its own session tells.
            if let Some(leg) = self.leg_mut(leg) {
                leg.clock_skew_ppm = Some(ppm);
            }
        }
        if let Some(session) = self.recording.sessions.iter_mut().find(|session| session.id == id) {
            session.levels = measured.levels;
        }
    }

    /// Ends the call because it is not recorded although it must be.
    pub(super) fn refuse_unrecorded(&mut self, core: &mut Core) {
        let mut bye_headers = Headers::new();
        bye_headers.push(Name::Reason, "SIP;cause=503;text=\"Recording required\"");
        let ending = Ending { answer_headers: Core::busy().headers, bye_headers, ..Ending::code(503) };
        self.release(core, ReleaseCause::Recording, StopCause::Released, None, ending);
    }
}

impl Core {
    /// The end of a session of that call.
    pub(super) fn end_session(&mut self, conn_id: Option<ConnId>, session: &Session, cause: StopCause) {
        self.mark(session.recorder, Change::Stop { id: session.id, cause });
        self.index.recordings.remove(&session.id);
        self.count_session(session.recorder, false);
        self.fact(conn_id, What::RecordingStopped { id: session.id, cause });
    }
}

/// True when the codec in use is one that we decode, as far as it is known yet.
fn is_decodable(leg: &Leg) -> bool {
    let negotiated = leg.sdp.negotiated().map(in_use);
    let offered = || leg.sdp.terms().map(|t| t.codecs().find(|c| carries_sound(c)));
    negotiated.or_else(offered).flatten().is_none_or(Codec::is_decodable)
}

/// The owner's conversation, recomputed from the call's state: the only source of what the recorder is told.
pub(super) fn conversation(call: &Call, owner: LegId) -> Conversation {
    match call.away.iter().find_map(|away| away.told(owner)) {
        Some(told) => told.clone(),
        None => own_conversation(call, owner),
    }
}

/// What the recording of a supervisor is told that is with its agent in another call, when it does not follow: the
/// participants unchanged, silence.
pub(super) fn held_conversation(call: &Call, agent: LegId, supervisor: &Leg) -> Conversation {
    let mut conversation = own_conversation(call, agent);
    conversation.owner = supervisor.recorded();
    conversation.members.push(supervisor.as_member());
    Conversation { unbridged: true, ..conversation }
}

impl Leg {
    /// It as a member of a conversation, as it is by itself.
    pub(super) fn as_member(&self) -> Member {
        Member {
            leg: self.recorded(),
            dn: self.identity.dn.clone(),
            uri: self.uri.clone(),
            role: self.role,
            channel: self.channel,
            holds: self.holds(),
            held: self.on_hold,
            muted: self.is_muted && self.role != Role::Supervisor,
        }
    }
}

fn own_conversation(call: &Call, owner: LegId) -> Conversation {
    let everybody = || call.legs.iter().map(|l| l.id).collect();
    let (mut members, connection): (Vec<LegId>, Connection) = match call.talk() {
        None => (everybody(), Connection::Early),
        Some(talk) => match &talk.doing {
            Doing::Nothing => (talk.members.clone(), Connection::Talking),
            Doing::Transfer(transfer) => (transfer.members_of(owner, &talk.members), Connection::Unbridged),
            Doing::Consult(consult) => consult.conversation_of(call, owner, &talk.members),
            Doing::Make(_) => (everybody(), Connection::Early),
        },
    };
    let place = if connection == Connection::Consulting { Place::Consult } else { Place::Main };
    members.extend(call.observers_at(place));
    if call.is_with_consult(owner) && !members.contains(&owner) {
        // Its recording stays with the call, in which it is silent meanwhile.
        members.push(owner);
    }
    members.sort_by_key(|id| call.legs.iter().position(|l| l.id == *id));
    let consult = connection == Connection::Consulting;
    let has_gone = |leg| call.consult().is_some_and(|c| c.by == leg) || call.is_with_consult(leg);
    // What others say whom the owner has left for a consultation is not its conversation.
    let is_away = match connection {
        Connection::Held => has_gone(owner),
        Connection::Talking => call.is_with_consult(owner),
        Connection::Early | Connection::Unbridged | Connection::Consulting => false,
    };
    let member = |leg: &Leg| Member {
        role: if consult && call.consulted() == Some(leg.id) { Role::Consulted } else { leg.role },
        channel: call.channel_in_room(leg.id, owner).unwrap_or(leg.channel),
        held: leg.on_hold || (connection == Connection::Held && has_gone(leg.id)),
        ..leg.as_member()
    };
    Conversation {
        conn_id: call.consult().filter(|_| consult).map_or(call.conn_id, |c| c.conn_id),
        owner: call.leg(owner).map_or(owner, Leg::recorded),
        members: members.iter().filter_map(|id| call.leg(*id)).map(member).chain(call.music_of(owner)).collect(),
        consult,
        early: connection == Connection::Early && call.answered.is_none(),
        unbridged: is_away || connection == Connection::Unbridged,
    }
}

/// How the members of a conversation are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    Early,
    Talking,
    /// Nobody is bridged: a transfer target is being called.
    Unbridged,
    /// The call while one of its parties consults.
    Held,
    /// The consultation.
    Consulting,
}
