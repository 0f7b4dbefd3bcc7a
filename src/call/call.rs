//! One call: its legs, its state, its recordings.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use rand::RngExt;

use super::announce::Announcement;
use super::attempt::Attempt;
use super::core::{Core, Key, Timer};
use super::dial::Dial;
use super::fact::{Party, ReleaseCause, What};
use super::focus::Focus;
use super::leg::Leg;
use super::make::Outcome;
use super::mixing::Rooms;
use super::options::RouteRecord;
use super::recording::{Recording, Session};
use super::request::{Code, Request, Ticket};
use super::room::Room;
use super::second::{Away, Lent};
use super::talk::{Doing, Talk};
use super::view::{CallView, PartyView, tenths};
use super::waiting::Waiting;
use crate::codec::Codec;
use crate::id::{CallUuid, ConnId, LegId};
use crate::record::mark::{Role, StopCause};
use crate::sip::endpoint::{Body, DialogId, Failure, RequestId, ServerTx};
use crate::sip::headers::Headers;

/// One conversation and how it came to be.
#[derive(Debug)]
pub(super) struct Call {
    pub key: Key,
    pub conn_id: ConnId,
    pub uuid: CallUuid,
    pub started: Timestamp,
    pub answered: Option<Timestamp>,
    /// It is a consult call over a dialog of its own: the ConnID of the call that its caller holds.
    pub consults: Option<ConnId>,
    /// `callerPhoneNumber`.
    pub caller_number: String,
    /// `dialedPhoneNumber`.
    pub dialed_number: String,
    /// While D2 is being called the caller's leg is the first; legs of attempts that failed are gone.
    pub legs: Vec<Leg>,
    pub state: State,
    /// Codecs that may stand in our descriptions; `None`: the call passes unrestricted (spec/sip.md §2).
    pub allowed: Option<Arc<[Codec]>>,
    pub recording: Recording,
    /// Requests of ours in the call's dialogs that wait for their answer.
    pub pending: Vec<(RequestId, Purpose)>,
    /// What waits for the end of an exchange, and until when.
    pub waiting: VecDeque<(Instant, Waiting)>,
    /// Dialogs of transferors that are about to hang up.
    pub parting: Vec<DialogId>,
    /// Devices that are in a consultation over another dialog, and what recordings of this call are told of it.
    pub away: Vec<Away>,
    /// It is such a consultation, of one device or several.
    pub lent: Vec<Lent>,
    /// Where its conferences are mixed.
    pub rooms: Rooms,
    /// It says that it is a conference.
    pub focus: Option<Box<Focus>>,
    /// It is a dial-in room, or somebody at the door of one.
    pub room: Option<Box<Room>>,
}

/// Where a call is.
///
/// ```text
///            INVITE                    2xx of D2
///   (none) ─────────► Calling ──────────────────────► Talking
///                        │  CANCEL, failure, ring        │  BYE, lost peer, no ACK,
///                        │  timeout, hang-up             │  recording required, hang-up
///                        └──────────► Over ◄─────────────┘
/// ```
/// A call that was asked for by MakeCall begins as Talking: its parties are called one after the other ([`super::make`]).
/// `Over` is left at once: the call is forgotten, the endpoint finishes what is left of its dialogs.
#[derive(Debug)]
pub(super) enum State {
    /// D2 is being called.
    Calling(Box<Attempt>),
    /// It is answered; [`super::talk`] says who talks to whom.
    Talking(Box<Talk>),
    /// Nothing is left to do.
    Over,
}

/// Why a request of ours was sent.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A re-INVITE with the offer of `from`, whose request `tx` waits for the answer of `to`.
    PassOffer { from: LegId, to: LegId, tx: ServerTx, offer: Box<crate::sdp::Session> },
    /// An offer of our own.
    OwnOffer { to: LegId },
    /// An offer to a phone that holds: the request needs its audio.
    Fetch { to: LegId, ticket: Ticket, request: Box<Request> },
    /// A party is told something.
    Announce(Announcement),
    /// A request of one leg, passed to the other; its answer goes back.
    Pass { tx: ServerTx },
    /// A passed offer whose sender has cancelled it: what `to` answers is taken back.
    Undo { from: LegId, to: LegId },
    /// A digit as INFO.
    Digit,
    /// NOTIFY to the sender of a REFER.
    Notify,
    /// NOTIFY that asks a phone to hold or to talk.
    Key,
    /// OPTIONS to a leg that is silent.
    Probe { leg: LegId },
}

/// How a call ends: what each side is told.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// The final answer to an INVITE that has none yet; 0: 500.
    pub code: u16,
    /// Its phrase; empty: the RFC's.
    pub reason: bytes::Bytes,
    /// Header lines of that answer.
    pub answer_headers: Headers,
    /// Its body.
    pub answer_body: Option<Body>,
    /// Header lines of BYE and CANCEL (Reason).
    pub bye_headers: Headers,
    /// The body of BYE; a CANCEL has none.
    pub bye_body: Option<Body>,
}

impl Ending {
    pub(super) fn code(code: u16) -> Self {
        Self { code, ..Self::default() }
    }
}

impl Call {
    /// A call without legs, with ids of its own. `numbers`: the caller's and the dialled one; `media`: the codecs that may
    /// stand in our descriptions, and what is to be recorded.
    pub(super) fn begin(
        core: &mut Core,
        key: Key,
        numbers: (String, String),
        state: State,
        media: (Option<Arc<[Codec]>>, Recording),
    ) -> Self {
        let (caller_number, dialed_number) = numbers;
        let (allowed, recording) = media;
        Self {
            key,
            conn_id: ConnId(core.rng.random()),
            uuid: CallUuid(core.uuid()),
            started: core.wall,
            answered: None,
            consults: None,
            caller_number,
            dialed_number,
            legs: Vec::new(),
            state,
            allowed,
            recording,
            pending: Vec::new(),
            waiting: VecDeque::new(),
            parting: Vec::new(),
            away: Vec::new(),
            lent: Vec::new(),
            rooms: Rooms::default(),
            focus: None,
            room: None,
        }
    }

    pub(super) fn leg(&self, id: LegId) -> Option<&Leg> {
        self.legs.iter().find(|l| l.id == id)
    }

    pub(super) fn leg_mut(&mut self, id: LegId) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|l| l.id == id)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// See [`Leg::refresh_sources`]; early dialogs and an INVITE that waits for its answers included.
    pub(super) fn refresh_sources(&mut self, core: &mut Core) {
        let caller = self.legs.first().map(|l| l.id);
        for leg in &mut self.legs {
            let mut dialogs = Vec::new();
            match &self.state {
                State::Calling(attempt) if Some(leg.id) == caller => {
                    dialogs.extend(attempt.upstream.iter().map(|u| u.dialog));
                }
                State::Calling(attempt) => attempt.dial.refresh_branch(core, leg),
                State::Talking(talk) => talk.dials().for_each(|dial| dial.refresh_branch(core, leg)),
                State::Over => {}
            }
            leg.refresh_sources(core, &dialogs);
        }
    }

    pub(super) fn fact(&self, core: &mut Core, what: What) {
        core.fact(Some(self.conn_id), what);
    }

    /// Ends everything that is left: answers, CANCELs, BYEs, recordings, media. `by` is the leg that has already gone
    /// (its BYE is answered by the caller of this).
    pub(super) fn release(
        &mut self,
        core: &mut Core,
        cause: ReleaseCause,
        stop: StopCause,
        by: Option<LegId>,
        ending: Ending,
    ) {
        let last = self.last_fact(cause, by);
        if cause != ReleaseCause::Shutdown {
            self.send_all_home(core);
        }
        let mut state = std::mem::replace(&mut self.state, State::Over);
        let stop = if self.answered.is_some() { stop } else { StopCause::NotAnswered };
        if matches!(cause, ReleaseCause::Released | ReleaseCause::Lost) {
            self.leave_to_devices(core, stop);
        }
        self.close_room(core, stop);
        self.stop_sessions(core, stop);
        for timer in [Timer::Glare, Timer::Parting, Timer::Waiting, Timer::Untap, Timer::Pin, Timer::Digit] {
            core.disarm(self.key, timer);
        }
        for dial in state.dials_mut() {
            core.disarm(self.key, Timer::Attempt(dial.id));
            core.disarm(self.key, Timer::Ring(dial.id));
            dial.close_branches(core, &ending.bye_headers, |_| true);
        }
        match state {
            State::Calling(attempt) => attempt.end(core, ending),
            State::Talking(talk) => {
                for leg in &self.legs {
                    if Some(leg.id) != by
                        && let Some(dialog) = leg.dialog
                    {
                        core.bye(dialog, ending.bye_headers.clone(), ending.bye_body.clone());
                    }
                }
                self.end_consult(core, &talk, cause);
                if let Doing::Transfer(transfer) = &talk.doing
                    && transfer.report.outlives_its_dialog()
                {
                    self.notify(core, &transfer.report, 487, b"");
                }
                for invited in talk.invited.iter().filter(|invited| invited.report.outlives_its_dialog()) {
                    self.notify(core, &invited.report, 487, b"");
                }
            }
            State::Over => {}
        }
        self.on_parting(core);
        self.end_pending(core);
        self.refuse_all_waiting(core);
        self.close_focus(core);
        for leg in self.legs.drain(..) {
            leg.end(core);
        }
        self.rooms.close(core, |_| false);
        core.index.conns.remove(&self.conn_id);
        last.into_iter().for_each(|last| last.tell(core));
    }

    /// Nobody waits any more for the answers to requests of ours; who waits for what follows from them is answered.
    fn end_pending(&mut self, core: &mut Core) {
        for (request, purpose) in std::mem::take(&mut self.pending) {
            core.index.requests.remove(&request);
            match purpose {
                Purpose::PassOffer { tx, .. } | Purpose::Pass { tx } => {
                    core.index.txs.remove(&tx);
                    core.answer(tx, None, crate::sip::endpoint::Reply::new(487));
                }
                Purpose::Fetch { ticket, .. } => {
                    core.answer_request(ticket, Err(self.denied(Code::WrongState, "the call is over")));
                }
                _ => {}
            }
        }
    }

    /// The last fact of the call when it ends now; `None`: nobody was told of it.
    fn last_fact(&self, cause: ReleaseCause, by: Option<LegId>) -> Option<Outcome> {
        let answered = self.talk().is_some() && self.make().is_none();
        let released = || Outcome::of(self, None, What::Released { cause, by, answered });
        (!self.is_at_door()).then(|| self.not_made(cause).unwrap_or_else(released))
    }

    /// The consult call over one of the dialogs ends with the call.
    fn end_consult(&self, core: &mut Core, talk: &Talk, cause: ReleaseCause) {
        if let Doing::Consult(consult) = &talk.doing {
            core.index.conns.remove(&consult.conn_id);
            let answered = matches!(consult.target, super::consult::Target::Talking(_));
            core.fact(Some(consult.conn_id), What::Released { cause, by: None, answered });
        }
        if let Doing::Transfer(transfer) = &talk.doing
            && let Some(consult) = transfer.consult
        {
            core.index.conns.remove(&consult);
            core.fact(Some(consult), What::Released { cause, by: None, answered: true });
        }
    }

    /// What the route says of recording, while the call's first answer is still to come.
    pub(super) fn route(&self) -> Option<(Option<RouteRecord>, bool)> {
        match &self.state {
            State::Calling(attempt) => Some(attempt.route),
            _ => self.make().map(|make| make.route),
        }
    }

    /// Facts name a party so.
    pub(super) fn party(leg: &Leg) -> Party {
        leg.identity.party(leg.number.clone())
    }

    /// The state in a word.
    pub(super) fn state_name(&self) -> &'static str {
        let held = self.legs.iter().any(|l| l.holds() || l.on_hold);
        match &self.state {
            State::Calling(attempt) if attempt.dial.is_ringing() => "early",
            State::Calling(_) => "calling",
            State::Talking(_) if self.is_at_door() => "entering",
            State::Talking(talk) if talk.waits_for_answer() => "answering",
            State::Talking(talk) => match &talk.doing {
                Doing::Transfer(_) => "transferring",
                Doing::Consult(_) => "consulting",
                Doing::Make(make) if !make.calls_requester() && make.dial().is_ringing() => "early",
                Doing::Make(_) => "calling",
                Doing::Nothing if talk.members.len() > 2 => "conference",
                Doing::Nothing if talk.members.len() == 1 => "waiting",
                Doing::Nothing if held => "held",
                Doing::Nothing => "talking",
            },
            State::Over => "ending",
        }
    }

    /// A leg that is being called rings.
    fn rings(&self, leg: LegId) -> bool {
        self.dials().any(|d| d.branches.iter().any(|b| b.leg == leg && b.ringing))
    }

    /// As `GET /v1/calls` shows it: the call and, beside it, a consult call over one of its dialogs.
    pub(super) fn views(&self, core: &Core) -> impl Iterator<Item = CallView> {
        let consult = self.consult().map(|consult| {
            let target = |l: &&Leg| l.id == consult.by || self.consulted() == Some(l.id) || consult.dials(l.id);
            CallView {
                conn_id: consult.conn_id,
                previous_conn_id: Some(self.conn_id).filter(|main| *main != consult.conn_id),
                state: match self.consulted() {
                    Some(_) if consult.is_active => "talking",
                    Some(_) => "held",
                    None if consult.dial().is_some_and(Dial::is_ringing) => "early",
                    None => "calling",
                },
                parties: self.legs.iter().filter(target).map(|l| self.party_view(core, l)).collect(),
                recordings: Vec::new(),
                ..self.view(core)
            }
        });
        // What the held party has left is the consult call itself.
        let main = consult.as_ref().is_none_or(|c| c.conn_id != self.conn_id).then(|| self.view(core));
        main.into_iter().chain(consult)
    }

    fn view(&self, core: &Core) -> CallView {
        let consulted = |l: &&Leg| {
            self.consult()
                .is_some_and(|c| c.dials(l.id) || (self.consulted() == Some(l.id) && c.conn_id != self.conn_id))
        };
        CallView {
            conn_id: self.conn_id,
            previous_conn_id: self.consults,
            call_uuid: self.uuid,
            state: self.state_name(),
            started: self.started,
            answered: self.answered,
            caller_phone_number: self.caller_number.clone(),
            dialed_phone_number: self.dialed_number.clone(),
            parties: self
                .legs
                .iter()
                .filter(|l| !consulted(l) && self.home_of(l.id).is_none())
                .map(|l| self.party_view(core, l))
                .collect(),
            recordings: self.recording.sessions.iter().map(Session::view).collect(),
        }
    }

    pub(super) fn party_view(&self, core: &Core, leg: &Leg) -> PartyView {
        let stats = &leg.stats;
        let clock_rate = leg.codec().map_or(0, |codec| codec.clock_rate);
        PartyView {
            leg_id: leg.id,
            dn: leg.identity.dn.clone(),
            trunk: leg.identity.trunk.as_ref().map(|t| t.to_string()),
            number: leg.number.clone(),
            role: match leg.role {
                Role::Customer => "customer",
                Role::Supervisor => "supervisor",
                Role::Member => "member",
                _ => "agent",
            },
            state: match &self.state {
                State::Talking(_) if leg.dialog.is_some() => "established",
                _ if self.rings(leg.id) => "ringing",
                _ => "calling",
            },
            holds: leg.holds() || leg.on_hold,
            codec: leg.codec().map(ToString::to_string),
            media: stats.latched,
            received: stats.received,
            sent: stats.sent,
            lost: stats.lost,
            refused: stats.refused,
            jitter_ms: (stats.received > 0 && clock_rate > 0)
                .then(|| tenths(f64::from(stats.jitter) * 1_000.0 / f64::from(clock_rate))),
            clock_skew_ppm: leg.clock_skew_ppm.map(tenths),
            last_packet: stats.last_packet.and_then(|at| core.wall_at(at)),
        }
    }
}

/// The code that a leg is told when the other one failed with this (spec/sip.md §3): 503 is only ours to say, and what
/// asks for credentials asks us. A 3xx that may not be followed is 480: its targets are not told to the other side, which
/// could not reach them through us, and a caller that would try them itself would leave the recording.
pub(super) fn mapped(code: u16) -> u16 {
    match code {
        503 | 401 | 407 => 500,
        300..=399 => 480,
        code => code,
    }
}

/// True when an answer in a dialog means that the peer has left it (RFC 3261 §12.2.1.2).
pub(super) fn has_left(failure: &Failure) -> bool {
    match failure {
        Failure::Response(response) => matches!(response.code, 408 | 481),
        Failure::Timeout | Failure::Ended => true,
        Failure::Transport => false,
    }
}
