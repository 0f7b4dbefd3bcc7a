//! What the media threads count while legs live, and how full the rings behind them are.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::{Reason, raise};
use crate::bridge::relay::Refusal;
use crate::runtime::media::Counters;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ring {
    to: &'static str,
}

/// Metrics of all media threads together.
#[derive(Default)]
pub(super) struct Media {
    datagrams: Family<Direction, Counter>,
    dropped: Family<Reason, Counter>,
    passes: Counter,
    passed: Counter,
    shortcuts: Gauge,
    fill: Family<Ring, Gauge<f64, AtomicU64>>,
}

impl Media {
    pub fn register(registry: &mut Registry) -> Self {
        let made = Self::default();
        let help = "RTP and RTCP datagrams of all legs, as they come and go";
        registry.register("media_datagrams", help, made.datagrams.clone());
        let help = "Datagrams, or copies of them, that were not taken, not sent or not handed on, by reason";
        registry.register("media_dropped", help, made.dropped.clone());
        let help = "Datagrams that the kernel sent on in a media thread's place; counted as received and sent too";
        registry.register("media_kernel_forwarded", help, made.passed.clone());
        let help = "Streams that the kernel sends on now";
        registry.register("media_kernel_streams", help, made.shortcuts.clone());
        registry.register("media_passes", "Times that a media thread has woken up", made.passes.clone());
        let help = "The fullest ring behind the media threads in the last second, by where it leads";
        registry.register_with_unit("ring_fill", help, Unit::Other("ratio".into()), made.fill.clone());
        made.rings(0, 0);
        made.threads(&[]);
        made
    }

    pub fn threads(&self, threads: &[Arc<Counters>]) {
        let sum = |of: &dyn Fn(&Counters) -> &AtomicU64| -> u64 {
            threads.iter().map(|counters| of(counters).load(Relaxed)).sum()
        };
        let datagrams = |direction, total| raise(&self.datagrams.get_or_create(&Direction { direction }), total);
        datagrams("received", sum(&|counters| &counters.received));
        datagrams("sent", sum(&|counters| &counters.sent));
        let dropped = |reason, total| raise(&self.dropped.get_or_create(&Reason { reason }), total);
        for (n, reason) in Refusal::LABELS.into_iter().enumerate() {
            dropped(reason, sum(&|counters| &counters.refused[n]));
        }
        dropped("not-sent", sum(&|counters| &counters.unsent));
        dropped("recorder-ring-full", sum(&|counters| &counters.untapped));
        dropped("mixer-ring-full", sum(&|counters| &counters.unmixed));
        raise(&self.passes, sum(&|counters| &counters.passes));
        raise(&self.passed, sum(&|counters| &counters.passed));
        self.shortcuts.set(sum(&|counters| &counters.shortcuts) as i64);
    }

    /// In thousandths.
    pub fn rings(&self, to_recorders: usize, to_mixers: usize) {
        for (to, permille) in [("recorder", to_recorders), ("mixer", to_mixers)] {
            self.fill.get_or_create(&Ring { to }).set(permille as f64 / 1_000.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn drops_of_all_threads_are_added_up_under_the_name_of_their_reason() {
        let mut registry = Registry::default();
        let media = Media::register(&mut registry);
        let threads = [Arc::new(Counters::default()), Arc::new(Counters::default())];
        for thread in &threads {
            thread.refused[Refusal::Source.index()].store(2, Relaxed);
            thread.refused[Refusal::PayloadType.index()].store(1, Relaxed);
        }
        threads[1].untapped.store(7, Relaxed);
        media.threads(&threads);
        media.rings(500, 0);
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        for line in [
            "media_dropped_total{reason=\"source\"} 4",
            "media_dropped_total{reason=\"payload-type\"} 2",
            "media_dropped_total{reason=\"codec\"} 0",
            "media_dropped_total{reason=\"recorder-ring-full\"} 7",
            "ring_fill_ratio{to=\"recorder\"} 0.5",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\nis not in\n{page}");
        }
    }
}
