//! recording.json (spec/recording.md §6).
