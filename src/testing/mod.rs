//! Simulated network and clock, scripted phones, tones. The demo's phones live here too.

pub mod ladder;
pub mod network;
pub mod phone;
pub mod tones;
