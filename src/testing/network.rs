//! A network with delay, loss, reordering and duplication, in virtual time.
