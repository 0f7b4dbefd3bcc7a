//! Rows whose feature is not built yet, as `group / row`. One that turns green fails the test: the list only shrinks.

pub const PENDING: &[&str] = &[];
