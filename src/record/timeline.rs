//! RTP time → place on the local monotonic clock (spec/recording.md §7).
