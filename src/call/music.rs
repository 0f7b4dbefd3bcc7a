//! Music in recordings (`hold-music`, spec/recording.md §2): what we play to an owner, and what a phone that holds it
//! plays, is recorded under a name of its own, with the role `system`, as long as the owner hears it.

use super::call::Call;
use super::core::Core;
use super::leg::{Leg, Plays};
use super::talk::Hears;
use crate::bridge::command::{Command, Tapping, played_payload};
use crate::codec::Payload;
use crate::id::{LegId, RecorderId};
use crate::record::mark::{Change, Channel, Member, Role};

/// The music at one leg.
#[derive(Debug, Default)]
pub(super) struct Music {
    /// What we play to it.
    played: Named,
    /// What its device plays while it holds.
    sent: Named,
}

/// Music with its name.
#[derive(Debug, Default)]
struct Named {
    /// Given when it is needed first.
    name: Option<LegId>,
    /// The recorders that get it now.
    recorders: Vec<RecorderId>,
    /// The recorders that have been told of the name, with what they were told.
    known: Vec<(RecorderId, Vec<Payload>)>,
}

impl Named {
    fn active(&self) -> Option<LegId> {
        self.name.filter(|_| !self.recorders.is_empty())
    }

    /// Its name, known to these recorders with these payload types.
    fn announce(&mut self, core: &mut Core, recorders: &[RecorderId], payloads: &[Payload]) -> LegId {
        let name = *self.name.get_or_insert_with(|| core.next_leg());
        for recorder in recorders {
            let known = self.known.iter_mut().find(|(known, _)| known == recorder);
            match known {
                Some((_, told)) if told == payloads => continue,
                Some((_, told)) => *told = payloads.to_vec(),
                None => self.known.push((*recorder, payloads.to_vec())),
            }
            core.mark(*recorder, Change::Payloads { leg: name, payloads: payloads.into() });
        }
        name
    }

    fn end(self, core: &mut Core) {
        let Some(name) = self.name else { return };
        for (recorder, _) in self.known {
            core.mark(recorder, Change::LegEnded(name));
        }
    }
}

impl Music {
    /// What its device sends has another name now.
    pub(super) fn interrupt(&mut self) {
        self.sent.recorders.clear();
    }

    /// What its device sends is recorded as music.
    pub(super) fn is_sent(&self) -> bool {
        self.sent.active().is_some()
    }

    pub(super) fn end(self, core: &mut Core) {
        self.played.end(core);
        self.sent.end(core);
    }
}

impl Leg {
    /// What we play to it is recorded there from now on.
    fn record_played(&mut self, core: &mut Core, recorders: Vec<RecorderId>) {
        if self.music.played.recorders == recorders {
            return;
        }
        let name = self.music.played.announce(core, &recorders, &[played_payload()]);
        self.music.played.recorders = recorders.clone();
        let tapping = (!recorders.is_empty()).then_some(Tapping { name, recorders });
        core.media(self.worker, Command::TapPlayback { leg: self.id, tapping });
    }

    /// What its device sends is music from now on, or is its own voice again.
    fn record_sent(&mut self, core: &mut Core, is_music: bool) {
        let is_music = is_music && self.recorded_as().is_none();
        let recorders = if is_music { self.taps().to_vec() } else { Vec::new() };
        if is_music {
            let payloads = self.payloads().to_vec();
            self.music.sent.announce(core, &recorders, &payloads);
        }
        let before = self.music.sent.active();
        self.music.sent.recorders = recorders;
        let name = self.music.sent.active();
        if name != before {
            let name = name.or(self.recorded_as());
            core.media(self.worker, Command::TapAs { leg: self.id, name });
        }
    }
}

impl Call {
    /// Makes what recorders get of music agree with who hears it.
    pub(super) fn settle_music(&mut self, core: &mut Core) {
        if !core.options.recording.hold_music {
            return;
        }
        for id in self.legs.iter().filter(|l| l.dialog.is_some()).map(|l| l.id).collect::<Vec<_>>() {
            let is_played = match self.hears(core, id) {
                Hears::Us(Plays::Hold) => core.options.media.hold_audio.is_some(),
                Hears::Us(Plays::Ringback) => true,
                _ => false,
            };
            let recorders = if is_played { self.recorders_of(id) } else { Vec::new() };
            let is_music = self.plays_to(core, id).is_some_and(|hearer| !self.recorders_of(hearer).is_empty());
            let Some(leg) = self.leg_mut(id) else { continue };
            leg.record_played(core, recorders);
            leg.record_sent(core, is_music);
        }
    }

    /// Who hears what a device plays while it holds.
    fn plays_to(&self, core: &Core, holder: LegId) -> Option<LegId> {
        let plays = self.leg(holder).is_some_and(|l| l.holds() && l.wants.sends());
        let hearer = self.other(holder).filter(|_| plays)?;
        (self.hears(core, hearer) == Hears::Leg(holder)).then_some(hearer)
    }

    /// The recorders of a leg's own sessions, those that have followed it from another call included.
    fn recorders_of(&self, owner: LegId) -> Vec<RecorderId> {
        let own = self.recording.sessions.iter().filter(|s| s.owner == owner).map(|s| s.recorder);
        let lent = self.lent.iter().flat_map(|lent| lent.recorders_of(owner)).copied();
        let mut recorders: Vec<RecorderId> = own.chain(lent).collect();
        recorders.sort();
        recorders.dedup();
        recorders
    }

    /// The music that an owner hears, as members of its conversation. On the channel that the owner does not have.
    pub(super) fn music_of(&self, owner: LegId) -> Vec<Member> {
        let Some(leg) = self.leg(owner) else { return Vec::new() };
        let channel = if leg.channel == Channel::Left { Channel::Right } else { Channel::Left };
        let sent = self.other(owner).and_then(|other| self.leg(other)).and_then(|l| l.music.sent.active());
        let member = |leg| Member {
            leg,
            dn: None,
            uri: String::new(),
            role: Role::System,
            channel,
            holds: false,
            held: false,
            muted: false,
        };
        leg.music.played.active().into_iter().chain(sent).map(member).collect()
    }
}
