//! One dialog's own description (spec/sip.md §2): our `o=` with a version that grows by one exactly when the body
//! changes, an m-line list that never shrinks, payload type numbers that are bound once.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::offer_answer::{self, Change, Format, Refusal, Terms, carries_sound};
use super::record::RecordState;
use super::session::{Media, Session};
use crate::codec::{Codec, Direction, Payload};

/// Packet duration where a peer names none, in ms (RFC 3551 §4.5).
const DEFAULT_PTIME: u16 = 20;
/// Packet durations that we send, in ms.
const PTIME_RANGE: (u16, u16) = (10, 120);

/// Both descriptions of a dialog taken together, from our side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Where the peer's description wants RTP; `None`: nowhere (null address).
    pub rtp: Option<SocketAddr>,
    /// Where it wants RTCP when it is not multiplexed.
    pub rtcp: Option<SocketAddr>,
    /// RTCP on the RTP port in both directions (RFC 5761).
    pub rtcp_mux: bool,
    /// Payload types that the peer may send to us (numbers of our description).
    pub receive: Vec<Payload>,
    /// Payload types that we may send to the peer (numbers of its description), codecs with sound first, then by the
    /// peer's preference.
    pub send: Vec<Payload>,
    /// The stream's direction from our side.
    pub direction: Direction,
    /// Packet duration that the peer wants from us in ms.
    pub ptime_ms: u8,
}

/// One dialog's own description. A fork's early dialog starts as a clone of the one that made the offer.
///
/// ```text
///            offer                        apply_answer (again on each later answer of one INVITE)
///  Idle ───────────────► Offered ───────────────────────────► Stable(we offered)
///   │                     ▲   │ offer_failed: as before the offer   │
///   │ answer        offer │   ▼                                     │
///   └───────────────────► Stable(we answered) ◄─────────────────────┘ answer
/// ```
/// RFC 3264 §4 (one offer at a time), §8 (a refused offer changes nothing). An `answer` while our offer is open
/// withdraws that offer; call control prevents it (491).
#[derive(Debug, Clone)]
pub struct Local {
    session_id: u64,
    address: SocketAddr,
    version: u64,
    /// The last body behind its `o=` line, to know whether the next one differs.
    written: Option<String>,
    bound: Vec<(u8, Codec)>,
    state: State,
    current: Description,
    /// The description before the open offer.
    before_offer: Option<Description>,
    theirs: Option<Session>,
    /// The peer's last description was its answer to ours.
    theirs_is_answer: bool,
    negotiated: Option<Negotiated>,
    /// What our next description says of the recording.
    record: Option<RecordState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Offered,
    Stable { we_offered: bool },
}

/// What we say.
#[derive(Debug, Clone, Default)]
struct Description {
    lines: Vec<Line>,
    /// Which line is the anchored audio.
    anchor: Option<usize>,
    terms: Option<Terms>,
    rtcp_mux: bool,
    /// What it says of the recording.
    record: Option<RecordState>,
}

/// An m-line without its port: ours when it is the anchor, else 0.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    kind: String,
    proto: String,
    /// The format list that a refused line repeats.
    formats: String,
}

impl Local {
    /// A dialog's description before anything was said. `address` is the RTP address that the peer is told (RTCP is on
    /// the next port); `session_id` is random and stays (RFC 8866 §5.2).
    pub fn new(address: SocketAddr, session_id: u64) -> Self {
        Self {
            session_id,
            address,
            version: 0,
            written: None,
            bound: Vec::new(),
            state: State::Idle,
            current: Description::default(),
            before_offer: None,
            theirs: None,
            theirs_is_answer: false,
            negotiated: None,
            record: None,
        }
    }

    /// The RTP address that the peer is told.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// True between [`Local::offer`] and its answer or failure.
    pub fn has_open_offer(&self) -> bool {
        self.state == State::Offered
    }

    /// What the last complete exchange gave; an open or failed offer does not change it.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_ref()
    }

    /// The peer's last description that was accepted.
    pub fn remote(&self) -> Option<&Session> {
        self.theirs.as_ref()
    }

    /// The terms of our last description (numbers of this dialog), an open offer included.
    pub fn terms(&self) -> Option<&Terms> {
        self.current.terms.as_ref()
    }

    /// What the peer shall know of the recording of its audio: our next offer or answer says so by `a=record`
    /// (RFC 7866 §7.1.1). `None`, as at first: nothing, for a peer that is not recording-aware.
    pub fn set_record(&mut self, record: Option<RecordState>) {
        self.record = record;
    }

    /// What [`Local::set_record`] was told last.
    pub fn record(&self) -> Option<RecordState> {
        self.record
    }

    /// What our last description says of the recording, an open offer included.
    pub fn said_record(&self) -> Option<RecordState> {
        self.current.record
    }

    /// True when the peer must be told by an offer of its own: what our last description says of the recording is not
    /// what it shall know. False before the first description is complete, which will say it; an open offer counts as
    /// said until it fails.
    pub fn is_record_due(&self) -> bool {
        self.negotiated.is_some() && self.current.record != self.record
    }

    /// Writes an offer that changes nothing but what [`Local::set_record`] has changed. `None` before the first
    /// description.
    pub fn offer_again(&mut self) -> Option<Bytes> {
        let terms = self.settled_terms()?.clone();
        Some(self.offer(&terms))
    }

    /// Writes an offer: the first one, or a new one within the dialog. The first audio line is the anchor, lines that
    /// were there before stay, with port 0.
    pub fn offer(&mut self, terms: &Terms) -> Bytes {
        if self.state != State::Offered {
            self.before_offer = Some(self.current.clone());
        }
        self.state = State::Offered;
        let anchor = self.current.anchor.unwrap_or_else(|| {
            self.current.lines.push(Line {
                kind: "audio".to_owned(),
                proto: "RTP/AVP".to_owned(),
                formats: String::new(),
            });
            self.current.lines.len() - 1
        });
        self.current.anchor = Some(anchor);
        let formats = self.bind(&terms.formats);
        self.current.terms = Some(Terms { formats, ..terms.clone() });
        self.write(self.current.lines.len())
    }

    /// The peer answered our offer. Also for a later answer to the same INVITE, which replaces the earlier one.
    pub fn apply_answer(&mut self, answer: &Session) -> Result<(), Refusal> {
        if !matches!(self.state, State::Offered | State::Stable { we_offered: true }) {
            return Err(Refusal::NoOffer);
        }
        let (Some(anchor), Some(terms)) = (self.current.anchor, &self.current.terms) else {
            return Err(Refusal::NoOffer);
        };
        let media = answer.media.get(anchor).ok_or(Refusal::NoAudio)?;
        offer_answer::usable(media)?;
        offer_answer::same_family(media, self.address.ip())?;
        let negotiated = negotiate(terms, media, media.rtcp_mux && self.current.rtcp_mux)?;
        self.current.rtcp_mux = negotiated.rtcp_mux;
        self.settle(answer, negotiated, true);
        Ok(())
    }

    /// The last exchange was the peer's offer and our answer: no answer of its is waited for, a 2xx may repeat one.
    pub fn has_answered(&self) -> bool {
        self.state == State::Stable { we_offered: false } && self.negotiated.is_some()
    }

    /// What of the peer's answer to our offer may be carried to another dialog: of its codecs those that we offered
    /// (RFC 3264 §6.1; some answer with more).
    pub fn answered_terms(&self, answer: &Session) -> Result<Terms, Refusal> {
        let terms = answer.terms()?;
        let Some(ours) = &self.current.terms else { return Err(Refusal::NoOffer) };
        let offered: Vec<Codec> = ours.codecs().cloned().collect();
        Ok(terms.restricted_to(&offered))
    }

    /// Our offer was refused or given up: everything is as before it (RFC 3264 §8).
    pub fn offer_failed(&mut self) {
        if let (State::Offered, Some(before)) = (self.state, self.before_offer.take()) {
            self.current = before;
            // A late answer to the offer that failed is not taken: the state before it counts.
            self.state = if self.negotiated.is_some() { State::Stable { we_offered: false } } else { State::Idle };
        }
    }

    /// Writes the answer to the peer's offer: the codecs of `terms` that the offer has, in the order of `terms`; the
    /// direction of `terms` as far as the offer allows it (RFC 3264 §6.1); other m-lines refused.
    ///
    /// `terms` is what the other leg answered, or terms of our own.
    pub fn answer(&mut self, offer: &Session, terms: &Terms) -> Result<Bytes, Refusal> {
        let anchor = offer.anchor()?;
        let media = &offer.media[anchor];
        offer_answer::same_family(media, self.address.ip())?;
        let mut formats = Vec::new();
        for wanted in &terms.formats {
            if let Some(offered) = media.payloads.iter().find(|offered| offered.codec == wanted.codec) {
                // The number of the offer, where this dialog has no other use for it (RFC 3264 §6.1).
                formats.push(Format { payload_type: offered.payload_type, ..wanted.clone() });
            }
        }
        if !formats.iter().any(|format| carries_sound(&format.codec)) {
            return Err(Refusal::NoSharedCodec);
        }
        let formats = self.bind(&formats);
        let direction = media.direction().reversed().and(terms.direction);
        let answer = Terms { formats, direction, ..terms.clone() };
        let negotiated = negotiate(&answer, media, media.rtcp_mux)?;
        self.offer_failed();
        for (index, media) in offer.media.iter().enumerate() {
            let line = Line { kind: media.kind.clone(), proto: media.proto.clone(), formats: media.formats.clone() };
            match self.current.lines.get_mut(index) {
                Some(known) => *known = line,
                None => self.current.lines.push(line),
            }
        }
        self.current.anchor = Some(anchor);
        self.current.rtcp_mux = media.rtcp_mux;
        self.current.terms = Some(answer);
        self.settle(offer, negotiated, false);
        // An answer has as many m-lines as its offer (RFC 3264 §6), even where a peer forgot earlier ones.
        Ok(self.write(offer.media.len()))
    }

    /// Answers an offer that only refreshes ([`Change::is_refresh`]), or any offer while this leg is not relayed, with
    /// what this dialog says already. Before the first description there is nothing to say: `NoSharedCodec`.
    pub fn answer_alone(&mut self, offer: &Session) -> Result<Bytes, Refusal> {
        let terms = self.settled_terms().cloned().ok_or(Refusal::NoSharedCodec)?;
        self.answer(offer, &terms)
    }

    /// How a new offer of the peer differs from its last description; `allowed` bounds the codecs that count, `None`:
    /// all (unrestricted pass). Everything is a change before the first description.
    pub fn compare(&self, offer: &Session, allowed: Option<&[Codec]>) -> Change {
        match &self.theirs {
            Some(last) => offer_answer::compare(last, offer, self.theirs_is_answer, allowed),
            None => Change { direction: true, codecs: true, media: true },
        }
    }

    fn settled_terms(&self) -> Option<&Terms> {
        match &self.before_offer {
            Some(before) if self.state == State::Offered => before.terms.as_ref(),
            _ => self.current.terms.as_ref(),
        }
    }

    fn settle(&mut self, theirs: &Session, negotiated: Negotiated, we_offered: bool) {
        self.state = State::Stable { we_offered };
        self.before_offer = None;
        self.theirs = Some(theirs.clone());
        self.theirs_is_answer = we_offered;
        self.negotiated = Some(negotiated);
    }

    /// Gives each format the number that its codec has in this dialog: the one bound before, else the wanted one if
    /// free, else a free dynamic one (RFC 3264 §8.3.2: a number is never bound again to another codec). Formats beyond
    /// the last free number are left out.
    fn bind(&mut self, formats: &[Format]) -> Vec<Format> {
        let mut result = Vec::with_capacity(formats.len());
        for format in formats {
            let known = self.bound.iter().find(|(_, codec)| *codec == format.codec).map(|(number, _)| *number);
            let Some(payload_type) = known.or_else(|| self.free_number(format)) else {
                continue;
            };
            if known.is_none() {
                self.bound.push((payload_type, format.codec.clone()));
            }
            result.push(Format { payload_type, ..format.clone() });
        }
        result
    }

    fn free_number(&self, format: &Format) -> Option<u8> {
        let free = |number: &u8| !self.bound.iter().any(|(taken, _)| taken == number);
        // A static number stands for its own codec only.
        let fits = |number: &u8| Codec::from_static(*number).is_none_or(|codec| codec == format.codec);
        Some(format.payload_type).filter(fits).filter(free).or_else(|| (96..128).chain(35..64).find(free))
    }

    /// Writes the present description with its first `count` lines.
    fn write(&mut self, count: usize) -> Bytes {
        self.current.record = self.record;
        let ip: IpAddr = self.address.ip();
        let place = format!("IN {} {ip}\r\n", if ip.is_ipv4() { "IP4" } else { "IP6" });
        let rest = self.compose(&place, count);
        if self.written.as_ref() != Some(&rest) {
            self.version += 1;
        }
        let mut body = String::with_capacity(rest.len() + place.len() + 64);
        // Writing to a String has no error to give, here and below.
        let _ = write!(body, "v=0\r\no=- {} {} {place}", self.session_id, self.version);
        body.push_str(&rest);
        self.written = Some(rest);
        body.into()
    }

    /// What comes behind `o=`.
    fn compose(&self, place: &str, count: usize) -> String {
        let mut out = String::with_capacity(384);
        out.push_str("s=-\r\nc=");
        out.push_str(place);
        out.push_str("t=0 0\r\n");
        for (index, line) in self.current.lines.iter().take(count).enumerate() {
            match &self.current.terms {
                Some(terms) if self.current.anchor == Some(index) => self.put_audio(&mut out, line, terms),
                _ => {
                    put_media(&mut out, line, 0);
                    // An m-line needs a format (RFC 8866 §5.14); the anchor of a withdrawn offer has none to repeat.
                    put(&mut out, if line.formats.is_empty() { "0" } else { &line.formats });
                    out.push_str("\r\n");
                }
            }
        }
        out
    }

    fn put_audio(&self, out: &mut String, line: &Line, terms: &Terms) {
        put_media(out, line, self.address.port());
        for (index, format) in terms.formats.iter().enumerate() {
            let _ = write!(out, "{}{}", if index == 0 { "" } else { " " }, format.payload_type);
        }
        out.push_str(if terms.formats.is_empty() { "0\r\n" } else { "\r\n" });
        for Format { payload_type, codec, fmtp } in &terms.formats {
            let _ = write!(out, "a=rtpmap:{payload_type} {codec}\r\n");
            if let Some(fmtp) = fmtp {
                let _ = write!(out, "a=fmtp:{payload_type} ");
                put_line(out, fmtp);
            }
        }
        for (name, value) in [("ptime", terms.ptime), ("maxptime", terms.maxptime)] {
            if let Some(value) = value {
                let _ = write!(out, "a={name}:{value}\r\n");
            }
        }
        if let Some(label) = &terms.label {
            out.push_str("a=label:");
            put_line(out, label);
        }
        for lang in &terms.lang {
            out.push_str("a=lang:");
            put_line(out, lang);
        }
        if self.current.rtcp_mux {
            out.push_str("a=rtcp-mux\r\n");
        }
        if let Some(record) = self.current.record {
            out.push_str("a=record:");
            put_line(out, record.as_str());
        }
        out.push_str("a=");
        put_line(out, direction_name(terms.direction));
    }
}

/// An m-line up to its formats.
fn put_media(out: &mut String, line: &Line, port: u16) {
    out.push_str("m=");
    put(out, &line.kind);
    let _ = write!(out, " {port} ");
    put(out, &line.proto);
    out.push(' ');
}

fn put_line(out: &mut String, text: &str) {
    put(out, text);
    out.push_str("\r\n");
}

/// What a peer has written, without what would end a line (RFC 8866 §5).
fn put(out: &mut String, text: &str) {
    let ends = |c: char| matches!(c, '\0' | '\r' | '\n');
    text.split(ends).for_each(|part| out.push_str(part));
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::SendRecv => "sendrecv",
        Direction::SendOnly => "sendonly",
        Direction::RecvOnly => "recvonly",
        Direction::Inactive => "inactive",
    }
}

/// Our terms (numbers of our description) and the peer's m-line together.
fn negotiate(ours: &Terms, theirs: &Media, rtcp_mux: bool) -> Result<Negotiated, Refusal> {
    let shared = |format: &&Format| ours.formats.iter().any(|own| own.codec == format.codec);
    let (mut send, rest): (Vec<&Format>, Vec<&Format>) =
        theirs.payloads.iter().filter(shared).partition(|format| carries_sound(&format.codec));
    if send.is_empty() {
        return Err(Refusal::NoSharedCodec);
    }
    send.extend(rest);
    let payload = |format: &Format| Payload { payload_type: format.payload_type, codec: format.codec.clone() };
    let (shortest, longest) = PTIME_RANGE;
    let ptime = theirs.ptime.or(theirs.maxptime.map(|max| max.min(DEFAULT_PTIME))).unwrap_or(DEFAULT_PTIME);
    Ok(Negotiated {
        rtp: theirs.rtp_address(),
        rtcp: theirs.rtcp_address(),
        rtcp_mux,
        receive: ours.formats.iter().map(payload).collect(),
        send: send.into_iter().map(payload).collect(),
        direction: ours.direction.and(theirs.direction().reversed()),
        // In range by the clamp: at most 120.
        ptime_ms: ptime.clamp(shortest, longest) as u8,
    })
}
