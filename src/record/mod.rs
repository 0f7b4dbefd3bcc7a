//! From packets and marks to aligned samples and metadata. Pure: no file, no thread, no clock.

pub mod conceal;
pub mod leg;
pub mod mark;
pub mod metadata;
pub mod meter;
pub mod mixdown;
pub mod recorder;
pub mod report;
pub mod run;
pub mod samples;
pub mod session;
pub mod spans;
pub mod speech;
pub mod store;
pub mod stream;
pub mod tap;
pub mod timeline;
pub mod track;
pub mod verify;
