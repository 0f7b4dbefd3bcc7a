//! Call control: every decision about calls, as a pure machine.
//!
//! [`Calls`] owns the SIP endpoint and all calls. SIP messages, media and recorder notices go in by [`Calls::handle`];
//! SIP messages, media commands, recorder marks and facts come out by [`Calls::poll_output`], in the order in which they
//! must be carried out. Nothing here knows sockets, threads or files.

mod across;
mod announce;
mod answer;
mod arrival;
mod attempt;
mod bridge;
#[allow(clippy::module_inception, reason = "calls are the plural; one call is a call")]
mod call;
mod calls;
mod companions;
mod conference;
mod consult;
mod core;
mod dial;
mod digits;
mod directory;
mod early;
pub mod fact;
mod fetch;
mod focus;
mod headers;
mod join;
mod leave;
mod leg;
mod make;
mod mixing;
mod music;
mod offers;
mod on_request;
pub mod options;
mod outcome;
mod owners;
mod pairs;
mod peers;
mod policy;
mod ports;
mod rebridge;
mod recording;
mod refer;
mod registrar;
mod replaces;
pub mod request;
mod room;
mod second;
mod setup;
mod supervision;
mod talk;
mod transfer;
pub mod view;
mod waiting;

use std::net::IpAddr;
use std::sync::Arc;

pub use calls::Calls;
pub use peers::Reach;

use crate::bridge::command::{self, Command};
use crate::id::{MixerId, RecorderId, WorkerId};
use crate::record::mark::{self, Mark};
use crate::sip::endpoint;

/// What call control is told.
#[derive(Debug)]
pub enum Input {
    /// From the SIP sockets.
    Sip(endpoint::Input),
    /// From a media thread.
    Media(WorkerId, command::Notice),
    /// From a mixer thread.
    Mix(MixerId, command::mix::MixNotice),
    /// From a recorder thread.
    Record(RecorderId, mark::Notice),
    /// Whether the disk has room for new sessions. True until told otherwise.
    Space {
        /// It has.
        ok: bool,
    },
    /// Whether a recorder does not keep up with its marks: new calls are refused with 503. False until told otherwise.
    Congested(bool),
    /// Other DNs, trunks, routes and rooms; calls and rooms that are up keep theirs.
    Reload(Box<options::Plan>),
    /// The resolver's answer to [`Output::Resolve`]; empty when it failed.
    Resolved {
        /// The name asked for.
        host: Arc<str>,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
    /// A request from outside; answered by one [`Output::Answer`] with the same ticket.
    Request(request::Ticket, Box<request::Request>),
    /// A request of a DN that concerns no call yet; answered by one [`Output::DnAnswer`] with the same ticket.
    DnRequest(request::Ticket, Box<request::DnRequest>),
    /// Refuse new calls, end what is left after `drain-timeout`; answered by [`Output::Drained`].
    Drain,
    /// As [`Input::Drain`] with the time already over.
    HangUpAll,
    /// [`Calls::poll_timeout`] is due.
    Timeout,
}

/// What call control wants done, in order.
#[derive(Debug)]
pub enum Output {
    /// Send this; a failure comes back as [`endpoint::Input::Failed`].
    Sip(endpoint::Transmit),
    /// Tell a media thread.
    Media(WorkerId, Command),
    /// Tell a mixer thread.
    Mix(MixerId, command::mix::MixCommand),
    /// Tell a recorder thread.
    Mark(RecorderId, Mark),
    /// This happened.
    Fact(fact::Fact),
    /// Ask the system's resolver; answered by [`Input::Resolved`].
    Resolve {
        /// The name.
        host: Arc<str>,
    },
    /// The answer to [`Input::Request`].
    Answer(request::Ticket, Result<request::Accepted, request::Denied>),
    /// The answer to [`Input::DnRequest`].
    DnAnswer(request::Ticket, Result<(), request::Denied>),
    /// Draining, and no call and no request of ours is left. Once.
    Drained,
}

/// Why [`Calls::poll_timeout`] wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A SIP timer.
    Sip(crate::sip::timers::Reason),
    /// A call's timer: attempt, ring, glare.
    Call,
    /// Names are resolved again.
    Resolve,
    /// A registration ends.
    Registration,
    /// Ports are asked for again.
    Ports,
    /// The drain timeout.
    Drain,
}

/// The threads that call control commands, and what it needs of the process.
#[derive(Debug)]
pub struct Seats {
    /// Media threads, at least one.
    pub workers: Vec<WorkerId>,
    /// Mixer threads, at least one.
    pub mixers: Vec<MixerId>,
    /// Recorder threads, at least one.
    pub recorders: Vec<RecorderId>,
    /// The system's routing table.
    pub reach: Reach,
    /// Seeds every random value: tags, SSRCs, ids.
    pub seed: u64,
}

/// Totals since the process began and present levels, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Live calls.
    pub calls: usize,
    /// Running sessions: whose files do not exist yet, that record, and that are paused.
    pub recordings: [usize; 3],
    /// Port pairs ready to hand out.
    pub ports_ready: usize,
    /// Legs with media.
    pub legs: usize,
    /// SIP events and notices for calls that are over.
    pub stray: u64,
    /// Contacts that have registered.
    pub registrations: usize,
    /// Requests with a wrong user name or password.
    pub authentication_failures: u64,
    /// The SIP endpoint's totals.
    pub sip: endpoint::Counters,
    /// How full the SIP endpoint is.
    pub load: endpoint::Load,
}
