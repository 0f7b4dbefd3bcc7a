//! Samples: G.711, linear PCM, resampling, summing. Mono `i16` at 8,000, 16,000 or 48,000 Hz throughout.

pub mod bus;
pub mod coding;
pub mod conceal;
pub mod convert;
pub mod g711;
pub mod level;
pub mod mix;
pub mod pcm;
pub mod pitch;
pub mod resample;
pub mod scaled;
pub mod signal;
pub mod sum;
pub mod total;
