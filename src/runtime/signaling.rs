//! The signaling task: the inbox, Calls, and its outputs.
