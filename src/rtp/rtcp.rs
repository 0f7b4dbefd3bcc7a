//! RTCP of our own making, and the peer's read with limits (RFC 3550 §6). Nothing passes from leg to leg.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};

use super::view::Malformed;

/// Shortest mean interval between reports (RFC 3550 §6.2). Two participants never need a longer one.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// e − 3/2: compensates for timer reconsideration (§6.3.1).
const COMPENSATION: f64 = 1.218_28;
/// Longest compound that we send: SR with one block, SDES with a CNAME of 255 bytes, BYE.
pub const MAX_LEN: usize = 28 + 24 + 268 + 8;

const SR: u8 = 200;
const RR: u8 = 201;
const SDES: u8 = 202;
const BYE: u8 = 203;

/// What one source's receiver reports about it (§6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The source that it is about.
    pub ssrc: u32,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Lost since the beginning, 0…2²³−1 (a peer's negative count reads as 0).
    pub lost: u32,
    /// Highest sequence number received, with its cycles.
    pub highest_sequence: u32,
    /// Interarrival jitter in clock ticks.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the source's last SR; 0 when none came.
    pub last_sr: u32,
    /// Delay since that SR in 1/65,536 s.
    pub delay_since_last_sr: u32,
}

/// The sender's part of an SR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderInfo {
    /// NTP time: seconds since 1900 and 2⁻³² fractions.
    pub ntp: u64,
    /// The RTP timestamp of that instant.
    pub timestamp: u32,
    /// RTP packets sent.
    pub packets: u32,
    /// Their payload bytes.
    pub octets: u32,
}

/// One compound packet of ours.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// Our SSRC towards the peer.
    pub ssrc: u32,
    /// Present when we have sent RTP since the report before last: an SR, else an RR.
    pub sender: Option<SenderInfo>,
    /// About the peer's source.
    pub block: Option<ReportBlock>,
    /// Our CNAME; at most 255 bytes are sent.
    pub cname: &'a str,
    /// Ends with a BYE.
    pub bye: bool,
}

impl Report<'_> {
    /// Writes the compound packet and returns its length.
    pub fn write(&self, out: &mut [u8; MAX_LEN]) -> usize {
        let mut end = 0;
        let mut put = |bytes: &[u8]| {
            out[end..end + bytes.len()].copy_from_slice(bytes);
            end += bytes.len();
        };
        let blocks = u8::from(self.block.is_some());
        let words = 1 + if self.sender.is_some() { 5 } else { 0 } + 6 * u16::from(blocks);
        put(&head(blocks, if self.sender.is_some() { SR } else { RR }, words));
        put(&self.ssrc.to_be_bytes());
        if let Some(sender) = &self.sender {
            put(&sender.ntp.to_be_bytes());
            put(&sender.timestamp.to_be_bytes());
            put(&sender.packets.to_be_bytes());
            put(&sender.octets.to_be_bytes());
        }
        if let Some(block) = &self.block {
            put(&block.ssrc.to_be_bytes());
            put(&(u32::from(block.fraction_lost) << 24 | block.lost & 0xff_ffff).to_be_bytes());
            put(&block.highest_sequence.to_be_bytes());
            put(&block.jitter.to_be_bytes());
            put(&block.last_sr.to_be_bytes());
            put(&block.delay_since_last_sr.to_be_bytes());
        }
        let cname = &self.cname.as_bytes()[..self.cname.len().min(255)];
        // SSRC, item type, item length, text, and at least one zero byte up to a whole word.
        let chunk = (4 + 2 + cname.len() + 1).next_multiple_of(4);
        put(&head(1, SDES, (chunk / 4) as u16));
        put(&self.ssrc.to_be_bytes());
        put(&[1, cname.len() as u8]);
        put(cname);
        put(&[0; 4][..chunk - 6 - cname.len()]);
        if self.bye {
            put(&head(1, BYE, 1));
            put(&self.ssrc.to_be_bytes());
        }
        end
    }
}

fn head(count: u8, kind: u8, words: u16) -> [u8; 4] {
    let [high, low] = words.to_be_bytes();
    [0x80 | count, kind, high, low]
}

/// What a compound packet says, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// A sender report.
    Sender {
        /// Who sends it.
        ssrc: u32,
        /// Its sender info.
        info: SenderInfo,
    },
    /// A report block, of an SR or RR.
    Block(ReportBlock),
    /// A source says goodbye.
    Bye(u32),
}

/// A checked compound packet.
#[derive(Debug, Clone, Copy)]
pub struct Compound<'a> {
    bytes: &'a [u8],
    /// The sender's SSRC.
    pub ssrc: u32,
}

impl<'a> Compound<'a> {
    /// Checks a datagram (RFC 3550 A.2): version 2 throughout, an SR or RR first, no padding before the last packet,
    /// lengths that add up to the datagram's.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = datagram;
        let mut first = true;
        while !rest.is_empty() {
            let head: &[u8; 4] = rest.first_chunk().ok_or(Malformed::Short)?;
            if head[0] >> 6 != 2 {
                return Err(Malformed::Version(head[0] >> 6));
            }
            let len = 4 + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
            let body = rest.get(4..len).ok_or(Malformed::Short)?;
            if head[0] & 0x20 != 0 {
                let padding = usize::from(body.last().copied().unwrap_or(0));
                if first || rest.len() != len || padding == 0 || padding > body.len() {
                    return Err(Malformed::Padding);
                }
            }
            let least = 24 * usize::from(head[0] & 0x1f);
            match head[1] {
                SR if body.len() >= 24 + least => {}
                RR if body.len() >= 4 + least => {}
                SR | RR => return Err(Malformed::Short),
                _ if first => return Err(Malformed::Version(head[1])),
                _ => {}
            }
            first = false;
            rest = &rest[len..];
        }
        let ssrc = datagram.get(4..8).ok_or(Malformed::Short)?;
        Ok(Self { bytes: datagram, ssrc: word(ssrc, 0) })
    }

    /// Calls `see` with each item that we understand; others are skipped. Bounded by the datagram's length.
    pub fn for_each(&self, mut see: impl FnMut(Item)) {
        let mut rest = self.bytes;
        while let Some(head) = rest.first_chunk::<4>() {
            let len = 4 + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
            // `parse` has checked the lengths.
            let Some(body) = rest.get(4..len) else { return };
            let count = usize::from(head[0] & 0x1f);
            match head[1] {
                SR => {
                    let ntp = u64::from(word(body, 4)) << 32 | u64::from(word(body, 8));
                    let (timestamp, packets, octets) = (word(body, 12), word(body, 16), word(body, 20));
                    let info = SenderInfo { ntp, timestamp, packets, octets };
                    see(Item::Sender { ssrc: word(body, 0), info });
                    blocks(&body[24..], count, &mut see);
                }
                RR => blocks(&body[4..], count, &mut see),
                BYE => body.chunks_exact(4).take(count).for_each(|ssrc| see(Item::Bye(word(ssrc, 0)))),
                _ => {}
            }
            rest = &rest[len..];
        }
    }
}

fn blocks(bytes: &[u8], count: usize, see: &mut impl FnMut(Item)) {
    for block in bytes.chunks_exact(24).take(count) {
        let loss = word(block, 4);
        see(Item::Block(ReportBlock {
            ssrc: word(block, 0),
            fraction_lost: (loss >> 24) as u8,
            lost: if loss & 0x80_0000 != 0 { 0 } else { loss & 0x7f_ffff },
            highest_sequence: word(block, 8),
            jitter: word(block, 12),
            last_sr: word(block, 16),
            delay_since_last_sr: word(block, 20),
        }));
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// When the next report is due (§6.2, §6.3.1): 5 s on the average, randomised by half of it each way; the first one
/// after half that time.
pub fn next_report(now: Instant, first: bool, rng: &mut impl Rng) -> Instant {
    let mean = if first { MIN_INTERVAL / 2 } else { MIN_INTERVAL };
    now + mean.mul_f64(rng.random_range(0.5..1.5) / COMPENSATION)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const BLOCK: ReportBlock = ReportBlock {
        ssrc: 77,
        fraction_lost: 3,
        lost: 9,
        highest_sequence: 0x1_0005,
        jitter: 12,
        last_sr: 0x0102_0304,
        delay_since_last_sr: 65_536,
    };
    const INFO: SenderInfo = SenderInfo { ntp: 5 << 32 | 1 << 31, timestamp: 160, packets: 2, octets: 320 };

    fn items(datagram: &[u8]) -> Vec<Item> {
        let mut items = vec![];
        Compound::parse(datagram).unwrap().for_each(|item| items.push(item));
        items
    }

    #[test]
    fn our_reports_read_back() {
        let mut out = [0; MAX_LEN];
        let report = Report { ssrc: 5, sender: Some(INFO), block: Some(BLOCK), cname: "abc", bye: true };
        let len = report.write(&mut out);
        assert_eq!(items(&out[..len]), [Item::Sender { ssrc: 5, info: INFO }, Item::Block(BLOCK), Item::Bye(5)]);

        let report = Report { ssrc: 5, sender: None, block: None, cname: "abcdef", bye: false };
        let len = report.write(&mut out);
        assert_eq!(Compound::parse(&out[..len]).unwrap().ssrc, 5);
        assert_eq!(items(&out[..len]), []);
        // SDES (§6.5): one chunk, CNAME, closed by at least one zero byte, whole words.
        assert_eq!(out[8..len], *b"\x81\xca\x00\x04\x00\x00\x00\x05\x01\x06abcdef\x00\x00\x00\x00");
    }

    #[test]
    fn the_longest_report_fits_its_buffer() {
        let mut out = [0; MAX_LEN];
        let cname = "x".repeat(300);
        for cut in 250..=300 {
            let cname = &cname[..cut];
            let report = Report { ssrc: 5, sender: Some(INFO), block: Some(BLOCK), cname, bye: true };
            let len = report.write(&mut out);
            assert!(Compound::parse(&out[..len]).is_ok());
        }
    }

    #[test]
    fn what_is_not_a_compound_packet_is_refused() {
        let mut out = [0; MAX_LEN];
        let len = Report { ssrc: 5, sender: None, block: Some(BLOCK), cname: "a", bye: false }.write(&mut out);
        let good = &out[..len];
        assert!(Compound::parse(good).is_ok());
        for cut in 0..len {
            let whole_packets = cut == 32;
            assert_eq!(Compound::parse(&good[..cut]).is_ok(), whole_packets, "cut at {cut}");
        }
        assert!(Compound::parse(&good[32..]).is_err(), "an SDES first");
        let mut lies = good.to_vec();
        lies[0] = 0x82;
        assert_eq!(Compound::parse(&lies).err(), Some(Malformed::Short), "fewer blocks than it says");
        lies[0] = 0xa1;
        assert_eq!(Compound::parse(&lies).err(), Some(Malformed::Padding), "padding in the first packet");
    }

    #[test]
    fn a_negative_loss_count_reads_as_none() {
        let mut out = [0; MAX_LEN];
        let block = ReportBlock { lost: 0xff_ffff, ..BLOCK };
        let len = Report { ssrc: 5, sender: None, block: Some(block), cname: "a", bye: false }.write(&mut out);
        assert!(matches!(items(&out[..len])[0], Item::Block(ReportBlock { lost: 0, .. })));
    }

    #[test]
    fn intervals_are_spread_around_five_seconds_and_the_first_is_half() {
        let mut rng = StdRng::seed_from_u64(1);
        let now = crate::clock::now();
        for first in [true, false] {
            let all: Vec<f64> = (0..2_000).map(|_| (next_report(now, first, &mut rng) - now).as_secs_f64()).collect();
            let mean = if first { 2.5 } else { 5.0 } / COMPENSATION;
            assert!(all.iter().all(|s| (mean * 0.5..mean * 1.5).contains(s)));
            let average = all.iter().sum::<f64>() / all.len() as f64;
            assert!((average - mean).abs() < mean * 0.05);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut datagram in prop::collection::vec(any::<u8>(), 0..200), kind in 200_u8..205) {
            if let Some(head) = datagram.get_mut(..4) {
                head[0] = 0x80 | head[0] & 0x3f;
                head[1] = kind;
                head[2] = 0;
                head[3] &= 0x1f;
            }
            if let Ok(compound) = Compound::parse(&datagram) {
                compound.for_each(|_| {});
            }
        }
    }
}
