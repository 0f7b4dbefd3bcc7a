//! SIP messages as they come: read, checked, written.

use std::hint::black_box;

use bytes::Bytes;
use stickytape::sip::message::Message;
use stickytape::sip::values::Essentials;

const SDP: &str = "v=0\r\no=- 3742 3742 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
    m=audio 20000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
    a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n";

const DIALOG: &str = "From: \"A. Caller\" <sip:2001@example.com>;tag=a6c85cf\r\nTo: <sip:2002@example.com>{to}\r\n\
    Call-ID: a84b4c76e66710@192.0.2.10\r\nCSeq: {cseq}\r\n";

const VIA: &str = "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK4b43c2ff8.1\r\n\
    Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK776asdhds;rport=5060;received=192.0.2.10\r\n";

/// The messages of a call: what each is called, and its bytes.
pub fn messages() -> Vec<(&'static str, Bytes)> {
    let dialog = |to: &str, cseq: &str| DIALOG.replace("{to}", to).replace("{cseq}", cseq);
    let answered = ";tag=314159";
    let body = |sdp: &str| format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len());
    let request = |line: &str, rest: String| format!("{line} SIP/2.0\r\n{VIA}Max-Forwards: 69\r\n{rest}");
    let contact = "Contact: <sip:2001@192.0.2.10:5060;transport=udp>\r\n";
    let allow = "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, REFER, NOTIFY, UPDATE, PRACK, INFO\r\n\
        Supported: replaces, timer, 100rel\r\nUser-Agent: a phone/1.0\r\n";
    let invite =
        request("INVITE sip:2002@192.0.2.1", format!("{}{contact}{allow}{}", dialog("", "314159 INVITE"), body(SDP)));
    let ringing = format!("SIP/2.0 180 Ringing\r\n{VIA}{}{contact}{}", dialog(answered, "314159 INVITE"), body(""));
    let ok = format!("SIP/2.0 200 OK\r\n{VIA}{}{contact}{allow}{}", dialog(answered, "314159 INVITE"), body(SDP));
    let ack = request("ACK sip:2002@192.0.2.1", format!("{}{}", dialog(answered, "314159 ACK"), body("")));
    let bye = request("BYE sip:2002@192.0.2.1", format!("{}{}", dialog(answered, "314160 BYE"), body("")));
    [("INVITE with SDP", invite), ("180", ringing), ("200 with SDP", ok), ("ACK", ack), ("BYE", bye)]
        .map(|(name, text)| (name, Bytes::from(text)))
        .to_vec()
}

/// Reads a message and what every message has, and writes it again; the bytes written.
pub fn read_and_write(bytes: &Bytes) -> usize {
    let message = Message::parse(bytes).expect("a message");
    let essentials = match &message {
        Message::Request(request) => Essentials::of_request(request),
        Message::Response(response) => Essentials::of_response(response),
    };
    black_box(essentials.expect("a message with all that it needs"));
    black_box(message.encode()).len()
}
