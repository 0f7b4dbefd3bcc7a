//! What a phone says in SIP over UDP on loopback, as texts: all that a bench needs in order to call through a server.

/// A port for media that nobody sends.
pub const DISCARD: u16 = 9;

/// A header of a message by its name, as written.
pub fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// A request of the caller at `port` in its call of this number, without what tells of a body: INVITE, its ACK, then BYE.
pub fn request(method: &str, uri: &str, port: u16, number: u64, to: &str) -> String {
    let sequence = if method == "BYE" { 2 } else { 1 };
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{method}{number}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:1001@127.0.0.1>;tag=c{number}\r\nTo: {to}\r\nCall-ID: {number}@bench\r\n\
         CSeq: {sequence} {method}\r\nContact: <sip:1001@127.0.0.1:{port}>\r\n"
    )
}

/// The number of the call that a message to its caller belongs to.
pub fn number(message: &str) -> Option<u64> {
    header(message, "Call-ID")?.split('@').next()?.parse().ok()
}

/// The answer 200 of the callee at `port`, with a description where a port for media is given.
pub fn ok(request: &str, port: u16, media: Option<u16>) -> String {
    let wanted = |line: &&str| ["Via: ", "From: ", "Call-ID: ", "CSeq: "].iter().any(|name| line.starts_with(name));
    let echoed: String = request.lines().filter(wanted).map(|line| format!("{line}\r\n")).collect();
    let to = header(request, "To").unwrap_or_default();
    let tag = if to.contains(";tag=") { "" } else { ";tag=callee" };
    let head = format!("SIP/2.0 200 OK\r\n{echoed}To: {to}{tag}\r\nContact: <sip:2001@127.0.0.1:{port}>\r\n");
    media.map_or_else(|| bare(&head), |media| with_sdp(&head, media))
}

/// A message without a body.
pub fn bare(head: &str) -> String {
    format!("{head}Content-Length: 0\r\n\r\n")
}

/// A message that offers or answers PCMU at a port.
pub fn with_sdp(head: &str, media: u16) -> String {
    let sdp = format!(
        "v=0\r\no=bench 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {media} RTP/AVP 0 101\r\n\
         a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
    );
    format!("{head}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len())
}

/// The port of the audio in a message's description.
pub fn media_port(message: &str) -> Option<u16> {
    message.lines().find_map(|line| line.strip_prefix("m=audio ")?.split(' ').next()?.parse().ok())
}
