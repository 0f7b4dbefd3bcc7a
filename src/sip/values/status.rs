//! Reason phrases (RFC 3261 §21 and the RFC of each later code).

use bytes::Bytes;

/// The usual phrase of a status code: ours, else what `rsip` calls it, else that of its class (RFC 3261 §8.1.3.2).
pub fn reason_phrase(code: u16) -> Bytes {
    match ours(code) {
        Some(phrase) => Bytes::from_static(phrase.as_bytes()),
        None => rare(code).map_or(Bytes::from_static(class_phrase(code).as_bytes()), Bytes::from),
    }
}

/// The name that `rsip` has for a code, as words. SIP has no 201, which it takes from HTTP and calls Accepted.
fn rare(code: u16) -> Option<String> {
    let name = match rsip::StatusCode::from(code) {
        rsip::StatusCode::Other(..) | rsip::StatusCode::Accepted => return None,
        // Written as `409 Conflict`, the words without blanks.
        known => known.to_string(),
    };
    let mut words = String::new();
    for letter in name.split_once(' ')?.1.chars() {
        if letter.is_ascii_uppercase() && words.ends_with(|last: char| last.is_ascii_lowercase()) {
            words.push(' ');
        }
        words.push(letter);
    }
    Some(words)
}

/// The codes that we send or pass every day, with hyphens and strokes as the RFCs write them.
fn ours(code: u16) -> Option<&'static str> {
    let phrase = match code {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        204 => "No Notification",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        433 => "Anonymity Disallowed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        580 => "Precondition Failure",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        _ => return None,
    };
    Some(phrase)
}

fn class_phrase(code: u16) -> &'static str {
    match code {
        ..200 => "Session Progress",
        200..300 => "OK",
        300..400 => "Multiple Choices",
        400..500 => "Bad Request",
        500..600 => "Server Internal Error",
        600.. => "Busy Everywhere",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_agree_with_rsip_where_it_knows_the_code() {
        let letters =
            |text: &str| text.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_lowercase();
        for code in 100..700 {
            let theirs = rsip::StatusCode::from(code);
            // rsip names 201 Accepted and 606 NotAcceptableGlobal.
            if !matches!(theirs, rsip::StatusCode::Other(..)) && !matches!(code, 201 | 606) {
                let phrase = reason_phrase(code);
                let name = theirs.to_string();
                let phrase = std::str::from_utf8(&phrase).unwrap();
                assert_eq!(letters(phrase), letters(name.split_once(' ').unwrap().1), "{code}");
            }
        }
    }

    #[test]
    fn a_rare_code_has_its_words_and_an_unknown_one_those_of_its_class() {
        for (code, phrase) in [
            (200, "OK"),
            (201, "OK"),
            (409, "Conflict"),
            (439, "First Hop Lacks Outbound Support"),
            (481, "Call/Transaction Does Not Exist"),
            (499, "Bad Request"),
            (555, "Server Internal Error"),
            (606, "Not Acceptable"),
            (699, "Busy Everywhere"),
        ] {
            assert_eq!(reason_phrase(code), phrase, "{code}");
        }
    }
}
