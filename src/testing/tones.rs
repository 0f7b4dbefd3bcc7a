//! Test signals: tones, bursts, and their detection.
