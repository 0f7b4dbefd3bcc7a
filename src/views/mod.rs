//! Facts as the protocols of spec/events.md tell them. Nothing in a view decides anything of a call: the same facts, and
//! the same messages of drivers and agents, give the same events and requests.

pub mod interaction;
pub mod ivr;
pub mod telephony;
