//! SIP without I/O: bytes → messages → transactions → dialogs → events (RFC 3261).

pub mod auth;
pub mod dialog;
mod digits;
pub mod endpoint;
pub mod fuzz;
pub mod headers;
pub mod message;
pub mod method;
pub mod name;
pub mod scan;
pub mod stream;
pub mod timers;
pub mod transaction;
pub mod values;
