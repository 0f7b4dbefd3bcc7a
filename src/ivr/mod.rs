//! The wire of the IVR driver interface (spec/events.md §2): frames over TCP, and the XML in them. Bytes in, values out;
//! sockets are [`crate::runtime::ivr`]'s.

pub mod frame;
pub mod message;
