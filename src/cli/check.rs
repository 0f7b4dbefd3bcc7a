//! stickytape check: what a configuration means.
