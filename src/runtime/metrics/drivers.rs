//! What IVR drivers send and are told.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Reason, raise};
use crate::runtime::ivr::Totals;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

/// Metrics of all IVR drivers together; all zero where no `[ivr]` is configured.
#[derive(Default)]
pub(super) struct Drivers {
    connected: Gauge,
    frames: Family<Direction, Counter>,
    errors: Family<Reason, Counter>,
}

impl Drivers {
    pub fn register(registry: &mut Registry) -> Self {
        let made = Self::default();
        registry.register("ivr_drivers", "IVR drivers that are connected", made.connected.clone());
        registry.register("ivr_frames", "Frames from and to IVR drivers, keep-alives too", made.frames.clone());
        let help = "Frames that could not be read, messages answered by CallError, drivers let go or refused";
        registry.register("ivr_errors", help, made.errors.clone());
        made.set(0, &Totals::default());
        made
    }

    pub fn set(&self, connected: usize, totals: &Totals) {
        self.connected.set(super::level(connected));
        let total = |counter: &AtomicU64| counter.load(Relaxed);
        for (direction, counter) in [("received", &totals.received), ("sent", &totals.sent)] {
            raise(&self.frames.get_or_create(&Direction { direction }), total(counter));
        }
        for (reason, counter) in [
            ("malformed", &totals.malformed),
            ("call-error", &totals.refused),
            ("slow", &totals.slow),
            ("full", &totals.full),
        ] {
            raise(&self.errors.get_or_create(&Reason { reason }), total(counter));
        }
    }
}
