//! A leg: one party's SIP dialog and media stream pair with us, and the commands that make its media so.

use std::sync::Arc;

use rand::RngExt;

use super::core::Core;
use super::directory::Identity;
use super::options::Dtmf;
use super::peers::Local;
use crate::bridge::command::{Command, Digits, LegStats, NewLeg, Remote};
use crate::codec::{Codec, Direction, Kind, Payload};
use crate::id::{ConnId, LegId, RecorderId, WorkerId};
use crate::record::mark::{Change, Role};
use crate::sdp::{self, Negotiated, Session, Terms};
use crate::sip::endpoint::{DialogId, Peer};
use crate::sip::headers::Headers;
use crate::sip::name::Name;

/// One leg of a call.
#[derive(Debug)]
pub(super) struct Leg {
    pub id: LegId,
    pub identity: Arc<Identity>,
    pub role: Role,
    /// Its number.
    pub number: String,
    /// Its address as SIP gave it.
    pub uri: String,
    /// Our side as it sees it.
    pub local: Local,
    pub worker: WorkerId,
    /// Its dialog; `None` while it is early.
    pub dialog: Option<DialogId>,
    /// Our description in that dialog.
    pub sdp: sdp::Local,
    /// What its device wants by itself, from its own view: its last offer, or where its answer was less than we offered.
    pub wants: Direction,
    /// What the media thread was told last.
    told: Option<Negotiated>,
    /// Whether the Allow of its device has INFO; `None`: it has shown none.
    pub allows_info: Option<bool>,
    /// What the media thread was told of digits for it.
    digits: Digits,
    /// The media thread keeps early packets for the next description.
    awaited: bool,
    /// The recorder that gets its packets.
    tap: Option<RecorderId>,
    /// What the recorder was told last.
    payloads: Option<Arc<[Payload]>>,
    watched: bool,
    pub stats: LegStats,
}

/// How a leg begins.
pub(super) struct Beginning {
    pub identity: Arc<Identity>,
    pub role: Role,
    pub number: String,
    pub uri: String,
    pub local: Local,
    pub worker: WorkerId,
}

impl Leg {
    /// Takes a port pair and tells the media thread; `None`: no pair is left.
    pub(super) fn begin(core: &mut Core, call: ConnId, beginning: Beginning) -> Option<Self> {
        let Beginning { identity, role, number, uri, local, worker } = beginning;
        let port = core.ports.take(worker, local.bind)?;
        let id = core.next_leg();
        let cname: u128 = core.rng.random();
        let new = NewLeg {
            leg: id,
            port: port.id,
            ssrc: core.rng.random(),
            sequence: core.rng.random(),
            timestamp: core.rng.random(),
            cname: format!("{:024x}", cname >> 32).into(),
        };
        core.media(worker, Command::AddLeg(Box::new(new)));
        core.index.legs.insert(id, call);
        if let Some(trunk) = &identity.trunk {
            *core.trunk_legs.entry(trunk.clone()).or_default() += 1;
        }
        // RFC 8866 §5.2: a number that fits 63 bits, which some devices require.
        let session_id = core.rng.random::<u64>() >> 1;
        let sdp = sdp::Local::new((local.media, port.rtp.port()).into(), session_id);
        Some(Self {
            id,
            identity,
            role,
            number,
            uri,
            local,
            worker,
            dialog: None,
            sdp,
            wants: Direction::SendRecv,
            told: None,
            allows_info: None,
            digits: Digits::default(),
            awaited: true,
            tap: None,
            payloads: None,
            watched: false,
            stats: LegStats::default(),
        })
    }

    /// Gives the media back.
    pub(super) fn end(self, core: &mut Core) {
        core.media(self.worker, Command::RemoveLeg(self.id));
        if let (Some(recorder), Some(_)) = (self.tap, &self.payloads) {
            core.mark(recorder, Change::LegEnded(self.id));
        }
        core.index.legs.remove(&self.id);
        if let Some(dialog) = self.dialog {
            core.index.dialogs.remove(&dialog);
        }
        if let Some(trunk) = &self.identity.trunk
            && let Some(count) = core.trunk_legs.get_mut(trunk)
        {
            *count -= 1;
            if *count == 0 {
                core.trunk_legs.remove(trunk);
            }
        }
    }

    /// What the endpoint must know of this peer. `own_source`: the address that its dialog lives on.
    pub(super) fn peer(&self, own_source: std::net::IpAddr, tcp: bool) -> Peer {
        let own = ipnet::IpNet::from(own_source.to_canonical());
        let sources = self.identity.sources.iter().copied().chain([own]).collect();
        let credentials = self.identity.credentials.clone();
        Peer { sources: Some(sources), nat: self.identity.nat, tcp, credentials, ..Peer::new(self.local.sip) }
    }

    /// Takes the addresses that its DN or trunk has now; the dialogs that it lives in may each be used from their own
    /// flow as well.
    pub(super) fn refresh_sources(&mut self, core: &mut Core, dialogs: &[DialogId]) {
        let Some(sources) = core.sources(&self.identity) else { return };
        if sources == self.identity.sources {
            return;
        }
        Arc::make_mut(&mut self.identity).sources = sources.clone();
        for dialog in dialogs.iter().copied().chain(self.dialog) {
            let Some(flow) = core.endpoint.flow(dialog) else { continue };
            let own = ipnet::IpNet::from(flow.remote.ip().to_canonical());
            core.endpoint.set_sources(dialog, sources.iter().copied().chain([own]).collect());
        }
    }

    /// True when its device has put us on hold (direction or `c=0.0.0.0`).
    pub(super) fn holds(&self) -> bool {
        !self.wants.receives()
    }

    /// It answered an offer of ours: where we let it choose, its answer says what it wants.
    pub(super) fn answered(&mut self, offered: Direction, answer: Direction) {
        self.wants = wanted(self.wants, offered, answer);
    }

    /// Copies of its packets go to `recorder` from now on.
    pub(super) fn tap(&mut self, core: &mut Core, recorder: RecorderId) {
        if self.tap == Some(recorder) {
            return;
        }
        self.tap = Some(recorder);
        core.media(self.worker, Command::Tap { leg: self.id, recorders: vec![recorder] });
    }

    /// The recorder must know the leg before a session names it, also while its payload types are only offered.
    pub(super) fn announce(&mut self, core: &mut Core) {
        if self.payloads.is_some() {
            return;
        }
        let payloads: Vec<Payload> = match (self.sdp.negotiated(), self.sdp.terms()) {
            (Some(negotiated), _) => negotiated.receive.clone(),
            (None, Some(terms)) => {
                terms.formats.iter().map(|f| Payload { payload_type: f.payload_type, codec: f.codec.clone() }).collect()
            }
            (None, None) => Vec::new(),
        };
        self.mark_payloads(core, &payloads);
    }

    fn mark_payloads(&mut self, core: &mut Core, payloads: &[Payload]) {
        let Some(recorder) = self.tap else { return };
        if self.payloads.as_deref() == Some(payloads) {
            return;
        }
        let payloads: Arc<[Payload]> = payloads.into();
        self.payloads = Some(payloads.clone());
        core.mark(recorder, Change::Payloads { leg: self.id, payloads });
    }

    /// Tells recorder and media thread what is negotiated, when that differs from what they know. `negotiated` is of
    /// the leg's dialog, or of the early dialog that has the word.
    pub(super) fn apply(&mut self, core: &mut Core, negotiated: &Negotiated) {
        self.mark_payloads(core, &negotiated.receive);
        if self.told.as_ref() == Some(negotiated) && !self.awaited {
            return;
        }
        self.awaited = false;
        self.told = Some(negotiated.clone());
        let Negotiated { rtp, rtcp, rtcp_mux, receive, send, direction, ptime_ms } = negotiated.clone();
        let latch = core.options.media.latch;
        let remote = Remote { rtp, rtcp, rtcp_mux, receive, send, direction, ptime_ms, latch };
        core.media(self.worker, Command::SetRemote { leg: self.id, remote: Box::new(remote) });
    }

    /// Keeps what a message of its device says about the methods that it takes (RFC 3261 §20.5).
    pub(super) fn learn_allow(&mut self, headers: &Headers) {
        let mut allow = headers.values(Name::Allow).peekable();
        if allow.peek().is_some() {
            self.allows_info = Some(allow.any(|method| *method == *b"INFO"));
        }
    }

    /// Tells the media thread how digits reach its device when that takes no telephone events (spec/sip.md §7).
    pub(super) fn choose_digits(&mut self, core: &mut Core) {
        let to = if self.takes_info() { Digits::Notice } else { Digits::Tone };
        if to != self.digits {
            self.digits = to;
            core.media(self.worker, Command::Digits { leg: self.id, to });
        }
    }

    /// True when we can bring digits to its device that the other side sends as telephone events: as such, as INFO or as
    /// a tone in its codec.
    fn can_be_pressed(&self, negotiated: &Negotiated) -> bool {
        self.takes_info() || in_use(negotiated).is_some_and(Codec::is_decodable)
    }

    fn takes_info(&self) -> bool {
        self.identity.dtmf == Dtmf::Info && self.allows_info == Some(true)
    }

    /// What we answer to the `offer` of the other leg when this one's answer says `terms`: telephone events too, when we
    /// can bring the digits to its device in another form. `negotiated` is of its answer.
    pub(super) fn terms_for(
        &self,
        negotiated: &Negotiated,
        terms: &Terms,
        offer: &Session,
        allowed: Option<&[Codec]>,
    ) -> Terms {
        match offer.terms() {
            Ok(offer) if self.can_be_pressed(negotiated) => terms.clone().with_events_of(&offer, allowed),
            _ => terms.clone(),
        }
    }

    /// Our offer is out: its answerer may send ahead of its answer (RFC 3264 §5.1).
    pub(super) fn await_answer(&mut self, core: &mut Core) {
        if !self.awaited {
            self.awaited = true;
            core.media(self.worker, Command::Await { leg: self.id });
        }
    }

    /// Arms or stops the inactivity timer: RTP is expected while the leg is bridged and its peer may send.
    pub(super) fn watch(&mut self, core: &mut Core, bridged: bool) {
        let expected = bridged && self.told.as_ref().is_some_and(|n| n.direction.receives() && n.rtp.is_some());
        if expected != self.watched {
            self.watched = expected;
            self.rearm(core);
        }
    }

    /// Arms the inactivity timer once more.
    pub(super) fn rearm(&mut self, core: &mut Core) {
        let timeout = self.watched.then_some(core.options.media.inactivity_timeout);
        core.media(self.worker, Command::Watch { leg: self.id, timeout });
    }

    /// The codec in use, as the media thread knows it.
    pub(super) fn codec(&self) -> Option<&Codec> {
        in_use(self.told.as_ref()?)
    }
}

/// What a device wants after it has answered: its choice where the offer (from our view) left it one, else as before.
fn wanted(before: Direction, offered: Direction, answer: Direction) -> Direction {
    let choice = offered.reversed();
    let sends = if choice.sends() { answer.sends() } else { before.sends() };
    let receives = if choice.receives() { answer.receives() } else { before.receives() };
    Direction::from_flags(sends, receives)
}

/// What the peer sends: the first codec of ours that its description has too.
pub(super) fn in_use(negotiated: &Negotiated) -> Option<&Codec> {
    let both = |c: &&Codec| carries_sound(c) && negotiated.send.iter().any(|p| p.codec == **c);
    negotiated.receive.iter().map(|p| &p.codec).find(both)
}

/// True for codecs that carry sound.
pub(super) fn carries_sound(codec: &Codec) -> bool {
    !matches!(codec.kind(), Kind::TelephoneEvent | Kind::ComfortNoise)
}

/// Routes both legs to each other. They live on one media thread. Before their descriptions are told: what has waited
/// for those is sent on then.
pub(super) fn route_both(core: &mut Core, a: &Leg, b: &Leg) {
    core.media(a.worker, Command::Route { from: a.id, to: Some(b.id) });
    core.media(b.worker, Command::Route { from: b.id, to: Some(a.id) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negotiated_direction_says_what_a_device_wants_only_where_it_could_choose() {
        use Direction::{Inactive, RecvOnly, SendOnly, SendRecv};
        for (before, offered, answer, after) in [
            (SendRecv, SendRecv, SendRecv, SendRecv),
            (SendRecv, SendRecv, SendOnly, SendOnly),
            (SendRecv, SendOnly, RecvOnly, SendRecv),
            (SendRecv, SendOnly, Inactive, SendOnly),
            (SendRecv, Inactive, Inactive, SendRecv),
            (SendOnly, Inactive, Inactive, SendOnly),
            (Inactive, SendRecv, SendRecv, SendRecv),
        ] {
            assert_eq!(wanted(before, offered, answer), after, "{before:?} {offered:?} {answer:?}");
        }
    }
}
