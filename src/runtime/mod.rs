//! One file per thread or task; loops only.

pub mod http;
<<<<<<< HEAD
=======
pub mod levels;
>>>>>>> 24e9fd5 (Build and stop the whole program)
pub mod log;
pub mod media;
pub mod metrics;
pub mod recorder;
pub mod ring;
pub mod shutdown;
pub mod signaling;
