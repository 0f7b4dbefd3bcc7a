//! The name of a codec, as SDP, the relay and the recorder share it: values only, no coding.

use std::fmt;
use std::sync::Arc;

/// An encoding as `a=rtpmap` names it: `PCMU/8000`, `L16/8000/1`, `telephone-event/8000`.
///
/// Two codecs are equal when name (case-insensitive), RTP clock and channels agree.
#[derive(Debug, Clone)]
pub struct Codec {
    name: Arc<str>,
    /// RTP clock in Hz (for G.722 this is 8,000 although the audio is 16,000).
    pub clock_rate: u32,
    /// Audio channels; 1 when the rtpmap names none.
    pub channels: u8,
}

/// What we do with a codec. Everything that we cannot decode is [`Kind::Other`]: relayed, never recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// 16-bit linear PCM, big endian (RFC 3551 §4.5.11).
    L16,
    /// DTMF and other events (RFC 4733).
    TelephoneEvent,
    /// Comfort noise (RFC 3389).
    ComfortNoise,
    /// Anything else.
    Other,
}

impl Codec {
    /// A codec by name, RTP clock in Hz and channels.
    pub fn new(name: &str, clock_rate: u32, channels: u8) -> Self {
        Self { name: name.into(), clock_rate, channels }
    }

    /// `PCMU/8000`.
    pub fn pcmu() -> Self {
        Self::new("PCMU", 8_000, 1)
    }

    /// `PCMA/8000`.
    pub fn pcma() -> Self {
        Self::new("PCMA", 8_000, 1)
    }

    /// `telephone-event/8000`.
    pub fn telephone_event() -> Self {
        Self::new("telephone-event", 8_000, 1)
    }

    /// The encoding name as it was written.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What we do with it.
    pub fn kind(&self) -> Kind {
        match &*self.name {
            n if n.eq_ignore_ascii_case("PCMU") => Kind::Pcmu,
            n if n.eq_ignore_ascii_case("PCMA") => Kind::Pcma,
            n if n.eq_ignore_ascii_case("L16") => Kind::L16,
            n if n.eq_ignore_ascii_case("telephone-event") => Kind::TelephoneEvent,
            n if n.eq_ignore_ascii_case("CN") => Kind::ComfortNoise,
            _ => Kind::Other,
        }
    }

    /// True when the recorder can turn it into samples: mono, G.711 at 8 kHz, L16 at a rate that the resampler takes.
    /// Call control and the recorder ask here both, so that nothing is called recorded that is silence.
    pub fn is_decodable(&self) -> bool {
        let rates: &[u32] = match self.kind() {
            Kind::Pcmu | Kind::Pcma => &[8_000],
            Kind::L16 => &[8_000, 16_000, 48_000],
            Kind::TelephoneEvent | Kind::ComfortNoise | Kind::Other => &[],
        };
        self.channels == 1 && rates.contains(&self.clock_rate)
    }

    /// True when we can make packets of it: as [`Codec::is_decodable`], without 48,000 Hz, whose packets of 20 ms no longer
    /// fit an Ethernet frame.
    pub fn is_encodable(&self) -> bool {
        self.is_decodable() && self.clock_rate <= 16_000
    }

    /// True when a peer that takes `receives` can be made to hear packets of this audio codec: unchanged, else transcoded.
    pub fn reaches<'a>(&self, receives: impl IntoIterator<Item = &'a Codec>) -> bool {
        let audio = !matches!(self.kind(), Kind::TelephoneEvent | Kind::ComfortNoise);
        audio && receives.into_iter().any(|codec| codec == self || (self.is_decodable() && codec.is_encodable()))
    }

    /// The codec that RFC 3551 §6 assigns to a static payload type without an rtpmap.
    pub fn from_static(payload_type: u8) -> Option<Self> {
        Some(match payload_type {
            0 => Self::pcmu(),
            3 => Self::new("GSM", 8_000, 1),
            4 => Self::new("G723", 8_000, 1),
            8 => Self::pcma(),
            9 => Self::new("G722", 8_000, 1),
            10 => Self::new("L16", 44_100, 2),
            11 => Self::new("L16", 44_100, 1),
            13 => Self::new("CN", 8_000, 1),
            15 => Self::new("G728", 8_000, 1),
            18 => Self::new("G729", 8_000, 1),
            _ => return None,
        })
    }
}

impl PartialEq for Codec {
    fn eq(&self, other: &Self) -> bool {
        self.clock_rate == other.clock_rate
            && self.channels == other.channels
            && self.name.eq_ignore_ascii_case(&other.name)
    }
}

impl Eq for Codec {}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.clock_rate)?;
        if self.channels > 1 || self.kind() == Kind::L16 {
            write!(f, "/{}", self.channels)?;
        }
        Ok(())
    }
}

/// A payload type number and the codec that it means in one direction of one leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// RTP payload type, 0…127.
    pub payload_type: u8,
    /// The codec.
    pub codec: Codec,
}

/// True when at least one audio codec of what one peer `sends` reaches another one that `receives`: they hear each other,
/// if need be through transcoding.
pub fn can_reach(sends: &[Payload], receives: &[Payload]) -> bool {
    sends.iter().any(|payload| payload.codec.reaches(receives.iter().map(|payload| &payload.codec)))
}

/// The direction of a media stream (RFC 3264 §5.1), from the view of whoever the description belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Sends and receives.
    #[default]
    SendRecv,
    /// Sends only.
    SendOnly,
    /// Receives only.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// From whether it sends and whether it receives.
    pub fn from_flags(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// True when the owner of the description sends.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// True when the owner of the description receives.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same stream seen from the other side.
    pub fn reversed(self) -> Self {
        Self::from_flags(self.receives(), self.sends())
    }

    /// What is left when both must allow it.
    pub fn and(self, other: Self) -> Self {
        Self::from_flags(self.sends() && other.sends(), self.receives() && other.receives())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_recorder_turns_into_samples_is_decodable() {
        for rate in [8_000, 16_000, 48_000] {
            assert!(Codec::new("L16", rate, 1).is_decodable(), "{rate}");
            assert!(!Codec::new("L16", rate, 2).is_decodable(), "{rate}");
        }
        assert!(Codec::pcmu().is_decodable() && Codec::pcma().is_decodable());
        let silent = [
            Codec::new("L16", 44_100, 1),
            Codec::new("L16", 11_025, 1),
            Codec::new("PCMU", 16_000, 1),
            Codec::telephone_event(),
            Codec::new("CN", 8_000, 1),
            Codec::new("G722", 8_000, 1),
        ];
        assert!(silent.iter().all(|codec| !codec.is_decodable()));
    }

    #[test]
    fn a_codec_reaches_itself_and_what_it_can_be_transcoded_to() {
        let linear = |rate| Codec::new("L16", rate, 1);
        let g729 = Codec::from_static(18).unwrap();
        let (event, noise) = (Codec::telephone_event(), Codec::new("CN", 8_000, 1));
        let reaches = |from: &Codec, to: &[&Codec]| from.reaches(to.iter().copied());
        assert!(reaches(&Codec::pcmu(), &[&event, &Codec::pcma()]) && reaches(&Codec::pcma(), &[&linear(16_000)]));
        assert!(reaches(&linear(48_000), &[&Codec::pcmu()]) && reaches(&linear(48_000), &[&linear(48_000)]));
        assert!(!reaches(&Codec::pcmu(), &[&linear(48_000)]), "its packets are too long to be made");
        assert!(reaches(&g729, &[&Codec::pcmu(), &g729]) && !reaches(&g729, &[&Codec::pcmu()]));
        assert!(!reaches(&event, &[&event, &Codec::pcmu()]) && !reaches(&noise, &[&noise]), "no audio");
        let payload = |codec: &Codec| Payload { payload_type: 0, codec: codec.clone() };
        let sends = [payload(&g729), payload(&event), payload(&Codec::pcma())];
        assert!(can_reach(&sends, &[payload(&linear(8_000))]));
        assert!(!can_reach(&sends, &[payload(&event)]) && !can_reach(&sends[..2], &sends[2..]));
    }
}
