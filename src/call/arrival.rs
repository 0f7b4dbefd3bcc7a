//! An INVITE that we answer ourselves: who sends it, and its answer. Its sender takes another one's place in a call
//! ([`super::replaces`]) or enters a room ([`super::room`]).

use std::sync::Arc;

use super::core::Core;
use super::directory::Identity;
use super::leg::{self, Beginning, Leg};
use super::peers::Local;
use super::setup::{Refusing, busy};
use crate::id::WorkerId;
use crate::record::mark::{Channel, Role, Side};
use crate::sdp::Session;
use crate::sip::endpoint::{Body, DialogId, Flow, Peer, Refused, Reply, ServerTx, Transport};
use crate::sip::headers::Headers;
use crate::sip::values::NameAddr;

/// An INVITE with its sender.
#[derive(Debug)]
pub(super) struct Arrival {
    pub tx: ServerTx,
    pub flow: Flow,
    pub identity: Arc<Identity>,
    pub number: String,
    pub uri: String,
    pub shown: NameAddr,
    /// Our side as it sees it.
    pub local: Local,
    /// `None`: we make one.
    pub offer: Option<Session>,
    /// Its INVITE's.
    pub headers: Headers,
    /// It comes to a conference: the user part of its URI.
    pub focus: Option<bytes::Bytes>,
}

/// What a leg is in the call that it comes into.
pub(super) struct Part {
    pub role: Role,
    pub side: Side,
    pub channel: Channel,
    pub worker: WorkerId,
}

impl Arrival {
    fn peer(&self) -> Peer {
        let tcp = self.flow.transport == Transport::Tcp;
        let peer = leg::peer(&self.identity, &self.local, self.flow.remote.ip(), tcp);
        Peer { focus: self.focus.clone(), ..peer }
    }

    /// Its leg, with ports.
    ///
    /// # Errors
    /// 503 when none are left.
    pub(super) fn leg(&self, core: &mut Core, call: super::core::Key, part: Part) -> Result<Leg, Refusing> {
        let Part { role, side, channel, worker } = part;
        let beginning = Beginning {
            identity: self.identity.clone(),
            role,
            side,
            channel,
            number: self.number.clone(),
            uri: self.uri.clone(),
            shown: Some(self.shown.clone()),
            local: self.local,
            worker,
        };
        Leg::begin(core, call, beginning).ok_or_else(|| busy("no media ports"))
    }

    /// Answers it 200. `None`: it was cancelled, or there is no room and it has heard so.
    pub(super) fn answer(&self, core: &mut Core, body: bytes::Bytes) -> Option<DialogId> {
        let dialog = match core.endpoint.open_dialog(self.tx, self.peer()) {
            Ok(dialog) => dialog,
            Err(Refused::Full) => {
                busy("no room for another dialog").tell(core, self.tx);
                return None;
            }
            Err(_) => return None,
        };
        let reply = Reply { body: Some(Body::sdp(body)), ..Reply::new(200) };
        core.endpoint.respond(self.tx, Some(dialog), reply, core.now).is_ok().then_some(dialog)
    }

    /// What its device says of itself is this leg's from now on.
    pub(super) fn introduce(&self, core: &mut Core, leg: &mut Leg) {
        leg.learn_allow(&self.headers);
        match self.offer.as_ref().map(Session::terms) {
            Some(Ok(terms)) => leg.wants = terms.direction,
            _ => leg.await_answer(core),
        }
    }
}
