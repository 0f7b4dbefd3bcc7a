//! Messages out of a byte stream (RFC 3261 §18.3).
