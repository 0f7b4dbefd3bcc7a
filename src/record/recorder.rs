//! One recorder's whole state: tracks by leg, sessions by id; packets and marks in, frames and metadata out.
