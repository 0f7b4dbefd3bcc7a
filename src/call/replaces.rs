//! INVITE with Replaces: somebody takes another one's place in a call (RFC 3891, spec/sip.md §5). One with Join begins here
//! as well ([`super::focus`]).
//!
//! | The dialog named is | and the newcomer is | then |
//! |---|---|---|
//! | answered | of the same DN | the leg goes on in the new dialog: same party, same ports, same ownership |
//! | answered | somebody else who may | a new leg takes the place, the one before has left |
//! | one of ours that rings | anybody who may | pick-up: the ringing ends, the newcomer is who has answered |
//!
//! The dialog that is replaced gets BYE or CANCEL. The other side gets a re-INVITE only when it must. A newcomer without
//! an offer gets ours in its 200 and answers in its ACK.

use std::sync::Arc;

use rand::RngExt;

use super::Calls;
use super::arrival::{Arrival, Part};
use super::call::{Call, State};
use super::core::Core;
use super::dial::{DialId, Purpose};
use super::directory::Identity;
use super::fact::What;
use super::headers::Content;
use super::leg::Leg;
use super::outcome::answered_elsewhere;
use super::recording::Recording;
use super::refer::Report;
use super::setup::{Refusing, busy, refuse, unusable};
use super::talk::Exchange;
use super::transfer::Phase;
use super::waiting::Waiting;
use crate::codec::{Codec, Direction};
use crate::id::LegId;
use crate::record::mark::Side;
use crate::sdp::{self, Refusal, Session, Terms};
use crate::sip::dialog;
use crate::sip::endpoint::NotReplaced;
use crate::sip::headers::Headers;
use crate::sip::message::Response;
use crate::sip::values::{Join, Replaces};

/// An INVITE with Replaces or Join.
#[derive(Debug)]
pub(super) struct Newcomer {
    /// It, with its sender.
    pub arrival: Arrival,
    pub wish: Wish,
    /// The number of its Referred-By.
    pub referrer: Option<String>,
}

/// What it wants of the dialog that it names.
#[derive(Debug)]
pub(super) enum Wish {
    Replaces(Replaces),
    Join(Join),
}

/// Whose place is taken.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// A party of the call.
    Party(LegId),
    /// One that is being called.
    Ringing(DialId, LegId),
}

impl Newcomer {
    /// May it take the place of this leg: the same DN, one of its pick-up group, or sent by it.
    pub(super) fn may_replace(&self, leg: &Leg) -> bool {
        let group = &self.arrival.identity.pickup_group;
        let number = leg.identity.dn.as_ref().unwrap_or(&leg.number);
        self.is_same_dn(leg)
            || (!group.is_empty() && *group == leg.identity.pickup_group)
            || (!number.is_empty() && self.referrer.as_ref() == Some(number))
    }

    fn is_same_dn(&self, leg: &Leg) -> bool {
        self.arrival.identity.dn.is_some() && self.arrival.identity.dn == leg.identity.dn
    }
}

pub(super) fn not_found(wish: &Wish, why: NotReplaced) -> Refusing {
    let reason = match (wish, why) {
        (Wish::Replaces(_), NotReplaced::NoDialog) => "Replaces names no dialog",
        (_, NotReplaced::Answered) => "Replaces wants an early dialog and names an answered one",
        (Wish::Replaces(_), NotReplaced::Ended) => "Replaces names a dialog that has ended",
        (Wish::Join(_), NotReplaced::NoDialog) => "Join names no answered dialog",
        (Wish::Join(_), NotReplaced::Ended) => "Join names a dialog that has ended",
    };
    refuse(why.code(), reason)
}

impl Calls {
    /// An INVITE with Replaces or Join, from somebody that we know.
    pub(super) fn on_newcomer(&mut self, newcomer: Box<Newcomer>) {
        let core = &mut self.core;
        let found = match &newcomer.wish {
            Wish::Replaces(replaces) => core.endpoint.find_replaced(replaces, core.now).map(|(dialog, _)| dialog),
            Wish::Join(join) => core.endpoint.find_joined(join, core.now),
        };
        // A dialog that no call has any more waits for its last answer only.
        let key = found.and_then(|dialog| core.index.dialogs.get(&dialog).copied().ok_or(NotReplaced::Ended));
        match key {
            Ok(key) => self.with(Some(key), |call, core| call.on_newcomer(core, *newcomer)),
            Err(why) => not_found(&newcomer.wish, why).tell(core, newcomer.arrival.tx),
        }
    }
}

impl Call {
    /// An INVITE with Replaces or Join that names a dialog of this call.
    pub(super) fn on_newcomer(&mut self, core: &mut Core, mut newcomer: Newcomer) {
        let Wish::Replaces(replaces) = &newcomer.wish else { return self.on_joiner(core, newcomer) };
        let place = match self.place(core, &newcomer, replaces) {
            Ok(place) => place,
            Err(refusing) => return refusing.tell(core, newcomer.arrival.tx),
        };
        if self.has_open_offer() {
            return self.wait(core, Waiting::Newcomer(Box::new(newcomer)));
        }
        let tx = newcomer.arrival.tx;
        if let Place::Party(leg) = place {
            // What was said to be a conference stays one (RFC 4579 §5.9).
            newcomer.arrival.focus = self.focus_said_to(core, leg);
        }
        let done = match place {
            Place::Ringing(dial, leg) => self.pick_up(core, dial, leg, newcomer),
            Place::Party(leg) if self.leg(leg).is_some_and(|leg| newcomer.is_same_dn(leg)) => {
                self.go_on_as(core, leg, newcomer)
            }
            Place::Party(leg) => self.take_place(core, leg, newcomer),
        };
        if let Err(refusing) = done {
            refusing.tell(core, tx);
        }
    }

    /// Whose place it is that the newcomer wants and may have.
    fn place(&self, core: &Core, newcomer: &Newcomer, replaces: &Replaces) -> Result<Place, Refusing> {
        let found = core.endpoint.find_replaced(replaces, core.now);
        let (dialog, state) = found.map_err(|why| not_found(&newcomer.wish, why))?;
        let place = match state {
            dialog::State::Early => self.dials().find_map(|d| Some(Place::Ringing(d.id, d.leg_of(dialog)?))),
            _ => self.legs.iter().find(|leg| leg.dialog == Some(dialog)).map(|leg| Place::Party(leg.id)),
        };
        // Known and nobody's: it has left the call, or is ringing no more.
        let place = place.ok_or_else(|| not_found(&newcomer.wish, NotReplaced::Ended))?;
        let (Place::Party(leg) | Place::Ringing(_, leg)) = place;
        match self.leg(leg).is_some_and(|leg| newcomer.may_replace(leg)) {
            true => Ok(place),
            false => Err(refuse(403, "Replaces names a dialog of somebody else")),
        }
    }

    /// Another device of the same DN: the leg goes on in its dialog.
    fn go_on_as(&mut self, core: &mut Core, leg: LegId, newcomer: Newcomer) -> Result<(), Refusing> {
        let stays = self.transfer().is_none_or(|t| t.stays == leg && matches!(t.phase, Phase::Dialing(_)));
        if !stays || self.talk().is_none() || self.is_at_door() {
            return Err(refuse(491, "Replaces names a party that is about to leave"));
        }
        let before = self.holders();
        let Some(replaced) = self.leg(leg) else { return Ok(()) };
        let is_served = replaced.local.bind == newcomer.arrival.local.bind
            && replaced.local.media.is_ipv4() == newcomer.arrival.local.media.is_ipv4();
        if !is_served {
            return Err(unusable(Refusal::Address, &newcomer.arrival.local, "Replaces by another network"));
        }
        let address = (newcomer.arrival.local.media, replaced.sdp.address().port()).into();
        // RFC 8866 §5.2: a number that fits 63 bits, which some devices require.
        let mut sdp = sdp::Local::new(address, core.rng.random::<u64>() >> 1);
        let body = self.describe(core, &mut sdp, leg, newcomer.arrival.offer.as_ref());
        let body = body.map_err(|why| unusable(why, &newcomer.arrival.local, "no codec for Replaces"))?;
        let Some(dialog) = newcomer.arrival.answer(core, body) else { return Ok(()) };
        let key = self.key;
        let Some(mine) = self.leg_mut(leg) else { return Ok(()) };
        Arc::make_mut(&mut mine.identity).sources = newcomer.arrival.identity.sources.clone();
        let ended = mine.go_on_in(dialog, sdp, newcomer.arrival.local);
        newcomer.arrival.introduce(core, mine);
        let party = Self::party(mine);
        core.index.dialogs.insert(dialog, key);
        if let Some(ended) = ended {
            core.index.dialogs.remove(&ended);
            core.bye(ended, Headers::new(), None);
        }
        self.fact(core, What::Replaced { leg, by: leg, party });
        self.await_ack(&newcomer, leg);
        self.settle(core);
        if newcomer.arrival.offer.is_some() {
            self.report_hold(core, &before);
        }
        self.rebridge(core, leg);
        Ok(())
    }

    /// Somebody else takes the place of a party, which has left by that.
    fn take_place(&mut self, core: &mut Core, replaced: LegId, newcomer: Newcomer) -> Result<(), Refusing> {
        let stays = self.talk().and_then(|talk| talk.opposite(replaced)).filter(|_| self.is_plain());
        let Some((stays, leg)) = stays.and_then(|stays| Some((self.leg(stays)?, self.leg(replaced)?))) else {
            return Err(refuse(491, "Replaces names a party of a running transfer or consultation"));
        };
        if newcomer.arrival.identity.record == Some(true) && newcomer.arrival.identity.required && !core.space_ok {
            return Err(busy("no space for a required recording"));
        }
        let role = if newcomer.arrival.identity.class == leg.identity.class {
            leg.role
        } else {
            super::owners::roles(stays.identity.class, newcomer.arrival.identity.class).1
        };
        let part = Part { role, side: leg.side, channel: leg.channel, worker: stays.worker };
        let stays = stays.id;
        let mut new = newcomer.arrival.leg(core, self.key, part)?;
        let body = self.describe(core, &mut new.sdp, replaced, newcomer.arrival.offer.as_ref());
        let Some(id) = self.seat(core, new, body, &newcomer)? else { return Ok(()) };
        if let Some(talk) = self.talk_mut() {
            talk.members.iter_mut().filter(|member| **member == replaced).for_each(|member| *member = id);
            talk.again = None;
        }
        // The owner rule: who has left takes its sessions along.
        self.part(core, replaced, Some(stays), &Report::Nobody);
        if let Some(party) = self.leg(id).map(Self::party) {
            self.fact(core, What::Replaced { leg: replaced, by: id, party });
        }
        self.note(core, "replaced", id);
        if !self.start_own_of(core, stays, id) {
            self.refuse_unrecorded(core);
            return Ok(());
        }
        self.await_ack(&newcomer, id);
        self.settle(core);
        self.rebridge(core, id);
        Ok(())
    }

    /// Somebody answers for a party that rings.
    fn pick_up(&mut self, core: &mut Core, id: DialId, rings: LegId, newcomer: Newcomer) -> Result<(), Refusing> {
        let Some(purpose) = self.purpose(id) else { return Ok(()) };
        if self.calls_requester(id) && !self.leg(rings).is_some_and(|leg| newcomer.is_same_dn(leg)) {
            return Err(refuse(403, "Replaces names a phone that is called to place a call of its own"));
        }
        let Some(dial) = self.dials().find(|d| d.id == id) else { return Ok(()) };
        let (mut terms, worker) = (dial.terms.clone(), dial.worker);
        let (role, channel) = (dial.head.role(&newcomer.arrival.identity), dial.head.channel);
        if let State::Calling(attempt) = &self.state
            && attempt.offer.is_none()
            && newcomer.arrival.offer.is_none()
        {
            return Err(unusable(Refusal::NoAudio, &newcomer.arrival.local, "pick-up without any offer"));
        }
        let recording = self.recording_with(core, &newcomer.arrival.identity);
        if let Some(recording) = &recording {
            if recording.required && !core.space_ok {
                return Err(busy("no space for a required recording"));
            }
            let decodable = terms.clone().restricted_to(&recording.allowed(&core.options.media.codecs));
            if decodable.has_audio_codec() {
                terms = decodable;
            }
        }
        let part = Part { role, side: Side::Termination, channel, worker };
        let mut new = newcomer.arrival.leg(core, self.key, part)?;
        let body = match &newcomer.arrival.offer {
            Some(offer) => new.sdp.answer(offer, &terms),
            None => Ok(new.sdp.offer(&terms)),
        };
        let answered = newcomer.arrival.offer.as_ref().and_then(|offer| accepted(offer, new.sdp.terms()?));
        let Some(picker) = self.seat(core, new, body, &newcomer)? else { return Ok(()) };
        self.tell_picked_up(core, id, rings, picker);
        self.close_dial(core, id, &answered_elsewhere());
        match purpose {
            Purpose::Caller => self.answer_for(core, picker, recording, answered.unwrap_or(terms), &newcomer),
            Purpose::Transfer => {
                self.await_ack(&newcomer, picker);
                self.transfer_answered(core, picker);
            }
            Purpose::Consult => {
                self.await_ack(&newcomer, picker);
                self.consult_answered(core, picker);
            }
            Purpose::Make => {
                if let Some(recording) = recording.filter(|_| !self.calls_requester(id)) {
                    self.plan_again(recording);
                }
                self.await_ack(&newcomer, picker);
                self.make_answered(core, picker);
            }
            Purpose::Invite => {
                self.await_ack(&newcomer, picker);
                self.invited_answered(core, id, picker);
            }
        }
        Ok(())
    }

    /// The caller's INVITE is answered by who has picked up.
    fn answer_for(
        &mut self,
        core: &mut Core,
        picker: LegId,
        recording: Option<Recording>,
        terms: Terms,
        newcomer: &Newcomer,
    ) {
        let Some(dialog) = self.leg(picker).and_then(|leg| leg.dialog) else { return };
        if let Some(recording) = recording {
            self.plan_again(recording);
        }
        let ok = Response::new(200, "OK");
        self.answer_caller(core, (picker, dialog), &ok, &Content::default(), terms);
        self.await_ack(newcomer, picker);
    }

    /// What the triggers ask for when the newcomer is who the caller talks to; `None`: that is not to be decided again.
    fn recording_with(&self, core: &Core, called: &Identity) -> Option<Recording> {
        let route = self.route()?;
        let caller = self.legs.first()?;
        // An unrestricted call cannot be recorded, and that has been said; a consult call is not by itself.
        self.allowed.as_ref().filter(|_| self.consults.is_none())?;
        Some(Recording::plan(core, self.recording.recorder, &caller.identity, called, route))
    }

    /// What is to be recorded has been decided again; what runs goes on.
    fn plan_again(&mut self, recording: Recording) {
        let sessions = std::mem::take(&mut self.recording.sessions);
        self.recording = Recording { sessions, ..recording };
    }

    /// The newcomer is answered, and its leg one of the call's.
    pub(super) fn seat(
        &mut self,
        core: &mut Core,
        mut leg: Leg,
        body: Result<bytes::Bytes, Refusal>,
        newcomer: &Newcomer,
    ) -> Result<Option<LegId>, Refusing> {
        let body = match body {
            Ok(body) => body,
            Err(why) => {
                leg.end(core);
                return Err(unusable(why, &newcomer.arrival.local, "no codec for a newcomer"));
            }
        };
        let Some(dialog) = newcomer.arrival.answer(core, body) else {
            leg.end(core);
            return Ok(None);
        };
        let id = leg.id;
        leg.dialog = Some(dialog);
        newcomer.arrival.introduce(core, &mut leg);
        core.index.dialogs.insert(dialog, self.key);
        let mut recorders = self.recorders();
        let own = Some(self.recording.recorder).filter(|r| self.recording.is_wanted() && !recorders.contains(r));
        recorders.extend(own);
        leg.tap(core, &recorders);
        self.legs.push(leg);
        Ok(Some(id))
    }

    /// Of another DN: the call rings there now. Another device of the DN that rings needs no word.
    fn tell_picked_up(&self, core: &mut Core, dial: DialId, rings: LegId, picker: LegId) {
        let (Some(from), Some(to)) = (self.leg(rings), self.leg(picker)) else { return };
        if from.identity.is_same_party(&to.identity) {
            return;
        }
        let consult = self.transfer().and_then(|transfer| transfer.consult);
        let conn_id = consult.unwrap_or_else(|| self.dialled_as(dial));
        core.fact(Some(conn_id), What::Redirected { from: Self::party(from), to: Self::party(to) });
    }

    /// Our offer stood in the newcomer's 200: its ACK brings the answer.
    pub(super) fn await_ack(&mut self, newcomer: &Newcomer, leg: LegId) {
        if newcomer.arrival.offer.is_none() && self.leg(leg).is_some() {
            self.set_exchange(Some(Exchange::InAck { leg, first: true }));
        }
    }

    /// What we say in a new dialog of the party `leg`: with an offer of its device the answer, first in what the other
    /// side takes already, so that this one needs no re-INVITE; else our offer.
    fn describe(
        &self,
        core: &Core,
        sdp: &mut sdp::Local,
        leg: LegId,
        offer: Option<&Session>,
    ) -> Result<bytes::Bytes, Refusal> {
        let other = self.other(leg);
        let full = self.full_terms(core, leg, other.map_or(Direction::SendRecv, |other| self.shown(core, other)));
        let other = other.and_then(|other| self.leg(other));
        let Some(offer) = offer else { return Ok(sdp.offer(&full)) };
        if let Some((other, negotiated)) = other.and_then(|other| Some((other, other.sdp.negotiated()?))) {
            let taken: Vec<Codec> = negotiated.send.iter().map(|payload| payload.codec.clone()).collect();
            let fitting = full.clone().restricted_to(&taken);
            let fitting = other.terms_for(negotiated, &fitting, offer, self.allowed.as_deref());
            if let Ok(body) = sdp.answer(offer, &fitting) {
                return Ok(body);
            }
        }
        sdp.answer(offer, &full)
    }
}

/// What an offer says of the codecs that our answer has, in the order of our answer.
fn accepted(offer: &Session, ours: &Terms) -> Option<Terms> {
    let theirs = offer.terms().ok()?;
    let same = |codec: &Codec| theirs.formats.iter().find(|format| format.codec == *codec).cloned();
    let formats = ours.codecs().filter_map(same).collect();
    Some(Terms { formats, ..theirs })
}
