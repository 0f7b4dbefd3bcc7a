//! Call control: every decision about calls, as a pure machine.
//!
//! [`Calls`] owns the SIP endpoint and all calls. SIP messages, media and recorder notices go in by [`Calls::handle`];
//! SIP messages, media commands, recorder marks and facts come out by [`Calls::poll_output`], in the order in which they
//! must be carried out. Nothing here knows sockets, threads or files.

pub mod fact;
pub mod options;
pub mod view;
