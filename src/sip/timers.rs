//! RFC 3261 timer values (§17.1.1.1, table 4) and RFC 6026's L and M.
