//! What a phone does about what comes in: calls, answers, requests in its call.

use super::*;
use crate::sip::endpoint::Event;

impl Phone {
    pub(super) fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Invite { tx, request, .. } => self.on_invite(tx, &request, now),
            Event::Request { tx, dialog, request, .. } => self.on_request(tx, dialog, &request, now),
            Event::Ack { dialog, request } => self.on_ack(dialog, &request, now),
            Event::Cancelled { tx, request } => {
                self.keep_request(&request);
                if let Some(line) = self.line_of(|call| matches!(call, Call::Ringing { tx: ours, .. } if *ours == tx)) {
                    self.go_idle(line, Happening::Cancelled, now);
                }
            }
            Event::NoAck { dialog } => {
                if let Some(line) = self.line_of(|call| *call == Call::Talking { dialog }) {
                    self.hang_up(line, now);
                }
            }
            Event::Trying { .. } => {}
            Event::Provisional { invite, dialog, response } => {
                self.keep_response(&response);
                let Some(line) = self.line_of(|call| call.is_calling(invite)) else {
                    return;
                };
                if let Call::Calling { early, .. } = &mut self.lines[line].call {
                    *early = dialog.or(*early);
                }
                let media = self.take_answer(line, &response, now);
                self.note(line, Happening::Progress { code: response.code, media }, now);
            }
            Event::Answered { invite, dialog, response } => {
                self.keep_response(&response);
                if let Some(line) = self.line_of(|call| call.is_calling(invite)) {
                    self.on_answered(line, dialog, &response, now);
                }
            }
            Event::Unwanted { invite, cancelled, .. } => {
                if let Some(line) = self.line_of(|call| cancelled && call.is_calling(invite)) {
                    self.go_idle(line, Happening::Cancelled, now);
                }
            }
            Event::Failed { invite, failure } => {
                if let Some(line) = self.line_of(|call| call.is_calling(invite)) {
                    self.on_failed(line, &failure, now);
                }
            }
            Event::Response { request, dialog, outcome } => self.on_response(request, dialog, outcome, now),
            // A phone tells the state of nothing: it has no packages.
            Event::Subscribe { .. } | Event::NotifyDue { .. } | Event::Unsubscribed { .. } => {}
        }
    }

    /// Where a new call rings, or the code that refuses it.
    fn line_for_call(&self) -> Result<usize, u16> {
        let is_busy = !self.is_idle() && !self.options.call_waiting;
        self.line_of(|call| !is_busy && *call == Call::Idle).ok_or(486)
    }

    fn on_invite(&mut self, tx: ServerTx, request: &Request, now: Instant) {
        self.keep_request(request);
        let refusal = match self.options.incoming {
            Incoming::Refuse(code) => Err(code),
            _ => Ok(()),
        };
        let offer = description(&request.headers, &request.body).map_err(|_| 488u16);
        let opened = self.line_for_call().and_then(|line| {
            let offer = offer?;
            refusal?;
            let dialog = self.endpoint.open_dialog(tx, Peer::new(self.options.sip)).map_err(|_| 500u16)?;
            Ok((line, dialog, offer))
        });
        let (line, dialog, offer) = match opened {
            Ok(opened) => opened,
            Err(code) => {
                // Refused when it is over already: then there is nothing to answer.
                let _ = self.endpoint.respond(tx, None, Reply::new(code), now);
                return;
            }
        };
        if self.lines[self.active].is_idle() {
            self.active = line;
        }
        let ringing = &mut self.lines[line];
        ringing.begin(&self.options.codecs);
        ringing.call = Call::Ringing { tx, dialog };
        ringing.offered = offer;
        if let Incoming::Answer { ring, answer } = self.options.incoming {
            ringing.ring_at = Some(now + ring);
            ringing.answer_at = Some(now + answer);
        }
        self.note(line, Happening::Incoming { caller: user_of(request) }, now);
        self.note_recording(line, &request.body, now);
    }

    /// Ring, early media, answer, refuse; false when there is nothing to answer.
    pub(super) fn answer_call(&mut self, line: usize, action: &Action, now: Instant) -> bool {
        let Call::Ringing { tx, dialog, .. } = self.lines[line].call else {
            return false;
        };
        let mut reply = match action {
            Action::Ring => Reply::new(180),
            Action::Refuse { code, headers } => Reply { headers: header_lines(headers), ..Reply::new(*code) },
            _ => match self.write_description(line, now) {
                Some(body) => {
                    let code = if *action == Action::Answer { 200 } else { 183 };
                    Reply { body: Some(Body::sdp(body)), ..Reply::new(code) }
                }
                None => Reply::new(488),
            },
        };
        let code = reply.code;
        let in_dialog = (code < 300).then_some(dialog);
        if in_dialog.is_some() {
            self.push_allowed_events(&mut reply.headers);
        }
        if self.endpoint.respond(tx, in_dialog, reply, now).is_err() {
            return false;
        }
        match code {
            180 => self.note(line, Happening::Rung, now),
            200 => {
                let answered = &mut self.lines[line];
                (answered.ring_at, answered.answer_at) = (None, None);
                answered.call = Call::Talking { dialog };
                answered.follow(now);
                self.active = line;
                self.note(line, Happening::Established, now);
            }
            300.. => self.go_idle(line, Happening::Cancelled, now),
            _ => self.lines[line].follow(now),
        }
        true
    }

    /// Our answer to the INVITE's offer (the same again when it went out early), or our offer when it had none.
    pub(super) fn write_description(&mut self, line: usize, now: Instant) -> Option<Bytes> {
        let offer = self.lines[line].offered.clone();
        match offer {
            Some(offer) => self.answer_to(line, &offer, now),
            None => self.lines[line].offer(),
        }
    }

    fn answer_to(&mut self, line: usize, offer: &Session, now: Instant) -> Option<Bytes> {
        match self.lines[line].answer(offer)? {
            Ok(body) => Some(body),
            Err(refusal) => {
                self.note(line, Happening::Unusable { reason: refusal.to_string() }, now);
                None
            }
        }
    }

    fn on_ack(&mut self, dialog: DialogId, request: &Request, now: Instant) {
        self.keep_request(request);
        let Some(line) = self.line_of(|call| *call == Call::Talking { dialog }) else {
            return;
        };
        let waits = self.lines[line].local.as_ref().is_some_and(Local::has_open_offer);
        if waits && self.lines[line].open.is_none() {
            self.take_body(line, &request.headers, &request.body, now);
            self.lines[line].follow(now);
        }
        self.note(line, Happening::Acknowledged, now);
    }

    /// Takes an answer to our offer; true when there was one.
    fn take_answer(&mut self, line: usize, response: &Response, now: Instant) -> bool {
        let taken = self.take_body(line, &response.headers, &response.body, now);
        if taken {
            self.lines[line].follow(now);
        }
        taken
    }

    fn take_body(&mut self, line: usize, headers: &Headers, body: &Bytes, now: Instant) -> bool {
        let Some(local) = &mut self.lines[line].local else {
            return false;
        };
        let result = match description(headers, body) {
            Ok(None) => return false,
            Ok(Some(answer)) => local.apply_answer(&answer).map_err(|refusal| refusal.to_string()),
            Err(reason) => Err(reason),
        };
        match result {
            Ok(()) => {
                self.note_recording(line, body, now);
                true
            }
            Err(reason) => {
                self.note(line, Happening::Unusable { reason }, now);
                false
            }
        }
    }

    /// What a description says about recording (RFC 7866 §6.1).
    fn note_recording(&mut self, line: usize, body: &Bytes, now: Instant) {
        let text = String::from_utf8_lossy(body);
        for state in text.lines().filter_map(|line| line.strip_prefix("a=record:")) {
            self.note(line, Happening::Recording { state: state.trim().to_owned() }, now);
        }
    }

    /// The answer to an offer that came in a 2xx, to be put into ACK.
    fn answer_in_ack(&mut self, line: usize, response: &Response, now: Instant) -> Option<Body> {
        let offer = description(&response.headers, &response.body).ok().flatten()?;
        self.note_recording(line, &response.body, now);
        self.answer_to(line, &offer, now).map(Body::sdp)
    }

    fn on_answered(&mut self, line: usize, dialog: DialogId, response: &Response, now: Instant) {
        let local = self.lines[line].local.as_ref();
        let we_offered = local.is_some_and(|local| local.has_open_offer() || local.negotiated().is_some());
        let body = if we_offered {
            self.take_answer(line, response, now);
            None
        } else {
            self.answer_in_ack(line, response, now)
        };
        // The 2xx waits for exactly this ACK.
        let _ = self.endpoint.ack(dialog, body, now);
        self.lines[line].call = Call::Talking { dialog };
        self.note(line, Happening::Established, now);
        self.lines[line].follow(now);
        if self.lines[line].local.as_ref().is_none_or(|local| local.negotiated().is_none()) {
            self.hang_up(line, now);
        }
    }

    fn on_failed(&mut self, line: usize, failure: &Failure, now: Instant) {
        let code = code_of(failure);
        if let Failure::Response(response) = failure {
            self.keep_response(response);
        }
        let what = if code == Some(487) { Happening::Cancelled } else { Happening::Failed { code } };
        self.go_idle(line, what, now);
    }

    fn on_request(&mut self, tx: ServerTx, dialog: Option<DialogId>, request: &Request, now: Instant) {
        self.keep_request(request);
        let line = dialog.and_then(|dialog| self.line_of_dialog(dialog));
        let in_call = line.filter(|line| matches!(self.lines[*line].call, Call::Talking { .. } | Call::Leaving { .. }));
        let reply = match (&request.method, in_call) {
            (Method::Bye, _) => {
                if let Some(line) = in_call.filter(|line| self.lines[*line].is_talking()) {
                    self.go_idle(line, Happening::Ended { by_peer: true }, now);
                }
                Reply::new(200)
            }
            (Method::Invite | Method::Update, Some(line)) => self.on_reoffer(line, request, now),
            (Method::Info, Some(line)) => {
                self.note(line, Happening::Info { body: request.body.clone() }, now);
                Reply::new(200)
            }
            (Method::Update, None) => Reply::new(200),
            (Method::Notify, _) => match line {
                Some(line) => return self.on_notify(tx, line, request, now),
                // Nothing was subscribed to (RFC 6665 §4.1.3).
                None => Reply::new(481),
            },
            _ => Reply::new(405),
        };
        // Refused when it is over already: then there is nothing to answer.
        let _ = self.endpoint.respond(tx, None, reply, now);
    }

    fn on_reoffer(&mut self, line: usize, request: &Request, now: Instant) -> Reply {
        let offer = match description(&request.headers, &request.body) {
            Ok(offer) => offer,
            Err(_) => return Reply::new(488),
        };
        if self.options.yields
            && offer.as_ref().and_then(|o| o.terms().ok()).is_some_and(|t| t.direction == Direction::SendRecv)
        {
            let line = &mut self.lines[line];
            (line.direction, line.null_address) = (Direction::SendRecv, false);
        }
        let Some(local) = &self.lines[line].local else {
            return Reply::new(481);
        };
        let body = match &offer {
            Some(_) if local.has_open_offer() => return Reply::new(491),
            Some(offer) => self.lines[line].answer(offer).and_then(Result::ok),
            None if request.method == Method::Update => return Reply::new(200),
            None => self.lines[line].offer(),
        };
        let Some(body) = body else {
            return Reply::new(488);
        };
        self.lines[line].follow(now);
        self.note(line, Happening::Reoffered { direction: self.lines[line].negotiated_direction() }, now);
        self.note_recording(line, &request.body, now);
        Reply { body: Some(Body::sdp(body)), ..Reply::new(200) }
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
        if let Some(line) = self.line_of(|call| matches!(call, Call::Leaving { bye, .. } if *bye == request)) {
            self.lines[line].call = Call::Idle;
            self.leave_line(line);
            return;
        }
        for line in 0..self.lines.len() {
            if let Some(open) = self.lines[line].open.take_if(|open| open.request == request) {
                match (outcome, dialog) {
                    (Ok(response), Some(dialog)) => self.on_agreed(line, &open, dialog, &response, now),
                    (Err(failure), dialog) => self.on_disagreed(line, open, dialog, &failure, now),
                    (Ok(_), None) => {}
                }
                return;
            }
            let asked = &mut self.lines[line].asked;
            if let Some(place) = asked.iter().position(|(ours, _)| *ours == request) {
                let (_, method) = asked.swap_remove(place);
                let code = outcome.as_ref().map_or_else(code_of, |response| Some(response.code));
                self.note(line, Happening::Responded { method: method.as_str().to_owned(), code }, now);
                return;
            }
            if self.on_refer_answered(line, request, &outcome, now) {
                return;
            }
        }
    }

    fn on_agreed(&mut self, line: usize, open: &Open, dialog: DialogId, response: &Response, now: Instant) {
        let body = if open.action == Action::AskForOffer {
            self.answer_in_ack(line, response, now)
        } else {
            self.take_answer(line, response, now);
            None
        };
        if open.method == Method::Invite {
            // The 2xx waits for exactly this ACK.
            let _ = self.endpoint.ack(dialog, body, now);
        }
        self.lines[line].follow(now);
        self.note(line, Happening::Agreed { direction: self.lines[line].negotiated_direction() }, now);
    }

    fn on_disagreed(&mut self, line: usize, open: Open, dialog: Option<DialogId>, failure: &Failure, now: Instant) {
        self.lines[line].give_up_offer(open.before);
        let code = code_of(failure);
        self.note(line, Happening::Refused { code }, now);
        match (code, dialog) {
            (Some(491), Some(dialog)) => {
                self.lines[line].retry = Some((now + self.endpoint.glare_wait(dialog), open.action));
            }
            // The dialog is gone at the peer (RFC 3261 §12.2.1.2).
            (Some(408 | 481) | None, _) => self.hang_up(line, now),
            _ => {}
        }
    }
}

/// The user part of the From URI, for a log of a test: unescaped, unchecked.
fn user_of(request: &Request) -> String {
    let from = request.headers.get(Name::From).unwrap_or_default();
    let text = String::from_utf8_lossy(&from);
    let uri = text.split_once("sip:").map_or("", |(_, rest)| rest);
    uri.split(['@', '>', ';']).next().unwrap_or_default().to_owned()
}
