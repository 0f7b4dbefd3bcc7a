//! Digest challenges and their answers (RFC 7616, RFC 8760, RFC 3261 §22). Of `rsip` the names of
//! `qop` are used, not its generator nor its algorithms: it writes the nonce count in decimal, takes no IPv6 URI and does not know `SHA-256` by its name.

use bytes::Bytes;
use md5::Digest as _;
use rsip::headers::auth::Qop;

use super::ValueError;
use super::params::{quote, unquote};
use crate::sip::headers::Headers;
use crate::sip::name::Name;
use crate::sip::scan;

/// A hash that we can answer with, `-sess` variants apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the algorithm of its name")]
pub enum Algorithm {
    Md5,
    Md5Sess,
    Sha256,
    Sha256Sess,
}

impl Algorithm {
    const ALL: [(Algorithm, &'static str); 4] = [
        (Algorithm::Md5, "MD5"),
        (Algorithm::Md5Sess, "MD5-sess"),
        (Algorithm::Sha256, "SHA-256"),
        (Algorithm::Sha256Sess, "SHA-256-sess"),
    ];

    /// Reads a name, without case; `None` for one that we cannot answer with.
    pub fn parse(name: &[u8]) -> Option<Algorithm> {
        Self::ALL.iter().find(|(_, known)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(algorithm, _)| *algorithm)
    }

    /// The name on the wire.
    pub fn as_str(&self) -> &'static str {
        // ALL has every variant.
        Self::ALL.iter().find(|(algorithm, _)| algorithm == self).map_or("MD5", |(_, name)| name)
    }

    fn is_session(self) -> bool {
        matches!(self, Algorithm::Md5Sess | Algorithm::Sha256Sess)
    }

    fn hash(self, parts: &[&[u8]]) -> String {
        let text = parts.join(&b':');
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
        match self {
            Algorithm::Md5 | Algorithm::Md5Sess => hex(&md5::Md5::digest(&text)),
            Algorithm::Sha256 | Algorithm::Sha256Sess => {
                use sha2::Digest as _;
                hex(&sha2::Sha256::digest(&text))
            }
        }
    }
}

/// One Digest challenge of a WWW-Authenticate or Proxy-Authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Which password is meant.
    pub realm: Vec<u8>,
    /// The server's nonce.
    pub nonce: Vec<u8>,
    /// Handed back as it is.
    pub opaque: Option<Vec<u8>>,
    /// MD5 when not said; `None` for one that we cannot answer with.
    pub algorithm: Option<Algorithm>,
    /// Whether `qop` offers `auth`.
    pub auth: bool,
    /// Whether `qop` offers `auth-int`.
    pub auth_int: bool,
    /// The answer before was right but for its nonce: answer again with this one.
    pub stale: bool,
}

impl Challenge {
    /// Every Digest challenge of the header fields of this name, in order (RFC 8760 §2.4: the first that we can answer is
    /// taken). Challenges of other schemes and malformed ones are left out. Several may stand on a line.
    pub fn all(headers: &Headers, name: Name<'_>) -> Vec<Challenge> {
        let mut challenges = Vec::new();
        for line in headers.all(name) {
            let value = line.value();
            for (scheme, params) in split_challenges(&value) {
                if scheme.eq_ignore_ascii_case(b"Digest") {
                    challenges.extend(Challenge::read(&params));
                }
            }
        }
        challenges
    }

    fn read(params: &[(&[u8], &[u8])]) -> Option<Challenge> {
        let get = |name: &[u8]| {
            params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| unquote(v).into_owned())
        };
        let qop = get(b"qop").unwrap_or_default();
        let qops: Vec<Qop> = qop.split(|b| *b == b',').filter_map(|one| protection(scan::trim(one))).collect();
        Some(Challenge {
            realm: get(b"realm")?,
            nonce: get(b"nonce")?,
            opaque: get(b"opaque"),
            algorithm: get(b"algorithm").map_or(Some(Algorithm::Md5), |name| Algorithm::parse(&name)),
            auth: qops.contains(&Qop::Auth),
            auth_int: qops.contains(&Qop::AuthInt),
            stale: get(b"stale").is_some_and(|stale| stale.eq_ignore_ascii_case(b"true")),
        })
    }

    /// Whether we can answer: the algorithm is known, and `qop` is absent or offers one that we have.
    pub fn can_answer(&self) -> bool {
        self.algorithm.is_some()
    }

    /// The value of a WWW-Authenticate of ours. Only `auth` is offered: intermediaries change bodies.
    pub fn encode(&self) -> Bytes {
        let mut out = b"Digest realm=".to_vec();
        out.extend_from_slice(&quote(&self.realm));
        out.extend_from_slice(b", nonce=");
        out.extend_from_slice(&quote(&self.nonce));
        if self.auth {
            out.extend_from_slice(b", qop=\"auth\"");
        }
        if let Some(algorithm) = self.algorithm {
            out.extend_from_slice(format!(", algorithm={}", algorithm.as_str()).as_bytes());
        }
        if self.stale {
            out.extend_from_slice(b", stale=true");
        }
        out.into()
    }
}

/// The credentials of one Authorization (RFC 7616 §3.4), as a server reads them. Holds a user name: it has no Debug.
#[derive(Clone, PartialEq, Eq)]
pub struct Given {
    /// Who it claims to be.
    pub username: Vec<u8>,
    /// The realm that it answers for.
    pub realm: Vec<u8>,
    /// The nonce that it answers.
    pub nonce: Vec<u8>,
    /// The digest URI, which must be that of the request.
    pub uri: Vec<u8>,
    /// MD5 when not said; `None` for one that we do not have.
    pub algorithm: Option<Algorithm>,
    /// The quality of protection that was used; empty: none (RFC 2069).
    pub qop: Vec<u8>,
    /// How often the nonce has been used, this time included; `None` when it is not said or no number.
    pub nonce_count: Option<u32>,
    /// The client's nonce.
    pub cnonce: Vec<u8>,
    /// The answer, in hex.
    response: Vec<u8>,
}

impl Given {
    /// Every Digest credential of the header fields of this name, in order; malformed ones are left out.
    pub fn all(headers: &Headers, name: Name<'_>) -> Vec<Given> {
        let mut given = Vec::new();
        for line in headers.all(name) {
            let value = line.value();
            for (scheme, params) in split_challenges(&value) {
                if scheme.eq_ignore_ascii_case(b"Digest") {
                    given.extend(Given::read(&params));
                }
            }
        }
        given
    }

    fn read(params: &[(&[u8], &[u8])]) -> Option<Given> {
        let get = |name: &[u8]| {
            params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| unquote(v).into_owned())
        };
        let count = |text: Vec<u8>| {
            let text = std::str::from_utf8(&text).ok()?;
            // from_str_radix would take a sign.
            let is_hex = text.len() <= 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
            is_hex.then(|| u32::from_str_radix(text, 16).ok())?
        };
        Some(Given {
            username: get(b"username")?,
            realm: get(b"realm")?,
            nonce: get(b"nonce")?,
            uri: get(b"uri")?,
            algorithm: get(b"algorithm").map_or(Some(Algorithm::Md5), |name| Algorithm::parse(&name)),
            qop: get(b"qop").unwrap_or_default(),
            nonce_count: get(b"nc").and_then(count),
            cnonce: get(b"cnonce").unwrap_or_default(),
            response: get(b"response")?,
        })
    }

    /// Whether the response is that of this password for a request of this method. Covers `qop=auth` only, which is all
    /// that [`Challenge::encode`] offers.
    pub fn is_of(&self, password: &[u8], method: &[u8]) -> bool {
        let (Some(algorithm), Some(nonce_count)) = (self.algorithm, self.nonce_count) else { return false };
        if protection(&self.qop) != Some(Qop::Auth) {
            return false;
        }
        let challenge = Challenge {
            realm: self.realm.clone(),
            nonce: self.nonce.clone(),
            opaque: None,
            algorithm: Some(algorithm),
            auth: true,
            auth_int: false,
            stale: false,
        };
        let expected = Answer {
            challenge: &challenge,
            username: &self.username,
            password,
            method,
            uri: &self.uri,
            nonce_count,
            cnonce: &self.cnonce,
            body: b"",
        };
        let expected = expected.response(algorithm, Some("auth"));
        is_equal(expected.as_bytes(), &self.response.to_ascii_lowercase())
    }
}

/// Compares in a time that tells only the length.
pub fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

/// A quality of protection, without case; `None` for one that neither we nor `rsip` know.
fn protection(name: &[u8]) -> Option<Qop> {
    std::str::from_utf8(name).ok()?.parse().ok()
}

type ChallengeParams<'a> = (&'a [u8], Vec<(&'a [u8], &'a [u8])>);

/// Splits `scheme name=value, name=value, scheme name=value …`.
fn split_challenges(value: &[u8]) -> Vec<ChallengeParams<'_>> {
    let mut challenges: Vec<ChallengeParams<'_>> = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let (end, next) = scan::split_comma(rest, false);
        let mut piece = scan::trim(&rest[..end]);
        rest = &rest[next..];
        let word = piece.iter().take_while(|b| scan::is_token_byte(**b)).count();
        let after = scan::trim(&piece[word..]);
        if word > 0 && after.first() != Some(&b'=') {
            challenges.push((&piece[..word], Vec::new()));
            piece = after;
        }
        let (Some(equals), Some((_, params))) = (piece.iter().position(|b| *b == b'='), challenges.last_mut()) else {
            continue;
        };
        params.push((scan::trim(&piece[..equals]), scan::trim(&piece[equals + 1..])));
    }
    challenges
}

/// What an Authorization or Proxy-Authorization is made of.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    /// What is answered; one that [`Challenge::can_answer`].
    pub challenge: &'a Challenge,
    /// The user's name.
    pub username: &'a [u8],
    /// The password.
    pub password: &'a [u8],
    /// The request's method.
    pub method: &'a [u8],
    /// The Request-URI as written in the request.
    pub uri: &'a [u8],
    /// How often this nonce has been answered, this time included.
    pub nonce_count: u32,
    /// A random text of ours.
    pub cnonce: &'a [u8],
    /// The request's body, which `auth-int` covers.
    pub body: &'a [u8],
}

impl Answer<'_> {
    /// The value of the header field.
    pub fn encode(&self) -> Result<Bytes, ValueError> {
        let algorithm = self.challenge.algorithm.ok_or(ValueError::Challenge)?;
        let qop = match (self.challenge.auth, self.challenge.auth_int) {
            (true, _) => Some("auth"),
            (false, true) => Some("auth-int"),
            (false, false) => None,
        };
        let response = self.response(algorithm, qop);
        let mut out = b"Digest username=".to_vec();
        out.extend_from_slice(&quote(self.username));
        let mut add = |name: &str, value: &[u8]| {
            out.extend_from_slice(format!(", {name}=").as_bytes());
            out.extend_from_slice(value);
        };
        add("realm", &quote(&self.challenge.realm));
        add("nonce", &quote(&self.challenge.nonce));
        add("uri", &quote(self.uri));
        add("response", &quote(response.as_bytes()));
        add("algorithm", algorithm.as_str().as_bytes());
        if let Some(opaque) = &self.challenge.opaque {
            add("opaque", &quote(opaque));
        }
        if qop.is_some() || algorithm.is_session() {
            add("cnonce", &quote(self.cnonce));
        }
        if let Some(qop) = qop {
            add("qop", qop.as_bytes());
            add("nc", self.count().as_bytes());
        }
        Ok(out.into())
    }

    fn count(&self) -> String {
        format!("{:08x}", self.nonce_count)
    }

    fn response(&self, algorithm: Algorithm, qop: Option<&str>) -> String {
        let nonce = &self.challenge.nonce[..];
        let mut ha1 = algorithm.hash(&[self.username, &self.challenge.realm, self.password]);
        if algorithm.is_session() {
            ha1 = algorithm.hash(&[ha1.as_bytes(), nonce, self.cnonce]);
        }
        let ha2 = match qop {
            Some("auth-int") => {
                let body = algorithm.hash(&[self.body]);
                algorithm.hash(&[self.method, self.uri, body.as_bytes()])
            }
            _ => algorithm.hash(&[self.method, self.uri]),
        };
        match qop {
            Some(qop) => {
                let count = self.count();
                let parts = [ha1.as_bytes(), nonce, count.as_bytes(), self.cnonce, qop.as_bytes(), ha2.as_bytes()];
                algorithm.hash(&parts)
            }
            None => algorithm.hash(&[ha1.as_bytes(), nonce, ha2.as_bytes()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenges(lines: &[&'static str]) -> Vec<Challenge> {
        let mut headers = Headers::new();
        lines.iter().for_each(|line| headers.push(Name::WwwAuthenticate, *line));
        Challenge::all(&headers, Name::WwwAuthenticate)
    }

    #[test]
    fn challenges_are_found_on_one_line_and_on_several() {
        let found = challenges(&[
            "Digest realm=\"a, b\", nonce=\"n1\", qop=\"auth,auth-int\", algorithm=SHA-256, opaque=\"o\", Basic realm=\"x\", \
             DIGEST nonce=n2 , realm=\"\\\"c\\\"\" , stale=TRUE",
            "Digest realm=\"d\",nonce=\"n3\",algorithm=AKAv1-MD5",
            "Digest realm=\"no nonce\"",
        ]);
        assert_eq!(found.len(), 3);
        assert_eq!((&found[0].realm[..], found[0].algorithm), (&b"a, b"[..], Some(Algorithm::Sha256)));
        assert!(found[0].auth && found[0].auth_int && !found[0].stale);
        assert_eq!((&found[1].realm[..], &found[1].nonce[..], found[1].stale), (&b"\"c\""[..], &b"n2"[..], true));
        assert_eq!(found[1].algorithm, Some(Algorithm::Md5));
        assert!(!found[2].can_answer());
    }

    fn answer<'a>(challenge: &'a Challenge, username: &'a [u8], password: &'a [u8], cnonce: &'a [u8]) -> Answer<'a> {
        Answer {
            challenge,
            username,
            password,
            method: b"GET",
            uri: b"/dir/index.html",
            nonce_count: 1,
            cnonce,
            body: b"",
        }
    }

    fn response(encoded: &Bytes) -> String {
        let text = String::from_utf8(encoded.to_vec()).unwrap();
        text.split("response=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }

    #[test]
    fn the_published_examples_come_out() {
        // RFC 2617 §3.5.
        let old = &challenges(&["Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
            nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\""])[0];
        let encoded = answer(old, b"Mufasa", b"Circle Of Life", b"0a4f113b").encode().unwrap();
        assert_eq!(response(&encoded), "6629fae49393a05397450978507c4ef1");
        assert!(encoded.ends_with(b", cnonce=\"0a4f113b\", qop=auth, nc=00000001"));
        // RFC 7616 §3.9.1.
        let text = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=SHA-256, \
            nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
        let sha = &challenges(&[text])[0];
        let cnonce = b"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let encoded = answer(sha, b"Mufasa", b"Circle of Life", cnonce).encode().unwrap();
        assert_eq!(response(&encoded), "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
    }

    #[test]
    fn a_server_grants_what_a_client_answers_and_nothing_else() {
        for algorithm in [Algorithm::Md5, Algorithm::Sha256] {
            let challenge = Challenge {
                realm: b"r \"x\"".to_vec(),
                nonce: b"n".to_vec(),
                opaque: None,
                algorithm: Some(algorithm),
                auth: true,
                auth_int: false,
                stale: true,
            };
            let mut headers = Headers::new();
            headers.push(Name::WwwAuthenticate, challenge.encode());
            let read = Challenge::all(&headers, Name::WwwAuthenticate).remove(0);
            assert_eq!(read, challenge);
            let encoded = answer(&read, b"2001", b"secret", b"c").encode().unwrap();
            let mut headers = Headers::new();
            headers.push(Name::Authorization, encoded);
            let given = Given::all(&headers, Name::Authorization).remove(0);
            assert_eq!((given.nonce_count, &given.username[..]), (Some(1), &b"2001"[..]));
            assert!(given.is_of(b"secret", b"GET"));
            assert!(!given.is_of(b"Secret", b"GET"));
            assert!(!given.is_of(b"secret", b"PUT"));
            let none = Given { qop: Vec::new(), ..given.clone() };
            assert!(!none.is_of(b"secret", b"GET"), "without qop there is no count against replays");
            assert!(!Given { nonce_count: Some(2), ..given.clone() }.is_of(b"secret", b"GET"));
            assert!(!Given { nonce_count: None, ..given }.is_of(b"secret", b"GET"));
        }
    }

    #[test]
    fn malformed_credentials_are_no_credentials() {
        let mut headers = Headers::new();
        for line in [
            "Digest username=\"a\", realm=\"r\", nonce=\"n\", uri=\"u\"",
            "Basic YTpi",
            "Digest",
            "Digest username=\"a\", realm=\"r\", nonce=\"n\", uri=\"u\", response=\"x\", nc=+1, algorithm=AKAv1-MD5",
        ] {
            headers.push(Name::Authorization, line);
        }
        let found = Given::all(&headers, Name::Authorization);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].nonce_count, found[0].algorithm), (None, None));
        assert!(!found[0].is_of(b"", b""));
        assert!(is_equal(b"ab", b"ab") && !is_equal(b"ab", b"aB") && !is_equal(b"ab", b"a"));
    }

    #[test]
    fn a_quality_of_protection_is_read_beside_unknown_ones() {
        let found = challenges(&["Digest realm=\"r\", nonce=\"n\", qop=\"token, AUTH-int ,auth-conf\""]);
        assert_eq!((found[0].auth, found[0].auth_int), (false, true));
        let mut headers = Headers::new();
        headers.push(Name::WwwAuthenticate, &b"Digest realm=\"r\", nonce=\"n\", qop=\"\xff,auth\""[..]);
        assert!(Challenge::all(&headers, Name::WwwAuthenticate)[0].auth);
    }

    #[test]
    fn every_mode_hashes_what_it_covers() {
        let mut challenge = challenges(&["Digest realm=\"r\", nonce=\"n\""])[0].clone();
        let plain = answer(&challenge, b"u", b"p", b"c").encode().unwrap();
        assert!(!plain.windows(4).any(|part| part == b"qop=") && !plain.windows(6).any(|part| part == b"cnonce"));
        challenge.auth_int = true;
        let mut integrity = answer(&challenge, b"u", b"p", b"c");
        let empty = response(&integrity.encode().unwrap());
        integrity.body = b"v=0";
        assert_ne!(response(&integrity.encode().unwrap()), empty);
        integrity.nonce_count = 10;
        assert!(integrity.encode().unwrap().ends_with(b"nc=0000000a"));
        challenge.algorithm = Some(Algorithm::Md5Sess);
        assert_ne!(response(&answer(&challenge, b"u", b"p", b"c").encode().unwrap()), empty);
        challenge.algorithm = None;
        assert_eq!(answer(&challenge, b"u", b"p", b"c").encode(), Err(ValueError::Challenge));
    }

    #[test]
    fn the_answer_agrees_with_rsip_where_it_is_right() {
        let challenge = &challenges(&["Digest realm=\"r\", nonce=\"n\", algorithm=MD5, qop=\"auth\""])[0];
        let mut ours = answer(challenge, b"alice", b"secret", b"c0");
        (ours.method, ours.uri) = (b"REGISTER", b"sip:example.com");
        let uri = rsip::Uri::try_from("sip:example.com").unwrap();
        let theirs = rsip::services::DigestGenerator {
            username: "alice",
            password: "secret",
            nonce: "n",
            uri: &uri,
            realm: "r",
            method: &rsip::Method::Register,
            qop: Some(&rsip::headers::auth::AuthQop::Auth { cnonce: "c0".into(), nc: 1 }),
            algorithm: rsip::headers::auth::Algorithm::Md5,
        };
        assert_eq!(response(&ours.encode().unwrap()), theirs.compute());
    }
}
