//! # stickytape: the map
//!
//! stickytape is a call-recording media proxy for SIP and RTP: a B2BUA in the path of every call. It anchors the media
//! between the caller's device D1 and the called device D2 and writes what was said to WAV. A recording is **sticky**:
//! it belongs to one leg and lives exactly as long as that leg stays in the call.
//!
//! This page says where everything lives. Read it top down, then follow one of the walks.
//!
//! ## The idea
//!
//! **Decisions are pure; edges decide nothing.** Every protocol machine takes bytes or messages and `now`, and returns
//! values; sockets, files, clocks and threads sit around it. So a whole call, with loss, glare and time-outs, runs in a
//! test in microseconds of virtual time, and the same code runs in production.
//!
//! **The recorder never sees the call's logic, and the call never sees samples.** Between them stand two small things:
//! the *tap* ([`record::tap`]: encoded packets of one leg with their arrival time) and the *mark* ([`record::mark`]: who
//! is in the conversation, from which instant). `mixed.wav` is computed from what each party *said*, not from what
//! anybody was sent, so relay, hold, transfer and conference all record the same way.
//!
//! ## The layers
//!
//! | Layer | Modules | May use |
//! |---|---|---|
//! | 0 | [`id`], [`codec`], [`clock`] | std |
//! | 1 | [`audio`], [`rtp`], [`sdp`], [`sip`] | 0; never each other |
//! | 2 | [`bridge`] (rtp, audio) · [`record`] (rtp, audio) | 0–1; not each other |
//! | 3 | [`call`] (sip, sdp, the command, notice and mark types of bridge and record, and the samples of [`audio::signal`]) | 0–2 |
//! | 3 | [`views`] (the facts and requests of call) | 0, 3 |
//! | 4 | [`net`], [`disk`], [`api`], [`ivr`] | 0–3; not each other; of the views [`ivr`] and [`api`] use their own |
//! | 5 | [`runtime`] | 0–4 |
//! | 6 | [`app`], [`config`], [`cli`], `main` | all |
//! | – | [`testing`] | 0–4; in the program only the demo's phones use it |
//!
//! Layers 1 to 3 are pure: no tokio, sockets, files, threads, clocks or globals. Nobody but `app` and `cli` reads
//! [`config`]; each module owns its options type. `tests/tidy.rs` holds the code to this table.
//!
//! ## One shape for every machine
//!
//! `handle(input, now)`, then `poll_output()` until it says `None`, then `poll_timeout()` for the instant to wake and
//! its reason. The packet path is the exception: it returns its verdict at once, without queue or allocation.
//!
//! ## The threads
//!
//! | Thread | Owns | Feeds |
//! |---|---|---|
//! | tokio | SIP sockets, HTTP, IVR drivers, agents' desktops | the inbox of `signaling` |
//! | task `signaling` (one) | [`call::Calls`] and in it [`sip::endpoint`]: every decision | sockets, commands, marks |
//! | `media-0…n` | the RTP sockets of their legs, [`bridge`] | sockets, tap rings, notices |
//! | `mixer-0…n` | [`bridge::conference`]: packets of conference legs come by ring, mixed ones go back by ring | media threads, notices |
//! | `recorder-0…n` | [`record::recorder`]: the sessions of their calls | writer, notices |
//! | `writer-0…n` (one per recorder) | [`disk`]: open WAV files, `recording.json` | the disk, publisher |
//! | tokio task of [`runtime::events`] | the numbered events, kept for replay | subscribers, `event-log` |
//! | `event-log` | the file of events, one line each | the disk |
//! | publisher, `disk-sync`, `disk-space` (one each) | hashing and renaming; `syncfs`; free space | the disk, notices |
//!
//! Arrows go one way, media → recorder → disk: nothing downstream delays media. A full ring drops the recording's copy,
//! counts it, and the gap is silence of the exact length and a row in the metadata.
//!
//! ## The walks
//!
//! - **A SIP message:** [`net`] → [`runtime::signaling`] → [`sip::scan`] → [`sip::message`] → [`sip::transaction`] →
//!   [`sip::dialog`] → [`call`] → [`sdp::local`] with a port pair → a [`bridge::command`] to media, then the other leg →
//!   [`sip`] → [`net`].
//! - **An RTP packet:** [`net::udp`] → [`runtime::media`] → [`bridge`] (view → latch → source → route) → send → a copy to
//!   [`runtime::ring`] → [`runtime::recorder`] → [`record`] (timeline → track → mixdown) → [`disk::wav`].
//! - **An RTP packet that takes the short way** (`media.kernel-forwarding`): [`bridge::shortcut`] says what becomes of each packet
//!   of a steady stream → [`net::kernel`] → a BPF program sends it on and copies it → [`runtime::media`] accounts for it with
//!   [`bridge`], copies it to the recorders, and withdraws the shortcut before anything that could change it.
//! - **A request:** [`api::requests`] → [`call::request`] → the inbox of [`runtime::signaling`] → [`call`], which answers
//!   now; the outcome comes as facts → [`views`] → [`runtime::events`] → [`api`].
//! - **A transfer:** REFER or a request → [`call`] dials the target as it dials for any caller → one state says who hears
//!   whom → commands to media, a mark to the recorder, re-INVITEs where a description must change. Every flow only changes
//!   that state; what follows from it is in one place (`call/talk.rs`).
//! - **A conference:** a request, a REFER to the focus (`call/focus.rs`) or an INVITE to a room's number (`call/room.rs`) →
//!   [`call`] says who hears whom → a [`bridge::command`] to a mixer thread → [`bridge::conference`] mixes → packets go
//!   back to the media threads of the legs; recorders read the legs' taps as in any call.
//! - **A driver's message:** [`runtime::ivr`] → [`ivr::frame`] → [`ivr::message`] → [`views::ivr`] → a request, as above;
//!   every fact goes to [`views::ivr`] too, which tells all drivers what it means for their calls.
//! - **An agent's message:** [`api`] → [`runtime::agents`] → [`views::interaction`] → a request, as above; every fact goes to
//!   [`views::interaction`] too, which tells the agents concerned, and reporting through [`runtime::events`].
//! - **A recording:** [`call`] decides who owns → [`record::mark`] → [`record::session`] → [`disk::store`] publishes →
//!   [`record::verify`] proves.
//! - **An event:** [`call`] makes a fact → [`views::telephony`] tells it to each DN → [`runtime::events`] numbers and keeps
//!   it → subscribers, each from its own place, and [`runtime::event_log`].
//!
//! ## The invariants
//!
//! - The packet path takes no lock, allocates nothing and logs nothing (giving a stream to the kernel, once a stream, asks for
//!   a route and allocates); the recorder can never slow the media.
//! - A recording's files have exactly round((end − t0) · rate) frames, whatever arrived; gaps are silence and are listed.
//! - Every file on disk is valid at any instant; a crash loses at most a second, and start-up repairs and publishes.
//! - Every queue, table and list has a limit and a defined answer at the limit (503, a refusal, a counted drop).
//! - A leg belongs to exactly one media thread; exactly one thread sends on it, or the kernel what that thread would. A mixer makes packets and sends none: so
//!   SSRC, sequence, timestamps, digits and RTCP stay in one place, and going to and from the mix hands over nothing.
//! - Callers' numbers, names and digits reach logs only inside [`id::Redacted`].
//!
//! ## What comes next has its place
//!
//! The searchable library: `library/`. It has no stub today.
#![warn(missing_docs)]

pub mod clock;
pub mod codec;
pub mod id;

pub mod audio;
pub mod rtp;
pub mod sdp;
pub mod sip;

pub mod bridge;
pub mod record;

pub mod call;
pub mod views;

pub mod api;
pub mod disk;
pub mod ivr;
pub mod net;

pub mod runtime;

pub mod app;
pub mod cli;
pub mod config;

pub mod testing;
