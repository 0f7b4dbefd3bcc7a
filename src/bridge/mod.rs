//! Joining the media of legs: relay, latch, route. Pure: a packet and `now` go in, a verdict comes out.

mod beep;
pub mod command;
pub mod conference;
pub mod hearing;
mod latch;
mod leg;
mod outgoing;
mod playback;
mod press;
mod recode;
pub mod relay;
mod route;
pub mod shortcut;
mod timers;
mod tone;
mod waiting;
mod watchdog;

pub use relay::Relay;
