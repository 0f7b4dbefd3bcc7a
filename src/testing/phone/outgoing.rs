//! What a phone begins by itself: calls, offers within a call, hanging up.

use super::*;

impl Phone {
    pub(super) fn place_call(
        &mut self,
        line: usize,
        to: &str,
        offer: bool,
        headers: &[(String, Bytes)],
        now: Instant,
    ) -> bool {
        if !self.lines[line].is_idle() {
            return false;
        }
        self.lines[line].begin(&self.options.codecs);
        let body = if offer { self.lines[line].offer() } else { None };
        let uri = self.uri_of(to);
        let mut headers = header_lines(headers);
        self.push_allowed_events(&mut headers);
        let name = self.options.name.as_ref().map(|name| format!("\"{name}\" ")).unwrap_or_default();
        let invite = OutgoingInvite {
            flow: Flow::udp(self.options.sip, self.next_hop(&uri)),
            peer: Peer::new(self.options.sip),
            request_uri: uri.clone().into(),
            from: format!("{name}<sip:{}@{}>", self.options.number, self.options.sip).into(),
            to: format!("<{uri}>").into(),
            max_forwards: 70,
            headers,
            body: body.map(Body::sdp),
        };
        match self.endpoint.invite(invite, now) {
            Ok(invite) => {
                self.lines[line].call = Call::Calling { invite, early: None };
                self.active = line;
                self.note(line, Happening::Calling, now);
                true
            }
            Err(_) => {
                self.lines[line].end(now);
                false
            }
        }
    }

    /// The URI of a number, or the URI itself.
    pub(super) fn uri_of(&self, to: &str) -> String {
        match to {
            uri if uri.starts_with("sip:") || uri.starts_with("tel:") => uri.to_owned(),
            number => format!("sip:{number}@{}", self.options.proxy),
        }
    }

    fn next_hop(&self, uri: &str) -> SocketAddr {
        let host = uri.strip_prefix("sip:").and_then(|rest| rest.rsplit('@').next());
        let host = host.and_then(|host| host.split([';', '?']).next()?.parse().ok());
        host.filter(|_| self.options.direct).unwrap_or(self.options.proxy)
    }

    /// Allow-Events in what makes a dialog (RFC 6665 §8.2.2).
    pub(super) fn push_allowed_events(&self, headers: &mut Headers) {
        if self.options.talk {
            headers.push(Name::AllowEvents, "talk, hold, refer");
        }
    }

    pub(super) fn reoffer(&mut self, index: usize, action: Action, now: Instant) -> bool {
        let line = &mut self.lines[index];
        let Call::Talking { dialog } = line.call else {
            return false;
        };
        if line.open.is_some() {
            return false;
        }
        let before = (line.direction, line.null_address);
        let (direction, null) = match &action {
            Action::Hold(HoldForm::SendOnly) => (Direction::SendOnly, false),
            Action::Hold(HoldForm::Inactive) => (Direction::Inactive, false),
            Action::Hold(HoldForm::NullAddress) => (Direction::SendRecv, true),
            Action::Update(direction) => (*direction, false),
            Action::Retrieve => (Direction::SendRecv, false),
            _ => before,
        };
        if let Action::Recode(codecs) = &action {
            line.codecs.clone_from(codecs);
            self.options.codecs.clone_from(codecs);
        }
        line.prefer(&action);
        (line.direction, line.null_address) = (direction, null);
        let body = if action == Action::AskForOffer { None } else { line.offer().map(Body::sdp) };
        let method = if matches!(action, Action::Update(_)) { Method::Update } else { Method::Invite };
        match self.endpoint.request(dialog, method.clone(), Headers::new(), body, now) {
            Ok(request) => {
                line.open = Some(Open { request, method, action, before });
                true
            }
            Err(_) => {
                line.give_up_offer(before);
                false
            }
        }
    }

    pub(super) fn hang_up(&mut self, line: usize, now: Instant) {
        let done = match self.lines[line].call {
            Call::Idle | Call::Leaving { .. } => false,
            Call::Calling { invite, .. } => self.endpoint.cancel(invite, Headers::new(), now).is_ok(),
            Call::Ringing { .. } => self.answer_call(line, &Action::refuse(603), now),
            Call::Talking { dialog } => match self.endpoint.request(dialog, Method::Bye, Headers::new(), None, now) {
                Ok(bye) => {
                    self.lines[line].call = Call::Leaving { dialog, bye };
                    self.lines[line].end(now);
                    self.leave_line(line);
                    self.note(line, Happening::Ended { by_peer: false }, now);
                    true
                }
                Err(_) => false,
            },
        };
        self.require(line, done, "hang up", now);
    }
}
