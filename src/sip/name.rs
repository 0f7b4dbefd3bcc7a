//! Names of header fields: canonical spelling, compact forms (RFC 3261 §7.3.3 and the RFC of each), and which of them
//! are comma-separated lists.

/// The name of a header field. Compare and look up with this, never with spelled text: it stands for every case and for
/// the compact form. Make one of arbitrary text with [`Name::parse`], so that `Other` never holds a known name.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "each variant is the header field of its name")]
pub enum Name<'a> {
    Accept,
    AcceptEncoding,
    AcceptLanguage,
    AlertInfo,
    Allow,
    AllowEvents,
    AuthenticationInfo,
    Authorization,
    CallId,
    CallInfo,
    Contact,
    ContentDisposition,
    ContentEncoding,
    ContentLanguage,
    ContentLength,
    ContentType,
    CSeq,
    Date,
    Diversion,
    ErrorInfo,
    Event,
    Expires,
    From,
    Geolocation,
    HistoryInfo,
    Identity,
    InReplyTo,
    Join,
    MaxForwards,
    MimeVersion,
    MinExpires,
    MinSe,
    Organization,
    PAssertedIdentity,
    PChargingVector,
    PPreferredIdentity,
    Path,
    Priority,
    Privacy,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyRequire,
    RAck,
    Reason,
    RecordRoute,
    ReferSub,
    ReferTo,
    ReferredBy,
    RemotePartyId,
    Replaces,
    ReplyTo,
    RequestDisposition,
    Require,
    RetryAfter,
    Route,
    RSeq,
    Server,
    ServiceRoute,
    SessionExpires,
    SessionId,
    SipEtag,
    SipIfMatch,
    Subject,
    SubscriptionState,
    Supported,
    TargetDialog,
    Timestamp,
    To,
    Unsupported,
    UserAgent,
    UserToUser,
    Via,
    Warning,
    WwwAuthenticate,
    /// `X-Stickytape-ConnID` (spec/sip.md §4).
    XStickytapeConnId,
    /// `X-Stickytape-CallUUID` (spec/sip.md §4).
    XStickytapeCallUuid,
    /// Any other header field, its name as written.
    Other(&'a [u8]),
}

/// Longest known name; anything longer needs no lower-casing to be known as unknown.
const LONGEST: usize = 21;

impl<'a> Name<'a> {
    /// The name of a header field as written: any case, long or compact form.
    pub fn parse(text: &'a [u8]) -> Name<'a> {
        Name::known(text).unwrap_or(Name::Other(text))
    }

    /// The name when it is one that we have a variant for.
    pub(super) fn known(text: &[u8]) -> Option<Name<'static>> {
        let mut lower = [0u8; LONGEST];
        let lower = lower.get_mut(..text.len())?;
        lower.copy_from_slice(text);
        lower.make_ascii_lowercase();
        Self::of_lower(lower)
    }

    fn of_lower(lower: &[u8]) -> Option<Name<'static>> {
        Some(match lower {
            b"v" | b"via" => Name::Via,
            b"f" | b"from" => Name::From,
            b"t" | b"to" => Name::To,
            b"i" | b"call-id" => Name::CallId,
            b"cseq" => Name::CSeq,
            b"m" | b"contact" => Name::Contact,
            b"max-forwards" => Name::MaxForwards,
            b"l" | b"content-length" => Name::ContentLength,
            b"c" | b"content-type" => Name::ContentType,
            b"e" | b"content-encoding" => Name::ContentEncoding,
            b"k" | b"supported" => Name::Supported,
            b"s" | b"subject" => Name::Subject,
            b"o" | b"event" => Name::Event,
            b"u" | b"allow-events" => Name::AllowEvents,
            b"r" | b"refer-to" => Name::ReferTo,
            b"b" | b"referred-by" => Name::ReferredBy,
            b"x" | b"session-expires" => Name::SessionExpires,
            b"d" | b"request-disposition" => Name::RequestDisposition,
            b"y" | b"identity" => Name::Identity,
            b"accept" => Name::Accept,
            b"accept-encoding" => Name::AcceptEncoding,
            b"accept-language" => Name::AcceptLanguage,
            b"alert-info" => Name::AlertInfo,
            b"allow" => Name::Allow,
            b"authentication-info" => Name::AuthenticationInfo,
            b"authorization" => Name::Authorization,
            b"call-info" => Name::CallInfo,
            b"content-disposition" => Name::ContentDisposition,
            b"content-language" => Name::ContentLanguage,
            b"date" => Name::Date,
            b"diversion" => Name::Diversion,
            b"error-info" => Name::ErrorInfo,
            b"expires" => Name::Expires,
            b"geolocation" => Name::Geolocation,
            b"history-info" => Name::HistoryInfo,
            b"in-reply-to" => Name::InReplyTo,
            b"join" => Name::Join,
            b"mime-version" => Name::MimeVersion,
            b"min-expires" => Name::MinExpires,
            b"min-se" => Name::MinSe,
            b"organization" => Name::Organization,
            b"p-asserted-identity" => Name::PAssertedIdentity,
            b"p-charging-vector" => Name::PChargingVector,
            b"p-preferred-identity" => Name::PPreferredIdentity,
            b"path" => Name::Path,
            b"priority" => Name::Priority,
            b"privacy" => Name::Privacy,
            b"proxy-authenticate" => Name::ProxyAuthenticate,
            b"proxy-authorization" => Name::ProxyAuthorization,
            b"proxy-require" => Name::ProxyRequire,
            b"rack" => Name::RAck,
            b"reason" => Name::Reason,
            b"record-route" => Name::RecordRoute,
            b"refer-sub" => Name::ReferSub,
            b"remote-party-id" => Name::RemotePartyId,
            b"replaces" => Name::Replaces,
            b"reply-to" => Name::ReplyTo,
            b"require" => Name::Require,
            b"retry-after" => Name::RetryAfter,
            b"route" => Name::Route,
            b"rseq" => Name::RSeq,
            b"server" => Name::Server,
            b"service-route" => Name::ServiceRoute,
            b"session-id" => Name::SessionId,
            b"sip-etag" => Name::SipEtag,
            b"sip-if-match" => Name::SipIfMatch,
            b"subscription-state" => Name::SubscriptionState,
            b"target-dialog" => Name::TargetDialog,
            b"timestamp" => Name::Timestamp,
            b"unsupported" => Name::Unsupported,
            b"user-agent" => Name::UserAgent,
            b"user-to-user" => Name::UserToUser,
            b"warning" => Name::Warning,
            b"www-authenticate" => Name::WwwAuthenticate,
            b"x-stickytape-connid" => Name::XStickytapeConnId,
            b"x-stickytape-calluuid" => Name::XStickytapeCallUuid,
            _ => return None,
        })
    }

    /// The canonical spelling; of an unknown name what was written.
    pub fn as_bytes(&self) -> &'a [u8] {
        match *self {
            Name::Other(text) => text,
            known => known.canonical().as_bytes(),
        }
    }

    /// The canonical spelling of a known name, empty for `Other`.
    pub(super) fn canonical(&self) -> &'static str {
        match self {
            Name::Accept => "Accept",
            Name::AcceptEncoding => "Accept-Encoding",
            Name::AcceptLanguage => "Accept-Language",
            Name::AlertInfo => "Alert-Info",
            Name::Allow => "Allow",
            Name::AllowEvents => "Allow-Events",
            Name::AuthenticationInfo => "Authentication-Info",
            Name::Authorization => "Authorization",
            Name::CallId => "Call-ID",
            Name::CallInfo => "Call-Info",
            Name::Contact => "Contact",
            Name::ContentDisposition => "Content-Disposition",
            Name::ContentEncoding => "Content-Encoding",
            Name::ContentLanguage => "Content-Language",
            Name::ContentLength => "Content-Length",
            Name::ContentType => "Content-Type",
            Name::CSeq => "CSeq",
            Name::Date => "Date",
            Name::Diversion => "Diversion",
            Name::ErrorInfo => "Error-Info",
            Name::Event => "Event",
            Name::Expires => "Expires",
            Name::From => "From",
            Name::Geolocation => "Geolocation",
            Name::HistoryInfo => "History-Info",
            Name::Identity => "Identity",
            Name::InReplyTo => "In-Reply-To",
            Name::Join => "Join",
            Name::MaxForwards => "Max-Forwards",
            Name::MimeVersion => "MIME-Version",
            Name::MinExpires => "Min-Expires",
            Name::MinSe => "Min-SE",
            Name::Organization => "Organization",
            Name::PAssertedIdentity => "P-Asserted-Identity",
            Name::PChargingVector => "P-Charging-Vector",
            Name::PPreferredIdentity => "P-Preferred-Identity",
            Name::Path => "Path",
            Name::Priority => "Priority",
            Name::Privacy => "Privacy",
            Name::ProxyAuthenticate => "Proxy-Authenticate",
            Name::ProxyAuthorization => "Proxy-Authorization",
            Name::ProxyRequire => "Proxy-Require",
            Name::RAck => "RAck",
            Name::Reason => "Reason",
            Name::RecordRoute => "Record-Route",
            Name::ReferSub => "Refer-Sub",
            Name::ReferTo => "Refer-To",
            Name::ReferredBy => "Referred-By",
            Name::RemotePartyId => "Remote-Party-ID",
            Name::Replaces => "Replaces",
            Name::ReplyTo => "Reply-To",
            Name::RequestDisposition => "Request-Disposition",
            Name::Require => "Require",
            Name::RetryAfter => "Retry-After",
            Name::Route => "Route",
            Name::RSeq => "RSeq",
            Name::Server => "Server",
            Name::ServiceRoute => "Service-Route",
            Name::SessionExpires => "Session-Expires",
            Name::SessionId => "Session-ID",
            Name::SipEtag => "SIP-ETag",
            Name::SipIfMatch => "SIP-If-Match",
            Name::Subject => "Subject",
            Name::SubscriptionState => "Subscription-State",
            Name::Supported => "Supported",
            Name::TargetDialog => "Target-Dialog",
            Name::Timestamp => "Timestamp",
            Name::To => "To",
            Name::Unsupported => "Unsupported",
            Name::UserAgent => "User-Agent",
            Name::UserToUser => "User-to-User",
            Name::Via => "Via",
            Name::Warning => "Warning",
            Name::WwwAuthenticate => "WWW-Authenticate",
            Name::XStickytapeConnId => "X-Stickytape-ConnID",
            Name::XStickytapeCallUuid => "X-Stickytape-CallUUID",
            Name::Other(_) => "",
        }
    }

    /// Whether the grammar of this header field is a comma-separated list of values (RFC 3261 §7.3.1).
    pub fn is_list(&self) -> bool {
        matches!(
            self,
            Name::Accept
                | Name::AcceptEncoding
                | Name::AcceptLanguage
                | Name::AlertInfo
                | Name::Allow
                | Name::AllowEvents
                | Name::CallInfo
                | Name::Contact
                | Name::ContentEncoding
                | Name::ContentLanguage
                | Name::Diversion
                | Name::ErrorInfo
                | Name::Geolocation
                | Name::HistoryInfo
                | Name::InReplyTo
                | Name::PAssertedIdentity
                | Name::PPreferredIdentity
                | Name::Path
                | Name::ProxyRequire
                | Name::Reason
                | Name::RecordRoute
                | Name::RemotePartyId
                | Name::RequestDisposition
                | Name::Require
                | Name::Route
                | Name::ServiceRoute
                | Name::Supported
                | Name::Unsupported
                | Name::UserToUser
                | Name::Via
                | Name::Warning
        )
    }

    /// The same name without its borrow: an unknown one becomes an empty `Other`.
    pub(super) fn kind(&self) -> Name<'static> {
        match *self {
            Name::Other(_) => Name::Other(b""),
            // The known variants borrow nothing; looking the spelling up again is how the lifetime is shed.
            known => Name::parse(known.canonical().as_bytes()),
        }
    }
}

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Name<'_>) -> bool {
        match (self, other) {
            (Name::Other(a), Name::Other(b)) => a.eq_ignore_ascii_case(b),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Eq for Name<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_in_any_case_and_in_its_compact_form() {
        for (text, name) in [
            (&b"VIA"[..], Name::Via),
            (b"v", Name::Via),
            (b"V", Name::Via),
            (b"call-id", Name::CallId),
            (b"I", Name::CallId),
            (b"l", Name::ContentLength),
            (b"x-STICKYTAPE-calluuid", Name::XStickytapeCallUuid),
        ] {
            assert_eq!(Name::parse(text), name);
        }
    }

    #[test]
    fn every_canonical_spelling_reads_back() {
        for lower in
            ["accept", "min-se", "rack", "sip-etag", "www-authenticate", "x-stickytape-connid", "p-asserted-identity"]
        {
            let name = Name::parse(lower.as_bytes());
            assert!(name.canonical().eq_ignore_ascii_case(lower), "{lower}");
            assert_eq!(name.kind(), name);
        }
    }

    #[test]
    fn unknown_names_compare_without_case_and_keep_their_spelling() {
        let name = Name::parse(b"X-Foo");
        assert_eq!(name, Name::parse(b"x-fOO"));
        assert_ne!(name, Name::parse(b"x-fop"));
        assert_ne!(name, Name::Via);
        assert_eq!(name.as_bytes(), b"X-Foo");
        assert_eq!(Name::parse(&[b'a'; 300]).as_bytes().len(), 300);
    }
}
