//! What names a server transaction (§17.2.3).
