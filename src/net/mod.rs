//! Sockets: each file wraps one kind.

pub mod bind;
pub mod kernel;
pub mod reach;
pub mod route;
pub mod sip;
pub mod sip_tcp;
pub mod sip_udp;
pub mod udp;
