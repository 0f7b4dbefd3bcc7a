//! What a phone does about what comes in: calls, answers, requests in its call.

use super::*;
use crate::sip::endpoint::{Event, Failure};

impl Phone {
    pub(super) fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Invite { tx, request, .. } => self.on_invite(tx, &request, now),
            Event::Request { tx, dialog, request, .. } => self.on_request(tx, dialog, &request, now),
            Event::Ack { dialog, request } => self.on_ack(dialog, &request, now),
            Event::Cancelled { tx, request } => {
                self.keep_request(&request);
                if matches!(self.call, Call::Ringing { tx: ours, .. } if ours == tx) {
                    self.go_idle(Happening::Cancelled, now);
                }
            }
            Event::NoAck { dialog } => {
                if self.call == (Call::Talking { dialog }) {
                    self.hang_up(now);
                }
            }
            Event::Trying { .. } => {}
            Event::Provisional { response, .. } => {
                self.keep_response(&response);
                let media = self.take_answer(&response, now);
                self.note(Happening::Progress { code: response.code, media }, now);
            }
            Event::Answered { invite, dialog, response } => {
                self.keep_response(&response);
                if self.call == (Call::Calling { invite }) {
                    self.on_answered(dialog, &response, now);
                }
            }
            Event::Unwanted { invite, cancelled, .. } => {
                if cancelled && self.call == (Call::Calling { invite }) {
                    self.go_idle(Happening::Cancelled, now);
                }
            }
            Event::Failed { invite, failure } => self.on_failed(invite, &failure, now),
            Event::Response { request, dialog, outcome } => self.on_response(request, dialog, outcome, now),
        }
    }

    fn on_invite(&mut self, tx: ServerTx, request: &Request, now: Instant) {
        self.keep_request(request);
        let offer = match description(&request.headers, &request.body) {
            _ if self.call != Call::Idle => Err(486),
            Ok(offer) => Ok(offer),
            Err(_) => Err(488),
        };
        let refusal = match (&offer, self.options.incoming) {
            (Err(code), _) => Some(*code),
            (_, Incoming::Refuse(code)) => Some(code),
            _ => None,
        };
        let opened = match refusal {
            Some(code) => Err(code),
            None => self.endpoint.open_dialog(tx, Peer::new(self.options.sip)).map_err(|_| 500),
        };
        let dialog = match opened {
            Ok(dialog) => dialog,
            Err(code) => {
                // Refused when it is over already: then there is nothing to answer.
                let _ = self.endpoint.respond(tx, None, Reply::new(code), now);
                return;
            }
        };
        self.local = Some(self.new_local());
        let offer = offer.ok().flatten();
        self.call = Call::Ringing { tx, dialog };
        self.offered = offer;
        self.note(Happening::Incoming { caller: user_of(request) }, now);
        if let Incoming::Answer { ring, answer } = self.options.incoming {
            self.ring_at = Some(now + ring);
            self.answer_at = Some(now + answer);
        }
    }

    /// Ring, early media, answer, refuse; false when there is nothing to answer.
    pub(super) fn answer_call(&mut self, action: &Action, now: Instant) -> bool {
        let Call::Ringing { tx, dialog, .. } = self.call else {
            return false;
        };
        let reply = match action {
            Action::Ring => Reply::new(180),
            Action::Refuse { code, headers } => Reply { headers: header_lines(headers), ..Reply::new(*code) },
            _ => match self.write_description(now) {
                Some(body) => {
                    let code = if *action == Action::Answer { 200 } else { 183 };
                    Reply { body: Some(Body::sdp(body)), ..Reply::new(code) }
                }
                None => Reply::new(488),
            },
        };
        let code = reply.code;
        let in_dialog = (code < 300).then_some(dialog);
        if self.endpoint.respond(tx, in_dialog, reply, now).is_err() {
            return false;
        }
        match code {
            180 => self.note(Happening::Rung, now),
            200 => {
                (self.ring_at, self.answer_at) = (None, None);
                self.call = Call::Talking { dialog };
                self.note(Happening::Established, now);
                self.follow(now);
            }
            300.. => self.go_idle(Happening::Cancelled, now),
            _ => self.follow(now),
        }
        true
    }

    /// Our answer to the INVITE's offer (the same again when it went out early), or our offer when it had none.
    pub(super) fn write_description(&mut self, now: Instant) -> Option<Bytes> {
        let terms = self.terms();
        let local = self.local.as_mut()?;
        match &self.offered {
            Some(offer) => match local.answer(offer, &terms) {
                Ok(body) => Some(body),
                Err(refusal) => {
                    self.note(Happening::Unusable { reason: refusal.to_string() }, now);
                    None
                }
            },
            None => Some(local.offer(&terms)),
        }
    }

    fn on_ack(&mut self, dialog: DialogId, request: &Request, now: Instant) {
        self.keep_request(request);
        if self.call != (Call::Talking { dialog }) {
            return;
        }
        if self.local.as_ref().is_some_and(Local::has_open_offer) && self.open.is_none() {
            self.take_body(&request.headers, &request.body, now);
            self.follow(now);
        }
        self.note(Happening::Acknowledged, now);
    }

    /// Takes an answer to our offer; true when there was one.
    fn take_answer(&mut self, response: &Response, now: Instant) -> bool {
        let taken = self.take_body(&response.headers, &response.body, now);
        if taken {
            self.follow(now);
        }
        taken
    }

    fn take_body(&mut self, headers: &Headers, body: &Bytes, now: Instant) -> bool {
        let Some(local) = &mut self.local else {
            return false;
        };
        let result = match description(headers, body) {
            Ok(None) => return false,
            Ok(Some(answer)) => local.apply_answer(&answer).map_err(|refusal| refusal.to_string()),
            Err(reason) => Err(reason),
        };
        match result {
            Ok(()) => true,
            Err(reason) => {
                self.note(Happening::Unusable { reason }, now);
                false
            }
        }
    }

    /// The answer to an offer that came in a 2xx, to be put into ACK.
    fn answer_in_ack(&mut self, response: &Response, now: Instant) -> Option<Body> {
        let terms = self.terms();
        let offer = description(&response.headers, &response.body).ok().flatten();
        let answer = self.local.as_mut()?.answer(&offer?, &terms);
        match answer {
            Ok(body) => Some(Body::sdp(self.written(body))),
            Err(refusal) => {
                self.note(Happening::Unusable { reason: refusal.to_string() }, now);
                None
            }
        }
    }

    fn on_answered(&mut self, dialog: DialogId, response: &Response, now: Instant) {
        let we_offered =
            self.local.as_ref().is_some_and(|local| local.has_open_offer() || local.negotiated().is_some());
        let body = if we_offered {
            self.take_answer(response, now);
            None
        } else {
            self.answer_in_ack(response, now)
        };
        // The 2xx waits for exactly this ACK.
        let _ = self.endpoint.ack(dialog, body, now);
        self.call = Call::Talking { dialog };
        self.note(Happening::Established, now);
        self.follow(now);
        if self.local.as_ref().is_none_or(|local| local.negotiated().is_none()) {
            self.hang_up(now);
        }
    }

    fn on_failed(&mut self, invite: InviteId, failure: &Failure, now: Instant) {
        if self.call != (Call::Calling { invite }) {
            return;
        }
        let code = code_of(failure);
        if let Failure::Response(response) = failure {
            self.keep_response(response);
        }
        let what = if code == Some(487) { Happening::Cancelled } else { Happening::Failed { code } };
        self.go_idle(what, now);
    }

    fn on_request(&mut self, tx: ServerTx, dialog: Option<DialogId>, request: &Request, now: Instant) {
        self.keep_request(request);
        let in_call = matches!(
            self.call,
            Call::Talking { dialog: ours } | Call::Leaving { dialog: ours, .. } if Some(ours) == dialog
        );
        let reply = match &request.method {
            Method::Bye => {
                let was_talking = self.is_talking() && in_call;
                if was_talking {
                    self.go_idle(Happening::Ended { by_peer: true }, now);
                }
                Reply::new(200)
            }
            Method::Invite | Method::Update if in_call => self.on_reoffer(request, now),
            Method::Info if in_call => {
                self.note(Happening::Info { body: request.body.clone() }, now);
                Reply::new(200)
            }
            Method::Update => Reply::new(200),
            _ => Reply::new(405),
        };
        // Refused when it is over already: then there is nothing to answer.
        let _ = self.endpoint.respond(tx, None, reply, now);
    }

    fn on_reoffer(&mut self, request: &Request, now: Instant) -> Reply {
        let offer = match description(&request.headers, &request.body) {
            Ok(offer) => offer,
            Err(_) => return Reply::new(488),
        };
        let terms = self.terms();
        let Some(local) = &mut self.local else {
            return Reply::new(481);
        };
        let body = match &offer {
            Some(_) if local.has_open_offer() => return Reply::new(491),
            Some(offer) => local.answer(offer, &terms).ok(),
            None if request.method == Method::Update => return Reply::new(200),
            None => Some(local.offer(&terms)),
        };
        let Some(body) = body else {
            return Reply::new(488);
        };
        self.follow(now);
        self.note(Happening::Reoffered { direction: self.negotiated_direction() }, now);
        Reply { body: Some(Body::sdp(self.written(body))), ..Reply::new(200) }
    }

    fn negotiated_direction(&self) -> Direction {
        self.local.as_ref().and_then(Local::negotiated).map_or(Direction::Inactive, |negotiated| negotiated.direction)
    }

    fn on_response(
        &mut self,
        request: RequestId,
        dialog: Option<DialogId>,
        outcome: Result<Response, Failure>,
        now: Instant,
    ) {
        if let Ok(response) | Err(Failure::Response(response)) = &outcome {
            self.keep_response(response);
        }
        if matches!(self.call, Call::Leaving { bye, .. } if bye == request) {
            self.call = Call::Idle;
            return;
        }
        let Some(open) = self.open.take_if(|open| open.request == request) else {
            return;
        };
        match (outcome, dialog) {
            (Ok(response), Some(dialog)) => self.on_agreed(&open, dialog, &response, now),
            (Err(failure), dialog) => self.on_disagreed(open, dialog, &failure, now),
            (Ok(_), None) => {}
        }
    }

    fn on_agreed(&mut self, open: &Open, dialog: DialogId, response: &Response, now: Instant) {
        let body = if open.action == Action::AskForOffer {
            self.answer_in_ack(response, now)
        } else {
            self.take_answer(response, now);
            None
        };
        if open.method == Method::Invite {
            // The 2xx waits for exactly this ACK.
            let _ = self.endpoint.ack(dialog, body, now);
        }
        self.follow(now);
        self.note(Happening::Agreed { direction: self.negotiated_direction() }, now);
    }

    fn on_disagreed(&mut self, open: Open, dialog: Option<DialogId>, failure: &Failure, now: Instant) {
        self.give_up_offer(open.before);
        let code = code_of(failure);
        self.note(Happening::Refused { code }, now);
        match (code, dialog) {
            (Some(491), Some(dialog)) => {
                self.retry = Some((now + self.endpoint.glare_wait(dialog), open.action));
            }
            // The dialog is gone at the peer (RFC 3261 §12.2.1.2).
            (Some(408 | 481) | None, _) => self.hang_up(now),
            _ => {}
        }
    }
}

fn code_of(failure: &Failure) -> Option<u16> {
    match failure {
        Failure::Response(response) => Some(response.code),
        Failure::Timeout | Failure::Transport | Failure::Ended => None,
    }
}

/// The user part of the From URI, for a log of a test: unescaped, unchecked.
fn user_of(request: &Request) -> String {
    let from = request.headers.get(Name::From).unwrap_or_default();
    let text = String::from_utf8_lossy(&from);
    let uri = text.split_once("sip:").map_or("", |(_, rest)| rest);
    uri.split(['@', '>', ';']).next().unwrap_or_default().to_owned()
}
