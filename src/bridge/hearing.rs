//! Who hears whom: the mixer's rule (spec/recording.md §4.6), one pure function.
//!
//! | hears ↓ speaks → | member | supervisor mute | supervisor coach | supervisor connect |
//! |---|---|---|---|---|
//! | member (customer, agent, other) | yes | no | no | yes |
//! | supervised agent | yes | no | **yes** | yes |
//! | supervisor | yes | no | no | yes |
//!
//! Nobody hears himself. Who is muted is heard by nobody, who is deaf hears nobody.

use super::command::mix::{Hearing, Mode, Role};
use crate::id::LegId;

/// Who may hear a member's voice, leaving out himself and those who are deaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// All.
    Everybody,
    /// The supervised agent.
    Agent(LegId),
    /// Nobody.
    Nobody,
}

/// Who may hear a member.
pub fn audience(speaker: Hearing) -> Audience {
    match speaker.role {
        _ if speaker.muted => Audience::Nobody,
        Role::Member | Role::Supervisor { mode: Mode::Connect, .. } => Audience::Everybody,
        Role::Supervisor { mode: Mode::Coach, agent } => Audience::Agent(agent),
        Role::Supervisor { mode: Mode::Mute, .. } => Audience::Nobody,
    }
}

/// True when `listener` hears `speaker`.
pub fn hears(listener: (LegId, Hearing), speaker: (LegId, Hearing)) -> bool {
    let ((listener, hearing), (speaker, speaking)) = (listener, speaker);
    if listener == speaker || hearing.deaf {
        return false;
    }
    match audience(speaking) {
        Audience::Everybody => true,
        // An agent that observes somebody else meanwhile is no supervised agent.
        Audience::Agent(agent) => agent == listener && hearing.role == Role::Member,
        Audience::Nobody => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUSTOMER: LegId = LegId(1);
    const AGENT: LegId = LegId(2);
    const OTHER: LegId = LegId(3);
    const OTHER_AGENT: LegId = LegId(4);
    const MUTE: LegId = LegId(10);
    const COACH: LegId = LegId(11);
    const CONNECT: LegId = LegId(12);
    /// Coaches the other agent.
    const COACH_OF_OTHER: LegId = LegId(13);

    const EVERYBODY: [LegId; 8] = [CUSTOMER, AGENT, OTHER, OTHER_AGENT, MUTE, COACH, CONNECT, COACH_OF_OTHER];

    fn hearing(leg: LegId) -> Hearing {
        match leg {
            MUTE => Hearing::supervisor(Mode::Mute, AGENT),
            COACH => Hearing::supervisor(Mode::Coach, AGENT),
            CONNECT => Hearing::supervisor(Mode::Connect, AGENT),
            COACH_OF_OTHER => Hearing::supervisor(Mode::Coach, OTHER_AGENT),
            _ => Hearing::MEMBER,
        }
    }

    /// Rows hear columns, in the order of [`EVERYBODY`].
    const TABLE: [(LegId, &str); 8] = [
        (CUSTOMER, "-xxx..x."),
        (AGENT, "x-xx.xx."),
        (OTHER, "xx-x..x."),
        (OTHER_AGENT, "xxx-..xx"),
        (MUTE, "xxxx-.x."),
        (COACH, "xxxx.-x."),
        (CONNECT, "xxxx..-."),
        (COACH_OF_OTHER, "xxxx..x-"),
    ];

    #[test]
    fn every_cell_of_the_table_is_as_the_specification_says() {
        for (listener, row) in TABLE {
            for (speaker, cell) in EVERYBODY.into_iter().zip(row.chars()) {
                let heard = hears((listener, hearing(listener)), (speaker, hearing(speaker)));
                assert_eq!(heard, cell == 'x', "{listener} hears {speaker}");
            }
        }
    }

    #[test]
    fn who_is_muted_is_heard_by_nobody_and_hears_as_before() {
        for muted in EVERYBODY {
            let silenced = Hearing { muted: true, ..hearing(muted) };
            for other in EVERYBODY {
                assert!(!hears((other, hearing(other)), (muted, silenced)), "{other} hears {muted}");
                let before = hears((muted, hearing(muted)), (other, hearing(other)));
                assert_eq!(hears((muted, silenced), (other, hearing(other))), before);
            }
        }
    }

    #[test]
    fn who_is_deaf_hears_nobody_and_is_heard_as_before() {
        for deaf in EVERYBODY {
            let closed = Hearing { deaf: true, ..hearing(deaf) };
            for other in EVERYBODY {
                assert!(!hears((deaf, closed), (other, hearing(other))), "{deaf} hears {other}");
                let before = hears((other, hearing(other)), (deaf, hearing(deaf)));
                assert_eq!(hears((other, hearing(other)), (deaf, closed)), before);
            }
        }
    }

    #[test]
    fn a_coach_of_somebody_who_observes_himself_is_heard_by_nobody() {
        let coach = Hearing::supervisor(Mode::Coach, MUTE);
        assert!(EVERYBODY.iter().all(|leg| !hears((*leg, hearing(*leg)), (COACH, coach))));
    }
}
