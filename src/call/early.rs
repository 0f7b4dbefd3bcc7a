//! Provisional answers: forks, early media, and the early dialogs towards D1 (spec/sip.md §3).
//!
//! Each downstream early dialog with SDP is an early dialog towards D1 with its own To-tag; 18x without SDP fold into
//! the first. Until the 2xx, media is forwarded from the fork whose SDP came last.

use super::attempt::Upstream;
use super::call::{Call, State};
use super::core::{Core, Timer};
use super::dial::{DialId, Fork, MAX_FORKS, Purpose};
use super::fact::What;
use super::headers::{Content, passed};
use super::leg::route_both;
use crate::codec::Direction;
use crate::id::{ConnId, LegId};
use crate::sdp::Session;
use crate::sip::endpoint::{DialogId, InviteId, Peer, Reply, Transport};
use crate::sip::message::Response;

/// What a provisional answer belongs to.
struct Progress {
    invite: InviteId,
    dialog: Option<DialogId>,
    leg: LegId,
    first_ringing: bool,
}

impl Call {
    /// 100 of D2: somebody has the INVITE.
    pub(super) fn on_trying(&mut self, core: &mut Core, invite: InviteId) {
        let Some(id) = self.dial_of(invite) else { return };
        let Some(dial) = self.dial_mut(id) else { return };
        if let Some(branch) = dial.branches.iter_mut().find(|b| b.invite == invite) {
            branch.heard = true;
        }
        if dial.branches.iter().all(|b| b.heard) {
            core.disarm(self.key, Timer::Attempt(id));
        }
    }

    /// 101…199 of D2.
    pub(super) fn on_provisional(
        &mut self,
        core: &mut Core,
        invite: InviteId,
        dialog: Option<DialogId>,
        response: Response,
    ) {
        self.on_trying(core, invite);
        let Some(id) = self.dial_of(invite) else { return };
        let Some(dial) = self.dial_mut(id) else { return };
        let Some(branch) = dial.branches.iter_mut().find(|b| b.invite == invite) else { return };
        let first_ringing = !branch.ringing && response.code >= 180;
        branch.ringing |= response.code >= 180;
        let leg = branch.leg;
        if let Some(leg) = self.leg_mut(leg) {
            leg.learn_allow(&response.headers);
        }
        let content = Content::of(&response.headers, &response.body);
        let answer = content.sdp.as_deref().and_then(|body| Session::parse(body).ok());
        let news = Progress { invite, dialog, leg, first_ringing };
        match self.purpose(id) {
            Some(Purpose::Caller) => self.caller_progress(core, news, &response, &content, answer),
            Some(Purpose::Transfer | Purpose::Consult | Purpose::Invite | Purpose::Make) => {
                self.target_progress(core, id, news, &response, answer)
            }
            None => {}
        }
    }

    /// D2 rings for D1.
    fn caller_progress(
        &mut self,
        core: &mut Core,
        news: Progress,
        response: &Response,
        content: &Content,
        answer: Option<Session>,
    ) {
        let Progress { invite, dialog, leg, first_ringing } = news;
        let alone = self.dials().all(|d| d.branches.len() == 1);
        let early = match (dialog, &answer) {
            (Some(dialog), Some(answer)) => self.early_media(core, invite, dialog, answer),
            (Some(dialog), None) => {
                self.fork(core, invite, dialog);
                None
            }
            _ => None,
        };
        if first_ringing {
            self.tell_ringing(core, self.conn_id, leg, early.is_some());
        }
        // While several devices ring, who will speak is not known: the sessions start with the answer.
        if early.is_some() && alone && core.options.recording.early_media && !self.start_sessions(core) {
            return self.refuse_unrecorded(core);
        }
        self.update_conversations(core);
        self.pass_provisional(core, response, content, early);
    }

    fn tell_ringing(&self, core: &mut Core, conn_id: ConnId, leg: LegId, early_media: bool) {
        if let Some(party) = self.leg(leg).map(Call::party) {
            core.fact(Some(conn_id), What::Ringing { leg, party, early_media });
        }
    }

    /// The target of a transfer or a consultation rings: who waits for it hears its early media, else our ringback.
    fn target_progress(
        &mut self,
        core: &mut Core,
        id: DialId,
        news: Progress,
        response: &Response,
        answer: Option<Session>,
    ) {
        let Progress { invite, dialog, leg, first_ringing } = news;
        let fork = dialog.and_then(|dialog| self.fork(core, invite, dialog));
        let heard = fork.zip(answer).and_then(|(fork, answer)| {
            fork.sdp.apply_answer(&answer).ok()?;
            let terms = fork.sdp.answered_terms(&answer).ok()?;
            Some((fork.sdp.negotiated()?.clone(), terms.direction))
        });
        if let Some((negotiated, direction)) = &heard
            && let Some(leg) = self.leg_mut(leg)
        {
            let offered = leg.sdp.terms().map_or(Direction::SendRecv, |t| t.direction);
            leg.answered(offered, *direction);
            leg.apply(core, negotiated);
            // Another fork may answer next.
            leg.await_answer(core);
        }
        if heard.is_some()
            && let Some(dial) = self.dial_mut(id)
        {
            dial.early = Some(leg);
        }
        // Of a phone that rings for its own request nobody is told: there is no call yet.
        if first_ringing && !self.calls_requester(id) {
            // Who is consulted rings in the consult call, also when the transfer is already asked for.
            let consult = self.transfer().and_then(|transfer| transfer.consult);
            let conn_id = consult.unwrap_or_else(|| self.dialled_as(id));
            self.tell_ringing(core, conn_id, leg, heard.is_some());
        }
        self.report_progress(core, id, response);
        let is_callee = self.make().is_some_and(|make| !make.calls_requester() && make.dial().branches.len() == 1);
        if heard.is_some() && is_callee && core.options.recording.early_media && !self.start_sessions(core) {
            return self.refuse_unrecorded(core);
        }
        self.settle(core);
    }

    /// The fork of a downstream dialog, made when it is new and there is room.
    pub(super) fn fork(&mut self, core: &mut Core, invite: InviteId, dialog: DialogId) -> Option<&mut Fork> {
        let id = self.dial_of(invite)?;
        let sdp = self.dials().find(|d| d.id == id)?.branches.iter().find(|b| b.invite == invite)?.leg;
        let sdp = self.leg(sdp)?.sdp.clone();
        let key = self.key;
        let dial = self.dial_mut(id)?;
        let branch = dial.branches.iter_mut().find(|b| b.invite == invite)?;
        if let Some(at) = branch.forks.iter().position(|f| f.dialog == dialog) {
            return branch.forks.get_mut(at);
        }
        if branch.forks.len() == MAX_FORKS {
            return None;
        }
        branch.forks.push(Fork { dialog, sdp });
        core.index.dialogs.insert(dialog, key);
        branch.forks.last_mut()
    }

    /// A fork's answer: its media is forwarded from now on. Gives the dialog towards D1 and our answer in it; `None`
    /// when D1 made no offer or the answer is not usable (then the 18x passes without SDP).
    fn early_media(
        &mut self,
        core: &mut Core,
        invite: InviteId,
        dialog: DialogId,
        answer: &Session,
    ) -> Option<(DialogId, bytes::Bytes)> {
        let fork = self.fork(core, invite, dialog)?;
        fork.sdp.apply_answer(answer).ok()?;
        let downstream = fork.sdp.negotiated()?.clone();
        let terms = fork.sdp.answered_terms(answer).ok()?;
        let allowed = self.allowed.clone();
        let State::Calling(attempt) = &mut self.state else { return None };
        let called = attempt.dial.branches.iter().find(|b| b.invite == invite)?.leg;
        let Some(offer) = attempt.offer.clone() else {
            let leg = self.leg_mut(called)?;
            leg.apply(core, &downstream);
            return None;
        };
        let index = self.upstream_for(core, Some(dialog))?;
        let ours = self.leg(called)?.terms_for(&downstream, &terms, &offer, allowed.as_deref());
        let State::Calling(attempt) = &mut self.state else { return None };
        let upstream = &mut attempt.upstream[index];
        let body = upstream.sdp.answer(&offer, &ours).ok()?;
        let negotiated = upstream.sdp.negotiated()?.clone();
        let towards = upstream.dialog;
        let (a, b) = self.legs.split_first_mut()?;
        let b = b.iter_mut().find(|l| l.id == called)?;
        a.wants = offer.terms().map_or(Direction::SendRecv, |t| t.direction);
        let offered = b.sdp.terms().map_or(Direction::SendRecv, |t| t.direction);
        b.answered(offered, terms.direction);
        route_both(core, a, b);
        a.apply(core, &negotiated);
        b.apply(core, &downstream);
        // Another fork may answer next.
        b.await_answer(core);
        Some((towards, body))
    }

    /// The early dialog towards D1 for what a fork says: its own, else one that has carried no SDP yet, else (with SDP)
    /// a new one, else the first.
    pub(super) fn upstream_for(&mut self, core: &mut Core, with_sdp: Option<DialogId>) -> Option<usize> {
        let State::Calling(attempt) = &mut self.state else { return None };
        let Some(fork) = with_sdp else {
            return if attempt.upstream.is_empty() { self.open_upstream(core, None) } else { Some(0) };
        };
        if let Some(own) = attempt.upstream.iter().position(|u| u.fork == Some(fork)) {
            return Some(own);
        }
        if let Some(free) = attempt.upstream.iter().position(|u| u.fork.is_none()) {
            attempt.upstream[free].fork = Some(fork);
            return Some(free);
        }
        self.open_upstream(core, Some(fork))
    }

    fn open_upstream(&mut self, core: &mut Core, fork: Option<DialogId>) -> Option<usize> {
        let (peer, record) = (self.caller_peer()?, self.first_record(core));
        let State::Calling(attempt) = &mut self.state else { return None };
        let dialog = core.endpoint.open_dialog(attempt.tx, peer).ok()?;
        core.index.dialogs.insert(dialog, self.key);
        let mut sdp = self.legs.first()?.sdp.clone();
        sdp.set_record(record);
        attempt.upstream.push(Upstream { dialog, fork, sdp });
        Some(attempt.upstream.len() - 1)
    }

    fn caller_peer(&self) -> Option<Peer> {
        let State::Calling(attempt) = &self.state else { return None };
        let source = attempt.flow.remote.ip();
        Some(self.legs.first()?.peer(source, attempt.flow.transport == Transport::Tcp))
    }

    fn pass_provisional(
        &mut self,
        core: &mut Core,
        response: &Response,
        content: &Content,
        early: Option<(DialogId, bytes::Bytes)>,
    ) {
        let trusted = self.legs.iter().all(|l| l.identity.trusted);
        let (dialog, sdp) = match early {
            Some((dialog, sdp)) => (dialog, Some(sdp)),
            None => {
                let Some(index) = self.upstream_for(core, None) else { return };
                let State::Calling(attempt) = &self.state else { return };
                (attempt.upstream[index].dialog, None)
            }
        };
        let State::Calling(attempt) = &self.state else { return };
        let reply = Reply {
            code: response.code,
            reason: response.reason.clone(),
            headers: passed(&response.headers, trusted),
            body: content.with(sdp),
        };
        core.answer(attempt.tx, Some(dialog), reply);
    }
}
