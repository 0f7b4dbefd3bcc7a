//! What the mixer threads count.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::raise;
use crate::runtime::mixer::{Counters, LATENESS_US};

/// How late phases began; the last one is beyond all bounds of [`LATENESS_US`].
const WITHIN: [&str; LATENESS_US.len() + 1] = ["250us", "500us", "1ms", "2ms", "5ms", "20ms", "more"];
/// What is left out to keep up, as in [`Counters::shed`].
const SHED: [&str; 4] = ["ticks", "stretch", "concealment", "meters"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Within {
    within: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct What {
    what: &'static str,
}

/// Metrics of all mixers together.
#[derive(Default)]
pub(super) struct Mixing {
    rooms: Gauge,
    members: Gauge,
    shedding: Gauge,
    packets: Counter,
    late: Counter,
    concealed: Counter,
    skipped: Counter,
    refused: Counter,
    dropped: Counter,
    shed: Family<What, Counter>,
    lateness: Family<Within, Counter>,
}

impl Mixing {
    pub fn register(registry: &mut Registry) -> Self {
        let made = Self::default();
        registry.register("mixer_rooms", "Open conferences", made.rooms.clone());
        registry.register("mixer_members", "Legs in conferences", made.members.clone());
        let help = "How many kinds of work the worst mixer leaves out to keep up, 0 to 5";
        registry.register("mixer_shedding", help, made.shedding.clone());
        registry.register("mixer_packets", "Packets made for members", made.packets.clone());
        registry.register("mixer_packets_late", "Packets too late to be heard", made.late.clone());
        registry.register("mixer_frames_concealed", "Frames in which loss was concealed", made.concealed.clone());
        registry.register("mixer_ticks_skipped", "Ticks of rooms left out 20 ms late", made.skipped.clone());
        registry.register("mixer_members_refused", "Members refused to keep up", made.refused.clone());
        let help = "Packets for media threads that found the ring full";
        registry.register("mixer_packets_dropped", help, made.dropped.clone());
        registry.register("mixer_shed", "Ticks of rooms without something, to keep up", made.shed.clone());
        registry.register("mixer_phases", "Phases by how late they began", made.lateness.clone());
        made
    }

    pub fn set(&self, mixers: &[Arc<Counters>]) {
        let sum = |of: &dyn Fn(&Counters) -> &AtomicU64| -> u64 {
            mixers.iter().map(|counters| of(counters).load(Relaxed)).sum()
        };
        self.rooms.set(sum(&|counters| &counters.rooms) as i64);
        self.members.set(sum(&|counters| &counters.members) as i64);
        let worst = mixers.iter().map(|counters| counters.shedding.load(Relaxed)).max().unwrap_or(0);
        self.shedding.set(worst as i64);
        raise(&self.packets, sum(&|counters| &counters.made));
        raise(&self.late, sum(&|counters| &counters.late));
        raise(&self.concealed, sum(&|counters| &counters.concealed));
        raise(&self.skipped, sum(&|counters| &counters.skipped));
        raise(&self.refused, sum(&|counters| &counters.refused));
        raise(&self.dropped, sum(&|counters| &counters.dropped));
        for (n, what) in SHED.into_iter().enumerate() {
            raise(&self.shed.get_or_create(&What { what }), sum(&|counters| &counters.shed[n]));
        }
        for (n, within) in WITHIN.into_iter().enumerate() {
            raise(&self.lateness.get_or_create(&Within { within }), sum(&|counters| &counters.lateness[n]));
        }
    }
}
