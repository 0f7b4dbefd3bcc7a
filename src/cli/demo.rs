//! stickytape demo: a recorded call on one machine.
