//! Messages out of a byte stream: framed by Content-Length (RFC 3261 §18.3), with the keep-alives of RFC 5626 §4.4.1
//! between them.

use bytes::{Buf, Bytes, BytesMut};

use super::headers::unfold;
use super::name::Name;
use super::scan::{self, Fault, MAX_HEADERS, MAX_MESSAGE};

/// What stands next in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// One whole message, for [`super::message::Message::parse`].
    Message(Bytes),
    /// A double CRLF between messages: answer with one CRLF.
    Ping,
}

/// The stream cannot be framed any further: the connection is to be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct StreamError {
    /// What is wrong.
    pub fault: Fault,
    /// The header of a message whose Content-Length is wrong. Parsing it gives the same fault, and perhaps an answer to send
    /// before closing.
    pub head: Option<Bytes>,
}

/// Takes bytes as they arrive, gives whole messages. What it gives does not depend on where the bytes were split.
#[derive(Debug, Default)]
pub struct Stream {
    buf: BytesMut,
    /// Where the next header line of the unfinished message starts: what is before it has been looked at.
    at: usize,
    lines: usize,
    length: Option<u64>,
    /// End of the unfinished message, once its header is complete.
    end: Option<usize>,
    failed: Option<StreamError>,
}

impl Stream {
    /// An empty stream.
    pub fn new() -> Stream {
        Stream::default()
    }

    /// Adds bytes that have arrived.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Where a reader may append directly. Take out every frame between two reads, then it holds at most one message and
    /// one read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buf
    }

    /// Whether a message has begun and not ended: its sender owes us the rest.
    pub fn is_partial(&self) -> bool {
        scan::skip_line_ends(&self.buf) < self.buf.len()
    }

    /// The next frame; `None` until more bytes arrive. After an error it is always that error.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, StreamError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.at == 0
            && let Some(ready) = self.skip_between()
        {
            return Ok(ready);
        }
        match self.end.map_or_else(|| self.find_end(), |end| Ok(Some(end))) {
            Ok(Some(end)) if self.buf.len() >= end => {
                let message = self.buf.split_to(end).freeze();
                *self = Stream { buf: std::mem::take(&mut self.buf), ..Stream::default() };
                Ok(Some(Frame::Message(message)))
            }
            Ok(end) => {
                self.end = end;
                Ok(None)
            }
            Err(fault) => {
                let wrong_length = matches!(fault, Fault::ContentLength | Fault::ContentLengthConflict);
                let head = wrong_length.then(|| self.buf.split_to(self.at).freeze());
                self.buf.clear();
                let error = StreamError { fault, head };
                self.failed = Some(StreamError { head: None, ..error.clone() });
                Err(error)
            }
        }
    }

    /// Skips line ends between messages. `Some` when that settles the call: a ping, or nothing yet.
    fn skip_between(&mut self) -> Option<Option<Frame>> {
        const PING: &[u8] = b"\r\n\r\n";
        loop {
            match self.buf.first() {
                None => return Some(None),
                Some(b'\r' | b'\n') if self.buf.starts_with(PING) => {
                    self.buf.advance(PING.len());
                    return Some(Some(Frame::Ping));
                }
                // It may become a ping.
                Some(b'\r' | b'\n') if PING.starts_with(&self.buf) => return Some(None),
                Some(b'\r' | b'\n') => self.buf.advance(1),
                Some(_) => return None,
            }
        }
    }

    /// The end of the message at the front of the buffer, once its header is complete.
    fn find_end(&mut self) -> Result<Option<usize>, Fault> {
        loop {
            let line = match self.read_line() {
                Ok(line) => line,
                Err(Fault::NoBlankLine) if self.buf.len() <= MAX_MESSAGE => return Ok(None),
                Err(Fault::NoBlankLine) => return Err(Fault::TooLarge),
                Err(fault) => return Err(fault),
            };
            // A line that touches the end of the buffer may go on in a fold.
            if !line.text.is_empty() && self.at > 0 && line.next == self.buf.len() {
                return if self.buf.len() > MAX_MESSAGE { Err(Fault::TooLarge) } else { Ok(None) };
            }
            let header = self.at > 0;
            self.at = line.next;
            if self.at > MAX_MESSAGE {
                return Err(Fault::TooLarge);
            }
            if header && line.text.is_empty() {
                return self.end_of_body().map(Some);
            }
            if header {
                self.lines += 1;
                if self.lines > MAX_HEADERS {
                    return Err(Fault::TooManyHeaders);
                }
                self.note_length(line.text);
            }
        }
    }

    fn read_line(&self) -> Result<scan::Line, Fault> {
        if self.at == 0 { scan::start_line(&self.buf, 0) } else { scan::header_line(&self.buf, self.at) }
    }

    fn end_of_body(&self) -> Result<usize, Fault> {
        // The parser says in which way a length is wrong; here it is enough that there is no one length.
        let length = match self.length {
            None => return Err(Fault::ContentLengthMissing),
            Some(WRONG) => return Err(Fault::ContentLength),
            Some(CONFLICT) => return Err(Fault::ContentLengthConflict),
            Some(length) => length,
        };
        if length > (MAX_MESSAGE - self.at) as u64 {
            return Err(Fault::TooLarge);
        }
        // At most MAX_MESSAGE.
        Ok(self.at + length as usize)
    }

    /// Notes what a Content-Length line says. Lines that are malformed in another way are left to the parser.
    fn note_length(&mut self, line: std::ops::Range<usize>) {
        let Ok((name, value)) = scan::split_header(&self.buf, line) else {
            return;
        };
        if Name::parse(&self.buf[name]) != Name::ContentLength {
            return;
        }
        let said = scan::decimal(&unfold(&self.buf[value])).filter(|said| *said < CONFLICT).unwrap_or(WRONG);
        self.length = match self.length {
            None => Some(said),
            Some(before) if before == said => Some(said),
            Some(before) if before >= CONFLICT => Some(before),
            Some(_) if said == WRONG => Some(WRONG),
            Some(_) => Some(CONFLICT),
        };
    }
}

/// In the place of a length: a value that is no number, or too large to be one of a message.
const WRONG: u64 = u64::MAX;
/// In the place of a length: two values that differ.
const CONFLICT: u64 = u64::MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Message;

    const ONE: &str = "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP h\r\n fold\r\nl: 3\r\n\r\nabc";
    const TWO: &str = "SIP/2.0 200 OK\nContent-Length : 0\n\n";

    fn frames(stream: &mut Stream) -> Vec<Frame> {
        std::iter::from_fn(|| stream.next_frame().unwrap()).collect()
    }

    fn error(text: &str) -> StreamError {
        let mut stream = Stream::new();
        stream.extend(text.as_bytes());
        loop {
            match stream.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("an error: {text}"),
                Err(error) => {
                    assert_eq!(stream.next_frame().unwrap_err().fault, error.fault);
                    return error;
                }
            }
        }
    }

    #[test]
    fn frames_do_not_depend_on_where_the_bytes_are_split() {
        let wire = format!("\r\n\r\n{ONE}{TWO}\r\n\r\n\r\n{ONE}\n{TWO}");
        let message = |text: &str| Frame::Message(Bytes::copy_from_slice(text.as_bytes()));
        let expected = [Frame::Ping, message(ONE), message(TWO), Frame::Ping, message(ONE), message(TWO)];
        for first in 0..wire.len() {
            let mut stream = Stream::new();
            stream.extend(&wire.as_bytes()[..first]);
            let mut found = frames(&mut stream);
            stream.extend(&wire.as_bytes()[first..]);
            found.extend(frames(&mut stream));
            assert_eq!(found, expected, "split at {first}");
        }
        let mut stream = Stream::new();
        let drip = wire.bytes().flat_map(|byte| {
            stream.extend(&[byte]);
            frames(&mut stream)
        });
        assert_eq!(drip.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_message_that_has_begun_is_partial_and_a_keep_alive_is_not() {
        let mut stream = Stream::new();
        stream.extend(b"\r\n");
        assert!(frames(&mut stream).is_empty() && !stream.is_partial());
        stream.extend(&ONE.as_bytes()[..ONE.len() - 1]);
        assert!(frames(&mut stream).is_empty() && stream.is_partial());
        stream.extend(b"c");
        assert_eq!(frames(&mut stream).len(), 1);
        assert!(!stream.is_partial());
    }

    #[test]
    fn without_content_length_the_stream_ends() {
        assert_eq!(error(&ONE.replace("l: 3\r\n", "")), StreamError { fault: Fault::ContentLengthMissing, head: None });
    }

    #[test]
    fn a_wrong_content_length_ends_the_stream_and_leaves_the_head_to_answer() {
        for (lines, fault) in [
            ("l: -3", Fault::ContentLength),
            ("l: 3\r\nl: x", Fault::ContentLength),
            ("l: 3\r\nContent-Length: 4", Fault::ContentLengthConflict),
        ] {
            let error = error(&ONE.replace("l: 3", lines));
            assert_eq!(error.fault, fault, "{lines}");
            assert_eq!(Message::parse(&error.head.unwrap()).unwrap_err().fault, fault);
        }
    }

    #[test]
    fn everything_has_a_limit() {
        assert_eq!(error(&ONE.replace("l: 3", "l: 70000")).fault, Fault::TooLarge);
        assert_eq!(error(&format!("OPTIONS sip:a SIP/2.0\r\n{}", "A: b\r\n".repeat(300))).fault, Fault::TooManyHeaders);
        assert_eq!(error(&"x".repeat(9_000)).fault, Fault::LineTooLong);
        let long = format!("A: {}\r\n", "x".repeat(8_000));
        assert_eq!(error(&format!("OPTIONS sip:a SIP/2.0\r\n{}", long.repeat(9))).fault, Fault::TooLarge);
        assert_eq!(error("OPTIONS sip:a SIP/2.0\r\nA: b\rl: 3\r\n\r\n").fault, Fault::BareCr);
    }
}
