//! RFC 3264 as values: what of an audio stream is carried from one dialog to another, what is shared, what changed.

use std::net::IpAddr;

use thiserror::Error;

use super::record::Preference;
use super::session::{Connection, Media, Session};
use crate::codec::{Codec, Direction, Kind};

/// Why an offer or answer gives no audio that we can anchor (answered 488, spec/sip.md §2).
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No enabled audio m-line (T.38, video alone, port 0).
    #[error("no audio stream")]
    NoAudio,
    /// Audio only with SRTP or DTLS, which is not offered in plain.
    #[error("only secure audio offered")]
    SecureOnly,
    /// Audio over another transport than RTP/AVP and RTP/AVPF.
    #[error("audio over an unsupported transport")]
    Transport,
    /// A multicast address or an address range.
    #[error("multicast media address")]
    Multicast,
    /// More than one port in an m-line.
    #[error("range of media ports")]
    PortRange,
    /// No media address, a host name, or an address of the other IP family than our media address of this leg.
    #[error("unusable media address")]
    Address,
    /// No audio codec in common.
    #[error("no codec in common")]
    NoSharedCodec,
    /// An answer where we made no offer.
    #[error("answer without an offer")]
    NoOffer,
}

impl Refusal {
    /// The warn-code of RFC 3261 §20.43 that says so in the 488.
    pub fn warning_code(self) -> u16 {
        match self {
            Self::NoAudio => 304,
            Self::SecureOnly | Self::Transport => 302,
            Self::Multicast => 330,
            Self::Address => 301,
            Self::PortRange | Self::NoOffer => 399,
            Self::NoSharedCodec => 305,
        }
    }
}

/// A payload type number with its codec and format parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// RTP payload type, 0…127, in the description that it was read from.
    pub payload_type: u8,
    /// The codec.
    pub codec: Codec,
    /// The value of `a=fmtp` after the number.
    pub fmtp: Option<String>,
}

/// What may be carried of an audio stream from one dialog's description into another's: codec, rtpmap, fmtp, ptime,
/// maxptime, direction, label, lang (spec/sip.md §2), and nothing else.
///
/// The direction is that of the description's owner, so an offer of D1 and our offer to D2 made from it agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Codecs in order of preference, each once. The numbers are hints: the dialog that writes them decides.
    pub formats: Vec<Format>,
    /// Direction, with the old form of hold applied.
    pub direction: Direction,
    /// Wanted packet duration in ms.
    pub ptime: Option<u16>,
    /// Longest packet duration in ms.
    pub maxptime: Option<u16>,
    /// `a=label`.
    pub label: Option<String>,
    /// `a=lang`.
    pub lang: Vec<String>,
}

impl Terms {
    /// Terms of our own: for a full offer.
    pub fn of(codecs: &[Codec], direction: Direction) -> Self {
        let formats = codecs.iter().map(own_format).collect();
        Self { formats, direction, ptime: None, maxptime: None, label: None, lang: Vec::new() }
    }

    /// The terms of one m-line. Of several payload types with the same codec the first is kept, because the relay maps
    /// packets codec to codec.
    fn from_media(media: &Media) -> Self {
        let mut formats: Vec<Format> = Vec::with_capacity(media.payloads.len());
        for format in &media.payloads {
            if !formats.iter().any(|known| known.codec == format.codec) {
                formats.push(format.clone());
            }
        }
        Self {
            formats,
            direction: media.direction(),
            ptime: media.ptime,
            maxptime: media.maxptime,
            label: media.label.clone(),
            lang: media.lang.clone(),
        }
    }

    /// Only the codecs that are also in `allowed` (`media.codecs`), in the order of the terms.
    pub fn restricted_to(mut self, allowed: &[Codec]) -> Self {
        self.formats.retain(|format| allowed.contains(&format.codec));
        self
    }

    /// With another direction.
    pub fn with_direction(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }

    /// With `first` moved to the front, where it is among the codecs.
    pub fn preferring(mut self, first: &Codec) -> Self {
        // Stable: the others keep their order.
        self.formats.sort_by_key(|format| format.codec != *first);
        self
    }

    /// With the telephone events of `offer` where these terms have none: for an answer to a peer whose digits we bring to
    /// the other side in another form. `allowed` bounds them; `None`: all.
    pub fn with_events_of(mut self, offer: &Self, allowed: Option<&[Codec]>) -> Self {
        let is_event = |format: &&Format| format.codec.kind() == Kind::TelephoneEvent;
        if !self.formats.iter().any(|format| is_event(&format)) {
            let usable = |format: &&Format| allowed.is_none_or(|allowed| allowed.contains(&format.codec));
            self.formats.extend(offer.formats.iter().filter(is_event).filter(usable).cloned());
        }
        self
    }

    /// True when a codec that carries sound (neither events nor comfort noise) is there.
    pub fn has_audio_codec(&self) -> bool {
        self.formats.iter().any(|format| carries_sound(&format.codec))
    }

    /// The codecs in order.
    pub fn codecs(&self) -> impl Iterator<Item = &Codec> {
        self.formats.iter().map(|format| &format.codec)
    }
}

impl Session {
    /// The index of the audio m-line that we anchor: the first enabled one over plain RTP with an address and codecs.
    pub fn anchor(&self) -> Result<usize, Refusal> {
        let mut refusal = Refusal::NoAudio;
        for (index, media) in self.media.iter().enumerate() {
            match usable(media) {
                Ok(()) => return Ok(index),
                // The first reason that says more than "no audio" is the one to tell.
                Err(reason) if refusal == Refusal::NoAudio => refusal = reason,
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    /// As [`Session::anchor`] for a dialog in which our media has this address: RTP stays in its family.
    pub fn anchor_for(&self, ours: IpAddr) -> Result<usize, Refusal> {
        let anchor = self.anchor()?;
        same_family(&self.media[anchor], ours)?;
        Ok(anchor)
    }

    /// The anchored audio m-line.
    pub fn audio(&self) -> Result<&Media, Refusal> {
        self.anchor().map(|index| &self.media[index])
    }

    /// What the peer wishes for the recording of the anchored audio (RFC 7866 §7.2); `None`: it says nothing.
    pub fn record_preference(&self) -> Option<Preference> {
        self.audio().ok()?.record_preference
    }

    /// What of its audio may be carried to another dialog.
    pub fn terms(&self) -> Result<Terms, Refusal> {
        self.audio().map(Terms::from_media)
    }
}

/// How a new offer differs from what the dialog has (spec/sip.md §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// Another direction, hold by either form included.
    pub direction: bool,
    /// Other codecs, parameters, packet duration, or another preferred codec.
    pub codecs: bool,
    /// An m-line added, enabled or disabled.
    pub media: bool,
}

impl Change {
    /// Only version, address, ports or payload numbers differ, or nothing: we answer alone.
    pub fn is_refresh(self) -> bool {
        self == Self::default()
    }
}

/// Compares a new offer with the peer's last description. `answered` says that the last one was the peer's answer,
/// which names only what it chose: then an offer of more codecs, with the chosen one still preferred, is no change.
pub(super) fn compare(last: &Session, new: &Session, answered: bool, allowed: Option<&[Codec]>) -> Change {
    let enabled = |session: &Session| -> Vec<(String, bool)> {
        let mut lines: Vec<_> = session.media.iter().map(|m| (m.kind.to_ascii_lowercase(), m.port != 0)).collect();
        // A disabled line at the end says no more than no line.
        while lines.last().is_some_and(|(_, enabled)| !enabled) {
            lines.pop();
        }
        lines
    };
    let restrict = |terms: Terms| match allowed {
        Some(allowed) => terms.restricted_to(allowed),
        None => terms,
    };
    let (Ok(before), Ok(after)) = (last.terms().map(restrict), new.terms().map(restrict)) else {
        return Change { direction: false, codecs: false, media: true };
    };
    let same = |a: &Format, b: &Format| a.codec == b.codec && a.fmtp == b.fmtp;
    let same_codecs = if answered {
        before.codecs().next() == after.codecs().next()
            && before.codecs().all(|codec| after.codecs().any(|other| other == codec))
    } else {
        before.formats.len() == after.formats.len()
            && before.formats.iter().zip(&after.formats).all(|(a, b)| same(a, b))
    };
    Change {
        direction: before.direction != after.direction,
        codecs: !same_codecs || before.ptime != after.ptime || before.maxptime != after.maxptime,
        // What an answer leaves out was refused by it or by us; only its audio counts.
        media: !answered && enabled(last) != enabled(new),
    }
}

/// True for codecs that carry sound.
pub(super) fn carries_sound(codec: &Codec) -> bool {
    !matches!(codec.kind(), Kind::TelephoneEvent | Kind::ComfortNoise)
}

/// The form in which we offer a codec ourselves: RFC 3551's number where it has one, RFC 4733's sixteen digits.
fn own_format(codec: &Codec) -> Format {
    let fixed = (0..35).find(|number| Codec::from_static(*number).as_ref() == Some(codec));
    let (payload_type, fmtp) = match codec.kind() {
        Kind::TelephoneEvent => (101, Some("0-15".to_owned())),
        _ => (fixed.unwrap_or(96), None),
    };
    Format { payload_type, codec: codec.clone(), fmtp }
}

/// Whether the peer's media address is of the family of ours.
pub(super) fn same_family(media: &Media, ours: IpAddr) -> Result<(), Refusal> {
    match media.connection {
        Connection::Unicast(ip) if ip.is_ipv4() != ours.to_canonical().is_ipv4() => Err(Refusal::Address),
        _ => Ok(()),
    }
}

/// Whether an m-line is audio that we can anchor.
pub(super) fn usable(media: &Media) -> Result<(), Refusal> {
    if !media.kind.eq_ignore_ascii_case("audio") || media.port == 0 {
        return Err(Refusal::NoAudio);
    }
    if !["RTP/AVP", "RTP/AVPF"].iter().any(|proto| media.proto.eq_ignore_ascii_case(proto)) {
        return Err(if media.proto.to_ascii_uppercase().contains("SAVP") {
            Refusal::SecureOnly
        } else {
            Refusal::Transport
        });
    }
    if media.port_count != 1 {
        return Err(Refusal::PortRange);
    }
    match media.connection {
        Connection::Multicast => Err(Refusal::Multicast),
        Connection::Unusable => Err(Refusal::Address),
        _ if !media.payloads.iter().any(|format| carries_sound(&format.codec)) => Err(Refusal::NoSharedCodec),
        _ => Ok(()),
    }
}
