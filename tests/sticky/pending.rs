//! Rows whose feature is not built yet, as `group / row`. One that turns green fails the test: the list only shrinks.

pub const PENDING: &[&str] = &[
    // Consultation by a second dialog is not known by its INVITE (recording.md §4.4).
    "attended / consult and transfer",
    "attended / consult and transfer, the consultation is recorded",
    "attended / no trigger starts a session on a consult call",
    "attended / consult and retrieve, the consultation is recorded",
    "attended / the consulted party hangs up",
    "attended / the held customer hangs up, the consultation goes on",
    // INVITE with Replaces to us, `dn.pickup-group`.
    "replaces / another line of the same DN goes on with it",
    "replaces / another DN takes the call over",
    "replaces / a DN of another group may not",
];
