//! The configuration: as typed (raw), then checked.
