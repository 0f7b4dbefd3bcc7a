//! # stickytape: the map
//!
//! A call-recording media proxy for SIP and RTP. It is a B2BUA in the path of every call: it anchors the media and
//! writes what was said to WAV. A recording is *sticky*: it belongs to one leg and lives exactly as long as that leg
//! stays in the call.
//!
//! Decisions are pure, edges decide nothing. Every protocol machine takes bytes or messages and `now`, and returns
//! values; sockets, files, clocks and threads sit around them.
#![warn(missing_docs)]

pub mod clock;
pub mod codec;
pub mod id;

pub mod audio;
pub mod rtp;
pub mod sdp;
pub mod sip;

pub mod bridge;
pub mod record;

pub mod call;

pub mod api;
pub mod disk;
pub mod net;

pub mod runtime;

pub mod app;
pub mod cli;
pub mod config;

pub mod testing;
