//! stickytape recordings: the library from the shell.
