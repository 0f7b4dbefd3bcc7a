//! Signals, drain, and the order of stopping.
