//! Dialogs found by their identifiers as a header field names them: Replaces (RFC 3891), Join (RFC 3911), Target-Dialog
//! (RFC 4538).

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Endpoint;
use super::api::DialogId;
use crate::id::IdMap;
use crate::sip::dialog::{DialogKey, State};
use crate::sip::values::{Join, Replaces, TargetDialog};

/// How long a dialog is known as ended: as long as a request about it may be under way (64·T1 of RFC 3261).
const REMEMBERED: Duration = Duration::from_secs(32);
/// Most ended dialogs that are known; of further ones the oldest are forgotten and count as never known.
const MAX_ENDED: usize = 65_536;

/// A dialog that [`Endpoint::find_dialog`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Its INVITE is not answered.
    Early {
        /// The dialog.
        dialog: DialogId,
        /// We sent its INVITE.
        is_ours: bool,
    },
    /// Its INVITE is answered 2xx.
    Confirmed {
        /// The dialog.
        dialog: DialogId,
        /// We sent its INVITE.
        is_ours: bool,
    },
    /// A BYE was sent or received, or its INVITE has failed, less than 32 s ago.
    Ended,
}

/// Why an INVITE with Replaces replaces nothing (RFC 3891 §3), or one with Join joins nothing (RFC 3911 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReplaced {
    /// No dialog, more than one, or an early one whose INVITE we did not send.
    #[error("no such dialog")]
    NoDialog,
    /// `early-only`, and the dialog is confirmed.
    #[error("the dialog is answered")]
    Answered,
    /// The dialog has ended.
    #[error("the dialog has ended")]
    Ended,
}

impl NotReplaced {
    /// The status code of the refusal.
    pub fn code(self) -> u16 {
        match self {
            Self::NoDialog => 481,
            Self::Answered => 486,
            Self::Ended => 603,
        }
    }
}

impl Endpoint {
    /// The dialog with this Call-ID, our tag and the peer's, byte by byte; the tag `0` also stands for none (RFC 2543
    /// peers, RFC 3891 §6.1). `None`: no dialog that an INVITE has made, or two that differ in no more than that.
    pub fn find_dialog(&self, call_id: &[u8], local_tag: &[u8], remote_tag: &[u8], now: Instant) -> Option<Found> {
        let key = |remote_tag: &[u8]| DialogKey {
            call_id: Bytes::copy_from_slice(call_id),
            local_tag: Bytes::copy_from_slice(local_tag),
            remote_tag: Bytes::copy_from_slice(remote_tag),
        };
        if !matches!(remote_tag, b"" | b"0") {
            return self.find_key(&key(remote_tag), now);
        }
        match (self.find_key(&key(b""), now), self.find_key(&key(b"0"), now)) {
            (Some(_), Some(_)) => None,
            (one, other) => one.or(other),
        }
    }

    /// The dialog that an INVITE with this Replaces takes over, and whether it is early (RFC 3891 §3). Who may do so is
    /// the caller's to decide.
    ///
    /// # Errors
    /// [`NotReplaced`], with the status code of the refusal.
    pub fn find_replaced(&self, replaces: &Replaces, now: Instant) -> Result<(DialogId, State), NotReplaced> {
        match self.find_dialog(&replaces.call_id, &replaces.to_tag, &replaces.from_tag, now) {
            None | Some(Found::Early { is_ours: false, .. }) => Err(NotReplaced::NoDialog),
            Some(Found::Ended) => Err(NotReplaced::Ended),
            Some(Found::Confirmed { .. }) if replaces.early_only => Err(NotReplaced::Answered),
            Some(Found::Early { dialog, .. }) => Ok((dialog, State::Early)),
            Some(Found::Confirmed { dialog, .. }) => Ok((dialog, State::Confirmed)),
        }
    }

    /// The answered dialog that an INVITE with this Join names (RFC 3911 §4). An early one is none: nobody talks in it yet.
    /// Who may do so is the caller's to decide.
    ///
    /// # Errors
    /// [`NotReplaced`], with the status code of the refusal.
    pub fn find_joined(&self, join: &Join, now: Instant) -> Result<DialogId, NotReplaced> {
        match self.find_dialog(&join.call_id, &join.to_tag, &join.from_tag, now) {
            None | Some(Found::Early { .. }) => Err(NotReplaced::NoDialog),
            Some(Found::Ended) => Err(NotReplaced::Ended),
            Some(Found::Confirmed { dialog, .. }) => Ok(dialog),
        }
    }

    /// The dialog that a request outside of it names to show that it may be sent (RFC 4538 §4). Senders take either end's
    /// view of the tags; to know both is the proof. Whether the dialog is with the request's sender is the caller's to
    /// check.
    pub fn find_target(&self, target: &TargetDialog, now: Instant) -> Option<Found> {
        let TargetDialog { call_id, local_tag, remote_tag } = target;
        let found = self.find_dialog(call_id, local_tag, remote_tag, now);
        found.or_else(|| self.find_dialog(call_id, remote_tag, local_tag, now))
    }

    fn find_key(&self, key: &DialogKey, now: Instant) -> Option<Found> {
        let Some(&dialog) = self.dialog_keys.get(key) else {
            return self.ended.has(self.number_of(key), now).then_some(Found::Ended);
        };
        let known = Some(&self.dialogs.get(&dialog)?.dialog).filter(|known| known.is_session)?;
        Some(match known.state {
            State::Early => Found::Early { dialog, is_ours: known.is_caller },
            State::Confirmed => Found::Confirmed { dialog, is_ours: known.is_caller },
            State::Ended => Found::Ended,
        })
    }

    /// From now on the dialog is one that has ended.
    pub(super) fn note_ended(&mut self, key: &DialogKey, now: Instant) {
        let number = self.number_of(key);
        self.ended.note(number, now);
    }

    /// Stands for a key where a mistake costs 603 instead of 481, and a key would cost memory.
    fn number_of(&self, key: &DialogKey) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.secret, key).hash(&mut hasher);
        hasher.finish()
    }
}

/// Dialogs that have ended a short while ago.
#[derive(Default)]
pub(super) struct Ended {
    order: VecDeque<(Instant, u64)>,
    /// The last end of each: an identity may be used again.
    last: IdMap<u64, Instant>,
}

impl Ended {
    fn note(&mut self, number: u64, now: Instant) {
        while let Some(&(at, oldest)) = self.order.front()
            && (self.order.len() >= MAX_ENDED || now.saturating_duration_since(at) >= REMEMBERED)
        {
            self.order.pop_front();
            if self.last.get(&oldest) == Some(&at) {
                self.last.remove(&oldest);
            }
        }
        self.order.push_back((now, number));
        self.last.insert(number, now);
    }

    fn has(&self, number: u64, now: Instant) -> bool {
        self.last.get(&number).is_some_and(|at| now.saturating_duration_since(*at) < REMEMBERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_dialogs_are_known_for_32_seconds_and_take_bounded_memory() {
        let start = crate::clock::now();
        let mut ended = Ended::default();
        ended.note(7, start);
        assert!(ended.has(7, start + Duration::from_millis(31_999)));
        assert!(!ended.has(7, start + REMEMBERED) && !ended.has(8, start));
        ended.note(8, start + REMEMBERED);
        assert_eq!((ended.order.len(), ended.last.len()), (1, 1), "7 is forgotten");
        let later = start + REMEMBERED;
        for number in 100..100 + MAX_ENDED as u64 {
            ended.note(number, later);
        }
        assert_eq!((ended.order.len(), ended.last.len()), (MAX_ENDED, MAX_ENDED));
        assert!(!ended.has(8, later) && ended.has(100, later));
    }

    #[test]
    fn an_identity_that_ends_twice_is_known_from_its_last_end() {
        let start = crate::clock::now();
        let mut ended = Ended::default();
        ended.note(7, start);
        ended.note(7, start + Duration::from_secs(20));
        ended.note(8, start + Duration::from_secs(40));
        assert!(ended.has(7, start + Duration::from_secs(40)));
    }
}
