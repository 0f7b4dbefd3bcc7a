//! The recorder threads, their writers, sync and publisher.
