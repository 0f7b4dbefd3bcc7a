//! Reads a session description (RFC 8866) into what offer and answer need of it, leniently: missing `s=` and `t=`,
//! unknown lines, LF line ends and bytes that are not UTF-8 are taken.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use super::offer_answer::Format;
use super::record::Preference;
use crate::codec::{Codec, Direction};

/// Longest body that is read, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// Most m-lines of one description.
pub const MAX_MEDIA: usize = 32;
/// Most payload types of one m-line.
pub const MAX_PAYLOADS: usize = 64;
/// Most `a=lang` values that are kept of one m-line.
const MAX_LANGUAGES: usize = 4;

/// Why a body is not a description that we read. Answered 400 or 488 by call control.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    /// Longer than [`MAX_BODY`].
    #[error("session description longer than 64 KiB")]
    TooLong,
    /// More than [`MAX_MEDIA`] m-lines.
    #[error("session description with more than 32 m-lines")]
    TooManyMedia,
    /// More than [`MAX_PAYLOADS`] payload types in an m-line.
    #[error("m-line with more than 64 payload types")]
    TooManyPayloads,
    /// Not SDP.
    #[error("malformed session description: {0}")]
    Malformed(String),
}

/// A peer's description, as far as we read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The m-lines in order, rejected ones included.
    pub media: Vec<Media>,
}

/// One m-line with its attributes; what stands on session level is already applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, … as written.
    pub kind: String,
    /// Port; 0: rejected or disabled.
    pub port: u16,
    /// Number of ports (`m=audio 5004/2`); 1 is the only one that we take.
    pub port_count: u16,
    /// `RTP/AVP`, … as written.
    pub proto: String,
    /// The format list as written.
    pub formats: String,
    /// The RTP payload types in order of preference whose codec is known by rtpmap or RFC 3551; none when the
    /// transport is not RTP.
    pub payloads: Vec<Format>,
    /// `a=ptime` in ms.
    pub ptime: Option<u16>,
    /// `a=maxptime` in ms.
    pub maxptime: Option<u16>,
    /// The direction as written (the m-line's, else the session's, else sendrecv). [`Media::direction`] also knows the
    /// old form of hold.
    pub written_direction: Direction,
    /// Where media goes.
    pub connection: Connection,
    /// `a=rtcp` (RFC 3605): port and, if given, address.
    pub rtcp: Option<(u16, Option<IpAddr>)>,
    /// `a=rtcp-mux` (RFC 5761).
    pub rtcp_mux: bool,
    /// `a=label` (RFC 4574).
    pub label: Option<String>,
    /// `a=lang`, in order of preference.
    pub lang: Vec<String>,
    /// `a=recordpref` (RFC 7866 §7.2), the session's where the m-line has none.
    pub record_preference: Option<Preference>,
    /// True when `a=crypto` or `a=fingerprint` applies to the m-line.
    pub has_crypto: bool,
}

/// The connection data that applies to an m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// A unicast address.
    Unicast(IpAddr),
    /// The null address (`0.0.0.0`, `::`, a name ending in `.invalid`): send nothing there (RFC 3264 §8.4).
    Null,
    /// A multicast address or an address range: refused.
    Multicast,
    /// Missing, a host name, or not the Internet: refused.
    Unusable,
}

impl Session {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, ParseError> {
        if body.len() > MAX_BODY {
            return Err(ParseError::TooLong);
        }
        let text = known_lines(body)?;
        let parsed =
            sdp_types::Session::parse(text.as_bytes()).map_err(|error| ParseError::Malformed(error.to_string()))?;
        let defaults = Defaults {
            direction: direction(&parsed.attributes),
            connection: parsed.connection.as_ref().map_or(Connection::Unusable, connection),
            lang: languages(&parsed.attributes),
            record_preference: record_preference(&parsed.attributes),
            has_crypto: has_crypto(&parsed.attributes),
        };
        let media = parsed.medias.iter().map(|media| Media::read(media, &defaults)).collect::<Result<_, _>>()?;
        Ok(Self { media })
    }
}

impl Media {
    fn read(media: &sdp_types::Media, defaults: &Defaults) -> Result<Self, ParseError> {
        let attributes = &media.attributes;
        let lang = languages(attributes);
        let rtp = media.proto.to_ascii_uppercase().contains("RTP/");
        Ok(Self {
            kind: media.media.clone(),
            port: media.port,
            port_count: media.num_ports.unwrap_or(1),
            proto: media.proto.clone(),
            formats: media.fmt.clone(),
            payloads: if rtp { payloads(&media.fmt, attributes)? } else { Vec::new() },
            ptime: number(attributes, "ptime"),
            maxptime: number(attributes, "maxptime"),
            written_direction: direction(attributes).or(defaults.direction).unwrap_or_default(),
            connection: media.connections.first().map_or(defaults.connection, connection),
            rtcp: value(attributes, "rtcp").and_then(rtcp),
            rtcp_mux: has(attributes, "rtcp-mux"),
            label: value(attributes, "label").map(str::to_owned),
            lang: if lang.is_empty() { defaults.lang.clone() } else { lang },
            record_preference: record_preference(attributes).or(defaults.record_preference),
            has_crypto: defaults.has_crypto || has_crypto(attributes),
        })
    }

    /// The direction with the old form of hold applied: the null address takes receiving away (RFC 3264 §8.4).
    pub fn direction(&self) -> Direction {
        match self.connection {
            Connection::Null => Direction::from_flags(self.written_direction.sends(), false),
            _ => self.written_direction,
        }
    }

    /// Where the peer wants RTP; `None` when it wants none.
    pub fn rtp_address(&self) -> Option<SocketAddr> {
        match self.connection {
            Connection::Unicast(address) if self.port != 0 => Some(SocketAddr::new(address, self.port)),
            _ => None,
        }
    }

    /// Where the peer wants RTCP when it is not multiplexed: `a=rtcp`, else the next port.
    pub fn rtcp_address(&self) -> Option<SocketAddr> {
        let rtp = self.rtp_address()?;
        match self.rtcp {
            Some((0, _)) => None,
            Some((port, address)) => Some(SocketAddr::new(address.unwrap_or(rtp.ip()), port)),
            None => Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?)),
        }
    }
}

/// What the session level says for m-lines that do not say otherwise.
struct Defaults {
    direction: Option<Direction>,
    connection: Connection,
    lang: Vec<String>,
    record_preference: Option<Preference>,
    has_crypto: bool,
}

/// Keeps the lines that we use. The others may be malformed in ways that must not cost the call: `o=` with a version
/// beyond 64 bits, repeated `t=`, Latin-1 names in `s=`.
fn known_lines(body: &[u8]) -> Result<String, ParseError> {
    let mut kept = String::with_capacity(body.len());
    let mut media = 0;
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if !matches!(line, [b'v' | b'c' | b'm' | b'a', b'=', ..]) {
            continue;
        }
        if line[0] == b'm' {
            media += 1;
            if media > MAX_MEDIA {
                return Err(ParseError::TooManyMedia);
            }
        }
        kept.push_str(&String::from_utf8_lossy(line));
        kept.push_str("\r\n");
    }
    Ok(kept)
}

fn value<'a>(attributes: &'a [sdp_types::Attribute], name: &str) -> Option<&'a str> {
    values(attributes, name).next()
}

fn values<'a>(attributes: &'a [sdp_types::Attribute], name: &str) -> impl Iterator<Item = &'a str> {
    attributes.iter().filter(move |a| a.attribute == name).filter_map(|a| a.value.as_deref()).map(str::trim)
}

fn has(attributes: &[sdp_types::Attribute], name: &str) -> bool {
    attributes.iter().any(|a| a.attribute == name)
}

fn has_crypto(attributes: &[sdp_types::Attribute]) -> bool {
    has(attributes, "crypto") || has(attributes, "fingerprint")
}

fn number(attributes: &[sdp_types::Attribute], name: &str) -> Option<u16> {
    // Some phones write "20.0".
    value(attributes, name)?.split('.').next()?.parse().ok().filter(|n| *n > 0)
}

fn languages(attributes: &[sdp_types::Attribute]) -> Vec<String> {
    values(attributes, "lang").take(MAX_LANGUAGES).map(str::to_owned).collect()
}

fn record_preference(attributes: &[sdp_types::Attribute]) -> Option<Preference> {
    value(attributes, "recordpref").and_then(Preference::parse)
}

/// The last direction attribute of a level; RFC 8866 §6.7 allows one.
fn direction(attributes: &[sdp_types::Attribute]) -> Option<Direction> {
    attributes.iter().rev().find_map(|a| match a.attribute.as_str() {
        "sendrecv" => Some(Direction::SendRecv),
        "sendonly" => Some(Direction::SendOnly),
        "recvonly" => Some(Direction::RecvOnly),
        "inactive" => Some(Direction::Inactive),
        _ => None,
    })
}

fn connection(line: &sdp_types::Connection) -> Connection {
    if line.nettype != sdp_types::NetType::In {
        return Connection::Unusable;
    }
    if line.connection_address.to_ascii_lowercase().trim_end_matches('.').ends_with(".invalid") {
        return Connection::Null;
    }
    let Ok(address) = line.try_address() else {
        return Connection::Unusable;
    };
    let ip = address.ip.to_canonical();
    if ip.is_multicast() || address.count.is_some_and(|count| count > 1) {
        Connection::Multicast
    } else if ip.is_unspecified() {
        Connection::Null
    } else {
        Connection::Unicast(ip)
    }
}

/// `53020`, or `53020 IN IP4 126.16.64.4`.
fn rtcp(text: &str) -> Option<(u16, Option<IpAddr>)> {
    let mut words = text.split_ascii_whitespace();
    let port = words.next()?.parse().ok()?;
    let address = words.nth(2).and_then(|word| word.parse::<IpAddr>().ok());
    Some((port, address.filter(|ip| !ip.is_multicast() && !ip.is_unspecified())))
}

fn payloads(formats: &str, attributes: &[sdp_types::Attribute]) -> Result<Vec<Format>, ParseError> {
    if formats.split_ascii_whitespace().count() > MAX_PAYLOADS {
        return Err(ParseError::TooManyPayloads);
    }
    let mut payloads: Vec<Format> = Vec::new();
    for word in formats.split_ascii_whitespace() {
        let Some(payload_type) = word.parse::<u8>().ok().filter(|n| *n < 128) else {
            continue;
        };
        if payloads.iter().any(|known| known.payload_type == payload_type) {
            continue;
        }
        let mapped = values(attributes, "rtpmap").find_map(|text| of_payload(text, payload_type)).and_then(rtpmap);
        if let Some(codec) = mapped.or_else(|| Codec::from_static(payload_type)) {
            let fmtp = values(attributes, "fmtp").find_map(|text| of_payload(text, payload_type));
            payloads.push(Format { payload_type, codec, fmtp: fmtp.map(str::to_owned) });
        }
    }
    Ok(payloads)
}

/// The rest of `<payload type> <rest>` when the number is the wanted one.
fn of_payload(text: &str, payload_type: u8) -> Option<&str> {
    let (number, rest) = text.split_once(|c: char| c.is_ascii_whitespace())?;
    (number.parse() == Ok(payload_type)).then_some(rest.trim())
}

/// `PCMU/8000`, `L16/8000/1`.
fn rtpmap(text: &str) -> Option<Codec> {
    let mut parts = text.split('/');
    let name = parts.next()?.trim();
    let clock_rate = parts.next()?.trim().parse().ok().filter(|rate| *rate > 0)?;
    let channels = match parts.next() {
        Some(channels) => channels.trim().parse().ok().filter(|n| *n > 0)?,
        None => 1,
    };
    let token = !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_graphic());
    token.then(|| Codec::new(name, clock_rate, channels))
}
