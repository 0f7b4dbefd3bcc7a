//! SIP over TCP (RFC 3261 §18).
