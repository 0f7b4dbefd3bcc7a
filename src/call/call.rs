//! One call: its legs, its state, its recordings.

use std::sync::Arc;

use jiff::Timestamp;

use super::attempt::Attempt;
use super::bridge::Bridge;
use super::core::{Core, Timer};
use super::fact::{Party, ReleaseCause, What};
use super::leg::Leg;
use super::recording::Recording;
use super::view::{CallView, PartyView, RecordingView};
use crate::codec::Codec;
use crate::id::{CallUuid, ConnId, LegId};
use crate::record::mark::{Role, StopCause};
use crate::sip::endpoint::{Body, Failure, RequestId, ServerTx};
use crate::sip::headers::Headers;

/// One conversation and how it came to be.
#[derive(Debug)]
pub(super) struct Call {
    pub conn_id: ConnId,
    pub uuid: CallUuid,
    pub started: Timestamp,
    pub answered: Option<Timestamp>,
    /// `callerPhoneNumber`.
    pub caller_number: String,
    /// `dialedPhoneNumber`.
    pub dialed_number: String,
    /// The caller's leg first; legs of attempts that failed are gone.
    pub legs: Vec<Leg>,
    pub state: State,
    /// Codecs that may stand in our descriptions; `None`: the call passes unrestricted (spec/sip.md §2).
    pub allowed: Option<Arc<[Codec]>>,
    pub recording: Recording,
    /// Requests of ours in the call's dialogs that wait for their answer.
    pub pending: Vec<(RequestId, Purpose)>,
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
/// `Over` is left at once: the call is forgotten, the endpoint finishes what is left of its dialogs.
#[derive(Debug)]
pub(super) enum State {
    /// D2 is being called.
    Calling(Box<Attempt>),
    /// Two legs are bridged.
    Talking(Bridge),
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
    /// A request of one leg, passed to the other; its answer goes back.
    Pass { tx: ServerTx },
    /// A passed offer whose sender has cancelled it: what `to` answers is taken back.
    Undo { from: LegId, to: LegId },
    /// A digit as INFO.
    Digit,
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
    pub(super) fn leg(&self, id: LegId) -> Option<&Leg> {
        self.legs.iter().find(|l| l.id == id)
    }

    pub(super) fn leg_mut(&mut self, id: LegId) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|l| l.id == id)
    }

    /// Two different legs at once.
    pub(super) fn pair_mut(&mut self, a: LegId, b: LegId) -> Option<(&mut Leg, &mut Leg)> {
        let a = self.legs.iter().position(|l| l.id == a)?;
        let b = self.legs.iter().position(|l| l.id == b)?;
        let [a, b] = self.legs.get_disjoint_mut([a, b]).ok()?;
        Some((a, b))
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub(super) fn bridge_mut(&mut self) -> Option<&mut Bridge> {
        match &mut self.state {
            State::Talking(bridge) => Some(bridge),
            _ => None,
        }
    }

    /// The leg bridged to this one.
    pub(super) fn other(&self, leg: LegId) -> Option<LegId> {
        match &self.state {
            State::Talking(bridge) => bridge.other(leg),
            _ => None,
        }
    }

    /// See [`Leg::refresh_sources`]; early dialogs and an INVITE that waits for its answers included.
    pub(super) fn refresh_sources(&mut self, core: &mut Core) {
        let caller = self.legs.first().map(|l| l.id);
        for leg in &mut self.legs {
            let mut dialogs = Vec::new();
            if let State::Calling(attempt) = &self.state {
                match Some(leg.id) == caller {
                    true => dialogs.extend(attempt.upstream.iter().map(|u| u.dialog)),
                    false => attempt.refresh_branch(core, leg),
                }
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
        let state = std::mem::replace(&mut self.state, State::Over);
        let answered = matches!(state, State::Talking(_));
        let stop = if self.answered.is_some() { stop } else { StopCause::NotAnswered };
        self.stop_sessions(core, stop);
        for timer in [Timer::Attempt, Timer::Ring, Timer::Glare] {
            core.disarm(self.conn_id, timer);
        }
        match state {
            State::Calling(attempt) => attempt.end(core, ending),
            State::Talking(_) => {
                for leg in &self.legs {
                    if Some(leg.id) != by
                        && let Some(dialog) = leg.dialog
                    {
                        core.bye(dialog, ending.bye_headers.clone(), ending.bye_body.clone());
                    }
                }
            }
            State::Over => {}
        }
        for (request, purpose) in std::mem::take(&mut self.pending) {
            core.index.requests.remove(&request);
            if let Purpose::PassOffer { tx, .. } | Purpose::Pass { tx } = purpose {
                core.index.txs.remove(&tx);
                core.answer(tx, None, crate::sip::endpoint::Reply::new(487));
            }
        }
        for leg in self.legs.drain(..) {
            leg.end(core);
        }
        self.fact(core, What::Released { cause, by, answered });
    }

    /// Facts name a party so.
    pub(super) fn party(leg: &Leg) -> Party {
        Party {
            dn: leg.identity.dn.clone(),
            trunk: leg.identity.trunk.as_ref().map(|t| t.to_string()),
            number: leg.number.clone(),
        }
    }

    /// As `GET /v1/calls` shows it.
    pub(super) fn view(&self) -> CallView {
        let held = self.legs.iter().any(Leg::holds);
        let state = match &self.state {
            State::Calling(attempt) if attempt.is_ringing() => "early",
            State::Calling(_) => "calling",
            State::Talking(bridge) if bridge.waits_for_answer() => "answering",
            State::Talking(_) if held => "held",
            State::Talking(_) => "talking",
            State::Over => "ending",
        };
        let party = |(index, leg): (usize, &Leg)| PartyView {
            leg_id: leg.id,
            dn: leg.identity.dn.clone(),
            trunk: leg.identity.trunk.as_ref().map(|t| t.to_string()),
            number: leg.number.clone(),
            role: if leg.role == Role::Customer { "customer" } else { "agent" },
            state: match (&self.state, index) {
                (State::Talking(_), _) => "established",
                (State::Calling(_), 0) => "calling",
                (State::Calling(attempt), _) if attempt.is_ringing() => "ringing",
                _ => "calling",
            },
            holds: leg.holds(),
            codec: leg.codec().map(ToString::to_string),
            media: leg.stats.latched,
            received: leg.stats.received,
            sent: leg.stats.sent,
            lost: leg.stats.lost,
        };
        CallView {
            conn_id: self.conn_id,
            call_uuid: self.uuid,
            state,
            started: self.started,
            answered: self.answered,
            caller_phone_number: self.caller_number.clone(),
            dialed_phone_number: self.dialed_number.clone(),
            parties: self.legs.iter().enumerate().map(party).collect(),
            recordings: self
                .recording
                .sessions
                .iter()
                .map(|s| RecordingView { id: s.id, owner_leg: s.owner, trigger: s.trigger })
                .collect(),
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
