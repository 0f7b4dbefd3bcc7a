//! One recording session: the owner rule, who speaks, segments.
