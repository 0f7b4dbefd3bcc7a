//! Calls through a peer that speaks SIP: this program is the caller and the callee of every call, on one socket. The calls
//! are set up one after the other; what that costs is not what is measured.

use std::collections::HashSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use stickytape::clock;

use crate::steps::phone;

/// Until a request is sent again.
const REPEAT: Duration = Duration::from_millis(500);
/// For what belongs to one call; a process that starts takes longer.
const PATIENCE: Duration = Duration::from_secs(5);
const START: Duration = Duration::from_secs(30);
/// For the end of all calls, and between two of them.
const LEAVE: Duration = Duration::from_secs(30);
const PACE: Duration = Duration::from_millis(2);

pub struct Switchboard {
    socket: UdpSocket,
    /// The peer's.
    sip: u16,
    /// Before the number of a call: what the dial-plan tells calls apart by.
    prefix: char,
    calls: Vec<Call>,
    /// Questions and attempts at calls: each has a number of its own.
    asked: u64,
}

/// What the caller needs for its BYE.
struct Call {
    /// Of the attempt that became it.
    number: u64,
    /// Contact of the answer.
    uri: String,
    /// To of the answer.
    to: String,
}

impl Switchboard {
    /// A port for the peer and one for us; the peer does not have its own yet.
    pub fn new(prefix: char) -> Self {
        let bind = || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
            socket.set_read_timeout(Some(REPEAT)).expect("a timeout");
            socket
        };
        let (socket, free) = (bind(), bind());
        // Asked for and given back: the configuration names it.
        let sip = free.local_addr().expect("bound").port();
        Self { socket, sip, prefix, calls: Vec::new(), asked: 0 }
    }

    /// The port that the peer takes calls on.
    pub fn peer_port(&self) -> u16 {
        self.sip
    }

    /// The port that the peer sends calls to.
    pub fn port(&self) -> u16 {
        self.socket.local_addr().expect("bound").port()
    }

    /// Waits until the peer answers; false if it does not.
    pub fn wait_until_ready(&mut self) -> bool {
        let deadline = clock::now() + START;
        while clock::now() < deadline {
            let number = self.next();
            self.send(&phone::bare(&self.request("OPTIONS", &self.uri(), number, "<sip:bench@127.0.0.1>")));
            match self.receive() {
                // Perhaps to one that waited for the peer to start.
                Some(answer) if answer.starts_with("SIP/2.0 200") => return true,
                // Refused until it listens.
                _ => std::thread::sleep(REPEAT / 10),
            }
        }
        false
    }

    /// Sets calls up between the phones 2n and 2n + 1; the port that each of them sends to.
    pub fn anchor(&mut self, phones: &[u16]) -> Vec<u16> {
        let mut ports = Vec::with_capacity(phones.len());
        let deadline = clock::now() + START;
        for pair in phones.chunks_exact(2) {
            let [caller, callee] = loop {
                if let Some(ports) = self.call(pair[0], pair[1]) {
                    break ports;
                }
                assert!(clock::now() < deadline, "it takes no call: 503");
                std::thread::sleep(REPEAT / 10);
            };
            ports.extend([caller, callee]);
        }
        ports
    }

    /// The peer's ports for the caller and for the callee of a call; `None` if it takes none for now.
    fn call(&mut self, caller: u16, callee: u16) -> Option<[u16; 2]> {
        let (number, uri) = (self.next(), self.uri());
        // The name in its address, which the peer dials on.
        let dialed = format!("INVITE {}@", uri.split('@').next().unwrap_or_default());
        let to = format!("<{uri}>");
        self.send(&phone::with_sdp(&self.request("INVITE", &uri, number, &to), caller));
        let deadline = clock::now() + PATIENCE;
        let (mut for_caller, mut for_callee) = (None, None);
        while for_caller.is_none() || for_callee.is_none() {
            assert!(clock::now() < deadline, "call {number} is not answered, or does not reach its callee");
            let Some(message) = self.receive() else { continue };
            let header = |name| phone::header(&message, name).unwrap_or_default().to_owned();
            if message.starts_with(&dialed) {
                for_callee = phone::media_port(&message);
                self.send(&phone::ok(&message, self.port(), Some(callee)));
            }
            match status(&message, number, "INVITE") {
                None | Some(100..=199) => {}
                Some(200) => {
                    for_caller = phone::media_port(&message);
                    let uri = header("Contact").split(['<', '>']).nth(1).expect("an address").to_owned();
                    let call = Call { number, uri, to: header("To") };
                    self.send(&phone::bare(&self.request("ACK", &call.uri, number, &call.to)));
                    self.calls.push(call);
                }
                // FreeSWITCH answers OPTIONS before it takes calls. This ACK is part of the INVITE's transaction.
                Some(503) => {
                    let ack = phone::bare(&self.request("ACK", &uri, number, &header("To")));
                    self.send(&ack.replace("branch=z9hG4bKACK", "branch=z9hG4bKINVITE"));
                    return None;
                }
                Some(_) => panic!("the INVITE was answered\n{message}"),
            }
        }
        Some([for_caller?, for_callee?])
    }

    /// Ends all calls. FreeSWITCH looks after a call without packets every five seconds, so they end at the same time.
    pub fn hang_up(&mut self) {
        let calls = std::mem::take(&mut self.calls);
        let mut numbers: HashSet<u64> = calls.iter().map(|call| call.number).collect();
        let (mut callees, wanted) = (HashSet::new(), calls.len());
        let mut calls = calls.into_iter();
        let deadline = clock::now() + LEAVE;
        while !numbers.is_empty() || callees.len() < wanted {
            assert!(
                clock::now() < deadline,
                "{} callers and {} callees are still there",
                numbers.len(),
                wanted - callees.len()
            );
            if let Some(call) = calls.next() {
                self.send(&phone::bare(&self.request("BYE", &call.uri, call.number, &call.to)));
            }
            // One after the other, as fast as they can be answered.
            self.socket.set_read_timeout(Some(if calls.len() > 0 { PACE } else { REPEAT })).expect("a timeout");
            let Some(message) = self.receive() else { continue };
            if message.starts_with("BYE ") {
                self.send(&phone::ok(&message, self.port(), None));
                callees.extend(phone::header(&message, "Call-ID").map(str::to_owned));
            }
            numbers.retain(|number| status(&message, *number, "BYE").is_none());
        }
    }

    fn next(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// What the call of the last number dials.
    fn uri(&self) -> String {
        format!("sip:{}{:05}@127.0.0.1:{}", self.prefix, self.asked, self.sip)
    }

    fn request(&self, method: &str, uri: &str, number: u64, to: &str) -> String {
        phone::request(method, uri, self.port(), number, to)
    }

    fn send(&self, message: &str) {
        let _ = self.socket.send_to(message.as_bytes(), (Ipv4Addr::LOCALHOST, self.sip));
    }

    /// The next message, if one comes soon.
    fn receive(&self) -> Option<String> {
        let mut buffer = [0; 8_192];
        let (len, _) = self.socket.recv_from(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..len]).into_owned())
    }
}

/// The status, if this answers the request of this number and method.
fn status(message: &str, number: u64, method: &str) -> Option<u16> {
    let code = message.strip_prefix("SIP/2.0 ")?.split(' ').next()?.parse().ok()?;
    let sequence = phone::header(message, "CSeq")?;
    (phone::number(message) == Some(number) && sequence.ends_with(method)).then_some(code)
}
