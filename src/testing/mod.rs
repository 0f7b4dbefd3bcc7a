//! Simulated network and clock, scripted phones, tones and speech. The demo's phones live here too.
//!
//! All but [`driver`] is pure: `now` is an argument, datagrams are values. [`network::Network`] moves datagrams between
//! [`network::Node`]s in virtual time; [`driver`] moves them over real sockets on loopback.

pub mod disk;
pub mod driver;
pub mod ladder;
pub mod network;
pub mod phone;
pub mod speech;
pub mod tones;
