//! Transactions (RFC 3261 §17 with RFC 6026): four state machines without messages. Each is told what came and which
//! timer fired, sets its timers, and says in a [`Step`] what to send and what to tell. The endpoint owns the messages.

pub mod client;
pub mod invite_client;
pub mod invite_server;
pub mod key;
pub mod server;

pub use client::Client;
pub use invite_client::InviteClient;
pub use invite_server::InviteServer;
pub use server::Server;

/// What one input to a machine results in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// What to send.
    pub send: Send,
    /// What the transaction's user is told.
    pub tell: Tell,
    /// True when the machine has terminated: forget it.
    pub over: bool,
}

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Send {
    /// Nothing.
    #[default]
    Nothing,
    /// A client's request; a server's last response.
    Message,
    /// The ACK for a failure (§17.1.1.3).
    Ack,
}

/// What the transaction's user is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tell {
    /// Nothing.
    #[default]
    Nothing,
    /// Client: the response is for the user. INVITE server: the ACK that came is for the user (RFC 6026 §8.7).
    Pass,
    /// Nothing came in time.
    Timeout,
    /// It could not be sent.
    Transport,
}

impl Step {
    /// Nothing to do.
    pub const NONE: Self = Self { send: Send::Nothing, tell: Tell::Nothing, over: false };
    /// Send the message (again).
    pub const SEND: Self = Self { send: Send::Message, ..Self::NONE };
    /// Tell the user what came.
    pub const PASS: Self = Self { tell: Tell::Pass, ..Self::NONE };
    /// Forget the machine.
    pub const OVER: Self = Self { over: true, ..Self::NONE };
    /// Tell the user that nothing came, and forget the machine.
    pub const TIMED_OUT: Self = Self { tell: Tell::Timeout, over: true, ..Self::NONE };
    /// Tell the user that it could not be sent, and forget the machine.
    pub const UNSENT: Self = Self { tell: Tell::Transport, over: true, ..Self::NONE };
}
