//! The whole program in virtual time: calls, relays, mixers, recorders and a simulated disk, phones with tones.

#[path = "../whole/mod.rs"]
mod whole;

mod announced_audio;
mod consulted;
mod figures;
mod joined;
mod random;
mod rooms;
mod supervision;
