//! The recordings of one call: when sessions start and stop, and what the recorder must know in between
//! (spec/recording.md §2–4).

use super::call::{Call, Ending};
use super::core::Core;
use super::directory::Identity;
use super::fact::{ReleaseCause, What};
use super::leg::{Leg, carries_sound, in_use};
use super::options::RouteRecord;
use super::owners::{Chooser, Owner, owners, roles};
use crate::codec::{Codec, Kind};
use crate::id::{LegId, RecorderId, RecordingId};
use crate::record::mark::{self, Change, Channel, Conversation, Member, SessionStart, Side, StopCause};
use crate::sip::headers::Headers;
use crate::sip::name::Name;

/// What is to be recorded of a call, and what is.
#[derive(Debug)]
pub(super) struct Recording {
    /// All sessions of a call are on one thread: each leg is then decoded once.
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
    pub owner: LegId,
    pub side: Side,
    pub trigger: &'static str,
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
    fn label(self) -> &'static str {
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
        if !self.recording.is_wanted() {
            return true;
        }
        if !core.space_ok {
            return self.unable(core, Unable::NoSpace);
        }
        for leg in &mut self.legs {
            leg.tap(core, self.recording.recorder);
            leg.announce(core);
        }
        if !self.legs.iter().all(is_decodable) {
            return self.unable(core, Unable::Codec);
        }
        for owner in self.recording.wanted.clone() {
            if !self.recording.sessions.iter().any(|s| s.side == owner.side) {
                self.start_session(core, owner);
            }
        }
        true
    }

    /// Says once that the call is not recorded; false when that forbids it.
    #[must_use]
    pub(super) fn unable(&mut self, core: &mut Core, why: Unable) -> bool {
        self.recording.wanted.clear();
        let required = self.recording.required;
        self.fact(core, What::RecordingFailed { id: None, cause: why.label(), required });
        !required
    }

    fn start_session(&mut self, core: &mut Core, owner: Owner) {
        let leg = match owner.side {
            Side::Termination => self.legs.get(1),
            _ => self.legs.first(),
        };
        let Some(leg) = leg else { return };
        let id = RecordingId(core.uuid());
        let conversation = conversation(self, leg.id);
        let start = SessionStart {
            id,
            start_time: core.wall,
            call_uuid: self.uuid,
            caller_phone_number: self.caller_number.clone(),
            dialed_phone_number: self.dialed_number.clone(),
            owner_leg: leg.id,
            owner_dn: leg.identity.dn.clone(),
            side: owner.side,
            trigger: owner.trigger.to_owned(),
            rule: owner.rule,
            layout: core.options.recording.layout,
            sample_rate: core.options.recording.sample_rate,
            conversation: conversation.clone(),
        };
        let session = Session { id, owner: leg.id, side: owner.side, trigger: owner.trigger, told: conversation };
        core.mark(self.recording.recorder, Change::Start(Box::new(start)));
        core.index.recordings.insert(id, self.conn_id);
        core.count_session(self.recording.recorder, true);
        self.fact(
            core,
            What::RecordingStarted { id, owner: session.owner, side: session.side, trigger: session.trigger },
        );
        self.recording.sessions.push(session);
    }

    /// Tells the recorder where a session's conversation is no longer what it knows.
    pub(super) fn update_conversations(&mut self, core: &mut Core) {
        let mut sessions = std::mem::take(&mut self.recording.sessions);
        if !sessions.is_empty() {
            self.legs.iter_mut().for_each(|leg| leg.announce(core));
        }
        for session in &mut sessions {
            let conversation = conversation(self, session.owner);
            if conversation != session.told {
                session.told = conversation.clone();
                core.mark(self.recording.recorder, Change::Conversation { id: session.id, conversation });
            }
        }
        self.recording.sessions = sessions;
    }

    /// Something that the metadata of every session tells.
    pub(super) fn note(&mut self, core: &mut Core, name: &str, leg: LegId) {
        for session in &self.recording.sessions {
            let attributes = vec![("leg".into(), leg.to_string().into())];
            core.mark(self.recording.recorder, Change::Event { id: session.id, name: name.into(), attributes });
        }
    }

    /// Ends every session.
    pub(super) fn stop_sessions(&mut self, core: &mut Core, cause: StopCause) {
        for session in std::mem::take(&mut self.recording.sessions) {
            self.stop_session(core, &session, cause);
        }
    }

    /// Ends the sessions that a leg owns: it leaves.
    pub(super) fn stop_sessions_of(&mut self, core: &mut Core, leg: LegId, cause: StopCause) {
        let (ending, going_on) =
            std::mem::take(&mut self.recording.sessions).into_iter().partition(|s: &Session| s.owner == leg);
        self.recording.sessions = going_on;
        for session in &ending {
            self.stop_session(core, session, cause);
        }
    }

    fn stop_session(&mut self, core: &mut Core, session: &Session, cause: StopCause) {
        core.mark(self.recording.recorder, Change::Stop { id: session.id, cause });
        core.index.recordings.remove(&session.id);
        core.count_session(self.recording.recorder, false);
        self.fact(core, What::RecordingStopped { id: session.id, cause });
    }

    /// What the recorder says of a running session.
    pub(super) fn on_record(&mut self, core: &mut Core, notice: mark::Notice) {
        match notice {
            mark::Notice::Begun(id) => self.fact(core, What::RecordingBegun { id }),
            mark::Notice::Published(id) => self.fact(core, What::RecordingPublished { id }),
            mark::Notice::Failed { id, cause, .. } => {
                let Some(at) = self.recording.sessions.iter().position(|s| s.id == id) else { return };
                let session = self.recording.sessions.remove(at);
                self.stop_session(core, &session, cause);
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

    /// Ends the call because it is not recorded although it must be.
    pub(super) fn refuse_unrecorded(&mut self, core: &mut Core) {
        let mut bye_headers = Headers::new();
        bye_headers.push(Name::Reason, "SIP;cause=503;text=\"Recording required\"");
        let ending = Ending { answer_headers: Core::busy().headers, bye_headers, ..Ending::code(503) };
        self.release(core, ReleaseCause::Recording, StopCause::Released, None, ending);
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
    let member = |(index, leg): (usize, &Leg)| Member {
        leg: leg.id,
        dn: leg.identity.dn.clone(),
        uri: leg.uri.clone(),
        role: leg.role,
        channel: if index == 0 { Channel::Left } else { Channel::Right },
        holds: leg.holds(),
        held: false,
        muted: false,
    };
    Conversation {
        conn_id: call.conn_id,
        owner,
        members: call.legs.iter().enumerate().map(member).collect(),
        consult: false,
        early: call.answered.is_none(),
        unbridged: false,
    }
}
