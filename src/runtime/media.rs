//! The media threads: RTP sockets, relay, tap.
