//! Binding: listeners, port pairs, and errors that say what is in the way.
