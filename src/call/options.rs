//! What call control must be told: checked values with units, built by `config`.
//!
//! [`Options`] is fixed while the process lives; its [`Plan`] (DNs, trunks, routes, rooms) can be replaced by
//! [`super::Input::Reload`]. Key names are those of spec/interface.md §2.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::audio::signal::{self, Ringback};
use crate::bridge::command::{LatchMode, Playback};
use crate::codec::Codec;
use crate::record::mark::Layout;
pub use crate::sip::auth::{Account, Credentials, Password};
pub use crate::sip::endpoint::{Nat, Transport};

mod plan;

pub use plan::{
    Conference, Contact, Dn, DnRole, Dtmf, HoldBy, Host, MAX_PIN, MonitorConsult, Numbers, PeerAddress, Plan, Route,
    RouteRecord, RouteTarget, Secret, Supervision, Trunk, WhenAlone,
};

/// Everything call control is configured with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The SIP sockets as they were bound (with their real ports). At least one.
    pub listeners: Vec<Listener>,
    /// `[sip]`.
    pub sip: SipOptions,
    /// `[media]`.
    pub media: MediaOptions,
    /// `[recording]`.
    pub recording: RecordingOptions,
    /// DNs, trunks, routes: the part that a reload replaces.
    pub plan: Plan,
}

/// One SIP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listener {
    /// Its transport.
    pub transport: Transport,
    /// The address it is bound to; the host may be unspecified (`0.0.0.0`, `[::]`).
    pub address: SocketAddr,
}

/// `[sip]` as far as call control needs it.
#[derive(Debug, Clone)]
pub struct SipOptions {
    /// `advertise`: our address as peers outside `local_networks` see it; `None`: the address that reaches the peer.
    pub advertise: Option<IpAddr>,
    /// `local-networks`.
    pub local_networks: Vec<IpNet>,
    /// `trusted-proxies`: from these the source is the host of the first Via below theirs.
    pub trusted_proxies: Vec<IpNet>,
    /// `ring-timeout`, from our INVITE to its final answer.
    pub ring_timeout: Duration,
    /// `max-calls`, already computed when "auto". A call beyond it is refused with 503.
    pub max_calls: usize,
    /// `drain-timeout`.
    pub drain_timeout: Duration,
    /// `connected-id`: a trusted peer is told after a transfer who it is connected to (P-Asserted-Identity in UPDATE), if
    /// that one is a DN or trusted itself.
    pub connected_id: bool,
    /// User-Agent and Server header.
    pub user_agent: String,
    /// `ivr.busy`: final answers to an IVR port's consultation that leave the other party held until it is retrieved.
    pub ivr_busy: Vec<u16>,
}

impl Default for SipOptions {
    fn default() -> Self {
        Self {
            advertise: None,
            local_networks: Vec::new(),
            trusted_proxies: Vec::new(),
            ring_timeout: Duration::from_secs(60),
            max_calls: 4_000,
            drain_timeout: Duration::from_secs(30),
            connected_id: false,
            user_agent: concat!("stickytape/", env!("CARGO_PKG_VERSION")).into(),
            ivr_busy: vec![486, 600],
        }
    }
}

/// `[media]` as far as call control needs it.
#[derive(Debug, Clone)]
pub struct MediaOptions {
    /// `advertise`; `None`: as in `[sip]`.
    pub advertise: Option<IpAddr>,
    /// `codecs`, most preferred first: bounds every offer and answer that we send.
    pub codecs: Vec<Codec>,
    /// `latch`.
    pub latch: LatchMode,
    /// `inactivity-timeout`.
    pub inactivity_timeout: Duration,
    /// `ringback`: mono samples at 8,000 Hz to be repeated, for who hears nothing of a ringing target itself.
    pub ringback: Arc<[i16]>,
    /// `hold-audio`: mono samples at 8,000 Hz to be repeated, for who is on hold; `None`: silence.
    pub hold_audio: Option<Arc<[i16]>>,
    /// Port pairs that each media thread keeps bound ahead of need, per address. A call takes two.
    pub ports_ahead: usize,
}

impl Default for MediaOptions {
    fn default() -> Self {
        Self {
            advertise: None,
            codecs: vec![Codec::pcmu(), Codec::pcma(), Codec::new("L16", 8_000, 1), Codec::telephone_event()],
            latch: LatchMode::Strict,
            inactivity_timeout: Duration::from_secs(60),
            ringback: signal::ringback(Ringback::Europe),
            hold_audio: None,
            ports_ahead: 64,
        }
    }
}

impl MediaOptions {
    /// What a held party hears.
    pub(super) fn hold_playback(&self) -> Playback {
        match &self.hold_audio {
            Some(samples) => Playback::Samples { samples: samples.clone(), repeat: true },
            None => Playback::Silence,
        }
    }

    /// What a party hears while the one that it will talk to rings.
    pub(super) fn ringback_playback(&self) -> Playback {
        Playback::Samples { samples: self.ringback.clone(), repeat: true }
    }
}

/// `[recording]` as far as call control needs it.
#[derive(Debug, Clone)]
pub struct RecordingOptions {
    /// `default`.
    pub default: DefaultOwner,
    /// `layout`.
    pub layout: Layout,
    /// `sample-rate` in Hz: 8,000, 16,000 or 48,000.
    pub sample_rate: u32,
    /// `early-media`: record from the first 18x with SDP that we pass on.
    pub early_media: bool,
    /// `required` for every call: what cannot be recorded is refused or ended.
    pub required: bool,
    /// `termination-on-transfer`.
    pub termination_on_transfer: OnTransfer,
    /// `hold-music`: what we play to an owner, and what a holding phone plays to it, is recorded too.
    pub hold_music: bool,
    /// `beep`; `None`: nobody hears one.
    pub beep: Option<Beep>,
    /// `honour-preference`: `a=recordpref` is obeyed.
    pub honour_preference: bool,
}

impl Default for RecordingOptions {
    fn default() -> Self {
        Self {
            default: DefaultOwner::Origination,
            layout: Layout::Mixed,
            sample_rate: 8_000,
            early_media: false,
            required: false,
            termination_on_transfer: OnTransfer::Terminate,
            hold_music: false,
            beep: None,
            honour_preference: false,
        }
    }
}

/// `recording.beep`: a tone that tells a party now and then that it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beep {
    /// `every`: from one beginning to the next, at least a second.
    pub every: Duration,
    /// `to`.
    pub to: BeepTo,
}

/// `recording.beep.to`: who hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BeepTo {
    /// The customer.
    #[default]
    Customer,
    /// Every party.
    All,
}

/// `recording.termination-on-transfer`: what becomes of a termination-side session whose owner transfers itself away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnTransfer {
    /// It ends with its owner.
    #[default]
    Terminate,
    /// The leg that stays owns it from then on.
    Maintain,
}

/// `recording.default`: whose leg owns the session of an ordinary call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DefaultOwner {
    /// No session.
    None,
    /// The leg whose INVITE came in.
    #[default]
    Origination,
    /// The leg that answered.
    Termination,
    /// Both: two sessions.
    Both,
}
