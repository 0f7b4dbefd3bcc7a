//! `GET /v1/recordings/{id}/media/{file}` with ranges (RFC 9110 §14), also while the call is up.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;

use super::http::{Shared, blocking, recording_id};
use super::problem::{self, Kind, Problem};
use super::{Content, Media};

/// Bytes read at once.
const CHUNK: u64 = 64 * 1024;

/// What a Range header asks of a file.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    /// Nothing that we serve in parts: another unit, several ranges, something malformed. The whole file (RFC 9110 §14.2).
    Whole,
    /// Some bytes.
    Part(Range<u64>),
    /// Bytes that the file has not.
    Beyond,
}

/// A media file of a recording, whole or a range of it.
///
/// Only files that the recording's metadata names. A running recording's file is served as far as it reaches; its header
/// says how far that is. A published file's ETag is its SHA-256.
#[utoipa::path(
    get,
    path = "/v1/recordings/{id}/media/{file}",
    operation_id = "media",
    tag = "recordings",
    params(
        ("id" = uuid::Uuid, Path, description = "the recording"),
        ("file" = String, Path, description = "a name of `mediaFiles`", example = "mixed.wav"),
        ("Range" = Option<String>, Header, description = "one range of bytes", example = "bytes=0-43"),
        ("If-Range" = Option<String>, Header, description = "an ETag: the range counts only while it is the file's"),
    ),
    responses(
        (status = 200, description = "the file", body = Vec<u8>, content_type = "audio/wav"),
        (status = 206, description = "the range", body = Vec<u8>, content_type = "audio/wav"),
        (status = 400, description = "bad-request", body = problem::Body, content_type = "application/problem+json"),
        (status = 404, description = "not-found", body = problem::Body, content_type = "application/problem+json"),
        (status = 416, description = "range", body = problem::Body, content_type = "application/problem+json"),
        (status = 503, description = "unavailable", body = problem::Body, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn media(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, PathRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((id, file)) = path.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let id = recording_id(&id)?;
    let found = blocking(move || shared.backend.media(id, &file)).await?;
    let media = found.ok_or_else(|| Problem::not_found("the recording has no media file of that name"))?;
    let tag = media.sha256.as_ref().and_then(|hash| HeaderValue::from_str(&format!("\"{hash}\"")).ok());
    let wish = match headers.get(header::RANGE) {
        Some(range) if still_the_same(&headers, tag.as_ref()) => wish(range.to_str().unwrap_or_default(), media.len),
        _ => Wish::Whole,
    };
    let mut response = match wish {
        Wish::Beyond => {
            let problem = Problem::new(Kind::Range, format!("the file has {} bytes", media.len));
            with_range(problem.into_response(), &format!("bytes */{}", media.len))
        }
        Wish::Whole => answer(StatusCode::OK, &media, 0..media.len, &method),
        Wish::Part(part) => {
            let range = format!("bytes {}-{}/{}", part.start, part.end - 1, media.len);
            with_range(answer(StatusCode::PARTIAL_CONTENT, &media, part, &method), &range)
        }
    };
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// RFC 9110 §13.1.5; a date is never the same, for we send none.
fn still_the_same(headers: &HeaderMap, tag: Option<&HeaderValue>) -> bool {
    headers.get(header::IF_RANGE).is_none_or(|wanted| Some(wanted) == tag)
}

fn with_range(mut response: Response, range: &str) -> Response {
    if let Ok(range) = HeaderValue::from_str(range) {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    response
}

/// One range (RFC 9110 §14.1.2) of a file of `len` bytes.
fn wish(header: &str, len: u64) -> Wish {
    let Some((unit, range)) = header.split_once('=') else { return Wish::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return Wish::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Wish::Whole;
    }
    // Digits only: `parse` would take a sign.
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let part = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(len),
        (Some(first), None) if last.is_empty() => first..len,
        (None, Some(suffix)) if first.is_empty() => len.saturating_sub(suffix)..len,
        _ => return Wish::Whole,
    };
    if part.is_empty() { Wish::Beyond } else { Wish::Part(part) }
}

fn answer(status: StatusCode, media: &Media, part: Range<u64>, method: &Method) -> Response {
    let length = part.end - part.start;
    let body = match *method == Method::HEAD {
        true => Body::empty(),
        false => body(media.content.clone(), part),
    };
    let headers = [(header::CONTENT_TYPE, media.media_type.clone()), (header::CONTENT_LENGTH, length.to_string())];
    (status, headers, body).into_response()
}

/// Reads as the client takes it, where it stops nobody else. A file that ends too soon breaks the answer off: its length
/// has been promised.
fn body(content: Arc<dyn Content>, part: Range<u64>) -> Body {
    Body::from_stream(unfold((content, part), async |(content, part)| {
        if part.is_empty() {
            return None;
        }
        let (reader, place) = (content.clone(), part.clone());
        let read = tokio::task::spawn_blocking(move || read(&*reader, &place)).await;
        let bytes = read.map_err(io::Error::other).flatten();
        let rest = match &bytes {
            Ok(bytes) => part.start + bytes.len() as u64..part.end,
            Err(_) => part.end..part.end,
        };
        Some((bytes, (content, rest)))
    }))
}

fn read(content: &dyn Content, part: &Range<u64>) -> io::Result<Bytes> {
    let mut chunk = vec![0; (part.end - part.start).min(CHUNK) as usize];
    loop {
        match content.read_at(&mut chunk, part.start) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                chunk.truncate(read);
                return Ok(chunk.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        for (header, wanted) in [
            ("bytes=0-43", Wish::Part(0..44)),
            ("bytes=10-", Wish::Part(10..100)),
            ("bytes=-5", Wish::Part(95..100)),
            ("bytes=-500", Wish::Part(0..100)),
            ("bytes=90-1000", Wish::Part(90..100)),
            ("Bytes = 99-99", Wish::Part(99..100)),
            ("bytes=0-18446744073709551615", Wish::Part(0..100)),
            ("bytes=100-", Wish::Beyond),
            ("bytes=100-200", Wish::Beyond),
            ("bytes=-0", Wish::Beyond),
            ("bytes=5-4", Wish::Whole),
            ("bytes=0-1,5-6", Wish::Whole),
            ("bytes=-", Wish::Whole),
            ("bytes=+1-+2", Wish::Whole),
            ("bytes=a-b", Wish::Whole),
            ("samples=0-1", Wish::Whole),
            ("", Wish::Whole),
        ] {
            assert_eq!(wish(header, 100), wanted, "{header}");
        }
        assert_eq!(wish("bytes=0-", 0), Wish::Beyond);
    }
}
