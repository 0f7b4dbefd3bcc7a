//! WAV files and the folder of recordings.

pub mod store;
pub mod wav;
