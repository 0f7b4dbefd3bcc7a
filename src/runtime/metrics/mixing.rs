//! What the mixer threads count.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};

use super::raise;
use crate::runtime::mixer::{Counters, LATENESS_US};

/// What is left out to keep up, as in [`Counters::shed`].
const SHED: [&str; 4] = ["ticks", "stretch", "concealment", "meters"];

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
    lateness: Lateness,
}

/// How late phases began: a histogram whose counts the mixer threads keep.
#[derive(Debug, Clone, Default)]
struct Lateness(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    counts: [AtomicU64; LATENESS_US.len() + 1],
    sum_us: AtomicU64,
}

impl TypedMetric for Lateness {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Lateness {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        let seconds = |us: u64| us as f64 / 1e6;
        // The last one is unbounded: this is how the encoder wants it said.
        let bounds = LATENESS_US.iter().map(|us| seconds(*us)).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.0.counts.iter().map(|count| count.load(Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(seconds(self.0.sum_us.load(Relaxed)), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
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
        let help = "How late the ticks of rooms began";
        registry.register_with_unit("mixer_lateness", help, Unit::Seconds, made.lateness.clone());
        made.set(&[]);
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
        for (n, count) in self.lateness.0.counts.iter().enumerate() {
            count.store(sum(&|counters| &counters.lateness[n]), Relaxed);
        }
        self.lateness.0.sum_us.store(sum(&|counters| &counters.late_us), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn lateness_is_a_histogram_with_bounds_in_seconds_down_to_fifty_microseconds() {
        let mut registry = Registry::default();
        let mixing = Mixing::register(&mut registry);
        let counters = [Arc::new(Counters::default()), Arc::new(Counters::default())];
        counters[0].lateness[0].store(5, Relaxed);
        let two_ms = LATENESS_US.iter().position(|bound| *bound == 2_000).unwrap();
        counters[1].lateness[two_ms].store(2, Relaxed);
        counters[1].lateness[LATENESS_US.len()].store(1, Relaxed);
        counters[1].late_us.store(30_500, Relaxed);
        mixing.set(&counters);
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        for line in [
            "# TYPE mixer_lateness_seconds histogram",
            "mixer_lateness_seconds_sum 0.0305",
            "mixer_lateness_seconds_count 8",
            "mixer_lateness_seconds_bucket{le=\"0.00025\"} 5",
            "mixer_lateness_seconds_bucket{le=\"0.001\"} 5",
            "mixer_lateness_seconds_bucket{le=\"0.002\"} 7",
            "mixer_lateness_seconds_bucket{le=\"0.016\"} 7",
            "mixer_lateness_seconds_bucket{le=\"+Inf\"} 8",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\nis not in\n{page}");
        }
    }
}
