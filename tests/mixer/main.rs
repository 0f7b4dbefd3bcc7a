//! The conference bridge in virtual time: who hears whom, loss, skew, jitter, codecs, levels, lateness, memory.

mod hears;
mod memory;
mod playout;
mod rooms;
mod transition;
mod world;
