//! What signaling tells a mixer thread, and what a mixer thread tells signaling. Values only.
//!
//! A conference is set up in this order: [`MixCommand::Open`], a [`MixCommand::Join`] per member, then a
//! [`super::Command::Mix`] for each leg to the media thread that it lives on. It is dissolved by giving the legs their
//! routes (they take no effect while the mixer is heard), then [`MixCommand::Leave`] for each: its last packet fades
//! out, and the relay goes on behind it at once. The media thread stays the only one that sends on a leg.

use std::sync::Arc;
use std::time::Duration;

use super::Digit;
use crate::codec::Payload;
use crate::id::{LegId, MixerId, RoomId, WorkerId};

/// Members of one room (spec: 2 to 256 parties); one more is refused.
pub const MAX_MEMBERS: usize = 256;

/// How the media thread of a leg works together with a mixer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixing {
    /// Gets what the leg's peer sends. Routes from the leg stay in force beside it.
    pub mixer: MixerId,
    /// The leg's peer hears the mixer, and not who is routed to it, until the mixer's last packet for it. False: the
    /// mixer only gets a copy, as for members that mute supervisors overhear.
    pub listens: bool,
}

/// What a supervisor's voice reaches (spec/recording.md §4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nobody.
    Mute,
    /// The supervised agent.
    Coach,
    /// Everybody.
    Connect,
}

/// What a member is for the hearing rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Customer, agent or any other member: the rule treats them alike.
    Member,
    /// An observer.
    Supervisor {
        /// How.
        mode: Mode,
        /// The supervised agent's leg; it need not be in the same room.
        agent: LegId,
    },
}

/// Who a member is and whether it is silenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hearing {
    /// Its role.
    pub role: Role,
    /// Nobody hears it (`SetMuteOn`).
    pub muted: bool,
    /// It hears nobody (`ListenDisconnect`).
    pub deaf: bool,
}

impl Hearing {
    /// An ordinary member that speaks and hears.
    pub const MEMBER: Self = Self { role: Role::Member, muted: false, deaf: false };

    /// A supervisor that hears, in a mode.
    pub const fn supervisor(mode: Mode, agent: LegId) -> Self {
        Self { role: Role::Supervisor { mode, agent }, muted: false, deaf: false }
    }
}

/// What happens to digits that members send as telephone events. They are never mixed as tones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RoomDigits {
    /// Whoever hears the member gets the digit, as an event or a tone of its own.
    #[default]
    Pass,
    /// Signaling is told by [`MixNotice::Digit`], nobody else: a PIN, a menu.
    Tell,
    /// Both.
    Both,
}

/// A member to be.
#[derive(Debug, Clone)]
pub struct Join {
    /// The room.
    pub room: RoomId,
    /// The leg. When it is in another room of the same mixer it changes rooms without a gap.
    pub leg: LegId,
    /// The media thread that it lives on; when it moves, the mixer follows its packets.
    pub worker: WorkerId,
    /// Who it is.
    pub hearing: Hearing,
    /// The mixer makes what its peer hears; see [`Mixing::listens`].
    pub listens: bool,
    /// Payload types that its peer may send.
    pub receive: Vec<Payload>,
    /// Payload types that may be sent to its peer, most preferred first.
    pub send: Vec<Payload>,
}

/// From signaling to one mixer thread.
#[derive(Debug)]
pub enum MixCommand {
    /// A room begins, without members.
    Open {
        /// The room.
        room: RoomId,
        /// Rate that it is mixed at: 8,000, or 16,000 when wideband members shall hear each other so.
        sample_rate: u32,
        /// What happens to digits.
        digits: RoomDigits,
    },
    /// A member joins. Answered by [`MixNotice::Joined`] or [`MixNotice::Refused`].
    Join(Box<Join>),
    /// Its mode, mute or deafness changes.
    Hearing {
        /// The leg.
        leg: LegId,
        /// From now on.
        hearing: Hearing,
    },
    /// The mixer begins or ends to make what the leg's peer hears. It ends with a last packet that fades out, behind
    /// which the media thread goes back to the leg's route by itself.
    Listen {
        /// The leg.
        leg: LegId,
        /// From now on.
        listens: bool,
    },
    /// The leg's description changed.
    Describe {
        /// The leg.
        leg: LegId,
        /// Payload types that its peer may send.
        receive: Vec<Payload>,
        /// Payload types that may be sent to its peer, most preferred first.
        send: Vec<Payload>,
    },
    /// Something that we play, heard besides those who speak; it replaces what was played there before.
    Play {
        /// The room.
        room: RoomId,
        /// Who hears it; `None`: all.
        to: Option<LegId>,
        /// What.
        what: Announcement,
    },
    /// A member leaves. Answered by [`MixNotice::Left`].
    Leave {
        /// The leg.
        leg: LegId,
    },
    /// The room ends; members still in it leave.
    Close {
        /// The room.
        room: RoomId,
    },
    /// Stop the thread.
    Shutdown,
}

/// What is played to a room or a member.
#[derive(Debug, Clone)]
pub enum Announcement {
    /// Nothing any more.
    None,
    /// Mono samples at 8,000 Hz.
    Samples {
        /// The samples.
        samples: Arc<[i16]>,
        /// Starts again at its end.
        repeat: bool,
    },
}

/// From a mixer thread to signaling.
#[derive(Debug)]
pub enum MixNotice {
    /// The leg is mixed from now on.
    Joined {
        /// The room.
        room: RoomId,
        /// The leg.
        leg: LegId,
    },
    /// The leg was not taken.
    Refused {
        /// The room.
        room: RoomId,
        /// The leg.
        leg: LegId,
        /// Why.
        why: JoinError,
    },
    /// The leg is gone, with its last counters.
    Left {
        /// The room.
        room: RoomId,
        /// The leg.
        leg: LegId,
        /// Totals.
        stats: MixStats,
    },
    /// An announcement has come to its end.
    Played {
        /// The room.
        room: RoomId,
        /// Who heard it; `None`: all.
        to: Option<LegId>,
    },
    /// A member has pressed a digit ([`RoomDigits::Tell`]). Once, at the digit's end.
    Digit {
        /// The room.
        room: RoomId,
        /// The leg whose peer pressed it.
        leg: LegId,
        /// Which.
        digit: Digit,
        /// How long.
        length: Duration,
    },
    /// Counters of a member, about once a second.
    Stats {
        /// The leg.
        leg: LegId,
        /// Totals since it joined.
        stats: MixStats,
    },
    /// The room is gone.
    Closed {
        /// The room.
        room: RoomId,
    },
}

/// Why a member was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The room is not open.
    #[error("the room does not exist")]
    NoRoom,
    /// [`MAX_MEMBERS`] are in it, or the mixer has all the members that it takes.
    #[error("no room for another member")]
    Full,
    /// The mixer does not keep up and takes nobody for now.
    #[error("the mixer is overloaded")]
    Overload,
    /// It takes or sends no codec that is mixed: PCMU, PCMA, L16 at 8,000 or 16,000 Hz, mono.
    #[error("no codec that is mixed: PCMU, PCMA, or L16 at 8,000 or 16,000 Hz, mono")]
    Codec,
}

/// Counters of one member since it joined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MixStats {
    /// Packets that came in time or early.
    pub received: u64,
    /// Packets that came too late to be heard, or twice.
    pub late: u64,
    /// Packets that the playout buffer had no place for.
    pub overflowed: u64,
    /// Packets that were made for it.
    pub sent: u64,
    /// Frames of 20 ms in which loss was concealed, wholly or in part.
    pub concealed: u64,
    /// Frames that were stretched or shortened.
    pub stretched: u64,
    /// Present playout delay in ms, the packet's own length included.
    pub delay_ms: u32,
    /// Largest sample of the last second, 0…32,768.
    pub peak: u16,
}
