//! The recorder and what it leaves on a disk, in virtual time.

#[path = "../record_support/mod.rs"]
mod record_support;
#[path = "../support/recordings.rs"]
mod support;

mod power_loss;
mod power_promise;
mod random;
mod sessions;
mod store_library;
mod timeline_faults;
mod timeline_hours;
