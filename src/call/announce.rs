//! What parties are told in mid-call: that they are recorded (`a=record`, RFC 7866; a beep) and who they are connected to
//! (RFC 5876); and what they would like (`a=recordpref`).
//!
//! [`Call::announce`] runs after everything that happens to an answered call. It compares what each party should know
//! with what it was told last, so no flow needs to think of it. At most one such offer is open, and none while another
//! one is.

use super::call::{Call, Purpose, has_left};
use super::core::Core;
use super::fact::What;
use super::headers::Content;
use super::leg::Leg;
use super::options::{Beep, BeepTo};
use super::owners::Owner;
use super::recording::conversation;
use super::second::Lent;
use super::talk::{Doing, Exchange};
use super::transfer::named;
use crate::bridge::command::Command;
use crate::id::{LegId, RecordingId};
use crate::record::mark::Role;
use crate::sdp::{Preference, RecordState, Session};
use crate::sip::endpoint::{Body, Failure};
use crate::sip::headers::Headers;
use crate::sip::message::Response;
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::values::{NameAddr, Uri};

/// How often one state is offered to a peer that is in the middle of an offer of its own.
const MAX_TRIES: u8 = 4;

/// What a leg was told, and what it has said.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// The option tag `record-aware` stood in Supported or Require.
    pub is_record_aware: bool,
    /// It knows that it is recorded, or paused: it must hear of the end.
    knows: bool,
    /// The state that was offered last, and how often.
    tried: Option<(RecordState, u8)>,
    /// The state that it has refused: the next change is offered again.
    refused: Option<RecordState>,
    /// Its last `a=recordpref`.
    preference: Option<Preference>,
    /// The media thread beeps to it.
    beeps: bool,
    /// Who it believes to be connected to.
    pub partner: Option<LegId>,
}

/// An announcement that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Announcement {
    pub to: LegId,
    /// It is an INVITE; else UPDATE.
    is_invite: bool,
    /// It carries an offer.
    pub is_offer: bool,
}

impl Call {
    /// Tells every party what it does not know yet. Idempotent.
    pub(super) fn announce(&mut self, core: &mut Core) {
        let Some(talk) = self.talk() else { return };
        if talk.waits_for_answer() || self.legs.iter().any(Leg::is_moving) {
            return;
        }
        self.take_preferences(core);
        if core.options.recording.hold_music {
            // A session may have begun or ended in the middle of music.
            self.settle_music(core);
            self.update_conversations(core);
        }
        if !self.has_news(core) {
            return;
        }
        let parties: Vec<LegId> = self.legs.iter().filter(|l| l.dialog.is_some()).map(|l| l.id).collect();
        for id in &parties {
            let (state, partner) = (self.record_state(*id), self.partner(*id));
            let beep = core.options.recording.beep.filter(|beep| self.is_beeped(*id, *beep));
            let Some(leg) = self.leg_mut(*id) else { continue };
            leg.beep(core, beep);
            if leg.announced.is_record_aware {
                leg.sdp.set_record(Some(state));
            }
            leg.announced.tried.take_if(|(tried, _)| *tried != state);
            leg.announced.refused.take_if(|refused| *refused != state);
            leg.announced.partner = leg.announced.partner.or(partner);
        }
        let is_busy = |call: &Self| {
            call.has_open_offer() || call.talk().is_none_or(|talk| talk.again.is_some() || talk.next.is_some())
        };
        for id in parties {
            if is_busy(self) {
                return;
            }
            self.tell(core, id);
        }
    }

    /// Anything here may be to be told.
    fn has_news(&self, core: &Core) -> bool {
        core.options.sip.connected_id
            || core.options.recording.beep.is_some()
            || self.legs.iter().any(|leg| leg.announced.is_record_aware)
    }

    /// What the caller's first description says of the recording that begins with the answer.
    pub(super) fn first_record(&self, core: &Core) -> Option<RecordState> {
        let is_aware = self.legs.first().is_some_and(|l| l.announced.is_record_aware);
        let begins = self.recording.is_wanted() && core.space_ok;
        is_aware.then_some(if begins { RecordState::On } else { RecordState::Off })
    }

    /// The sessions in whose conversation a leg is.
    fn sessions_with(&self, leg: LegId) -> Vec<(RecordingId, bool)> {
        let is_in = |owner| conversation(self, owner).members.iter().any(|m| m.leg == leg);
        self.recording.sessions.iter().filter(|s| is_in(s.owner)).map(|s| (s.id, s.is_paused)).collect()
    }

    fn record_state(&self, leg: LegId) -> RecordState {
        let own = self.sessions_with(leg).into_iter().map(|(_, is_paused)| is_paused);
        // And sessions of the call that a consulting device holds.
        let paused: Vec<bool> = own.chain(self.lent.iter().map(Lent::is_paused)).collect();
        match paused.iter().all(|is_paused| *is_paused) {
            _ if paused.is_empty() => RecordState::Off,
            true => RecordState::Paused,
            false => RecordState::On,
        }
    }

    /// A party that hears the warning tone: it talks, and what is said is recorded.
    fn is_beeped(&self, leg: LegId, beep: Beep) -> bool {
        let talks = |id: LegId| self.leg(id).is_some_and(|l| !l.holds());
        let is_meant = |l: &Leg| beep.to == BeepTo::All || l.role == Role::Customer;
        self.leg(leg).is_some_and(is_meant)
            && talks(leg)
            && (self.hears_mixer(leg) || self.other(leg).is_some_and(talks))
            && self.record_state(leg) == RecordState::On
    }

    /// Who a leg is connected to, as its display should say.
    fn partner(&self, leg: LegId) -> Option<LegId> {
        let talk = self.talk()?;
        match &talk.doing {
            Doing::Nothing => talk.opposite(leg),
            Doing::Consult(consult) if !talk.members.contains(&leg) => Some(consult.by),
            // A consultation or a transfer that has not come to its end changes nothing yet.
            _ => None,
        }
    }

    /// P-Asserted-Identity for a leg that is connected to somebody else than it was told. Both must be trusted (spec/sip.md
    /// §4); a DN is who it says by our own configuration. A trunk with `caller-id` is shown that number and no other.
    fn connected(&self, core: &Core, leg: LegId) -> Option<NameAddr> {
        let partner = self.partner(leg)?;
        let leg = self.leg(leg)?;
        let knows = leg.announced.partner.is_none_or(|known| known == partner);
        let identity = &leg.identity;
        if knows || !core.options.sip.connected_id || !leg.allows_update || !identity.trusted {
            return None;
        }
        let party = self.leg(partner)?;
        let is_known = party.identity.dn.is_some() || party.identity.trusted;
        (is_known && identity.caller_id.is_none()).then(|| {
            let mut shown = NameAddr::new(Uri::sip(Some(party.number.as_bytes()), leg.local.sip));
            shown.set_display_of(&named(party));
            shown
        })
    }

    /// Sends a leg what it does not know, in one request.
    fn tell(&mut self, core: &mut Core, to: LegId) {
        if self.pending.iter().any(|(_, purpose)| matches!(purpose, Purpose::Announce(a) if a.to == to)) {
            return;
        }
        let connected = self.connected(core, to);
        let partner = self.partner(to);
        let Some(leg) = self.leg_mut(to) else { return };
        leg.announced.partner = partner.or(leg.announced.partner);
        let Some(dialog) = leg.dialog else { return };
        let sdp = leg.is_record_due().then(|| leg.sdp.offer_again()).flatten();
        if connected.is_none() && sdp.is_none() {
            return;
        }
        let (is_invite, is_offer) = (!leg.allows_update, sdp.is_some());
        let mut headers = Headers::new();
        if let Some(connected) = connected {
            headers.push(Name::PAssertedIdentity, connected.encode());
        }
        if is_invite {
            self.name_call(to, &mut headers);
        }
        let method = if is_invite { Method::Invite } else { Method::Update };
        let sent = core.endpoint.request(dialog, method, headers, sdp.map(Body::sdp), core.now);
        let Some(leg) = self.leg_mut(to) else { return };
        match sent {
            Ok(request) => {
                core.index.requests.insert(request, self.key);
                self.pending.push((request, Purpose::Announce(Announcement { to, is_invite, is_offer })));
                if is_offer {
                    self.set_exchange(Some(Exchange::Own { to }));
                }
            }
            // Whatever stands in the way ends with an event in the dialog: it is tried again after that.
            Err(_) => leg.sdp.offer_failed(),
        }
    }

    /// The answer to an announcement.
    pub(super) fn on_announced(
        &mut self,
        core: &mut Core,
        announcement: Announcement,
        outcome: Result<Response, Failure>,
    ) {
        let Announcement { to, is_invite, is_offer } = announcement;
        match outcome {
            Ok(response) => {
                if is_invite && let Some(dialog) = self.leg(to).and_then(|l| l.dialog) {
                    let _ = core.endpoint.ack(dialog, None, core.now);
                }
                let content = Content::of(&response.headers, &response.body);
                let answer = content.sdp.as_deref().and_then(|body| Session::parse(body).ok());
                if !is_offer || answer.is_some_and(|answer| self.took_answer(core, to, &answer)) {
                    return;
                }
            }
            Err(failure) if has_left(&failure) => return self.lost_leg(core, Some(to)),
            Err(failure) => {
                let Some(leg) = self.leg_mut(to).filter(|_| is_offer) else {
                    return self.fact(core, What::Warning { text: "a peer would not be told who it is connected to" });
                };
                leg.sdp.offer_failed();
                if is_passing(&failure) && leg.may_try() {
                    return self.offer_later(core, to);
                }
            }
        }
        if let Some(leg) = self.leg_mut(to) {
            leg.sdp.offer_failed();
            leg.announced.refused = leg.sdp.record();
        }
        self.fact(core, What::Warning { text: "a peer would not be told whether it is recorded" });
        self.align_next(core);
    }

    /// Facts of what phones would like, once for each change; obeyed only by `honour-preference`.
    fn take_preferences(&mut self, core: &mut Core) {
        let ids: Vec<LegId> = self.legs.iter().filter(|l| l.dialog.is_some()).map(|l| l.id).collect();
        for id in ids {
            let Some(leg) = self.leg_mut(id) else { continue };
            let Some(wish) = leg.preference().filter(|wish| leg.announced.preference != Some(*wish)) else { continue };
            leg.announced.preference = Some(wish);
            let obeyed = core.options.recording.honour_preference && self.obey(core, id, wish);
            self.fact(core, What::Preference { leg: id, wish: wish.as_str(), obeyed });
        }
    }

    /// Does what a party would like. A recording that is required is neither stopped nor paused by it.
    fn obey(&mut self, core: &mut Core, leg: LegId, wish: Preference) -> bool {
        let sessions = self.sessions_with(leg);
        match wish {
            Preference::On if sessions.is_empty() => self.start_preferred(core, leg),
            Preference::On => {
                sessions.into_iter().for_each(|(id, _)| self.pause(core, id, false));
                true
            }
            // Nor is one of the call that a consulting device holds.
            Preference::Off | Preference::Pause if self.recording.required || !self.lent.is_empty() => false,
            Preference::Off => {
                sessions.into_iter().for_each(|(id, _)| self.stop_by_request(core, id));
                if let Some(leg) = self.leg_mut(leg) {
                    leg.is_stopped = true;
                }
                true
            }
            Preference::Pause => {
                let any = !sessions.is_empty();
                sessions.into_iter().for_each(|(id, _)| self.pause(core, id, true));
                any
            }
            Preference::NoPreference => false,
        }
    }

    fn start_preferred(&mut self, core: &mut Core, leg: LegId) -> bool {
        // Nothing starts a session on a consult call, and who is only consulted owns none (spec/recording.md §4.4).
        let may_own = self.consulting(core).is_none() && self.talk().is_some_and(|t| t.members.contains(&leg));
        let Some(party) = self.leg(leg).filter(|_| may_own) else { return false };
        let owner = Owner { side: party.side, trigger: "preference", rule: "a=recordpref:on of its device".to_owned() };
        match self.record(core, leg, owner) {
            Ok(_) => true,
            Err(why) => {
                self.fact(core, What::RecordingFailed { id: None, cause: why.label(), required: false });
                false
            }
        }
    }

    /// A party has asked not to be recorded, and that is obeyed: no session begins by itself.
    pub(super) fn is_declined(&self, core: &Core, parties: &[LegId]) -> bool {
        let declines = |l: &Leg| parties.contains(&l.id) && l.preference() == Some(Preference::Off);
        core.options.recording.honour_preference && !self.recording.required && self.legs.iter().any(declines)
    }
}

impl Leg {
    /// Its last `a=recordpref` in a description that we have taken.
    fn preference(&self) -> Option<Preference> {
        self.sdp.remote().and_then(Session::record_preference)
    }

    /// Its peer must be told by a request of its own. Not that it is not recorded, when it never was.
    fn is_record_due(&mut self) -> bool {
        let told = &mut self.announced;
        let state = self.sdp.record();
        told.knows |= self.sdp.said_record().is_some_and(|said| said != RecordState::Off);
        let is_new = told.knows || state != Some(RecordState::Off);
        told.is_record_aware && is_new && told.refused.is_none() && self.sdp.is_record_due()
    }

    /// Counts a try to tell the present state.
    fn may_try(&mut self) -> bool {
        let Some(state) = self.sdp.record() else { return false };
        let (_, tries) = self.announced.tried.get_or_insert((state, 0));
        *tries += 1;
        *tries < MAX_TRIES
    }

    fn beep(&mut self, core: &mut Core, beep: Option<Beep>) {
        if self.announced.beeps != beep.is_some() {
            self.announced.beeps = beep.is_some();
            core.media(self.worker, Command::Beep { leg: self.id, every: beep.map(|b| b.every) });
        }
    }

    /// Keeps what a message of its device says about recording (RFC 7866 §6.1).
    pub(super) fn learn_awareness(&mut self, headers: &Headers) {
        let has = |name| headers.has_token(name, b"record-aware");
        self.announced.is_record_aware |= has(Name::Supported) || has(Name::Require);
    }
}

/// Refused because of an offer of the peer's own: it may take ours a moment later (RFC 3261 §14.1, RFC 3311 §5.2).
fn is_passing(failure: &Failure) -> bool {
    let Failure::Response(response) = failure else { return false };
    response.code == 491 || response.code == 500 && response.headers.get(Name::RetryAfter).is_some()
}
