//! Lenient framing of a SIP message into start line, header lines and body.
