//! IVR drivers on the real server: frames over TCP, several drivers, silence, limits; and the example driver in Python.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use stickytape::app::Server;
use stickytape::config::Config;
use stickytape::ivr::frame::{Decoder, Frame, Kind, MAX_BODY, encode};
use stickytape::runtime::ivr::{Hub, MAX_DRIVERS, QUEUE, Silence, run};
use stickytape::runtime::signaling;
use stickytape::testing::driver::{self, Running, Sockets};
use stickytape::testing::phone::{self, Action, Incoming, Phone, Signal, Step};
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LONG: Duration = Duration::from_secs(20);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A driver's end of a connection.
struct Driver {
    stream: TcpStream,
    decoder: Decoder,
}

impl Driver {
    fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self { stream, decoder: Decoder::default() }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn send(&mut self, call: &str, message: &str) {
        let body = format!("<GctiMsg><CallId>{call}</CallId>{message}</GctiMsg>");
        self.write(&encode(Kind::Xml, body.as_bytes()));
    }

    /// The next frame; `None`: the connection is closed.
    fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame() {
                return Some(frame.expect("a right frame"));
            }
            let mut bytes = [0; 4_096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(read) => self.decoder.push(&bytes[..read]),
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// CallId and what is said.
    fn told(&mut self) -> (String, String) {
        let frame = block_in_place(|| self.frame()).expect("an open connection");
        assert_eq!(frame.kind, Kind::Xml, "{}", String::from_utf8_lossy(&frame.body));
        let text = String::from_utf8(frame.body).unwrap();
        let between = |from: &str, to: &str| text.split(from).nth(1).unwrap().split(to).next().unwrap().to_owned();
        (between("<CallId>", "</CallId>"), between("</CallId><", "/>"))
    }

    fn says(&mut self, expected: &[&str]) -> String {
        let mut call = String::new();
        for expected in expected {
            let said;
            (call, said) = self.told();
            assert_eq!(said, *expected);
        }
        call
    }

    fn error_frame(&mut self) -> String {
        let frame = block_in_place(|| self.frame()).expect("an open connection");
        assert_eq!(frame.kind, Kind::Error);
        String::from_utf8(frame.body).unwrap()
    }

    fn is_closed(&mut self) -> bool {
        block_in_place(|| self.frame()).is_none()
    }
}

const RINGING: &str = "CallStatus Event=\"Ringing\"";
const ESTABLISHED: &str = "CallStatus Event=\"Established\"";
const HELD: &str = "CallStatus Event=\"Held\"";
const DIALING: &str = "CallStatus Event=\"Dialing\"";
const RETRIEVED: &str = "CallStatus Event=\"Retrieved\"";
const RELEASED: &str = "CallStatus Event=\"Released\"";

/// A server with the caller 2001, the IVR port 2002, and 2003 that answers, 2004 that is busy, 2005 that is unknown.
struct Office {
    server: Server,
    phones: Vec<Running>,
    _folder: tempfile::TempDir,
}

impl Office {
    async fn open() -> Self {
        Self::where_hangs_up(None).await
    }

    /// One of the phones hangs up a second and a half after its call was answered.
    async fn where_hangs_up(leaves: Option<usize>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let incoming = [
            Incoming::Manual,
            Incoming::Answer { ring: ms(0), answer: ms(50) },
            Incoming::Answer { ring: ms(0), answer: ms(200) },
            Incoming::Refuse(486),
            Incoming::Refuse(404),
        ];
        let mut sockets = Vec::new();
        for _ in &incoming {
            sockets.push(Sockets::bind(HOST).await.unwrap());
        }
        let dns: String =
            sockets.iter().enumerate().map(|(n, sockets)| dn(n, sockets.sip_address().unwrap())).collect();
        let server = Server::start(config(folder.path(), &dns)).await.unwrap();
        let proxy = server.listeners()[0].address;
        let phone = |(n, (sockets, incoming)): (usize, (Sockets, Incoming))| {
            let (sip, rtp) = (sockets.sip_address().unwrap(), sockets.rtp_address().unwrap());
            let script = match leaves == Some(n) {
                true => vec![Step::on(Signal::Established, ms(1_500), Action::HangUp)],
                false => vec![],
            };
            let number = format!("200{}", n + 1);
            let options = phone::Options { incoming, script, ..phone::Options::new(&number, sip, rtp, proxy) };
            driver::start(Phone::new(options), sockets)
        };
        let phones = sockets.into_iter().zip(incoming).enumerate().map(phone).collect();
        Self { server, phones, _folder: folder }
    }

    fn ivr(&self) -> SocketAddr {
        self.server.ivr().unwrap()
    }

    fn act(&self, phone: usize, action: Action) {
        self.phones[phone].act(action);
    }

    async fn close(self) {
        self.server.hang_up();
        timeout(LONG, self.server.stop()).await.expect("the server stops");
        for phone in self.phones {
            phone.stop().await;
        }
    }
}

fn dn(n: usize, contact: SocketAddr) -> String {
    let ivr = if n == 1 { "ivr = true\n" } else { "" };
    format!("[[dn]]\nnumber = \"200{}\"\ncontact = \"sip:{contact}\"\n{ivr}", n + 1)
}

fn config(folder: &Path, dns: &str) -> Config {
    let text = format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\nmax-calls = 4\n[media]\nworkers = 1\npriority = \"normal\"\n\
         [recording]\nmin-free-space = \"16MiB\"\nbuffer = \"16MiB\"\n[api]\nlisten = \"off\"\n\
         [ivr]\nlisten = \"127.0.0.1:0\"\n{dns}"
    );
    let mut config = Config::parse(&text).unwrap_or_else(|problems| panic!("{problems:?}"));
    config.storage.directory = folder.join("recordings");
    config.claim_capacity().unwrap();
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn drivers_are_told_alike_and_one_that_comes_back_is_told_the_state() {
    let office = Office::open().await;
    let (mut one, mut two) = (Driver::connect(office.ivr()), Driver::connect(office.ivr()));
    // Both are known before the call begins: a keep-alive is answered by who has a place.
    for driver in [&mut one, &mut two] {
        driver.write(&encode(Kind::KeepAliveRequest, b""));
        assert_eq!(block_in_place(|| driver.frame()).unwrap().kind, Kind::KeepAliveAnswer);
    }
    office.act(0, Action::call("2002"));
    let call = one.says(&[RINGING, ESTABLISHED]);
    assert_eq!(two.says(&[RINGING, ESTABLISHED]), call);
    one.send(&call, "<InitConf DestDN=\"2003\" ReqId=\"a\"/>");
    one.says(&[HELD, DIALING, ESTABLISHED]);
    two.says(&[HELD, DIALING, ESTABLISHED]);
    // In mid-consultation the driver that began it goes away: the call goes on.
    drop(one);
    let mut again = Driver::connect(office.ivr());
    again.says(&[RINGING, ESTABLISHED, HELD, DIALING, ESTABLISHED]);
    again.send(&call, "<RetrieveCall/>");
    again.says(&[RETRIEVED]);
    two.says(&[RETRIEVED]);
    two.send(&call, "<RetrieveCall ReqId=\"2\"/>");
    two.says(&["CallError FailedReq=\"RetrieveCall\" TLibErrCode=\"43\" ReqId=\"2\""]);
    two.send(&call, "<EndCall/>");
    // The error was for who had asked.
    again.says(&[RELEASED]);
    two.says(&[RELEASED]);
    office.close().await;
    assert!(again.is_closed() && two.is_closed(), "the server has stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_answered_and_the_connection_is_kept_unless_framing_is_lost() {
    let office = Office::open().await;
    let mut driver = Driver::connect(office.ivr());
    driver.write(&encode(Kind::Xml, b"<GctiMsg><CallId>"));
    assert!(!driver.error_frame().is_empty());
    driver.write(&encode(
        Kind::Xml,
        b"<!DOCTYPE x [<!ENTITY a \"b\">]><GctiMsg><CallId>&a;</CallId><EndCall/></GctiMsg>",
    ));
    assert!(!driver.error_frame().is_empty());
    driver.write(&encode(Kind::Xml, &vec![b' '; MAX_BODY + 1]));
    assert!(driver.error_frame().contains("longer than"));
    let mut unknown = encode(Kind::Xml, b"whatever");
    unknown[1] = 7;
    driver.write(&unknown);
    assert!(driver.error_frame().contains("type 7"));
    // An error of the driver's is not answered; two frames may come at once, and one in pieces.
    driver.write(&encode(Kind::Error, b"?"));
    driver.send("12", "<Dance ReqId=\"1\"/>");
    driver.says(&["CallError FailedReq=\"Unknown\" ReqId=\"1\""]);
    driver.send("12", "<EndCall ReqId=\"2\"/>");
    driver.says(&["CallError FailedReq=\"NoSuchCall\" TLibErrCode=\"56\" ReqId=\"2\""]);
    let two = [encode(Kind::KeepAliveRequest, b""), encode(Kind::KeepAliveRequest, b"")].concat();
    for part in two.chunks(5) {
        driver.write(part);
        sleep(ms(5)).await;
    }
    for _ in 0..2 {
        assert_eq!(block_in_place(|| driver.frame()).unwrap().kind, Kind::KeepAliveAnswer);
    }
    driver.write(b"GET / HTTP/1.1\r\n\r\n");
    assert!(driver.error_frame().contains("framing is lost"));
    assert!(driver.is_closed());
    office.close().await;
}

/// A hub whose requests nobody answers, with its listener.
async fn hub(silence: Silence) -> (Arc<Hub>, SocketAddr, tokio::sync::oneshot::Sender<()>) {
    let (inbox, _queue) = signaling::inbox();
    let is_port = Box::new(|_: &str| true);
    let hub = Hub::new(inbox, stickytape::views::ivr::Options { busy: vec![486], is_port, max_calls: 10 });
    let listener = tokio::net::TcpListener::bind((HOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(run(listener, hub.clone(), silence, stopped));
    (hub, address, stop)
}

async fn wait_for(what: &str, done: impl Fn() -> bool) {
    let waited = timeout(LONG, async {
        while !done() {
            sleep(ms(10)).await;
        }
    });
    waited.await.expect(what);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_driver_is_asked_and_one_that_does_not_answer_is_let_go() {
    let (hub, address, _stop) = hub(Silence { ask: ms(100), dead: ms(1_000) }).await;
    let (mut alive, mut dead) = (Driver::connect(address), Driver::connect(address));
    let began = stickytape::clock::now();
    while stickytape::clock::now() < began + ms(1_500) {
        assert_eq!(block_in_place(|| alive.frame()).unwrap().kind, Kind::KeepAliveRequest);
        alive.write(&encode(Kind::KeepAliveAnswer, b""));
    }
    let mut asked = 0;
    while let Some(frame) = block_in_place(|| dead.frame()) {
        assert_eq!(frame.kind, Kind::KeepAliveRequest);
        asked += 1;
    }
    assert!((5..=10).contains(&asked), "asked {asked} times");
    wait_for("one is left", || hub.drivers() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_too_many_is_told_so_and_closed() {
    let (hub, address, _stop) = hub(Silence::default()).await;
    let drivers: Vec<_> = (0..MAX_DRIVERS).map(|_| Driver::connect(address)).collect();
    wait_for("all have a place", || hub.drivers() == MAX_DRIVERS).await;
    let mut one_more = Driver::connect(address);
    assert_eq!(one_more.error_frame(), "no connection is free");
    assert!(one_more.is_closed());
    drop(drivers);
    wait_for("their places are free", || hub.drivers() == 0).await;
    let mut next = Driver::connect(address);
    next.write(&encode(Kind::KeepAliveRequest, b""));
    assert_eq!(block_in_place(|| next.frame()).unwrap().kind, Kind::KeepAliveAnswer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_does_not_read_is_let_go_and_nobody_else_notices() {
    use stickytape::call::fact::{Fact, Party, What};
    use stickytape::id::{ConnId, LegId};
    let (hub, address, _stop) = hub(Silence::default()).await;
    let _slow = Driver::connect(address);
    let mut reader = Driver::connect(address);
    wait_for("both are there", || hub.drivers() == 2).await;
    let fact = |what| Fact {
        at: stickytape::clock::now(),
        wall: stickytape::clock::wall(),
        conn_id: Some(ConnId(1)),
        cause: None,
        what,
    };
    let party = Party { dn: Some("2002".into()), trunk: None, number: "2002".into() };
    hub.fact(&fact(What::Answered { leg: LegId(1), party }));
    reader.says(&[RINGING, ESTABLISHED]);
    // The system's buffers take some megabytes before the queue fills.
    let mut told = 0;
    while hub.drivers() == 2 {
        for _ in 0..QUEUE / 4 {
            hub.fact(&fact(What::Held { leg: LegId(1) }));
            hub.fact(&fact(What::Retrieved { leg: LegId(1) }));
            reader.says(&[HELD, RETRIEVED]);
        }
        told += QUEUE / 2;
        assert!(told < 1_000_000, "the slow one is let go");
    }
    hub.fact(&fact(What::Held { leg: LegId(1) }));
    reader.says(&[HELD]);
}

/// Runs the example driver on one call; what it printed.
fn example(office: &Office, flow: &str, to: &str) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/ivr_driver.py");
    let server = office.ivr().to_string();
    let mut child = Command::new("python3")
        .args([script, "--server", &server, "--flow", flow, "--to", to, "--patience", "20"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs python3");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("connected"));
    office.act(0, Action::call("2002"));
    let lines: Vec<_> = lines.collect();
    let status = child.wait().unwrap();
    assert!(status.success(), "{flow}: {status}, {lines:?}");
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_driver_runs_each_of_its_flows_on_the_live_server() {
    let flows: [(&str, &str, Option<usize>, &str); 8] = [
        ("one-step-conference", "2003", Some(2), "-> OneStepConf, <- Held, <- Dialing, <- Retrieved, <- ConfPartyAdd"),
        (
            "one-step-conference-2",
            "2003",
            Some(0),
            "-> OneStepConf, <- Held, <- Dialing, <- Retrieved, <- ConfPartyAdd",
        ),
        ("consult-conference", "2003", Some(2), "-> InitConf, <- Held, <- Dialing, <- Established, -> CompleteConf"),
        ("consult-retrieve", "2003", None, "-> InitConf, <- Held, <- Dialing, <- Established, -> RetrieveCall"),
        ("consult-busy", "2004", None, "-> InitConf, <- Held, <- Dialing, <- Busy, -> RetrieveCall"),
        ("consult-failed", "2005", None, "-> InitConf, <- Held, <- Dialing, <- CallError InitConf, <- Retrieved"),
        ("consult-transfer", "2003", None, "-> InitXfer, <- Held, <- Dialing, <- Established, -> CompleteXfer"),
        ("one-step-transfer", "2003", None, "-> OneStepXfer, <- Held, <- Dialing, <- XferComplete, <- Released"),
    ];
    for (flow, to, leaves, begins) in flows {
        let office = Office::where_hangs_up(leaves).await;
        let lines = block_in_place(|| example(&office, flow, to));
        assert_eq!(lines[0], "a call is up");
        assert!(lines[1..].join(", ").starts_with(begins), "{flow}: {lines:?}");
        assert_eq!(lines.last().map(String::as_str), Some("<- Released"), "{flow}");
        office.close().await;
    }
}
