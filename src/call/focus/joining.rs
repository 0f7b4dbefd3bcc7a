//! INVITE with Join: somebody comes to the conversation of a dialog (RFC 3911, RFC 4579 §5.8, spec/sip.md §5).
//!
//! The dialog is of a room's member or of a party of an answered call; who might take that party's place by Replaces may
//! come to it. Of a call that makes a conference, which says so to who has come and stays invisible to the others.

use std::sync::Arc;

use rand::RngExt;

use super::Focus;
use crate::call::arrival::Part;
use crate::call::call::Call;
use crate::call::core::Core;
use crate::call::fact::What;
use crate::call::leg::carries_sound;
use crate::call::mixing::is_mixable;
use crate::call::owners::roles;
use crate::call::replaces::{Newcomer, Wish, not_found};
use crate::call::request::Code;
use crate::call::room::role_of;
use crate::call::setup::{Refusing, busy, refuse, unusable};
use crate::call::talk::Doing;
use crate::call::waiting::Waiting;
use crate::codec::{Codec, Direction};
use crate::id::LegId;
use crate::record::mark::{Channel, Side};
use crate::sdp::{Refusal, Terms};
use crate::sip::endpoint::NotReplaced;

impl Call {
    /// An INVITE with Join that names a dialog of this call.
    pub(in crate::call) fn on_joiner(&mut self, core: &mut Core, newcomer: Newcomer) {
        let tx = newcomer.arrival.tx;
        let leg = match self.joined(core, &newcomer) {
            Ok(leg) => leg,
            Err(refusing) => return refusing.tell(core, tx),
        };
        if self.has_open_offer() {
            return self.wait(core, Waiting::Newcomer(Box::new(newcomer)));
        }
        let is_conference = self.focus.is_some();
        if let Err(refusing) = self.let_in(core, leg, newcomer) {
            refusing.tell(core, tx);
        }
        let is_joined = self.talk().is_some_and(|talk| talk.members.len() > 2) || is_conference;
        if !is_joined {
            self.close_focus(core);
        }
    }

    /// Whose dialog it is that the newcomer names and may join.
    fn joined(&self, core: &Core, newcomer: &Newcomer) -> Result<LegId, Refusing> {
        let Wish::Join(join) = &newcomer.wish else { return Err(not_found(&newcomer.wish, NotReplaced::NoDialog)) };
        let found = core.endpoint.find_joined(join, core.now);
        let dialog = found.map_err(|why| not_found(&newcomer.wish, why))?;
        let leg = self.legs.iter().find(|leg| leg.dialog == Some(dialog));
        // Known and nobody's: it has left the call.
        let leg = leg.ok_or_else(|| not_found(&newcomer.wish, NotReplaced::Ended))?;
        match newcomer.may_replace(leg) && self.observer(leg.id).is_none() {
            true => Ok(leg.id),
            false => Err(refuse(403, "Join names a dialog of somebody else")),
        }
    }

    fn let_in(&mut self, core: &mut Core, leg: LegId, mut newcomer: Newcomer) -> Result<(), Refusing> {
        let is_settled = self.talk().is_some_and(|t| matches!(t.doing, Doing::Nothing) && !t.waits_for_answer());
        let Some(joined) = self.leg(leg).filter(|leg| is_settled && self.takes_part(leg.id)) else {
            return Err(refuse(491, "Join names a party of a running transfer or consultation"));
        };
        if self.is_at_door() {
            return Err(refuse(403, "Join names a caller at the door of a room"));
        }
        let arrival = &newcomer.arrival;
        let allowed = self.must_be_mixable().and_then(|()| self.must_have_places(1));
        allowed.map_err(|denied| match denied.code {
            Code::Limit => refuse(486, "the conference is full"),
            _ => unusable(Refusal::NoSharedCodec, &arrival.local, "no codec for a conference"),
        })?;
        if arrival.identity.record == Some(true) && arrival.identity.required && !core.space_ok {
            return Err(busy("no space for a required recording"));
        }
        // Who comes to a room has called in; who comes to a call is one more party of its other side.
        let (role, side) = match self.room_number() {
            Some(_) => (role_of(&arrival.identity), Side::Origination),
            None => (roles(joined.identity.class, arrival.identity.class).1, Side::Termination),
        };
        let part = Part { role, side, channel: Channel::Right, worker: joined.worker };
        let allowed: Arc<[Codec]> = self.allowed.clone().unwrap_or_default();
        let terms: Vec<Codec> = allowed.iter().filter(|c| is_mixable(c) || !carries_sound(c)).cloned().collect();
        let terms = Terms::of(&terms, Direction::SendRecv);
        let focus = match self.focus.take() {
            Some(focus) => focus,
            None => {
                let token = format!("{:016x}", core.rng.random::<u64>());
                Focus::begin(core, self.key, token)
            }
        };
        newcomer.arrival.focus = Some(focus.user.clone().into());
        self.focus = Some(focus);
        let mut new = newcomer.arrival.leg(core, self.key, part)?;
        let body = match &newcomer.arrival.offer {
            Some(offer) => new.sdp.answer(offer, &terms),
            None => Ok(new.sdp.offer(&terms)),
        };
        let Some(new) = self.seat(core, new, body, &newcomer)? else { return Ok(()) };
        self.await_ack(&newcomer, new);
        if let Some(to) = self.leg(new).map(Self::party) {
            // Told as if the joined party had called it in (spec/events.md §1 row 12).
            self.fact(core, What::PartyInvited { by: leg, to, observer: false });
        }
        self.join_member(core, new, leg, None);
        Ok(())
    }
}
