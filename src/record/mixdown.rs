//! Samples of tracks → frames of a session's files: sum, limiter, channels, masks.
