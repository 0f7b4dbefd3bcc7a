//! A SIP phone that is a value: scripted in tests, real in the demo.
