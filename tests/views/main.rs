//! What facts are told as: rows of events and the interaction machine.

#[path = "../interaction_support/mod.rs"]
mod interaction_support;
#[path = "../views_support/mod.rs"]
mod views_support;

mod interaction_machine;
mod keeper;
mod rows;
