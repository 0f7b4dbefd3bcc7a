//! Who speaks (spec/recording.md §2): one pure function of a conversation and a leg.

use super::mark::{Conversation, Member, Role};
use crate::id::LegId;

/// Where a party's speech goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// To `mixed.wav`, and to its own file when it has one.
    Mixed,
    /// To its own file only: a supervisor.
    Own,
}

/// Whether and where a leg's speech is recorded while the conversation is as it is.
///
/// A party contributes if it is in the conversation, is not muted, and neither it nor we hold that connection; while
/// either side of a two-party call holds, both directions are silent. Audio that we play is no party: it is a member only
/// while the owner hears it.
pub fn speech(conversation: &Conversation, leg: LegId) -> Option<Speech> {
    let member = conversation.members.iter().find(|member| member.leg == leg)?;
    if member.muted || on_hold(member) {
        return None;
    }
    if member.role == Role::System {
        return Some(Speech::Mixed);
    }
    if conversation.unbridged {
        return None;
    }
    if member.role == Role::Supervisor {
        return Some(Speech::Own);
    }
    let mut parties = conversation.members.iter().filter(|m| is_party(m));
    let two_party = parties.clone().count() <= 2;
    (!two_party || !parties.any(on_hold)).then_some(Speech::Mixed)
}

/// True when a leg's speech enters `mixed.wav`.
pub fn speaks(conversation: &Conversation, leg: LegId) -> bool {
    speech(conversation, leg) == Some(Speech::Mixed)
}

/// Its connection is on hold, by it or by us.
pub fn on_hold(member: &Member) -> bool {
    member.holds || member.held
}

/// It takes part in the call itself.
fn is_party(member: &Member) -> bool {
    !matches!(member.role, Role::Supervisor | Role::System)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConnId;
    use crate::record::mark::Channel;

    fn member(leg: u64, role: Role, flags: &str) -> Member {
        Member {
            leg: LegId(leg),
            dn: None,
            uri: String::new(),
            role,
            channel: Channel::Left,
            holds: flags.contains('h'),
            held: flags.contains('u'),
            muted: flags.contains('m'),
        }
    }

    fn conversation(members: Vec<Member>) -> Conversation {
        Conversation { conn_id: ConnId(1), owner: LegId(1), members, consult: false, early: false, unbridged: false }
    }

    /// Members as "role flags": c customer, a agent, o observer, s system; h holds, u held by us, m muted. The result has a
    /// letter per member: M mixed, O own file, - nothing.
    #[test]
    fn the_table_of_who_speaks() {
        let table = [
            ("c a", "MM"),
            ("c", "M"),
            ("ch a", "--"),
            ("c ah", "--"),
            ("cu a", "--"),
            ("c au", "--"),
            ("cm a", "-M"),
            ("c am", "M-"),
            ("c a o", "MMO"),
            ("c a om", "MM-"),
            ("c a oh", "MM-"),
            ("ch a o", "--O"),
            ("c a a", "MMM"),
            ("ch a a", "-MM"),
            ("c au ah", "M--"),
            ("cm ah a", "--M"),
            ("ch a s", "--M"),
            ("c a sm", "MM-"),
            ("c ah o s", "--OM"),
        ];
        for (members, expected) in table {
            let members: Vec<Member> = members
                .split(' ')
                .enumerate()
                .map(|(i, text)| {
                    let role = match &text[..1] {
                        "c" => Role::Customer,
                        "a" => Role::Agent,
                        "o" => Role::Supervisor,
                        _ => Role::System,
                    };
                    member(i as u64 + 1, role, &text[1..])
                })
                .collect();
            let conversation = conversation(members);
            let found: String = (1..=conversation.members.len() as u64)
                .map(|leg| match speech(&conversation, LegId(leg)) {
                    Some(Speech::Mixed) => 'M',
                    Some(Speech::Own) => 'O',
                    None => '-',
                })
                .collect();
            assert_eq!(found, expected, "{:?}", conversation.members);
        }
    }

    #[test]
    fn a_leg_outside_of_the_conversation_never_speaks() {
        let conversation = conversation(vec![member(1, Role::Customer, ""), member(2, Role::Agent, "")]);
        assert!(speaks(&conversation, LegId(1)));
        assert!(!speaks(&conversation, LegId(3)));
    }

    #[test]
    fn while_nobody_is_bridged_nobody_speaks() {
        let mut conversation = conversation(vec![member(1, Role::Customer, ""), member(2, Role::Supervisor, "")]);
        conversation.unbridged = true;
        assert_eq!(speech(&conversation, LegId(1)), None);
        assert_eq!(speech(&conversation, LegId(2)), None);
        conversation.members.push(member(3, Role::System, ""));
        assert!(speaks(&conversation, LegId(3)), "the ringback that the owner hears is no party");
    }
}
