//! Agents' desktops on the real server: WebSockets, phones on real sockets, reporting, reconnection, limits.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use stickytape::api::LineEnd;
use stickytape::app::Server;
use stickytape::config::Config;
use stickytape::runtime::agents::{Desks, QUEUE};
use stickytape::runtime::{events, signaling};
use stickytape::testing::driver::{self, Running, Sockets};
use stickytape::testing::phone::{self, Action, Incoming, Phone};
use stickytape::views::interaction::Options;
use stickytape::views::interaction::message::AgentId;
use tokio::task::block_in_place;
use tokio::time::timeout;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{HandshakeError, Message, WebSocket};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LONG: Duration = Duration::from_secs(20);

/// An agent's end of its connection.
struct Desktop(WebSocket<TcpStream>);

impl Desktop {
    fn open(server: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut request = format!("ws://{server}/v1/agents/{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(HandshakeError::Failure(tungstenite::Error::Http(refused))) => Err(refused.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    fn connect(server: SocketAddr, agent: &str, dn: &str) -> Self {
        let path = format!("{agent}/ws?dn={dn}");
        Self::open(server, &path, &[]).unwrap_or_else(|status| panic!("{path}: {status}"))
    }

    fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).unwrap();
    }

    /// The next event.
    fn told(&mut self) -> Value {
        loop {
            match block_in_place(|| self.0.read()).expect("an open connection") {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next event, which has this name.
    #[track_caller]
    fn tells(&mut self, name: &str) -> Value {
        let event = self.told();
        assert_eq!(event["event"], name, "{event}");
        event
    }

    #[track_caller]
    fn is_closed_with(&mut self, code: u16) {
        match block_in_place(|| self.0.read()) {
            Ok(Message::Close(Some(frame))) => assert_eq!(frame.code, CloseCode::from(code)),
            other => panic!("{other:?}"),
        }
    }
}

/// The data of server-sent events.
struct Reporting(BufReader<TcpStream>);

impl Reporting {
    fn open(server: SocketAddr, query: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        write!(stream, "GET /v1/reporting/events{query} HTTP/1.1\r\nHost: {server}\r\n{headers}\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        Self(reader)
    }

    fn told(&mut self) -> Value {
        loop {
            let mut line = String::new();
            block_in_place(|| self.0.read_line(&mut line)).expect("an event in time");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    fn names(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.told()["event"].as_str().unwrap().to_owned()).collect()
    }
}

/// A server with the phones 2000 (a caller), 2001 (anna's), 2002 (ben's) and 2003, which is busy. Who dials 8 reaches 2001
/// out of the queue "sales".
struct Office {
    server: Server,
    phones: Vec<Running>,
    _folder: tempfile::TempDir,
}

fn config(folder: &Path, more: &str) -> Config {
    let text = format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\nmax-calls = 4\n[media]\nworkers = 1\npriority = \"normal\"\n\
         [recording]\nmin-free-space = \"16MiB\"\nbuffer = \"16MiB\"\n{more}"
    );
    let mut config = Config::parse(&text).unwrap_or_else(|problems| panic!("{problems:?}"));
    config.storage.directory = folder.join("recordings");
    config.claim_capacity().unwrap();
    config
}

impl Office {
    async fn open(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let answers = Incoming::Answer { ring: Duration::ZERO, answer: Duration::from_millis(50) };
        let incoming = [Incoming::Manual, answers, answers, Incoming::Refuse(486)];
        let mut sockets = Vec::new();
        let mut plan = format!(
            "{more}[api]\nlisten = \"127.0.0.1:0\"\n\
             [[route]]\nmatch = \"^8$\"\nto = \"dn:2001\"\norigin = \"queue:sales\"\n"
        );
        for n in 0..incoming.len() {
            let bound = Sockets::bind(HOST).await.unwrap();
            let contact = bound.sip_address().unwrap();
            plan += &format!("[[dn]]\nnumber = \"200{n}\"\ncontact = \"sip:{contact}\"\n");
            sockets.push(bound);
        }
        let server = Server::start(config(folder.path(), &plan)).await.unwrap();
        let proxy = server.listeners()[0].address;
        let phone = |(n, (sockets, incoming)): (usize, (Sockets, Incoming))| {
            let (sip, rtp) = (sockets.sip_address().unwrap(), sockets.rtp_address().unwrap());
            let options = phone::Options { incoming, ..phone::Options::new(&format!("200{n}"), sip, rtp, proxy) };
            driver::start(Phone::new(options), sockets)
        };
        let phones = sockets.into_iter().zip(incoming).enumerate().map(phone).collect();
        Self { server, phones, _folder: folder }
    }

    fn http(&self) -> SocketAddr {
        self.server.http().unwrap()
    }

    /// The caller talks to 2001: the CallUUID.
    async fn call(&self) -> String {
        let mut events = self.server.events().subscribe(Some("2001".into()), None);
        self.phones[0].act(Action::call("8"));
        loop {
            match timeout(LONG, events.next()).await.expect("the call is answered") {
                Some(events::Item::Event(kept)) if kept.name == "EventEstablished" => {
                    let event: Value = serde_json::from_str(&kept.json).unwrap();
                    return event["CallUUID"].as_str().unwrap().to_owned();
                }
                Some(_) => {}
                None => panic!("the server has stopped"),
            }
        }
    }

    async fn close(self) {
        self.server.hang_up();
        timeout(LONG, self.server.stop()).await.expect("the server stops");
        for phone in self.phones {
            phone.stop().await;
        }
    }
}

fn conference(interaction: &str, agent: &str) -> Value {
    json!({"request": "RequestConference", "ReferenceID": "r1", "InteractionID": interaction, "AgentID": agent})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_invited_joins_with_its_phone_and_leaves() {
    let office = Office::open("").await;
    let mut reporting = Reporting::open(office.http(), "?after=0", "");
    let mut anna = Desktop::connect(office.http(), "anna", "2001");
    let mut ben = Desktop::connect(office.http(), "ben", "2002");
    let interaction = office.call().await;
    anna.send(&conference(&interaction, "ben"));
    let invite = ben.tells("EventInvite");
    assert_eq!((&invite["seq"], &invite["AgentID"]), (&json!(1), &json!("anna")));
    assert_eq!(invite["Parties"], json!(["2000", "2001"]));
    assert!(invite["time"].as_str().unwrap().ends_with('Z') && invite.get("ReferenceID").is_none(), "{invite}");
    let ticket = invite["TicketID"].as_str().unwrap();
    assert_eq!(ticket.len(), 32, "128 bits");

    ben.send(&json!({"request": "RequestAccept", "TicketID": ticket, "ReferenceID": "b1"}));
    let ack = anna.tells("EventAck");
    assert_eq!((&ack["ReferenceID"], &ack["AgentID"]), (&json!("r1"), &json!("ben")));
    assert!(ack.get("TicketID").is_none(), "the ticket is ben's alone: {ack}");
    assert_eq!(ben.tells("EventAck")["ReferenceID"], "b1");
    for desktop in [&mut anna, &mut ben] {
        let added = desktop.tells("EventPartyAdded");
        assert_eq!((&added["AgentID"], &added["Parties"]), (&json!("ben"), &json!(["2000", "2001", "2002"])));
    }
    ben.send(&json!({"request": "RequestLeaveInteraction", "InteractionID": interaction, "ReferenceID": "b2"}));
    assert_eq!(ben.tells("EventAck")["ReferenceID"], "b2");
    assert_eq!(anna.tells("EventPartyRemoved")["Parties"], json!(["2000", "2001"]));
    // The last two part by their phones.
    office.phones[0].act(Action::HangUp);
    assert_eq!(anna.tells("EventPartyRemoved")["Party"], "2000");
    assert_eq!(anna.tells("EventPartyRemoved")["Party"], "2001");
    let expected = [
        "EventAgentInvited",
        "EventPartyAdded",
        "EventPartyRemoved",
        "EventPartyRemoved",
        "EventPartyRemoved",
        "EventPlacedInQueue",
    ];
    assert_eq!(reporting.names(6), expected);
    // Who comes later is told again what it has not read.
    let mut again = Reporting::open(office.http(), "", "Last-Event-ID: 5\r\n");
    let placed = again.told();
    assert_eq!((&placed["seq"], &placed["event"], &placed["Queue"]), (&json!(6), &json!(expected[5]), &json!("sales")));
    office.close().await;
    anna.is_closed_with(1001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desktop_that_comes_back_finds_its_invitation_and_replaces_the_old_one() {
    let office = Office::open("").await;
    let mut anna = Desktop::connect(office.http(), "anna", "2001");
    let mut ben = Desktop::connect(office.http(), "ben", "2002");
    let interaction = office.call().await;
    anna.send(&conference(&interaction, "ben"));
    let first = ben.tells("EventInvite");
    let mut again = Desktop::connect(office.http(), "ben", "2002");
    ben.is_closed_with(4001);
    let second = again.tells("EventInvite");
    assert_eq!((&second["TicketID"], &second["seq"]), (&first["TicketID"], &json!(1)));
    drop(again);
    let mut third = Desktop::connect(office.http(), "ben", "2002");
    let ticket = third.tells("EventInvite")["TicketID"].clone();
    third.send(&json!({"request": "RequestReject", "TicketID": ticket}));
    third.tells("EventAck");
    assert_eq!(anna.tells("EventError")["Code"], "rejected");
    // A ticket is used once.
    third.send(&json!({"request": "RequestAccept", "TicketID": first["TicketID"]}));
    assert_eq!(third.tells("EventError")["Code"], "unknown-ticket");
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_times_out_by_the_server_s_own_clock() {
    let office = Office::open("[interaction]\ninvitation-timeout = \"1s\"\n").await;
    let mut anna = Desktop::connect(office.http(), "anna", "2001");
    let mut ben = Desktop::connect(office.http(), "ben", "2002");
    let interaction = office.call().await;
    anna.send(&conference(&interaction, "ben"));
    ben.tells("EventInvite");
    assert_eq!(ben.tells("EventRevoked")["Code"], "timed-out");
    assert_eq!(anna.tells("EventError")["Code"], "timed-out");
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_phone_is_an_error_to_both_desktops() {
    let office = Office::open("").await;
    let mut anna = Desktop::connect(office.http(), "anna", "2001");
    let mut carl = Desktop::connect(office.http(), "carl", "2003");
    let interaction = office.call().await;
    anna.send(&conference(&interaction, "carl"));
    let ticket = carl.tells("EventInvite")["TicketID"].clone();
    carl.send(&json!({"request": "RequestAccept", "TicketID": ticket}));
    for desktop in [&mut anna, &mut carl] {
        // The answer of call control and the phone's own may cross.
        let mut event = desktop.told();
        if event["event"] == "EventAck" {
            event = desktop.told();
        }
        assert_eq!((&event["event"], &event["Code"]), (&json!("EventError"), &json!("busy")));
    }
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_is_an_error_and_the_connection_is_kept() {
    let office = Office::open("").await;
    let mut anna = Desktop::connect(office.http(), "anna", "2001");
    for wrong in ["", "no JSON", "[]", "{}", r#"{"request": "RequestAgent"}"#, r#"{"request": "RequestAccept"}"#] {
        anna.0.send(Message::text(wrong)).unwrap();
        assert_eq!(anna.tells("EventError")["Code"], "bad-request", "{wrong}");
    }
    anna.0.send(Message::Binary(b"{}".to_vec().into())).unwrap();
    assert_eq!(anna.tells("EventError")["Reason"], "a request is a text frame");
    anna.send(&conference("no-interaction", "ben"));
    let error = anna.tells("EventError");
    assert_eq!((&error["Code"], &error["InteractionID"]), (&json!("unknown-interaction"), &json!("no-interaction")));
    assert_eq!((&error["seq"], &error["ReferenceID"]), (&json!(8), &json!("r1")));
    // What is too long ends it.
    anna.0.send(Message::text("x".repeat(5_000))).unwrap();
    assert!(!matches!(block_in_place(|| anna.0.read()), Ok(Message::Text(_))));
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_register_is_refused_before_the_connection_is_one() {
    let office = Office::open("").await;
    let http = office.http();
    let _anna = Desktop::connect(http, "anna", "2001");
    let long = format!("{}/ws?dn=2002", "x".repeat(65));
    for (path, status) in [
        ("ben/ws?dn=2009", 404),
        ("ben/ws?dn=2001", 409),
        ("ben/ws", 400),
        ("ben/ws?dn=2002&role=agent", 400),
        ("ben%20b/ws?dn=2002", 400),
        (long.as_str(), 400),
    ] {
        assert_eq!(block_in_place(|| Desktop::open(http, path, &[])).err(), Some(status), "{path}");
    }
    let foreign = [("origin", "http://elsewhere.example")];
    assert_eq!(block_in_place(|| Desktop::open(http, "ben/ws?dn=2002", &foreign)).err(), Some(403));
    let host = [("host", "elsewhere.example")];
    assert_eq!(block_in_place(|| Desktop::open(http, "ben/ws?dn=2002", &host)).err(), Some(403));
    // What was refused has registered nobody.
    let _ben = Desktop::connect(http, "ben", "2002");
    office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desktop_shows_the_token_as_every_client_does() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "correct-horse\n").unwrap();
    let plan = format!(
        "[api]\nlisten = \"127.0.0.1:0\"\ntoken-file = {token:?}\n\
         [[dn]]\nnumber = \"2001\"\ncontact = \"sip:127.0.0.1:9\"\n"
    );
    let server = Server::start(config(folder.path(), &plan)).await.unwrap();
    let http = server.http().unwrap();
    let open =
        |headers: &[(&'static str, &str)]| block_in_place(|| Desktop::open(http, "anna/ws?dn=2001", headers)).err();
    assert_eq!(open(&[]), Some(401));
    assert_eq!(open(&[("authorization", "Bearer wrong")]), Some(401));
    assert_eq!(open(&[("authorization", "Bearer correct-horse")]), None);
    server.hang_up();
    timeout(LONG, server.stop()).await.expect("the server stops");
}

#[tokio::test]
async fn a_desktop_that_does_not_read_loses_only_its_own_connection() {
    let (inbox, _queue) = signaling::inbox();
    let (_reporting, publisher, kept) = events::events(1);
    let keeping = tokio::spawn(events::run(kept, None));
    let options = Options {
        invitation_timeout: Duration::from_secs(30),
        is_dn: Box::new(|_| true),
        max_interactions: 1,
        seed: [1; 32],
    };
    let desks = Desks::new(inbox, publisher, options);
    let connect = |agent: &str, dn: &str| desks.connect(AgentId::new(agent).unwrap(), dn.to_owned());
    let (Ok(mut slow), Ok(mut other)) = (connect("slow", "1"), connect("other", "2")) else { panic!("registered") };
    for _ in 0..=QUEUE {
        slow.malformed("wrong".to_owned());
    }
    other.malformed("wrong".to_owned());
    for seq in 1..=QUEUE {
        let event: Value = serde_json::from_str(&slow.next().await.unwrap()).unwrap();
        assert_eq!(event["seq"], seq);
    }
    assert_eq!(slow.next().await, Err(LineEnd::TooSlow));
    assert!(other.next().await.is_ok());
    assert_eq!(desks.agents(), 2);
    drop(slow);
    assert_eq!(desks.agents(), 1);
    // A desktop that does not take its farewell keeps nobody waiting.
    desks.close();
    timeout(LONG, keeping).await.expect("nothing more is reported").unwrap();
    assert_eq!(other.next().await, Err(LineEnd::Stopping));
}

/// A line of the example desktop that begins so.
fn line(lines: &mut impl Iterator<Item = std::io::Result<String>>, begins: &str) -> String {
    block_in_place(|| lines.map(Result::unwrap).find(|line| line.starts_with(begins))).expect("the example says it")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_desktops_invite_accept_and_leave_on_the_live_server() {
    let office = Office::open("").await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/agent_desktop.py");
    let server = office.http().to_string();
    let start = |agent: &str, dn: &str, more: &[&str]| {
        let mut command = Command::new("python3");
        command.args([script, "--server", &server, "--agent", agent, "--dn", dn]).args(more);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this test needs python3");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        line(&mut lines, "registered");
        (child, lines)
    };
    let (mut anna, mut annas) = start("anna", "2001", &[]);
    let (mut ben, mut bens) = start("ben", "2002", &["--accept"]);
    let interaction = office.call().await;
    writeln!(anna.stdin.as_mut().unwrap(), "invite {interaction} ben").unwrap();
    line(&mut bens, r#"-> {"request": "RequestAccept""#);
    for lines in [&mut annas, &mut bens] {
        let added = loop {
            let told = line(lines, "<- ");
            if told.contains("EventPartyAdded") {
                break told;
            }
        };
        assert!(added.contains(r#""AgentID": "ben""#), "{added}");
    }
    writeln!(ben.stdin.as_mut().unwrap(), "leave {interaction}").unwrap();
    assert!(line(&mut bens, "<- ").contains("EventAck"));
    assert!(line(&mut annas, "<- ").contains("EventPartyRemoved"));
    // At the end of their input they go.
    for (mut child, rest) in [(anna, annas), (ben, bens)] {
        drop(child.stdin.take());
        assert!(block_in_place(|| child.wait()).unwrap().success());
        assert_eq!(block_in_place(|| rest.count()), 0);
    }
    office.close().await;
}
