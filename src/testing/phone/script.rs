//! What a phone is told to do, and what it tells.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::refer::DialogName;
use crate::codec::{Codec, Direction};
use crate::sip::method::Method;
use crate::testing::network::Link;
use crate::testing::tones::Voice;

/// Most lines of a phone.
pub const MAX_LINES: usize = 16;

/// How a phone is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its number: the user of From and Contact.
    pub number: String,
    /// The display name of From.
    pub name: Option<String>,
    /// Its SIP address (UDP).
    pub sip: SocketAddr,
    /// The RTP address of line 0; RTCP would be the next port. Line n has the port 2·n higher.
    pub rtp: SocketAddr,
    /// Calls that it can have at once, 1…[`MAX_LINES`].
    pub lines: usize,
    /// Whether a call may come in while there is another one; false: 486. Answering it holds nothing by itself.
    pub call_waiting: bool,
    /// Where it sends new calls: all that it knows of the world.
    pub proxy: SocketAddr,
    /// Sends calls to `sip:user@address:port` straight there, past the proxy.
    pub direct: bool,
    /// Codecs, most preferred first.
    pub codecs: Vec<Codec>,
    /// What it says from the moment at which media flows, on every line that it does not hold.
    pub voice: Voice,
    /// What it plays to a party that it holds with `sendonly` or the null address; `None`: it sends nothing there.
    pub music: Option<Voice>,
    /// Obeys NOTIFY `talk` (answers, takes back) and `hold`, and says so in Allow-Events.
    pub talk: bool,
    /// Gives its audio back when it is offered to send and receive while it holds; else it goes on holding.
    pub yields: bool,
    /// Takes part in RFC 7866: the option tag `record-aware` in Supported.
    pub record_aware: bool,
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
            lines: 1,
            call_waiting: false,
            proxy,
            direct: false,
            codecs: vec![Codec::pcmu(), Codec::pcma(), Codec::telephone_event()],
            voice: Voice::Silence,
            music: None,
            talk: false,
            yields: false,
            record_aware: false,
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
    /// On which line it must happen; `None`: on any.
    pub line: Option<usize>,
    /// How long after that.
    pub after: Duration,
    /// What to do.
    pub action: Action,
}

impl Step {
    /// An action some time after the step before (the first: after the phone's first input or timeout).
    pub fn after(after: Duration, action: Action) -> Self {
        Self { on: None, line: None, after, action }
    }

    /// An action some time after something has happened since the step before.
    pub fn on(signal: Signal, after: Duration, action: Action) -> Self {
        Self { on: Some(signal), line: None, after, action }
    }

    /// As [`Step::on`], but only what happens on this line counts.
    pub fn on_line(line: usize, signal: Signal, after: Duration, action: Action) -> Self {
        Self { on: Some(signal), line: Some(line), after, action }
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
    /// [`Happening::Referred`].
    Referred,
    /// [`Happening::Notified`] with a final status.
    Notified,
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
            Happening::Referred { .. } => self == Self::Referred,
            Happening::Notified { code: 200.., .. } => self == Self::Notified,
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

/// When a phone hangs up the call that it transfers away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Leave {
    /// At the 2xx to REFER.
    AtOnce,
    /// At the NOTIFY that reports 2xx.
    WhenDone,
    /// Never: it waits for the BYE of the peer.
    #[default]
    Never,
}

/// A transfer by REFER (RFC 3515, RFC 5589).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refer {
    /// A number, or a whole URI. Empty with `replaces`: the Contact of the peer in that dialog.
    pub to: String,
    /// The line whose dialog, early or confirmed, Refer-To names in Replaces.
    pub replaces: Option<usize>,
    /// False: `Refer-Sub: false` (RFC 4488), no NOTIFY is wanted.
    pub refer_sub: bool,
    /// Whether Referred-By names the phone (RFC 3892).
    pub referred_by: bool,
    /// When it hangs up.
    pub leave: Leave,
    /// Further header lines, name and value.
    pub headers: Vec<(String, Bytes)>,
}

impl Refer {
    /// A blind transfer with Referred-By; the phone waits for the peer's BYE.
    pub fn to(target: &str) -> Self {
        Self {
            to: target.to_owned(),
            replaces: None,
            refer_sub: true,
            referred_by: true,
            leave: Leave::Never,
            headers: Vec::new(),
        }
    }

    /// A transfer to whom the phone talks to, or calls, on its other line.
    pub fn to_line(line: usize) -> Self {
        Self { replaces: Some(line), ..Self::to("") }
    }
}

/// Something that a phone can do. What its state does not allow is reported as [`Happening::NotPossible`].
///
/// An action is for the active line: the one on which the phone called, answered or took back last, or the one that is
/// left when that call is over. `Speak`, `Dtx`, `Faults`, `Skew` and `Stall` are for all lines; answers go to the line
/// that rings; `Call` takes a free line when the active one is held.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Does it on this line; calling, answering and taking back make the line the active one.
    On(usize, Box<Action>),
    /// REFER in the dialog.
    Refer(Refer),
    /// re-INVITE that says whether it wants to be recorded (`a=recordpref`, RFC 7866): `on`, `off`, `pause`,
    /// `nopreference`. Without a call: stands in its next description.
    Prefer(String),
    /// Any request in the dialog: for what a sane phone would not send. Not INVITE, UPDATE, ACK, CANCEL or BYE.
    Request {
        /// The method.
        method: Method,
        /// Header lines, name and value.
        headers: Vec<(String, Bytes)>,
        /// Content-Type and body.
        body: Option<(Bytes, Bytes)>,
    },
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

    /// This action on a line.
    pub fn on(line: usize, action: Self) -> Self {
        Self::On(line, Box::new(action))
    }

    /// A call that replaces a dialog of another phone (RFC 3891): pick-up, or a transfer's last step.
    pub fn call_replacing(to: &str, dialog: &DialogName) -> Self {
        let line = |name: &str, value: String| (name.to_owned(), Bytes::from(value));
        let headers = vec![line("Require", "replaces".to_owned()), line("Replaces", dialog.replaces())];
        Self::Call { to: to.to_owned(), offer: true, headers }
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
    /// REFER was accepted.
    Referred {
        /// 202, or 200.
        code: u16,
    },
    /// REFER was refused; `None`: no answer.
    ReferRefused {
        /// Status code.
        code: Option<u16>,
    },
    /// NOTIFY of a REFER has come.
    Notified {
        /// The status code in its sipfrag; 0: there is none.
        code: u16,
        /// Subscription-State without its parameters: `active`, `terminated`.
        state: String,
    },
    /// NOTIFY `talk` or `hold` has come.
    Asked {
        /// The event.
        event: String,
    },
    /// [`Action::Request`] has its final answer; `None`: no answer.
    Responded {
        /// The method.
        method: String,
        /// Status code.
        code: Option<u16>,
    },
    /// The state of a recording of the call was told (`a=record`, RFC 7866).
    Recording {
        /// `on`, `off` or `paused`, as written.
        state: String,
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
    /// On which line.
    pub line: usize,
    /// What.
    pub what: Happening,
}
