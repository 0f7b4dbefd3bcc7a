//! WAV files that are valid at any instant: the one home of hound.
