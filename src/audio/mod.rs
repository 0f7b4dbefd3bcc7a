//! Samples: G.711, resampling, summing.
