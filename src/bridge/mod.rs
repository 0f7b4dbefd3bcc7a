//! Joining the media of legs: relay, latch, route. Pure: a packet and `now` go in, a verdict comes out.

pub mod command;
