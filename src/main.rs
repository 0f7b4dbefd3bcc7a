//! The `stickytape` program.

fn main() {}
