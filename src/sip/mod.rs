//! SIP without I/O: bytes → messages → transactions → dialogs → events (RFC 3261).

pub mod auth;
pub mod dialog;
pub mod endpoint;
pub mod message;
pub mod scan;
pub mod stream;
pub mod timers;
pub mod transaction;
pub mod values;
