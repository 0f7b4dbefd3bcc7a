//! Session descriptions: RFC 8866 text, RFC 3264 offer and answer, each dialog's own state.
//!
//! A peer's body becomes a [`Session`]. What may be carried from one dialog into another is a [`Terms`] value, the
//! allow-list of spec/sip.md §2. A [`Local`] writes one dialog's own descriptions from terms and says what is
//! negotiated. The usual walk for an INVITE from D1 to D2 (each with its own [`Local`]):
//!
//! ```text
//! offer  = Session::parse(body of D1)?            terms  = offer.terms()?.restricted_to(&allowed)
//! body   = d2.offer(&terms)                       answer = Session::parse(body of D2)?
//! d2.apply_answer(&answer)?                       body   = d1.answer(&offer, &answer.terms()?)?
//! d1.negotiated(), d2.negotiated()                → the media thread
//! ```

pub mod local;
pub mod offer_answer;
pub mod record;
pub mod session;

pub use local::{Local, Negotiated};
pub use offer_answer::{Change, Format, Refusal, Terms};
pub use record::{Preference, RecordState};
pub use session::{Connection, Media, ParseError, Session};

#[cfg(test)]
mod tests;
