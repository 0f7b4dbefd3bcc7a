//! Telephony events (spec/events.md §1): one JSON object per event and per DN that it concerns.

pub mod event;
