//! Session descriptions: RFC 8866 text, RFC 3264 offer and answer, each dialog's own state.
