//! One line of a phone: a call with its description and its sound.

use super::*;
use crate::codec::Payload;

/// The call of a line.
///
/// ```text
///        Call                    2xx                  BYE of either side
/// Idle ───────► Calling ───────────────► Talking ─────────────────────► Idle
///   │              │ failure, cancelled ─► Idle      (Leaving while ours is open)
///   │ INVITE       ▼
///   └─────────► Ringing ── Answer: 2xx sent ─► Talking
///                  └── CANCEL, refused ─► Idle
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Idle,
    /// `early`: the dialog of the last provisional answer.
    Calling {
        invite: InviteId,
        early: Option<DialogId>,
    },
    Ringing {
        tx: ServerTx,
        dialog: DialogId,
    },
    Talking {
        dialog: DialogId,
    },
    Leaving {
        dialog: DialogId,
        bye: RequestId,
    },
}

impl Call {
    pub(super) fn dialog(self) -> Option<DialogId> {
        match self {
            Self::Idle => None,
            Self::Calling { early, .. } => early,
            Self::Ringing { dialog, .. } | Self::Talking { dialog } | Self::Leaving { dialog, .. } => Some(dialog),
        }
    }

    pub(super) fn is_calling(self, invite: InviteId) -> bool {
        matches!(self, Self::Calling { invite: ours, .. } if ours == invite)
    }
}

/// A request of ours that carries or asks for an offer.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) request: RequestId,
    pub(super) method: Method,
    pub(super) action: Action,
    /// What to go back to when it is refused.
    pub(super) before: (Direction, bool),
}

/// A line.
pub(super) struct Line {
    pub(super) rtp: SocketAddr,
    session_id: u64,
    pub(super) call: Call,
    pub(super) local: Option<Local>,
    /// The offer of the INVITE that rings here.
    pub(super) offered: Option<Session>,
    /// What we want to do with media: our part in every offer and answer of ours.
    pub(super) direction: Direction,
    /// Hold in the old form: the null address stands in what we write.
    pub(super) null_address: bool,
    pub(super) codecs: Vec<Codec>,
    /// `a=recordpref` of what we write.
    pub(super) preference: Option<String>,
    said: Said,
    pub(super) sender: Sender,
    pub(super) heard: Heard,
    /// Our open re-INVITE or UPDATE.
    pub(super) open: Option<Open>,
    /// A refused re-INVITE is made again at this instant (RFC 3261 §14.1).
    pub(super) retry: Option<(Instant, Action)>,
    pub(super) refer: Option<Referring>,
    /// Requests of [`Action::Request`] that wait for their answers.
    pub(super) asked: Vec<(RequestId, Method)>,
    /// What a call that comes in gets by itself.
    pub(super) ring_at: Option<Instant>,
    pub(super) answer_at: Option<Instant>,
}

/// What we have said in SDP, to know whether the next body differs (RFC 3264 §8).
#[derive(Debug, Default)]
struct Said {
    body: String,
    version: u64,
}

impl Line {
    pub(super) fn new(options: &Options, index: usize) -> Self {
        let port = options.rtp.port() + 2 * index as u16;
        let rtp = SocketAddr::new(options.rtp.ip(), port);
        // Line 0 keeps the seed itself.
        let seed = options.seed ^ ((index as u64) << 48);
        Self {
            rtp,
            session_id: seed ^ 0x5354_5441,
            call: Call::Idle,
            local: None,
            offered: None,
            direction: Direction::SendRecv,
            null_address: false,
            codecs: options.codecs.clone(),
            preference: None,
            said: Said::default(),
            sender: Sender::new(rtp, options.voice.clone(), options.music.clone(), seed),
            heard: Heard::default(),
            open: None,
            retry: None,
            refer: None,
            asked: Vec::new(),
            ring_at: None,
            answer_at: None,
        }
    }

    /// The addresses of its RTP and RTCP.
    pub(super) fn addresses(&self) -> [SocketAddr; 2] {
        [self.rtp, SocketAddr::new(self.rtp.ip(), self.rtp.port().saturating_add(1))]
    }

    /// A call begins.
    pub(super) fn begin(&mut self, codecs: &[Codec]) {
        self.direction = Direction::SendRecv;
        self.null_address = false;
        self.codecs = codecs.to_vec();
        self.said = Said::default();
        self.local = Some(Local::new(self.rtp, self.session_id));
        self.heard.begin();
    }

    /// The call is over.
    pub(super) fn end(&mut self, now: Instant) {
        self.local = None;
        self.offered = None;
        self.open = None;
        self.retry = None;
        self.ring_at = None;
        self.answer_at = None;
        self.preference = None;
        self.refer = None;
        self.asked.clear();
        self.heard.end(now);
        self.sender.set_target(None, false, now);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.call == Call::Idle
    }

    pub(super) fn is_talking(&self) -> bool {
        matches!(self.call, Call::Talking { .. })
    }

    /// In a call that is not ending.
    pub(super) fn is_in_use(&self) -> bool {
        !matches!(self.call, Call::Idle | Call::Leaving { .. })
    }

    /// True when we hold the peer.
    pub(super) fn is_holding(&self) -> bool {
        !self.direction.receives() || self.null_address
    }

    /// When something is due.
    pub(super) fn timeouts(&self) -> [Option<Instant>; 4] {
        let retry = self.retry.as_ref().map(|(at, _)| *at);
        [retry, self.ring_at, self.answer_at, self.sender.poll_timeout()]
    }

    /// What it does by itself by now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Action> {
        let is_due = |at: &mut Instant| *at <= now;
        if self.ring_at.take_if(is_due).is_some() {
            return Some(Action::Ring);
        }
        if self.answer_at.take_if(is_due).is_some() {
            return Some(Action::Answer);
        }
        self.retry.take_if(|(at, _)| *at <= now).map(|(_, action)| action)
    }

    /// Our terms at present.
    pub(super) fn terms(&self) -> Terms {
        Terms::of(&self.codecs, self.direction)
    }

    /// Our offer as it is written. What it names may come from now on (RFC 3264 §5.1).
    pub(super) fn offer(&mut self) -> Option<Bytes> {
        let terms = self.terms();
        let local = self.local.as_mut()?;
        let body = local.offer(&terms);
        let offered = local.terms().into_iter().flat_map(|terms| &terms.formats);
        let offered = offered.map(|f| Payload { payload_type: f.payload_type, codec: f.codec.clone() });
        self.heard.expect(offered);
        Some(self.written(&body))
    }

    /// Our answer as it is written.
    pub(super) fn answer(&mut self, offer: &Session) -> Option<Result<Bytes, Refusal>> {
        let terms = self.terms();
        let answer = self.local.as_mut()?.answer(offer, &terms);
        Some(answer.map(|body| self.written(&body)))
    }

    /// What is written: with the null address while held in the old form, with our preference about recording, and with
    /// a version that grows exactly when the rest differs.
    fn written(&mut self, body: &Bytes) -> Bytes {
        let mut text = String::from_utf8_lossy(body).into_owned();
        if self.null_address {
            let (family, null) = if self.rtp.is_ipv4() { ("IP4", "0.0.0.0") } else { ("IP6", "::") };
            let line = format!("\r\nc=IN {family} ");
            text = text.replace(&format!("{line}{}\r\n", self.rtp.ip()), &format!("{line}{null}\r\n"));
        }
        if let Some(preference) = &self.preference
            && let Some(audio) = text.find("\r\nm=audio ")
        {
            let end = text[audio + 2..].find("\r\nm=").map_or(text.len(), |at| audio + 2 + at + 2);
            text.insert_str(end, &format!("a=recordpref:{preference}\r\n"));
        }
        self.with_version(text).into()
    }

    /// Our own version in `o=`: the description does not know what is added here.
    fn with_version(&mut self, text: String) -> String {
        let mut lines: Vec<&str> = text.split_inclusive("\r\n").collect();
        let Some(at) = lines.iter().position(|line| line.starts_with("o=")) else {
            return text;
        };
        let mut origin: Vec<&str> = lines.remove(at).split(' ').collect();
        let rest = lines.concat();
        if rest != self.said.body {
            self.said.version += 1;
            self.said.body = rest;
        }
        let version = self.said.version.to_string();
        if let Some(place) = origin.get_mut(2) {
            *place = &version;
        }
        let origin = origin.join(" ");
        lines.insert(at, &origin);
        lines.concat()
    }

    pub(super) fn prefer(&mut self, action: &Action) {
        if let Action::Prefer(preference) = action {
            self.preference = Some(preference.clone());
        }
    }

    pub(super) fn give_up_offer(&mut self, before: (Direction, bool)) {
        (self.direction, self.null_address) = before;
        if let Some(local) = &mut self.local {
            local.offer_failed();
        }
    }

    /// Sends and hears what is negotiated now.
    pub(super) fn follow(&mut self, now: Instant) {
        let mut negotiated = self.local.as_ref().and_then(Local::negotiated).cloned();
        let holds = self.is_holding();
        if let Some(negotiated) = &mut negotiated {
            self.heard.set_peer(&negotiated.receive, negotiated.rtp);
            // In the old form of hold the direction is not written, but meant.
            if self.null_address {
                negotiated.direction = negotiated.direction.and(Direction::SendOnly);
            }
        }
        self.sender.set_target(negotiated.as_ref(), holds, now);
    }

    pub(super) fn negotiated_direction(&self) -> Direction {
        self.local.as_ref().and_then(Local::negotiated).map_or(Direction::Inactive, |negotiated| negotiated.direction)
    }
}
