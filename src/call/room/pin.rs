//! The PIN of a dial-in room, as its caller types it.
//!
//! Digits come as telephone events or as INFO; a phone that sends both is heard in the form that came first. `#` ends the
//! PIN. Nothing of it is kept longer than it is needed, and nothing of it is ever told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audio::signal::{Note, melody};
use crate::call::options::{MAX_PIN, Secret};

/// How often a caller may be wrong.
pub(super) const TRIES: u8 = 3;
/// The longest time before the first digit and between two.
const BETWEEN: Duration = Duration::from_secs(10);
/// The longest time in all.
const IN_ALL: Duration = Duration::from_secs(30);
/// From one prompt to the next, until a digit comes.
const PAUSE: Duration = Duration::from_secs(5);

/// How a digit came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::call) enum Form {
    /// A telephone event (RFC 4733).
    Event,
    /// INFO.
    Info,
}

/// What a digit has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pressed {
    /// The PIN is not complete.
    More,
    /// It is right.
    Right,
    /// It is wrong; the caller may try again.
    Wrong,
    /// It is wrong for the last time.
    WrongAgain,
}

/// A PIN that is being typed.
#[derive(Debug)]
pub(super) struct Pin {
    right: Secret,
    typed: Secret,
    /// Wrong ones so far.
    pub wrong: u8,
    form: Option<Form>,
    /// The end of the time in all.
    until: Instant,
}

impl Pin {
    /// Asked for from `now` on.
    pub(super) fn new(right: Secret, now: Instant) -> Self {
        Self { right, typed: Secret::new(String::new()), wrong: 0, form: None, until: now + IN_ALL }
    }

    /// How long the next digit may take.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now).min(BETWEEN)
    }

    /// A digit has been typed since the last prompt.
    pub(super) fn is_begun(&self) -> bool {
        !self.typed.reveal().is_empty()
    }

    /// Takes a key.
    pub(super) fn press(&mut self, key: char, form: Form) -> Pressed {
        if *self.form.get_or_insert(form) != form {
            return Pressed::More;
        }
        if key != '#' {
            let mut typed = self.typed.reveal().to_owned();
            // One more than the longest PIN is wrong for certain, and so is all that follows.
            if typed.len() <= MAX_PIN {
                typed.push(key);
            }
            self.typed = Secret::new(typed);
            return Pressed::More;
        }
        let typed = std::mem::replace(&mut self.typed, Secret::new(String::new()));
        if typed == self.right {
            return Pressed::Right;
        }
        self.wrong += 1;
        if self.wrong < TRIES { Pressed::Wrong } else { Pressed::WrongAgain }
    }
}

/// What a caller hears at the door, at 8,000 Hz, to be repeated. There are no announcements: tones need no language.
#[derive(Debug)]
pub(in crate::call) struct Prompts {
    /// Asks for the PIN: two rising notes.
    pub ask: Arc<[i16]>,
    /// It was wrong: two falling notes, then it is asked again.
    pub wrong: Arc<[i16]>,
}

impl Prompts {
    /// All of them.
    pub(in crate::call) fn new() -> Self {
        let note = |hertz, ms| Note { hertz, length: Duration::from_millis(ms) };
        let ask = [note(440.0, 150), note(660.0, 150)];
        let wrong = [note(440.0, 300), note(330.0, 300), note(0.0, 400)];
        let wrong: Vec<Note> = wrong.into_iter().chain(ask).collect();
        Self { ask: melody(&ask, PAUSE), wrong: melody(&wrong, PAUSE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(now: Instant) -> Pin {
        Pin::new(Secret::new("1234".into()), now)
    }

    fn press(pin: &mut Pin, keys: &str, form: Form) -> Pressed {
        keys.chars().map(|key| pin.press(key, form)).last().expect("a key")
    }

    #[test]
    fn a_pin_is_right_as_a_whole_and_wrong_three_times_at_most() {
        let now = crate::clock::now();
        assert_eq!(press(&mut pin(now), "1234#", Form::Event), Pressed::Right);
        for wrong in ["#", "123#", "12345#", "*1234#", "1234A#"] {
            assert_eq!(press(&mut pin(now), wrong, Form::Event), Pressed::Wrong, "{wrong}");
        }
        let mut one = pin(now);
        let outcomes = ["1#", "2#", "3#"].map(|keys| press(&mut one, keys, Form::Info));
        assert_eq!(outcomes, [Pressed::Wrong, Pressed::Wrong, Pressed::WrongAgain]);
        let mut one = pin(now);
        assert_eq!(press(&mut one, "99#1234#", Form::Info), Pressed::Right);
    }

    #[test]
    fn what_is_longer_than_any_pin_is_wrong_and_takes_no_more_room() {
        let longest = "7".repeat(MAX_PIN);
        let mut one = Pin::new(Secret::new(longest.clone()), crate::clock::now());
        assert_eq!(press(&mut one, &format!("{longest}7777#"), Form::Event), Pressed::Wrong);
        assert_eq!(press(&mut one, &format!("{longest}#"), Form::Event), Pressed::Right);
    }

    #[test]
    fn a_phone_that_sends_each_digit_twice_is_heard_once() {
        let mut one = pin(crate::clock::now());
        for key in "1234".chars() {
            assert_eq!(one.press(key, Form::Event), Pressed::More);
            assert_eq!(one.press(key, Form::Info), Pressed::More);
        }
        assert_eq!(one.press('#', Form::Event), Pressed::Right);
    }

    #[test]
    fn each_digit_has_ten_seconds_and_all_have_thirty() {
        let now = crate::clock::now();
        let one = pin(now);
        for (after, patience) in [(0, 10), (20, 10), (25, 5), (30, 0), (31, 0)] {
            assert_eq!(one.patience(now + Duration::from_secs(after)), Duration::from_secs(patience), "{after}");
        }
    }

    #[test]
    fn a_pin_prints_nothing_of_itself() {
        let mut one = pin(crate::clock::now());
        press(&mut one, "98", Form::Event);
        let printed = format!("{one:?}");
        assert!(!printed.contains("1234") && !printed.contains("98\""), "{printed}");
    }
}
