//! After every re-bridging: whichever leg's description does not allow the new bridge is offered what does
//! (spec/sip.md §2).

use std::time::Duration;

use super::call::{Call, Purpose, has_left};
use super::core::{Core, Timer};
use super::fact::What;
use super::headers::Content;
use super::leg::carries_sound;
use super::mixing::is_mixable;
use super::talk::Exchange;
use crate::codec::{Codec, Direction};
use crate::id::LegId;
use crate::sdp::{Negotiated, Session, Terms};
use crate::sip::endpoint::{Failure, Refused};
use crate::sip::headers::Headers;
use crate::sip::message::Response;

impl Call {
    /// No offer of the bridge is open.
    pub(super) fn is_idle(&self) -> bool {
        self.talk().is_some_and(|talk| talk.exchange.is_none())
    }

    /// After a re-bridging: whichever of the two legs does not allow the new bridge yet gets a re-INVITE, first the one
    /// opposite of `fresh`.
    pub(super) fn rebridge(&mut self, core: &mut Core, fresh: LegId) {
        let Some(other) = self.other(fresh) else {
            let mixed = self.mixed_legs();
            self.talk_mut().into_iter().for_each(|talk| talk.unaligned.clone_from(&mixed));
            return self.align_mixed(core);
        };
        let is_idle = self.is_idle();
        if let Some(talk) = self.talk_mut() {
            talk.next = Some(other);
            talk.fresh = (!is_idle).then_some(fresh);
        }
        if is_idle {
            self.align(core, fresh);
            self.align_next(core);
        }
    }

    /// The second look after a re-bridging, or the first one, if an exchange was open then.
    pub(super) fn align_next(&mut self, core: &mut Core) {
        if !self.is_idle() {
            return;
        }
        if let Some(fresh) = self.talk_mut().and_then(|talk| talk.fresh.take()) {
            self.align(core, fresh);
            if !self.is_idle() {
                return;
            }
        }
        let Some(next) = self.talk_mut().and_then(|talk| talk.next.take()) else { return };
        self.align(core, next);
    }

    /// Offers to the legs of a conference, one after the other, what the mixer needs and their descriptions do not allow
    /// yet: another direction, or a codec that can be mixed.
    pub(super) fn align_mixed(&mut self, core: &mut Core) {
        while self.is_idle()
            && let Some(to) = self.talk_mut().and_then(|talk| talk.unaligned.pop())
        {
            self.offer_mixed(core, to);
        }
    }

    fn offer_mixed(&mut self, core: &mut Core, to: LegId) {
        let Some(leg) = self.leg(to).filter(|_| self.hears_mixer(to)) else { return };
        let Some(negotiated) = leg.sdp.negotiated() else { return };
        if negotiated.direction == leg.wants.reversed() && leg.is_mixable() {
            return;
        }
        let mut terms = self.full_terms(core, to, Direction::SendRecv);
        terms.formats.retain(|f| !carries_sound(&f.codec) || is_mixable(&f.codec));
        self.offer_own(core, to, &terms);
    }

    /// Offers to the leg opposite of `changed` what the bridge needs and its description does not allow yet: another
    /// direction, or the codecs that `changed` may send. Where the two share none and we can transcode, that is no reason.
    pub(super) fn align(&mut self, core: &mut Core, changed: LegId) {
        let Some(to) = self.other(changed) else { return };
        let (Some(x), Some(y)) = (self.leg(changed), self.leg(to)) else { return };
        let (Some(nx), Some(ny)) = (x.sdp.negotiated(), y.sdp.negotiated()) else { return };
        let offered = self.shown(core, changed);
        let wanted = offered.and(y.wants.reversed());
        let sends = sendable(nx);
        let is_heard = is_heard(&sends, ny);
        if is_heard && ny.direction == wanted {
            return;
        }
        let mut terms = self.full_terms(core, to, offered);
        if !is_heard {
            only(&mut terms, &sends);
        }
        if let Some(first) = nx.send.iter().find(|p| carries_sound(&p.codec)) {
            terms = terms.preferring(&first.codec);
        }
        self.offer_own(core, to, &terms);
    }

    /// `to` has answered an offer of ours with fewer codecs than its counterpart may send: that one is offered the rest.
    /// Each round leaves fewer codecs, so it ends.
    fn narrow(&mut self, core: &mut Core, to: LegId) {
        let Some(other) = self.other(to) else { return };
        let (Some(x), Some(y)) = (self.leg(other), self.leg(to)) else { return };
        let (Some(nx), Some(ny)) = (x.sdp.negotiated(), y.sdp.negotiated()) else { return };
        let sends = sendable(nx);
        let heard: Vec<Codec> = sends.iter().filter(|codec| takes(ny, codec)).cloned().collect();
        if heard.len() == sends.len() {
            return;
        }
        if heard.is_empty() && is_heard(&sends, ny) {
            return;
        }
        if heard.is_empty() {
            return self.fact(core, What::Warning { text: "two legs have no codec in common" });
        }
        let mut terms = self.full_terms(core, other, self.shown(core, to));
        only(&mut terms, &heard);
        self.offer_own(core, other, &terms);
    }

    /// True when two legs hear each other, if need be through transcoding.
    pub(super) fn can_talk(&self, a: LegId, b: LegId) -> bool {
        let negotiated = |id| self.leg(id).and_then(|l| l.sdp.negotiated());
        let (Some(a), Some(b)) = (negotiated(a), negotiated(b)) else { return true };
        let hears = |from: &Negotiated, to: &Negotiated| {
            sendable(from).iter().any(|codec| codec.reaches(to.send.iter().map(|p| &p.codec)))
        };
        hears(a, b) && hears(b, a)
    }

    /// Offers a leg what another one may send; false: there is nothing to offer, or no offer could be sent.
    pub(super) fn offer_codecs_of(&mut self, core: &mut Core, to: LegId, other: LegId) -> bool {
        let Some(sends) = self.leg(other).and_then(|l| l.sdp.negotiated()).map(sendable) else { return false };
        let mut terms = self.full_terms(core, to, self.shown(core, other));
        only(&mut terms, &sends);
        if terms.has_audio_codec() {
            self.offer_own(core, to, &terms);
        }
        !self.is_idle()
    }

    fn offer_own(&mut self, core: &mut Core, to: LegId, terms: &Terms) {
        match self.send_offer(core, to, terms, (Headers::new(), &Content::default())) {
            Ok(request) => {
                self.pending.push((request, Purpose::OwnOffer { to }));
                self.set_exchange(Some(Exchange::Own { to }));
            }
            Err(Refused::InvitePending) => self.offer_later(core, to),
            Err(_) => self.fact(core, What::Warning { text: "a leg could not be offered what the bridge needs" }),
        }
    }

    /// RFC 3261 §14.1.
    pub(super) fn offer_later(&mut self, core: &mut Core, to: LegId) {
        let Some(dialog) = self.leg(to).and_then(|l| l.dialog) else { return };
        let wait = core.endpoint.glare_wait(dialog).max(Duration::from_millis(10));
        if let Some(talk) = self.talk_mut() {
            talk.again = Some(to);
        }
        core.arm(self.key, Timer::Glare, wait);
    }

    pub(super) fn on_glare_timer(&mut self, core: &mut Core) {
        let Some(talk) = self.talk_mut() else { return };
        let Some(to) = talk.again.take() else { return };
        if talk.exchange.is_some() {
            // What is open now decides; `align` runs after it.
            return;
        }
        if let Some(other) = self.other(to) {
            self.align(core, other);
            if self.is_idle() {
                self.narrow(core, other);
            }
        } else {
            self.offer_mixed(core, to);
        }
        self.align_next(core);
    }

    /// Acknowledges the 2xx to a re-INVITE of ours; its answer, if it brings one that can be read.
    pub(super) fn acknowledge(&self, core: &mut Core, to: LegId, response: &Response) -> Option<Session> {
        if let Some(dialog) = self.leg(to).and_then(|l| l.dialog) {
            // Its dialog may have ended meanwhile: then nobody waits for it.
            let _ = core.endpoint.ack(dialog, None, core.now);
        }
        let content = Content::of(&response.headers, &response.body);
        content.sdp.as_deref().and_then(|body| Session::parse(body).ok())
    }

    /// The answer to an offer of our own: media follows it, and the other side is brought in line. False: unusable.
    pub(super) fn took_answer(&mut self, core: &mut Core, to: LegId, answer: &Session) -> bool {
        let before = self.holders();
        if self.take_answer(to, answer).is_err() {
            return false;
        }
        self.settle(core);
        self.report_hold(core, &before);
        self.narrow(core, to);
        self.align_next(core);
        true
    }

    pub(super) fn on_own_offer(&mut self, core: &mut Core, to: LegId, outcome: Result<Response, Failure>) {
        match outcome {
            Ok(response) => {
                let answer = self.acknowledge(core, to, &response);
                if answer.is_some_and(|answer| self.took_answer(core, to, &answer)) {
                    return self.fitted(core, true);
                }
            }
            Err(failure) => {
                if has_left(&failure) {
                    return self.lost_leg(core, Some(to));
                }
                if matches!(&failure, Failure::Response(response) if response.code == 491) && !self.is_fitting() {
                    if let Some(leg) = self.leg_mut(to) {
                        leg.sdp.offer_failed();
                    }
                    return self.offer_later(core, to);
                }
            }
        }
        if let Some(leg) = self.leg_mut(to) {
            leg.sdp.offer_failed();
        }
        if self.is_fitting() {
            return self.fitted(core, false);
        }
        self.fact(core, What::Warning { text: "a leg refused what the bridge needs; it goes on as negotiated" });
        self.align_next(core);
    }
}

/// The codecs with sound that a leg may send: those of our description that its own has, too.
fn sendable(negotiated: &Negotiated) -> Vec<Codec> {
    let ours = negotiated.receive.iter().map(|p| &p.codec).filter(|codec| carries_sound(codec));
    ours.filter(|codec| takes(negotiated, codec)).cloned().collect()
}

/// True when a leg takes this codec.
fn takes(negotiated: &Negotiated, codec: &Codec) -> bool {
    negotiated.send.iter().any(|p| p.codec == *codec)
}

/// True when a leg hears all that the other one may send: each codec as it is, or, where they share none, transcoded.
fn is_heard(sends: &[Codec], hears: &Negotiated) -> bool {
    let shares = sends.iter().any(|codec| takes(hears, codec));
    let hears_it = |codec: &Codec| match shares {
        true => takes(hears, codec),
        false => codec.reaches(hears.send.iter().map(|p| &p.codec)),
    };
    !sends.is_empty() && sends.iter().all(hears_it)
}

/// Leaves these codecs with sound, and what carries none.
fn only(terms: &mut Terms, codecs: &[Codec]) {
    terms.formats.retain(|f| !carries_sound(&f.codec) || codecs.contains(&f.codec));
}
