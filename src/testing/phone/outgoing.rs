//! What a phone begins by itself: calls, offers within a call, hanging up.

use super::*;

impl Phone {
    pub(super) fn new_local(&mut self) -> Local {
        self.direction = Direction::SendRecv;
        self.null_address = false;
        Local::new(self.options.rtp, self.options.seed ^ 0x5354_5441)
    }

    pub(super) fn place_call(&mut self, to: &str, offer: bool, headers: &[(String, Bytes)], now: Instant) -> bool {
        if self.call != Call::Idle {
            return false;
        }
        let mut local = self.new_local();
        let body = offer.then(|| local.offer(&self.terms()));
        self.local = Some(local);
        let uri = match to {
            uri if uri.starts_with("sip:") || uri.starts_with("tel:") => uri.to_owned(),
            number => format!("sip:{number}@{}", self.options.proxy),
        };
        let name = self.options.name.as_ref().map(|name| format!("\"{name}\" ")).unwrap_or_default();
        let invite = OutgoingInvite {
            flow: Flow::udp(self.options.sip, self.options.proxy),
            peer: Peer::new(self.options.sip),
            request_uri: uri.clone().into(),
            from: format!("{name}<sip:{}@{}>", self.options.number, self.options.sip).into(),
            to: format!("<{uri}>").into(),
            max_forwards: 70,
            headers: header_lines(headers),
            body: body.map(Body::sdp),
        };
        match self.endpoint.invite(invite, now) {
            Ok(invite) => {
                self.call = Call::Calling { invite };
                self.note(Happening::Calling, now);
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn reoffer(&mut self, action: Action, now: Instant) -> bool {
        let Call::Talking { dialog } = self.call else {
            return false;
        };
        if self.open.is_some() {
            return false;
        }
        let before = (self.direction, self.null_address);
        let (direction, null) = match &action {
            Action::Hold(HoldForm::SendOnly) => (Direction::SendOnly, false),
            Action::Hold(HoldForm::Inactive) => (Direction::Inactive, false),
            Action::Hold(HoldForm::NullAddress) => (Direction::SendRecv, true),
            Action::Update(direction) => (*direction, false),
            Action::Retrieve => (Direction::SendRecv, false),
            _ => before,
        };
        if let Action::Recode(codecs) = &action {
            self.options.codecs.clone_from(codecs);
        }
        (self.direction, self.null_address) = (direction, null);
        let terms = self.terms();
        let offer = (action != Action::AskForOffer).then(|| self.local.as_mut().map(|local| local.offer(&terms)));
        let body = offer.flatten().map(|body| Body::sdp(self.written(body)));
        let method = if matches!(action, Action::Update(_)) { Method::Update } else { Method::Invite };
        match self.endpoint.request(dialog, method.clone(), Headers::new(), body, now) {
            Ok(request) => {
                self.open = Some(Open { request, method, action, before });
                true
            }
            Err(_) => {
                self.give_up_offer(before);
                false
            }
        }
    }

    pub(super) fn give_up_offer(&mut self, before: (Direction, bool)) {
        (self.direction, self.null_address) = before;
        if let Some(local) = &mut self.local {
            local.offer_failed();
        }
    }

    pub(super) fn hang_up(&mut self, now: Instant) {
        let done = match self.call {
            Call::Idle | Call::Leaving { .. } => false,
            Call::Calling { invite } => self.endpoint.cancel(invite, Headers::new(), now).is_ok(),
            Call::Ringing { .. } => self.answer_call(&Action::refuse(603), now),
            Call::Talking { dialog } => match self.endpoint.request(dialog, Method::Bye, Headers::new(), None, now) {
                Ok(bye) => {
                    self.call = Call::Leaving { dialog, bye };
                    self.stop_media(now);
                    self.note(Happening::Ended { by_peer: false }, now);
                    true
                }
                Err(_) => false,
            },
        };
        self.require(done, "hang up", now);
    }
}
