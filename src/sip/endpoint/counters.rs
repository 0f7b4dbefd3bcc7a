//! What the endpoint counts.

/// What the endpoint has counted since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests that came, repeated ones too.
    pub requests: u64,
    /// Responses that came, repeated ones too.
    pub responses: u64,
    /// Responses of ours, repeats apart.
    pub responses_sent: u64,
    /// Repeated requests that were absorbed or answered again, ACKs too.
    pub repeated_requests: u64,
    /// Repeated responses that were absorbed or acknowledged again.
    pub repeated_responses: u64,
    /// Messages of ours that a timer sent again.
    pub retransmits: u64,
    /// Messages that could not be read, answered with 400 or 505 or dropped.
    pub malformed: u64,
    /// Responses of no transaction of ours.
    pub stray_responses: u64,
    /// ACKs of no INVITE and no dialog.
    pub stray_acks: u64,
    /// CANCELs without an INVITE from the same source, answered 481.
    pub stray_cancels: u64,
    /// Requests for a dialog from an address that is not its peer's, answered 481.
    pub foreign_sources: u64,
    /// Requests in a dialog with a lower CSeq than before, answered 500.
    pub out_of_order: u64,
    /// Requests and early dialogs refused because a table was full.
    pub refused: u64,
    /// Transmissions that failed.
    pub failed_transmits: u64,
    /// Responses that could not be sent at all.
    pub unsent: u64,
}

/// How full the endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Transactions, client and server, those that only absorb repeats too.
    pub transactions: usize,
    /// Dialogs, early ones too.
    pub dialogs: usize,
}
