//! The command line: serve · demo · check · recordings.

pub mod check;
pub mod demo;
pub mod recordings;
pub mod serve;
