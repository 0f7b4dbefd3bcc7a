//! The conference bridge in virtual time: who hears whom, loss, skew, jitter, codecs, levels, lateness.

mod hears;
mod playout;
mod rooms;
mod transition;
mod world;
