//! What a phone is told to do, and what it tells.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::codec::{Codec, Direction};
use crate::testing::network::Link;
use crate::testing::tones::Voice;

/// How a phone is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its number: the user of From and Contact.
    pub number: String,
    /// The display name of From.
    pub name: Option<String>,
    /// Its SIP address (UDP).
    pub sip: SocketAddr,
    /// Its RTP address; RTCP would be the next port.
    pub rtp: SocketAddr,
    /// Where it sends new calls: all that it knows of the world.
    pub proxy: SocketAddr,
    /// Codecs, most preferred first.
    pub codecs: Vec<Codec>,
    /// What it says from the moment at which media flows.
    pub voice: Voice,
    /// What it does with calls that come in while its script does not say otherwise.
    pub incoming: Incoming,
    /// Seeds SSRC, tags, faults.
    pub seed: u64,
    /// What it does by itself.
    pub script: Vec<Step>,
}

impl Options {
    /// A phone with G.711 and telephone events that rings at once and is answered after 200 ms.
    pub fn new(number: &str, sip: SocketAddr, rtp: SocketAddr, proxy: SocketAddr) -> Self {
        Self {
            number: number.to_owned(),
            name: None,
            sip,
            rtp,
            proxy,
            codecs: vec![Codec::pcmu(), Codec::pcma(), Codec::telephone_event()],
            voice: Voice::Silence,
            incoming: Incoming::Answer { ring: Duration::ZERO, answer: Duration::from_millis(200) },
            seed: u64::from(sip.port()),
            script: Vec::new(),
        }
    }
}

/// What a phone does with a call that comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming {
    /// Nothing: the script or [`Phone::act`](super::Phone::act) decides.
    Manual,
    /// 180 after `ring`, 200 after `answer`, both from the INVITE on.
    Answer {
        /// When it rings.
        ring: Duration,
        /// When it answers.
        answer: Duration,
    },
    /// A failure answer at once.
    Refuse(u16),
}

/// One step of a script. Steps are taken in order, each when its condition is met.
#[derive(Debug, Clone)]
pub struct Step {
    /// What must happen first, counted from the step before; `None`: nothing.
    pub on: Option<Signal>,
    /// How long after that.
    pub after: Duration,
    /// What to do.
    pub action: Action,
}

impl Step {
    /// An action some time after the step before (the first: after the phone's first input or timeout).
    pub fn after(after: Duration, action: Action) -> Self {
        Self { on: None, after, action }
    }

    /// An action some time after something has happened since the step before.
    pub fn on(signal: Signal, after: Duration, action: Action) -> Self {
        Self { on: Some(signal), after, action }
    }
}

/// What a step can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// [`Happening::Incoming`].
    Incoming,
    /// [`Happening::Progress`].
    Progress,
    /// [`Happening::Established`].
    Established,
    /// [`Happening::Agreed`].
    Agreed,
    /// [`Happening::Reoffered`].
    Reoffered,
    /// [`Happening::Ended`], [`Happening::Failed`] or [`Happening::Cancelled`].
    Over,
}

impl Signal {
    pub(super) fn matches(self, happening: &Happening) -> bool {
        match happening {
            Happening::Incoming { .. } => self == Self::Incoming,
            Happening::Progress { .. } => self == Self::Progress,
            Happening::Established => self == Self::Established,
            Happening::Agreed { .. } => self == Self::Agreed,
            Happening::Reoffered { .. } => self == Self::Reoffered,
            Happening::Ended { .. } | Happening::Failed { .. } | Happening::Cancelled => self == Self::Over,
            _ => false,
        }
    }
}

/// How hold is written (spec/sip.md §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldForm {
    /// `a=sendonly`.
    SendOnly,
    /// `a=inactive`.
    Inactive,
    /// `c=0.0.0.0` with `a=sendrecv`, the form of RFC 2543.
    NullAddress,
}

/// Something that a phone can do. What its state does not allow is reported as [`Happening::NotPossible`].
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Calls a number, or a whole `sip:` or `tel:` URI.
    Call {
        /// Whom.
        to: String,
        /// False: INVITE without SDP, the answer goes in ACK.
        offer: bool,
        /// Further header lines, name and value.
        headers: Vec<(String, Bytes)>,
    },
    /// Gives a call up that is not answered yet.
    Cancel,
    /// 180.
    Ring,
    /// 183 with SDP: media flows both ways from now on.
    EarlyMedia,
    /// Speaks at once although it has told nobody yet: the packets that overtake an answer.
    SpeakAhead,
    /// 200.
    Answer,
    /// A failure or redirection, with further header lines.
    Refuse {
        /// 300…699.
        code: u16,
        /// Name and value.
        headers: Vec<(String, Bytes)>,
    },
    /// re-INVITE that holds.
    Hold(HoldForm),
    /// re-INVITE to send and receive again.
    Retrieve,
    /// re-INVITE with these codecs from now on.
    Recode(Vec<Codec>),
    /// re-INVITE without SDP; the answer goes in ACK.
    AskForOffer,
    /// UPDATE with an offer of this direction.
    Update(Direction),
    /// INFO in the dialog.
    Info {
        /// Content-Type.
        content_type: Bytes,
        /// Body.
        body: Bytes,
    },
    /// BYE; before an answer it cancels or refuses (603).
    HangUp,
    /// Says something else from the next packet on.
    Speak(Voice),
    /// Presses a key (RFC 4733), 160 ms long; `0`–`9`, `*`, `#`, `A`–`D`.
    Press(char),
    /// Whether packets of silence are left out.
    Dtx(bool),
    /// What its own access line does to the RTP that it sends.
    Faults(Link),
    /// Its sound clock runs this much fast, in parts per million.
    Skew(f64),
    /// RTP is kept for a while and then comes in one burst.
    Stall(Duration),
    /// Goes on with a new SSRC and sequence, as after a change of device.
    NewSource,
    /// Adds to the RTP timestamp.
    JumpTimestamp(u32),
    /// Hears and says nothing any more: a dead phone.
    Vanish,
}

impl Action {
    /// A plain call with an offer.
    pub fn call(to: &str) -> Self {
        Self::Call { to: to.to_owned(), offer: true, headers: Vec::new() }
    }

    /// A refusal without further headers.
    pub fn refuse(code: u16) -> Self {
        Self::Refuse { code, headers: Vec::new() }
    }
}

/// What has happened to a phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// It has called.
    Calling,
    /// A call comes in.
    Incoming {
        /// The From URI's user.
        caller: String,
    },
    /// 101…199 has come.
    Progress {
        /// Status code.
        code: u16,
        /// True when it carried SDP.
        media: bool,
    },
    /// It has rung (180 sent).
    Rung,
    /// 200 was received or sent.
    Established,
    /// ACK for our 200 has come.
    Acknowledged,
    /// Our re-INVITE or UPDATE was agreed to.
    Agreed {
        /// The direction now, from our side.
        direction: Direction,
    },
    /// Our re-INVITE or UPDATE was refused; `None`: no answer.
    Refused {
        /// Status code.
        code: Option<u16>,
    },
    /// The peer has made a new offer, or asked for ours, and got 200.
    Reoffered {
        /// The direction now, from our side.
        direction: Direction,
    },
    /// INFO has come.
    Info {
        /// Its body.
        body: Bytes,
    },
    /// The call is over after it was established.
    Ended {
        /// True when the peer sent BYE.
        by_peer: bool,
    },
    /// Our call failed; `None`: no answer.
    Failed {
        /// Status code.
        code: Option<u16>,
    },
    /// The call was cancelled before it was answered, by either side, or we have refused it.
    Cancelled,
    /// The description of the peer cannot be used.
    Unusable {
        /// Why.
        reason: String,
    },
    /// An action came in a state that does not allow it.
    NotPossible {
        /// The action, in words.
        action: String,
    },
}

/// A happening with its instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// When.
    pub at: Instant,
    /// What.
    pub what: Happening,
}
