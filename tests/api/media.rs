//! `GET /v1/recordings/{id}/media/{file}`: whole files, ranges, and nothing that the metadata does not name.

use super::{Fake, Server};

const ID: &str = "00000000-0000-0000-0000-000000000001";

fn bytes() -> Vec<u8> {
    (0..200_000_u32).map(|n| (n % 251) as u8).collect()
}

fn server(hash: Option<&str>) -> Server {
    let fake = Fake { files: [("mixed.wav", bytes())].into(), hash: hash.map(str::to_owned), ..Fake::default() };
    Server::start(fake, None)
}

fn path(file: &str) -> String {
    format!("/v1/recordings/{ID}/media/{file}")
}

#[test]
fn a_file_is_given_whole() {
    let answer = server(Some("abc")).get(&path("mixed.wav"));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("audio/wav")));
    assert_eq!(answer.header("content-length"), Some("200000"));
    assert_eq!((answer.header("accept-ranges"), answer.header("etag")), (Some("bytes"), Some("\"abc\"")));
    assert!(answer.body == bytes());
}

#[test]
fn a_head_request_gives_the_length_alone() {
    let answer = server(None).ask("HEAD", &path("mixed.wav"), &[], &[]);
    assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (200, Some("200000"), 0));
    assert_eq!(answer.header("etag"), None, "a running recording's file still changes");
}

#[test]
fn a_range_is_given_alone_with_its_place() {
    let server = server(None);
    for (range, first, last) in [
        ("bytes=0-43", 0, 43),
        ("bytes=44-", 44, 199_999),
        ("bytes=-100", 199_900, 199_999),
        ("bytes=7-900000", 7, 199_999),
    ] {
        let answer = server.ask("GET", &path("mixed.wav"), &[("range", range)], &[]);
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.header("content-range"), Some(&*format!("bytes {first}-{last}/200000")));
        assert!(answer.body == bytes()[first..=last], "{range}");
    }
    let beyond = server.ask("GET", &path("mixed.wav"), &[("range", "bytes=200000-")], &[]);
    assert_eq!(beyond.refusal(), (416, "range".into()));
    assert_eq!(beyond.header("content-range"), Some("bytes */200000"));
    let several = server.ask("GET", &path("mixed.wav"), &[("range", "bytes=0-1,5-6")], &[]);
    assert_eq!((several.status, several.body.len()), (200, 200_000));
}

#[test]
fn a_range_of_another_version_of_the_file_is_not_mixed_into_it() {
    let server = server(Some("abc"));
    for (tag, status) in [("\"abc\"", 206), ("\"abd\"", 200), ("Fri, 20 Nov 2026 09:00:00 GMT", 200)] {
        let headers = [("range", "bytes=0-9"), ("if-range", tag)];
        assert_eq!(server.ask("GET", &path("mixed.wav"), &headers, &[]).status, status, "{tag}");
    }
}

#[test]
fn a_file_that_the_recording_does_not_name_is_not_found() {
    let server = server(None);
    for file in ["party-1.wav", "..%2Fmixed.wav", "%2Fetc%2Fpasswd", "recording.json", "."] {
        let answer = server.get(&path(file));
        assert_eq!(answer.refusal().0, 404, "{file}");
    }
    assert_eq!(server.get("/v1/recordings/1/media/mixed.wav").refusal(), (400, "bad-request".into()));
}
