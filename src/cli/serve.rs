//! stickytape serve: runs the proxy.
