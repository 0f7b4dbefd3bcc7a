//! Telephone events (RFC 4733 §2.3): the payload only. Digits are secrets; nothing here prints them.

/// One event packet's payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// Event code: 0…9 digits, 10 star, 11 hash, 12…15 A…D, 16 flash.
    pub event: u8,
    /// The last packet of its event (sent up to three times).
    pub end: bool,
    /// Power level of a tone, 0…63, as −dBm0.
    pub volume: u8,
    /// Ticks since the event began, in units of the payload's clock.
    pub duration: u16,
}

impl TelephoneEvent {
    /// Bytes of an event.
    pub const LEN: usize = 4;

    /// Reads the first event of a payload; `None` when it is shorter than one.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = payload.first_chunk()?;
        Some(Self {
            event: bytes[0],
            end: bytes[1] & 0x80 != 0,
            volume: bytes[1] & 0x3f,
            duration: u16::from_be_bytes([bytes[2], bytes[3]]),
        })
    }

    /// The encoded event.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let [high, low] = self.duration.to_be_bytes();
        [self.event, self.volume & 0x3f | if self.end { 0x80 } else { 0 }, high, low]
    }
}

impl std::fmt::Debug for TelephoneEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TelephoneEvent(… end: {}, duration: {})", self.end, self.duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_back_and_never_prints_its_digit() {
        let event = TelephoneEvent { event: 7, end: true, volume: 10, duration: 1_280 };
        assert_eq!(event.encode(), [7, 0x8a, 5, 0]);
        assert_eq!(TelephoneEvent::parse(&event.encode()), Some(event));
        assert_eq!(TelephoneEvent::parse(&[7, 0x8a, 5]), None);
        assert!(!format!("{event:?}").contains('7'));
    }
}
