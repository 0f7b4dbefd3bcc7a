//! What is measured.

use std::path::PathBuf;
use std::time::Duration;

use stickytape::net::kernel::Kernel;

use crate::exchange::Kind;

/// The interface that all traffic of the benches takes.
pub const LOOPBACK: &str = "lo";

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// epoll, recv, send.
    Reflector,
    /// The same with one socket for all legs: what sharing one a trunk could bring at most.
    ReflectorShared,
    /// The media thread.
    Relay,
    /// The media thread and a recorder that writes stereo.
    Recorded,
    /// The media thread and a recorder that mixes both parties.
    RecordedMixed,
    /// As `Recorded`; every recording ends after ten seconds, is hashed and published, and another one begins.
    RecordedEnding,
    /// As `RecordedEnding`, after a minute.
    RecordedMinute,
    /// As `Relay`, steady streams sent on by the kernel (`media.kernel-forwarding`).
    RelayKernel,
    /// As `Recorded`, likewise.
    RecordedKernel,
    /// Two media threads with a core each, to be compared with `Relay`.
    TwoWorkers,
    /// Debian's rtpengine, which forwards without its kernel module.
    Rtpengine,
    /// The same, and it writes each call's packets to a file as they are: nothing is decoded or mixed.
    RtpenginePcap,
    /// Asterisk, which bridges two PJSIP channels.
    Asterisk,
    /// The same, and its MixMonitor writes both parties mixed.
    AsteriskRecorded,
    /// FreeSWITCH, which bridges two sofia channels.
    Freeswitch,
    /// The same, and its record_session writes stereo.
    FreeswitchRecorded,
    /// The media thread and a mixer, three parties a call.
    Conference,
    /// These and a recorder that writes all three mixed.
    ConferenceRecorded,
}

impl Case {
    pub const ALL: [Self; 18] = [
        Self::Reflector,
        Self::ReflectorShared,
        Self::Relay,
        Self::Recorded,
        Self::RecordedMixed,
        Self::RecordedEnding,
        Self::RecordedMinute,
        Self::RelayKernel,
        Self::RecordedKernel,
        Self::TwoWorkers,
        Self::Rtpengine,
        Self::RtpenginePcap,
        Self::Asterisk,
        Self::AsteriskRecorded,
        Self::Freeswitch,
        Self::FreeswitchRecorded,
        Self::Conference,
        Self::ConferenceRecorded,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Reflector => "reflector",
            Self::ReflectorShared => "reflector-shared",
            Self::Relay => "relay",
            Self::Recorded => "recorded",
            Self::RecordedMixed => "recorded-mixed",
            Self::RecordedEnding => "recorded-ending",
            Self::RecordedMinute => "recorded-minute",
            Self::RelayKernel => "relay-kernel",
            Self::RecordedKernel => "recorded-kernel",
            Self::TwoWorkers => "two-workers",
            Self::Rtpengine => "rtpengine",
            Self::RtpenginePcap => "rtpengine-pcap",
            Self::Asterisk => "asterisk",
            Self::AsteriskRecorded => "asterisk-recorded",
            Self::Freeswitch => "freeswitch",
            Self::FreeswitchRecorded => "freeswitch-recorded",
            Self::Conference => "conference",
            Self::ConferenceRecorded => "conference-recorded",
        }
    }

    pub fn parse(name: &str) -> Self {
        *Self::ALL.iter().find(|case| case.name() == name).unwrap_or_else(|| panic!("no case {name:?}"))
    }

    /// Parties of a call.
    pub fn parties(self) -> usize {
        if self.is_conference() { 3 } else { 2 }
    }

    /// What is sent is not what came: no packet's latency can be told.
    pub fn is_conference(self) -> bool {
        matches!(self, Self::Conference | Self::ConferenceRecorded)
    }

    /// A recorder of ours writes it.
    pub fn is_recorded(self) -> bool {
        match self {
            Self::Recorded | Self::RecordedMixed | Self::RecordedEnding | Self::RecordedMinute => true,
            Self::RecordedKernel | Self::ConferenceRecorded => true,
            Self::Reflector | Self::ReflectorShared | Self::Rtpengine | Self::RtpenginePcap => false,
            Self::Asterisk | Self::AsteriskRecorded | Self::Freeswitch | Self::FreeswitchRecorded => false,
            Self::Relay | Self::RelayKernel | Self::TwoWorkers | Self::Conference => false,
        }
    }

    /// One channel with everybody, instead of left and right.
    pub fn is_mixed(self) -> bool {
        matches!(self, Self::RecordedMixed | Self::ConferenceRecorded)
    }

    /// The kernel sends steady streams on.
    pub fn is_by_kernel(self) -> bool {
        matches!(self, Self::RelayKernel | Self::RecordedKernel)
    }

    pub fn is_rtpengine(self) -> bool {
        matches!(self, Self::Rtpengine | Self::RtpenginePcap)
    }

    /// How long a recording lasts before another one takes its place; `None`: to the end.
    pub fn recording_length(self) -> Option<Duration> {
        match self {
            Self::RecordedEnding => Some(Duration::from_secs(10)),
            Self::RecordedMinute => Some(Duration::from_secs(60)),
            _ => None,
        }
    }

    /// Talk before the measurement: until as many recordings end in a second as begin, and all are of full length.
    pub fn warm_up(self) -> Duration {
        self.recording_length().unwrap_or_default() + Duration::from_secs(2)
    }

    /// Media threads.
    pub fn workers(self) -> usize {
        if self == Self::TwoWorkers { 2 } else { 1 }
    }

    /// Why it cannot be measured on this machine, if so.
    pub fn obstacle(self, cores: usize) -> Option<String> {
        if self == Self::TwoWorkers && cores < 3 {
            return Some(format!("needs three cores, two of them for its threads; this machine has {cores}"));
        }
        if self.is_by_kernel()
            && let Err(error) = Kernel::attach(&[LOOPBACK.to_owned()])
        {
            return Some(error.to_string());
        }
        if let Some(kind) = Kind::of(self) {
            return kind.obstacle();
        }
        (self.is_rtpengine() && on_path("rtpengine").is_none())
            .then(|| "rtpengine is not installed (Debian's package rtpengine-daemon)".to_owned())
    }
}

/// Where a program lies that PATH has.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
