//! What a recording-aware peer is told, and what it wishes (RFC 7866 §7).

/// What `a=record` tells a peer about the recording of this stream (RFC 7866 §7.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordState {
    /// It is recorded.
    On,
    /// It is not recorded.
    Off,
    /// Its recording is paused.
    Paused,
}

impl RecordState {
    /// The value of the attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Paused => "paused",
        }
    }
}

/// What a peer wishes for the recording of this stream, by `a=recordpref` (RFC 7866 §7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// Record, or go on.
    On,
    /// Do not record.
    Off,
    /// Pause.
    Pause,
    /// It leaves that to us.
    NoPreference,
}

impl Preference {
    /// Reads the value of the attribute; `None`: none of RFC 7866.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let values =
            [("on", Self::On), ("off", Self::Off), ("pause", Self::Pause), ("nopreference", Self::NoPreference)];
        values.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, preference)| *preference)
    }

    /// The value of the attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Pause => "pause",
            Self::NoPreference => "nopreference",
        }
    }
}
