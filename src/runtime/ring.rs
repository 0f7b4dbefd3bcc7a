//! Bounded one-way queues that count what they drop.
