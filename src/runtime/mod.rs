//! One file per thread or task; loops only.

pub mod agents;
pub mod event_log;
pub mod events;
pub mod http;
pub mod ivr;
pub mod levels;
pub mod log;
pub mod media;
pub mod metrics;
pub mod mixer;
pub mod realtime;
pub mod recorder;
pub mod ring;
pub mod shutdown;
pub mod signaling;
