//! Digest authentication as a client (RFC 8760, 7616, 3261 §22).
