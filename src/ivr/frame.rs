//! One message per frame: `00 TYPE LENGTH LENGTH 02 00`, then so many bytes of body, the length big-endian.

/// Bytes before the body.
pub const HEADER: usize = 6;

/// The longest body that is read. A longer one is left out, and its sender is told.
pub const MAX_BODY: usize = 16_384;

/// A frame's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Is anybody there?
    KeepAliveRequest,
    /// Yes.
    KeepAliveAnswer,
    /// What came was not understood; the body says why.
    Error,
    /// A message.
    Xml,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::KeepAliveRequest,
            1 => Self::KeepAliveAnswer,
            2 => Self::Error,
            3 => Self::Xml,
            _ => return None,
        })
    }

    fn byte(self) -> u8 {
        match self {
            Self::KeepAliveRequest => 0,
            Self::KeepAliveAnswer => 1,
            Self::Error => 2,
            Self::Xml => 3,
        }
    }
}

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: Kind,
    /// Its body.
    pub body: Vec<u8>,
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The fixed bytes are others: where the next frame begins cannot be known.
    #[error("a frame begins with 00 TYPE LENGTH LENGTH 02 00: framing is lost")]
    Lost,
    /// A type that is not known; the frame was left out.
    #[error("frame type {0} is not known")]
    Kind(u8),
    /// A body longer than [`MAX_BODY`]; it was left out.
    #[error("a body of {0} bytes is longer than {MAX_BODY}")]
    TooLong(u16),
}

/// The bytes of a frame. A body longer than a length can say is cut: nothing of ours is.
pub fn encode(kind: Kind, body: &[u8]) -> Vec<u8> {
    let body = &body[..body.len().min(usize::from(u16::MAX))];
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(&[0x00, kind.byte()]);
    bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&[0x02, 0x00]);
    bytes.extend_from_slice(body);
    bytes
}

/// Cuts a stream into frames, however its bytes arrive. Holds at most one frame and what came with its end.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Bytes still to come of a body that is left out.
    skip: usize,
    lost: bool,
}

impl Decoder {
    /// Takes what has arrived; then ask [`Decoder::next_frame`] until it says `None`.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if self.lost {
            return;
        }
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        bytes = &bytes[skipped..];
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, or what is wrong with it; `None`: more bytes are needed.
    pub fn next_frame(&mut self) -> Option<Result<Frame, FrameError>> {
        if self.lost {
            return None;
        }
        let fixed = [(0, 0x00), (4, 0x02), (5, 0x00)];
        if fixed.iter().any(|(at, byte)| self.bytes.get(*at).is_some_and(|found| found != byte)) {
            self.lost = true;
            self.bytes = Vec::new();
            return Some(Err(FrameError::Lost));
        }
        let header: [u8; HEADER] = self.bytes.get(..HEADER)?.try_into().ok()?;
        let length = u16::from_be_bytes([header[2], header[3]]);
        let wrong = match Kind::of(header[1]) {
            None => Some(FrameError::Kind(header[1])),
            Some(_) if usize::from(length) > MAX_BODY => Some(FrameError::TooLong(length)),
            Some(_) => None,
        };
        let end = HEADER + usize::from(length);
        if let Some(wrong) = wrong {
            let here = end.min(self.bytes.len());
            self.bytes.drain(..here);
            self.skip = end - here;
            return Some(Err(wrong));
        }
        let body = self.bytes.get(HEADER..end)?.to_vec();
        self.bytes.drain(..end);
        Kind::of(header[1]).map(|kind| Ok(Frame { kind, body }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(decoder: &mut Decoder) -> Vec<Result<Frame, FrameError>> {
        std::iter::from_fn(|| decoder.next_frame()).collect()
    }

    fn xml(body: &[u8]) -> Result<Frame, FrameError> {
        Ok(Frame { kind: Kind::Xml, body: body.to_vec() })
    }

    #[test]
    fn a_frame_has_the_six_bytes_of_the_specification() {
        assert_eq!(encode(Kind::Xml, b"abc"), [0x00, 0x03, 0x00, 0x03, 0x02, 0x00, b'a', b'b', b'c']);
        assert_eq!(encode(Kind::KeepAliveRequest, b""), [0x00, 0x00, 0x00, 0x00, 0x02, 0x00]);
        assert_eq!(encode(Kind::KeepAliveAnswer, b"")[1], 1);
        assert_eq!(encode(Kind::Error, &[b'x'; 300])[1..4], [2, 0x01, 0x2c]);
    }

    #[test]
    fn frames_are_found_however_their_bytes_arrive() {
        let stream = [encode(Kind::Xml, b"first"), encode(Kind::KeepAliveAnswer, b""), encode(Kind::Xml, b"second")];
        let stream = stream.concat();
        let wanted = vec![xml(b"first"), Ok(Frame { kind: Kind::KeepAliveAnswer, body: vec![] }), xml(b"second")];
        for size in 1..=stream.len() {
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for part in stream.chunks(size) {
                decoder.push(part);
                found.extend(all(&mut decoder));
            }
            assert_eq!(found, wanted, "{size} bytes at a time");
        }
    }

    #[test]
    fn a_frame_of_an_unknown_type_or_too_long_is_left_out_and_the_next_one_is_found() {
        let mut unknown = encode(Kind::Xml, b"what");
        unknown[1] = 9;
        let long = encode(Kind::Xml, &vec![b'x'; MAX_BODY + 1]);
        for (wrong, error) in [(unknown, FrameError::Kind(9)), (long, FrameError::TooLong(MAX_BODY as u16 + 1))] {
            let stream = [wrong, encode(Kind::Xml, b"next")].concat();
            for size in [1, 7, stream.len()] {
                let mut decoder = Decoder::default();
                let mut found = Vec::new();
                for part in stream.chunks(size) {
                    decoder.push(part);
                    found.extend(all(&mut decoder));
                    assert!(decoder.bytes.len() <= stream.len().min(HEADER + MAX_BODY));
                }
                assert_eq!(found, [Err(error), xml(b"next")], "{size} bytes at a time");
            }
        }
    }

    #[test]
    fn the_longest_body_is_taken() {
        let mut decoder = Decoder::default();
        decoder.push(&encode(Kind::Xml, &vec![b'x'; MAX_BODY]));
        assert_eq!(all(&mut decoder), [xml(&vec![b'x'; MAX_BODY])]);
    }

    #[test]
    fn wrong_fixed_bytes_lose_the_framing_for_good_and_are_said_once() {
        for (at, byte) in [(0, 1), (4, 3), (5, 1)] {
            let mut bytes = encode(Kind::Xml, b"x");
            bytes[at] = byte;
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            assert_eq!(all(&mut decoder), [Err(FrameError::Lost)], "byte {at}");
            decoder.push(&encode(Kind::Xml, b"good"));
            assert_eq!(all(&mut decoder), []);
        }
        let mut decoder = Decoder::default();
        decoder.push(b"G");
        assert_eq!(all(&mut decoder), [Err(FrameError::Lost)], "at the first byte, without waiting for more");
    }
}
