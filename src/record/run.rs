//! The steady state of a leg: packets that follow one another without loss, change or surprise. Their samples go to their
//! places at once; everything else that is to be known of them is worked out for many at a time, while it is in the cache.

use super::stream::Coding;
use super::tap::TapHeader;
use super::timeline::WINDOW_NS;

/// Packets that are noted before they are worked out: more than come between two commits.
const MAX_PACKETS: usize = 16;

/// A packet that comes further than this from where it is expected is looked at by itself: what disagrees by more than W is
/// for the timeline to judge, whose line may move a little meanwhile.
const SURPRISE_NS: i64 = WINDOW_NS / 2;

/// See the module.
#[derive(Debug, Default)]
pub struct Run {
    /// Of the next packet.
    ssrc: u32,
    /// Of the next packet.
    timestamp: u32,
    /// Of the next packet.
    sequence: u16,
    payload_type: u8,
    noted: u8,
    /// Of every packet's payload.
    bytes: u32,
    /// Of every packet; 0 while there is no run.
    samples: u32,
    /// Packets that may still come.
    room: u32,
    coding: Coding,
    /// Stream position of the next packet.
    position: i64,
    /// When the next packet should come.
    expected: i64,
    step_ns: i64,
    /// What comes before this arrival is read with an older table.
    since: i64,
    /// Index of the stream in its leg.
    pub stream: usize,
    /// Index of the track in its leg.
    pub track: usize,
    /// How much later each came than expected, in ns.
    late: [i32; MAX_PACKETS],
}

/// How a run begins: behind a packet that has been placed.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Indices of stream and track in the leg.
    pub stream: usize,
    /// See `stream`.
    pub track: usize,
    /// Samples of every packet.
    pub samples: u32,
    /// How they are coded.
    pub coding: Coding,
    /// Stream position behind the packet.
    pub position: i64,
    /// Time between two, in ns.
    pub step_ns: i64,
    /// Arrivals (ns) from which on its payload type means what it does.
    pub since: i64,
}

impl Run {
    /// A run behind this packet; [`Run::go_on`] says how far it may go.
    pub fn begin(&mut self, header: &TapHeader, bytes: usize, start: Start) {
        self.ssrc = header.ssrc;
        self.timestamp = header.timestamp.wrapping_add(start.samples);
        self.sequence = header.sequence.wrapping_add(1);
        self.payload_type = header.payload_type;
        self.noted = 0;
        self.bytes = bytes as u32;
        self.samples = start.samples;
        self.room = 0;
        self.coding = start.coding;
        self.position = start.position;
        self.step_ns = start.step_ns;
        self.since = start.since;
        (self.stream, self.track) = (start.stream, start.track);
    }

    /// It goes on for so many packets, the next of which should come when it is said here.
    pub fn go_on(&mut self, room: i64, expected: i64) {
        self.room = room.clamp(0, i64::from(u32::MAX)) as u32;
        self.expected = expected;
        self.noted = 0;
    }

    /// It is over.
    pub fn end(&mut self) {
        (self.samples, self.room, self.noted) = (0, 0, 0);
    }

    /// It has begun and is not over.
    pub fn is_on(&self) -> bool {
        self.samples > 0
    }

    /// As many have been noted as fit: they are to be worked out before another comes.
    pub fn is_full(&self) -> bool {
        usize::from(self.noted) == MAX_PACKETS
    }

    /// This packet is the next one.
    pub fn goes_on_with(&self, header: &TapHeader, arrival: i64, bytes: usize) -> bool {
        header.sequence == self.sequence
            && header.ssrc == self.ssrc
            && header.timestamp == self.timestamp
            && header.payload_type == self.payload_type
            && bytes == self.bytes as usize
            && self.room > 0
            && arrival >= self.since
            && (arrival - self.expected).abs() <= SURPRISE_NS
    }

    /// Notes the next packet. Where its samples belong, how many there are, and how they are coded.
    pub fn note(&mut self, arrival: i64) -> (i64, usize, Coding) {
        let place = (self.position, self.samples as usize, self.coding);
        self.late[usize::from(self.noted)] = (arrival - self.expected) as i32;
        self.noted += 1;
        self.room -= 1;
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(self.samples);
        self.position += i64::from(self.samples);
        self.expected += self.step_ns;
        place
    }

    /// Packets noted.
    pub fn noted(&self) -> u16 {
        u16::from(self.noted)
    }

    /// Samples of a packet.
    pub fn samples(&self) -> i64 {
        i64::from(self.samples)
    }

    /// The last packet's timestamp.
    pub fn last_timestamp(&self) -> u32 {
        self.timestamp.wrapping_sub(self.samples)
    }

    /// How they are coded.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Stream position behind the last packet.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Arrivals of the packets noted, in ns after the epoch.
    pub fn arrivals(&self) -> impl Iterator<Item = i64> + '_ {
        let first = self.expected - i64::from(self.noted) * self.step_ns;
        let late = self.late.iter().take(usize::from(self.noted)).zip(0_i64..);
        late.map(move |(late, n)| first + n * self.step_ns + i64::from(*late))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LegId;

    const MS: i64 = 1_000_000;

    fn header(sequence: u16, timestamp: u32) -> TapHeader {
        TapHeader {
            leg: LegId(1),
            arrival_ns: 0,
            timestamp,
            ssrc: 7,
            sequence,
            len: 160,
            payload_type: 8,
            marker: false,
        }
    }

    fn run(room: i64) -> Run {
        let start = Start {
            stream: 1,
            track: 2,
            samples: 160,
            coding: Coding::Alaw,
            position: -160,
            step_ns: 20 * MS,
            since: 900 * MS,
        };
        let mut run = Run::default();
        run.begin(&header(65_535, u32::MAX - 159), 160, start);
        run.go_on(room, 1_000 * MS);
        run
    }

    #[test]
    fn only_the_very_next_packet_goes_on_with_it() {
        let run = run(2);
        let (next, at) = (header(0, 0), 1_003 * MS);
        assert!(run.goes_on_with(&next, at, 160));
        assert!(!run.goes_on_with(&header(1, 0), at, 160));
        assert!(!run.goes_on_with(&header(0, 160), at, 160));
        assert!(!run.goes_on_with(&next, at, 80));
        assert!(!run.goes_on_with(&TapHeader { ssrc: 8, ..next }, at, 160));
        assert!(!run.goes_on_with(&TapHeader { payload_type: 0, ..next }, at, 160));
        assert!(!run.goes_on_with(&next, 899 * MS, 160), "an older table is in force");
        assert!(!run.goes_on_with(&next, 1_251 * MS, 160), "it is for the timeline to judge");
    }

    #[test]
    fn it_tells_places_and_arrivals_and_ends_where_the_room_ends() {
        let mut run = run(2);
        let arrivals = [1_003 * MS, 1_017 * MS];
        for (n, arrival) in arrivals.into_iter().enumerate() {
            assert!(run.goes_on_with(&header(n as u16, 160 * n as u32), arrival, 160));
            assert_eq!(run.note(arrival), (160 * n as i64 - 160, 160, Coding::Alaw));
        }
        assert!(!run.goes_on_with(&header(2, 320), 1_040 * MS, 160), "there is no more room");
        assert_eq!((run.noted(), run.position(), run.samples(), run.last_timestamp()), (2, 160, 160, 160));
        assert_eq!(run.arrivals().collect::<Vec<_>>(), arrivals);
        run.go_on(20, 1_041 * MS);
        for n in 0..16 {
            assert!(!run.is_full());
            assert_eq!(run.note(1_040 * MS + n * 20 * MS).0, 160 + 160 * n);
        }
        assert!(run.is_full() && run.goes_on_with(&header(18, 18 * 160), 1_361 * MS, 160));
        assert_eq!(run.arrivals().nth(15), Some(1_340 * MS));
        run.end();
        assert!(!run.is_on() && run.noted() == 0 && !run.goes_on_with(&header(18, 18 * 160), 1_361 * MS, 160));
    }
}
