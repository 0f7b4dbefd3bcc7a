//! A leg: one party's SIP dialog and media stream pair with us, and the commands that make its media so.

mod tapped;

use std::sync::Arc;
use std::time::Instant;

use rand::RngExt;

use self::tapped::Tapped;
use super::announce::Announced;
use super::core::{Core, Key};
use super::directory::Identity;
use super::mixing::Seated;
use super::music::Music;
use super::options::Dtmf;
use super::peers::Local;
use crate::bridge::command::{Command, Digits, LegStats, NewLeg, Playback, Remote};
use crate::codec::{Codec, Direction, Kind};
use crate::id::{LegId, WorkerId};
use crate::record::mark::{Channel, Role, Side};
use crate::sdp::{self, Negotiated, Session, Terms};
use crate::sip::endpoint::{DialogId, Peer};
use crate::sip::headers::Headers;
use crate::sip::name::Name;
use crate::sip::values::NameAddr;

/// One leg of a call.
#[derive(Debug)]
pub(super) struct Leg {
    pub id: LegId,
    pub identity: Arc<Identity>,
    pub role: Role,
    pub side: Side,
    /// Its channel in layout `stereo`: a party that takes another's place takes its channel.
    pub channel: Channel,
    /// Its number.
    pub number: String,
    /// Its address as SIP gave it.
    pub uri: String,
    /// How it has named itself, for those that it is connected to later.
    pub shown: Option<NameAddr>,
    /// Our side as it sees it.
    pub local: Local,
    /// The media thread that has it, or is giving it away.
    pub worker: WorkerId,
    /// The media thread that it is on its way to.
    moving: Option<WorkerId>,
    /// Its dialog; `None` while it is early.
    pub dialog: Option<DialogId>,
    /// Our description in that dialog.
    pub sdp: sdp::Local,
    /// What its device wants by itself, from its own view: its last offer, or where its answer was less than we offered.
    pub wants: Direction,
    /// What the media thread was told last.
    told: Option<Negotiated>,
    /// It has put the other side on hold by request.
    pub on_hold: bool,
    /// A recording of it was stopped by request: no automatic trigger starts another one.
    pub is_stopped: bool,
    /// REFERs that its dialog has brought.
    pub refers: u32,
    /// Whether the Allow of its device has INFO; `None`: it has shown none.
    pub allows_info: Option<bool>,
    /// Whether the Allow of its device has UPDATE.
    pub allows_update: bool,
    /// The events of its Allow-Events that press its keys.
    pub keys: Keys,
    /// What the media thread was told of digits for it.
    digits: Digits,
    /// The media thread keeps early packets for the next description.
    awaited: bool,
    /// Who hears it.
    routed: Option<LegId>,
    /// What we play to it.
    plays: Plays,
    tapped: Tapped,
    /// Since when it holds, by its device or by request.
    pub held_since: Option<Instant>,
    watched: bool,
    /// Music at it, as recorders have it.
    pub music: Music,
    /// What it was told in mid-call.
    pub announced: Announced,
    /// Nobody hears it, by request.
    pub is_muted: bool,
    /// It hears nobody, by request.
    pub is_deaf: bool,
    /// Its place in a mixer, as that knows it.
    pub seated: Option<Seated>,
    pub stats: LegStats,
    /// As the recorder that hears it measures it.
    pub clock_skew_ppm: Option<f64>,
}

/// Which keys of a phone NOTIFY presses.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Keys {
    pub talk: bool,
    pub hold: bool,
}

/// What we play to a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Plays {
    #[default]
    Nothing,
    /// Silence in its codec.
    Silence,
    /// Hold audio, or silence where none is configured.
    Hold,
    /// The ringback tone.
    Ringback,
    /// The tone that asks for the PIN of a room.
    AskPin,
    /// The PIN was wrong, so many times.
    WrongPin(u8),
}

/// How a leg begins.
pub(super) struct Beginning {
    pub identity: Arc<Identity>,
    pub role: Role,
    pub side: Side,
    pub channel: Channel,
    pub number: String,
    pub uri: String,
    pub shown: Option<NameAddr>,
    pub local: Local,
    pub worker: WorkerId,
}

impl Leg {
    /// Takes a port pair and tells the media thread; `None`: no pair is left.
    pub(super) fn begin(core: &mut Core, call: Key, beginning: Beginning) -> Option<Self> {
        let Beginning { identity, role, side, channel, number, uri, shown, local, worker } = beginning;
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
        if let Some(dn) = &identity.dn {
            core.index.dns.entry(dn.clone()).or_default().push(id);
        }
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
            side,
            channel,
            number,
            uri,
            shown,
            local,
            worker,
            moving: None,
            dialog: None,
            sdp,
            wants: Direction::SendRecv,
            told: None,
            on_hold: false,
            is_stopped: false,
            refers: 0,
            allows_info: None,
            allows_update: false,
            keys: Keys::default(),
            digits: Digits::default(),
            awaited: true,
            routed: None,
            plays: Plays::Nothing,
            tapped: Tapped::default(),
            held_since: None,
            watched: false,
            music: Music::default(),
            announced: Announced::default(),
            is_muted: false,
            is_deaf: false,
            seated: None,
            stats: LegStats::default(),
            clock_skew_ppm: None,
        })
    }

    /// Gives the media back.
    pub(super) fn end(mut self, core: &mut Core) {
        self.stand_up(core);
        core.media(self.worker, Command::RemoveLeg(self.id));
        self.end_recorded(core);
        core.pairs.forget(self.id);
        self.music.end(core);
        core.index.legs.remove(&self.id);
        if let Some(dn) = &self.identity.dn
            && let Some(legs) = core.index.dns.get_mut(dn)
        {
            legs.retain(|leg| *leg != self.id);
            if legs.is_empty() {
                core.index.dns.remove(dn);
            }
        }
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
        peer(&self.identity, &self.local, own_source, tcp)
    }

    /// It goes on in a dialog of another device, with the same ports and SSRC: what that one says counts from now on, and
    /// where it sends from is learned afresh. Gives the dialog before.
    pub(super) fn go_on_in(&mut self, dialog: DialogId, sdp: sdp::Local, local: Local) -> Option<DialogId> {
        self.sdp = sdp;
        self.local = local;
        self.told = None;
        self.wants = Direction::SendRecv;
        self.refers = 0;
        self.allows_info = None;
        self.allows_update = false;
        self.dialog.replace(dialog)
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

    /// It holds, by its device or by request.
    pub(super) fn has_hold(&self) -> bool {
        self.holds() || self.on_hold
    }

    /// Its packets go to `to` from now on.
    pub(super) fn route(&mut self, core: &mut Core, to: Option<LegId>) {
        if self.routed != to {
            self.routed = to;
            core.media(self.worker, Command::Route { from: self.id, to });
        }
    }

    /// Who hears it, as the media thread knows it.
    pub(super) fn routed(&self) -> Option<LegId> {
        self.routed
    }

    /// Plays something to it; nobody may be routed to it then.
    pub(super) fn play(&mut self, core: &mut Core, what: Plays) {
        if self.plays == what {
            return;
        }
        self.plays = what;
        let playback = match what {
            Plays::Nothing => Playback::None,
            Plays::Silence => Playback::Silence,
            Plays::Hold => core.options.media.hold_playback(),
            Plays::Ringback => core.options.media.ringback_playback(),
            Plays::AskPin => Playback::Samples { samples: core.prompts.ask.clone(), repeat: true },
            Plays::WrongPin(_) => Playback::Samples { samples: core.prompts.wrong.clone(), repeat: true },
        };
        core.media(self.worker, Command::Play { leg: self.id, what: playback });
    }

    /// Sends it to another media thread. Its routes end; what is commanded meanwhile follows it there.
    pub(super) fn move_to(&mut self, core: &mut Core, worker: WorkerId) {
        self.play(core, Plays::Nothing);
        self.routed = None;
        self.moving = Some(worker);
        core.ports.moved(self.worker, worker);
        core.media(self.worker, Command::Move { leg: self.id, to: worker });
    }

    /// It has arrived at `worker`.
    pub(super) fn moved(&mut self, worker: WorkerId) {
        self.worker = worker;
        self.moving.take_if(|to| *to == worker);
    }

    pub(super) fn is_moving(&self) -> bool {
        self.moving.is_some()
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

    /// Keeps what a message of its device says about the methods that it takes (RFC 3261 §20.5), and about recording.
    pub(super) fn learn_allow(&mut self, headers: &Headers) {
        self.learn_awareness(headers);
        let mut events = headers.values(Name::AllowEvents).peekable();
        if events.peek().is_some() {
            self.keys = Keys::default();
            for event in events {
                self.keys.talk |= *event == *b"talk";
                self.keys.hold |= *event == *b"hold";
            }
        }
        let mut allow = headers.values(Name::Allow).peekable();
        if allow.peek().is_some() {
            let mut methods = (false, false);
            for method in allow {
                methods.0 |= *method == *b"INFO";
                methods.1 |= *method == *b"UPDATE";
            }
            self.allows_info = Some(methods.0);
            self.allows_update = methods.1;
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

    /// Digits reach its device as INFO.
    pub(super) fn takes_info(&self) -> bool {
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

/// What the endpoint must know of a party. `own_source`: the address that its dialog lives on.
pub(super) fn peer(identity: &Identity, local: &Local, own_source: std::net::IpAddr, tcp: bool) -> Peer {
    let own = ipnet::IpNet::from(own_source.to_canonical());
    let sources = identity.sources.iter().copied().chain([own]).collect();
    let credentials = identity.credentials.clone();
    Peer { sources: Some(sources), nat: identity.nat, tcp, credentials, ..Peer::new(local.sip) }
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
pub(super) fn route_both(core: &mut Core, a: &mut Leg, b: &mut Leg) {
    let (id_a, id_b) = (a.id, b.id);
    a.route(core, Some(id_b));
    b.route(core, Some(id_a));
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
