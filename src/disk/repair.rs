//! What a crash left behind is padded, closed, and published.
