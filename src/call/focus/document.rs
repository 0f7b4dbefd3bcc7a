//! The conference-info document (RFC 4575 §5): who is in a conference, as one of them may see it.
//!
//! Every document is whole (`state="full"`): a conference has at most [`MAX_MEMBERS`] parties, and nobody can miss a part.
//! Addresses are those by which a party can be called through us; where its device is stays hidden (RFC 4575 §8).
//!
//! [`MAX_MEMBERS`]: crate::bridge::command::mix::MAX_MEMBERS

use std::fmt::Write;
use std::net::SocketAddr;

use crate::codec::Direction;
use crate::id::LegId;
use crate::sip::endpoint::Body;
use crate::sip::values::Uri;

/// The longest document. It goes in one datagram with its header lines; of a conference that needs more the last users
/// are left out, `user-count` still counts them, and the document says that it is partial.
const MAX_BYTES: usize = 60_000;

/// A conference as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::call) struct Roster {
    /// Most parties.
    pub max_users: usize,
    /// In the order of their joining.
    pub participants: Vec<Participant>,
}

/// One leg of a conference.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::call) struct Participant {
    pub leg: LegId,
    /// Empty: it has shown none.
    pub number: String,
    pub display: Option<String>,
    pub status: Status,
    /// It has called in; else it was called.
    pub dialed_in: bool,
    /// What it sends and receives.
    pub media: Direction,
    /// Only this DN sees it: a supervisor that is not to be noticed.
    pub seen_by: Option<String>,
}

/// How far an endpoint is (RFC 4575 §5.7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::call) enum Status {
    DialingOut,
    Alerting,
    Connected,
    OnHold,
    /// It is muted here, not by its device.
    MutedViaFocus,
}

/// Numbers and names are callers'.
impl std::fmt::Debug for Participant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Participant({:?}, {:?}, {:?})", self.leg, self.status, self.media)
    }
}

impl Status {
    fn is_in(self) -> bool {
        !matches!(self, Self::DialingOut | Self::Alerting)
    }

    fn name(self) -> &'static str {
        match self {
            Self::DialingOut => "dialing-out",
            Self::Alerting => "alerting",
            Self::Connected => "connected",
            Self::OnHold => "on-hold",
            Self::MutedViaFocus => "muted-via-focus",
        }
    }
}

/// Who gets a document, and which it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'a> {
    /// The user part of the conference's URI.
    pub conference: &'a str,
    /// Our address as the reader sees it.
    pub host: SocketAddr,
    /// One more with each document of a subscription.
    pub version: u32,
    /// Its DN, if it is one.
    pub dn: Option<&'a str>,
}

impl Roster {
    /// What a reader with this DN may see, in order.
    pub(super) fn seen_by<'a>(&'a self, dn: Option<&'a str>) -> impl Iterator<Item = &'a Participant> {
        self.participants.iter().filter(move |p| p.seen_by.is_none() || p.seen_by.as_deref() == dn)
    }

    /// The document for a reader.
    pub(super) fn document(&self, reading: Reading<'_>) -> Body {
        let Reading { conference, host, version, dn } = reading;
        let users = by_number(self.seen_by(dn));
        let in_it = users.iter().filter(|user| user.iter().any(|p| p.status.is_in())).count();
        let entity = escaped(&uri(conference, host));
        let mut listed = String::new();
        let mut is_whole = true;
        for user in &users {
            let text = user_element(user, host);
            if listed.len() + text.len() > MAX_BYTES {
                is_whole = false;
                break;
            }
            listed.push_str(&text);
        }
        let state = if is_whole { "full" } else { "partial" };
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n\
             <conference-info xmlns=\"urn:ietf:params:xml:ns:conference-info\" entity=\"{entity}\" state=\"{state}\" \
             version=\"{version}\">\
             <conference-description><conf-uris><entry><uri>{entity}</uri></entry></conf-uris>\
             <maximum-user-count>{}</maximum-user-count></conference-description>\
             <conference-state><user-count>{in_it}</user-count><active>{}</active><locked>false</locked>\
             </conference-state><users>{listed}</users></conference-info>\r\n",
            self.max_users,
            in_it > 0,
        );
        Body { content_type: "application/conference-info+xml".into(), bytes: text.into() }
    }
}

/// Legs of one number are endpoints of one user; who has shown none is a user alone.
fn by_number<'a>(participants: impl Iterator<Item = &'a Participant>) -> Vec<Vec<&'a Participant>> {
    let mut users: Vec<Vec<&Participant>> = Vec::new();
    for participant in participants {
        let is_same = |user: &&mut Vec<&Participant>| {
            !participant.number.is_empty() && user.iter().any(|p| p.number == participant.number)
        };
        match users.iter_mut().find(is_same) {
            Some(user) => user.push(participant),
            None => users.push(vec![participant]),
        }
    }
    users
}

fn user_element(user: &[&Participant], host: SocketAddr) -> String {
    let Some(first) = user.first() else { return String::new() };
    let entity = match first.number.is_empty() {
        // RFC 4575 §5.6.1: anonymous users are told apart, too.
        true => format!("sip:anonymous{}@anonymous.invalid", first.leg.0),
        false => uri(&first.number, host),
    };
    let entity = escaped(&entity);
    // What has no `state` is full: that is the default of the schema.
    let mut out = format!("<user entity=\"{entity}\">");
    if let Some(display) = user.iter().find_map(|p| p.display.as_deref()) {
        // A string takes everything that is written to it.
        let _ = write!(out, "<display-text>{}</display-text>", escaped(display));
    }
    for participant in user {
        let method = if participant.dialed_in { "dialed-in" } else { "dialed-out" };
        let _ = write!(
            out,
            "<endpoint entity=\"{entity};leg={}\"><status>{}</status>\
             <joining-method>{method}</joining-method>",
            participant.leg.0,
            participant.status.name(),
        );
        if participant.status.is_in() {
            let direction = direction(participant.media);
            let _ = write!(out, "<media id=\"1\"><type>audio</type><status>{direction}</status></media>");
        }
        out.push_str("</endpoint>");
    }
    out.push_str("</user>");
    out
}

fn uri(user: &str, host: SocketAddr) -> String {
    String::from_utf8_lossy(Uri::sip(Some(user.as_bytes()), host).as_bytes()).into_owned()
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::SendRecv => "sendrecv",
        Direction::SendOnly => "sendonly",
        Direction::RecvOnly => "recvonly",
        Direction::Inactive => "inactive",
    }
}

/// Text as it may stand in XML 1.0: what that does not allow at all is U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\t' | '\n' | '\r' => out.push(' '),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn participant(leg: u64, number: &str) -> Participant {
        Participant {
            leg: LegId(leg),
            number: number.into(),
            display: None,
            status: Status::Connected,
            dialed_in: true,
            media: Direction::SendRecv,
            seen_by: None,
        }
    }

    fn reading(dn: Option<&str>) -> Reading<'_> {
        Reading { conference: "800", host: "192.0.2.1:5060".parse().unwrap(), version: 7, dn }
    }

    fn document(roster: &Roster, dn: Option<&str>) -> String {
        let body = roster.document(reading(dn));
        assert_eq!(body.content_type, "application/conference-info+xml");
        String::from_utf8(body.bytes.to_vec()).unwrap()
    }

    fn values<'a>(text: &'a str, open: &str) -> Vec<&'a str> {
        text.split(open).skip(1).map(|rest| rest.split(['<', '"']).next().unwrap()).collect()
    }

    #[test]
    fn a_document_is_as_the_schema_of_rfc_4575_wants_it() {
        let ann = Participant { display: Some("Ann".into()), ..participant(1, "1001") };
        let bob = Participant { status: Status::Alerting, dialed_in: false, ..participant(2, "1002") };
        let roster = Roster { max_users: 32, participants: vec![ann, bob] };
        let expected = [
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n",
            "<conference-info xmlns=\"urn:ietf:params:xml:ns:conference-info\" entity=\"sip:800@192.0.2.1:5060\" ",
            "state=\"full\" version=\"7\"><conference-description><conf-uris><entry>",
            "<uri>sip:800@192.0.2.1:5060</uri></entry></conf-uris><maximum-user-count>32</maximum-user-count>",
            "</conference-description><conference-state><user-count>1</user-count><active>true</active>",
            "<locked>false</locked></conference-state><users>",
            "<user entity=\"sip:1001@192.0.2.1:5060\"><display-text>Ann</display-text>",
            "<endpoint entity=\"sip:1001@192.0.2.1:5060;leg=1\"><status>connected</status>",
            "<joining-method>dialed-in</joining-method>",
            "<media id=\"1\"><type>audio</type><status>sendrecv</status></media></endpoint></user>",
            // Who only rings is not counted and has no media.
            "<user entity=\"sip:1002@192.0.2.1:5060\"><endpoint entity=\"sip:1002@192.0.2.1:5060;leg=2\">",
            "<status>alerting</status><joining-method>dialed-out</joining-method></endpoint></user>",
            "</users></conference-info>\r\n",
        ];
        assert_eq!(document(&roster, None), expected.concat());
    }

    #[test]
    fn every_status_and_direction_has_its_name() {
        let table = [
            (Status::DialingOut, Direction::SendRecv, vec!["dialing-out"]),
            (Status::OnHold, Direction::Inactive, vec!["on-hold", "inactive"]),
            (Status::MutedViaFocus, Direction::RecvOnly, vec!["muted-via-focus", "recvonly"]),
            (Status::Connected, Direction::SendOnly, vec!["connected", "sendonly"]),
        ];
        for (status, media, names) in table {
            let participants = vec![Participant { status, media, ..participant(1, "1001") }];
            assert_eq!(values(&document(&Roster { max_users: 3, participants }, None), "<status>"), names);
        }
    }

    #[test]
    fn a_hidden_supervisor_is_in_no_document_but_its_own() {
        let hidden = Participant { seen_by: Some("7001".into()), ..participant(3, "7001") };
        let roster = Roster { max_users: 32, participants: vec![participant(1, "1001"), hidden] };
        for (dn, count) in [(None, "1"), (Some("1001"), "1"), (Some("7002"), "1"), (Some("7001"), "2")] {
            let text = document(&roster, dn);
            assert_eq!(values(&text, "<user-count>"), [count]);
            assert_eq!(text.contains("7001"), dn == Some("7001"), "{dn:?}");
        }
    }

    #[test]
    fn two_devices_of_a_number_are_one_user_and_callers_without_one_are_each_their_own() {
        let participants = vec![participant(1, "1001"), participant(2, ""), participant(3, "1001"), participant(4, "")];
        let text = document(&Roster { max_users: 32, participants }, None);
        let users = ["sip:1001@192.0.2.1:5060", "sip:anonymous2@anonymous.invalid", "sip:anonymous4@anonymous.invalid"];
        assert_eq!(values(&text, "<user entity=\""), users);
        assert_eq!(values(&text, "<user-count>"), ["3"]);
        assert_eq!(values(&text, "<endpoint entity=\"").len(), 4);
        assert_eq!(values(&text, "<endpoint entity=\"")[1], "sip:1001@192.0.2.1:5060;leg=3");
    }

    #[test]
    fn names_and_numbers_cannot_break_the_document() {
        let evil = "A&B <\"'>\u{1}\r\n]]>\u{ffff}";
        let ann = Participant { display: Some(evil.into()), ..participant(1, "1\"<&>1 #") };
        let text = document(&Roster { max_users: 3, participants: vec![ann] }, None);
        let shown = "A&amp;B &lt;&quot;&apos;&gt;\u{fffd}  ]]&gt;\u{fffd}";
        assert_eq!(values(&text, "<display-text>"), [shown]);
        assert_eq!(values(&text, "<user entity=\""), ["sip:1%22%3C&amp;%3E1%20%23@192.0.2.1:5060"]);
    }

    #[test]
    fn a_document_fits_a_datagram_and_says_when_users_are_left_out() {
        let named = |n: u64| Participant { display: Some("x".repeat(600)), ..participant(n, &n.to_string()) };
        let roster = Roster { max_users: 256, participants: (0..256).map(named).collect() };
        let text = document(&roster, None);
        assert!(text.len() < 61_000, "{}", text.len());
        assert!(text.contains("state=\"partial\"") && values(&text, "<user entity=\"").len() < 256);
        assert_eq!(values(&text, "<user-count>"), ["256"]);
        let plain = Roster {
            max_users: 256,
            participants: (0..200).map(|n| participant(n, &format!("+4930{:08}", n))).collect(),
        };
        let text = document(&plain, None);
        assert!(!text.contains("\"partial\"") && values(&text, "<joining-method>").len() == 200, "{}", text.len());
    }
}
