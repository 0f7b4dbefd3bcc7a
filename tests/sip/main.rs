//! SIP by itself: messages, transactions, dialogs, subscriptions.

#[path = "../sip_trace/mod.rs"]
mod sip_trace;

mod dialogs;
mod fuzz;
mod pair;
mod subscriptions;
mod torture;
mod transactions;
mod transfers;
