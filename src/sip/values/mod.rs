//! Typed header values. Each keeps its bytes as written and finds its parts in them, so that a setter rewrites one part
//! and leaves the others alone.
//!
//! This is the one home of `rsip`. It is trusted with the names that it has right: transports and their ports
//! ([`transport`]), the qualities of protection of a digest ([`digest`]), the phrases of rare status codes ([`status`]).
//! For the rest it is the oracle that tests compare these values with on what it can read. It reads no message off the
//! wire, because it refuses IPv6 hosts, `tel:` URIs, unknown methods and transports, folds and bytes that are not UTF-8,
//! takes methods in any case (RFC 3261 §7.1: they have one), writes `SHA256` for `SHA-256` and counts nonces in decimal.

pub mod address;
pub mod digest;
pub mod essentials;
pub mod fields;
pub mod media_type;
pub mod number;
pub mod params;
pub mod status;
pub mod subscription;
pub mod transfer;
pub mod transport;
pub mod uri;
pub mod via;

pub use address::{Contacts, NameAddr};
pub use digest::{Algorithm, Answer, Challenge, Given};
pub use essentials::Essentials;
pub use fields::{CSeq, RAck, Reason, Refresher, SessionExpires};
pub use media_type::MediaType;
pub use number::called_number;
pub use params::Params;
pub use status::reason_phrase;
pub use subscription::{EventPackage, SubscriptionState};
pub use transfer::{Join, ReferError, ReferTo, Replaces, TargetDialog, refer_sub, referred_by};
pub use uri::{Scheme, Uri};
pub use via::Via;

/// What is wrong with a header value. The text is fit for a reason phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the text of each variant says what it is")]
pub enum ValueError {
    #[error("Malformed URI")]
    Uri,
    #[error("Malformed address")]
    Address,
    #[error("Malformed parameter")]
    Params,
    #[error("Malformed Via")]
    Via,
    #[error("Malformed CSeq")]
    CSeq,
    #[error("CSeq does not name the method")]
    CSeqMethod,
    #[error("Malformed Call-ID")]
    CallId,
    #[error("Malformed Max-Forwards")]
    MaxForwards,
    #[error("Malformed number")]
    Number,
    #[error("Malformed Content-Type")]
    MediaType,
    #[error("Malformed challenge")]
    Challenge,
    #[error("Malformed Replaces")]
    Replaces,
    #[error("Malformed Join")]
    Join,
    #[error("Join in a request that is not INVITE")]
    JoinMethod,
    #[error("Replaces and Join contradict each other")]
    ReplacesJoin,
    #[error("Replaces in a request that is not INVITE")]
    ReplacesMethod,
    #[error("Malformed Refer-To")]
    ReferTo,
    #[error("Malformed Refer-Sub")]
    ReferSub,
    #[error("Malformed Target-Dialog")]
    TargetDialog,
    #[error("Malformed Event")]
    Event,
    #[error("Malformed Subscription-State")]
    SubscriptionState,
    #[error("Malformed Contact")]
    Contact,
    #[error("Missing {0}")]
    Missing(&'static str),
    #[error("More than one {0}")]
    Repeated(&'static str),
}
