//! Sockets: each file wraps one kind.

pub mod bind;
pub mod reach;
pub mod sip;
pub mod sip_tcp;
pub mod sip_udp;
pub mod udp;
