//! The whole program in virtual time: SIP phones that speak, call control, media threads, mixers, recorders and a disk in
//! memory.
//! What comes out is what a user gets: WAV files, recording.json, answers to requests, and what each phone has heard.
//!
//! Commands, notices, marks and watermarks take up to [`Threads::latency`] each, decided by a seed, in the order that
//! the program's queues keep: races are those of the real threads, and repeat.
#![allow(dead_code, reason = "each test file uses its part")]

mod product;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use product::{Product, Threads};
use stickytape::call::Input;
use stickytape::call::options::Options;
use stickytape::call::request::{Accepted, Denied, DnRequest, Request, Ticket};
use stickytape::disk::wav;
use stickytape::record::metadata::Recording;
use stickytape::testing::network::{Link, Network, Node};
use stickytape::testing::phone::{Action, Phone};

/// One published recording.
#[derive(Debug, Clone)]
pub struct Tape {
    /// recording.json.
    pub recording: Recording,
    /// Name, channels and interleaved samples of each file.
    pub files: Vec<(String, usize, Vec<i16>)>,
    /// What `recordings verify` says is wrong.
    pub wrong: Vec<String>,
}

impl Tape {
    /// One channel of a file; `None`: there is no such file or channel.
    pub fn channel(&self, name: &str, channel: usize) -> Option<Vec<i16>> {
        let (_, channels, samples) = self.files.iter().find(|(file, ..)| file == name)?;
        (channel < *channels).then(|| samples.iter().skip(channel).step_by(*channels).copied().collect())
    }
}

/// Everybody and the wire between them.
pub struct World {
    pub net: Network,
    pub product: Product,
    pub phones: Vec<Phone>,
    pub start: Instant,
    tickets: u64,
}

impl World {
    /// The program with its ports bound, and nobody else yet. Every path takes 5 ms.
    pub fn new(options: Options, threads: Threads) -> Self {
        let epoch = stickytape::clock::now();
        let mut net = Network::new(epoch, threads.seed, Link::delayed(Duration::from_millis(5)));
        let mut product = Product::new(options, threads, epoch);
        net.run_for(&mut [&mut product as &mut dyn Node], Duration::from_millis(100));
        assert!(product.calls.is_able(), "the first ports are bound");
        let start = net.now();
        Self { net, product, phones: Vec::new(), start, tickets: 0 }
    }

    /// Adds a phone.
    pub fn phone(&mut self, phone: Phone) -> usize {
        self.phones.push(phone);
        self.phones.len() - 1
    }

    /// Runs until so long after the start.
    pub fn run_until(&mut self, after_start: Duration) {
        let mut nodes: Vec<&mut dyn Node> = vec![&mut self.product];
        nodes.extend(self.phones.iter_mut().map(|phone| phone as &mut dyn Node));
        self.net.run(&mut nodes, self.start + after_start);
    }

    /// A phone does something now.
    pub fn act(&mut self, phone: usize, action: Action) {
        let now = self.net.now();
        self.phones[phone].act(action, now);
    }

    /// A request from outside, now. Its answer is found by the ticket.
    pub fn ask(&mut self, request: Request) -> Ticket {
        self.tickets += 1;
        let (ticket, now) = (Ticket(self.tickets), self.net.now());
        self.product.request(ticket, request, now);
        ticket
    }

    /// The answer to a request; `None` while there is none.
    pub fn answer(&self, ticket: Ticket) -> Option<&Result<Accepted, Denied>> {
        self.product.answers.iter().find(|(of, _)| *of == ticket).map(|(_, answer)| answer)
    }

    /// A request of a DN that concerns no call yet, now. It is answered at once.
    pub fn ask_dn(&mut self, request: DnRequest) -> Result<(), Denied> {
        self.tickets += 1;
        let (ticket, now) = (Ticket(self.tickets), self.net.now());
        self.product.input(Input::DnRequest(ticket, Box::new(request)), now);
        let (answered, answer) = self.product.dn_answers.last().expect("answered at once");
        assert_eq!(*answered, ticket);
        answer.clone()
    }

    /// Every published recording, in the order of their beginnings.
    pub fn tapes(&self) -> Vec<Tape> {
        let store = &self.product.store;
        let mut tapes: Vec<Tape> = store.published().unwrap().into_iter().map(|id| self.tape(id)).collect();
        tapes.sort_by_key(|tape| (tape.recording.start_time, tape.recording.id.to_string()));
        tapes
    }

    fn tape(&self, id: stickytape::id::RecordingId) -> Tape {
        let store = &self.product.store;
        let (recording, wrong) = store.verify(id).unwrap();
        let folder = store.published_dir(&recording);
        let read = |file: &stickytape::record::metadata::MediaFile| {
            let (spec, samples) = wav::read(&self.product.disk, &folder.join(&file.file)).unwrap();
            (file.file.clone(), usize::from(spec.channels), samples)
        };
        let files = recording.media_files.iter().map(read).collect();
        Tape { recording, files, wrong }
    }
}

/// Reads a socket address that a test writes.
pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
