//! The invariants of a published recording.
