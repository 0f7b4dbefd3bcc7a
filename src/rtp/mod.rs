//! RTP and RTCP (RFC 3550, 3551, 4733).

pub mod packet;
pub mod rtcp;
pub mod seq;
pub mod source;
pub mod telephone_event;
pub mod view;

pub use view::{Header, Malformed};
