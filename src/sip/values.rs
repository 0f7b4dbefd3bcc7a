//! Typed header values: the one home of rsip.
