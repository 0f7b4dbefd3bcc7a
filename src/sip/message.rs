//! A lossless SIP message: every header line, its order and case, exact body bytes.
