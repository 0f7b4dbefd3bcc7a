//! Facts as the protocols of spec/events.md tell them. Nothing in a view decides anything: the same facts give the same
//! events.

pub mod ivr;
pub mod telephony;
