//! Counters and gauges, read by /metrics.
