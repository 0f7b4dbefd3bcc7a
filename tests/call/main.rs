//! Calls in virtual time: scripted phones, a lossy network, every decision.

#[path = "../call_world/mod.rs"]
mod call_world;
#[path = "../interaction_support/mod.rs"]
mod interaction_support;
#[path = "../views_support/mod.rs"]
mod views_support;

mod announce;
mod answer;
mod basic;
mod branches;
mod companions;
mod conference;
mod consult;
mod contract;
mod digits;
mod edges;
mod focus;
mod glare;
mod headers;
mod interaction;
mod ivr;
mod make;
mod monitor;
mod offers;
mod random;
mod recordings;
mod registrations;
mod replaces;
mod restored;
mod room_members;
mod rooms;
mod sequences;
mod storm;
mod transfer;
mod views;
