//! Bytes → transaction → dialog → event: the whole SIP machine of one process.
