//! Forwarding in the kernel (`media.kernel-forwarding`): a BPF program on an interface sends packets of steady streams on
//! before they reach a socket, and copies each for us (`kernel/forward.bpf.c`).
//!
//! A packet costs a receive and a send by a socket otherwise, which is nine tenths of what a call costs. The program knows
//! the streams that it was told of, as [`Shortcut`]s, and nothing else; every other packet takes its usual way. It is bound
//! to this process: when that ends, however it ends, the kernel takes it out.

use std::collections::HashMap;
use std::collections::hash_map::Entry::Occupied;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::include_bytes_aligned;
use aya::maps::{HashMap as BpfMap, MapData, RingBuf};
use aya::programs::LinkOrder;
use aya::programs::tc::{SchedClassifier, TcAttachOptions, TcAttachType};

use super::route::{Egress, Routes};
use crate::bridge::relay::Slot;
use crate::bridge::shortcut::Shortcut;
use crate::clock;
use crate::id::LegId;
use crate::rtp::view::FIXED_LEN;

static PROGRAM: &[u8] = include_bytes_aligned!("kernel/forward.bpf.o");

/// `struct key` and `struct stream` of the program.
const KEY: usize = 12;
const STREAM: usize = 64;
/// `struct copy_head`.
const HEAD: usize = 24;
/// Longest RTP packet that is copied whole; longer ones do not fit an Ethernet frame.
const LONGEST: u16 = 1_472;
/// The index of loopback in every network.
const LOOPBACK: u32 = 1;

/// Why forwarding in the kernel cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused the program.
    #[error(
        "the kernel does not take the program that forwards (needs Linux 6.6 and the capabilities CAP_BPF and CAP_NET_ADMIN): {0}"
    )]
    Program(String),
    /// It cannot be attached there.
    #[error("the program that forwards cannot be attached to interface {interface}: {reason}")]
    Attach {
        /// Its name.
        interface: String,
        /// What the system said.
        reason: String,
    },
    /// Ways out cannot be looked up.
    #[error("cannot ask for routes: {0}")]
    Routes(#[from] io::Error),
}

/// A packet that went on.
#[derive(Debug, Clone, Copy)]
pub struct Passed<'a> {
    /// When it arrived.
    pub at: Instant,
    /// Whose stream it was of, when its shortcut was entered.
    pub leg: LegId,
    /// Its slot then.
    pub slot: Slot,
    /// Length of the whole RTP packet.
    pub len: usize,
    /// The packet as it came: whole where the shortcut said `tapped`, else its fixed header.
    pub rtp: &'a [u8],
}

/// Names an entered shortcut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    key: [u8; KEY],
    /// From our address to the peer's.
    way: (Ipv4Addr, Ipv4Addr),
}

/// One program with its streams: one media thread's.
pub struct Kernel {
    streams: BpfMap<MapData, [u8; KEY], [u8; STREAM]>,
    copies: RingBuf<MapData>,
    /// Holds program and links.
    _program: Ebpf,
    interfaces: Vec<u32>,
    routes: Routes,
    /// By both ends, with the number of streams that go so.
    ways: HashMap<(Ipv4Addr, Ipv4Addr), (Egress, usize)>,
    /// What the kernel's monotonic clock showed at an instant.
    epoch: (Instant, u64),
}

impl Kernel {
    /// Attaches the program to the ingress of each of `interfaces`.
    pub fn attach(interfaces: &[String]) -> Result<Self, Error> {
        let refused = |error: &dyn std::error::Error| Error::Program(whole(error));
        let mut program = Ebpf::load(PROGRAM).map_err(|error| refused(&error))?;
        let missing = || Error::Program("the program lacks a part".into());
        let forward: &mut SchedClassifier =
            program.program_mut("forward").ok_or_else(missing)?.try_into().map_err(|error| refused(&error))?;
        forward.load().map_err(|error| refused(&error))?;
        let mut indices = vec![];
        for interface in interfaces {
            let failed = |reason: String| Error::Attach { interface: interface.clone(), reason };
            let index = of_interface(interface, "ifindex").map_err(|error| failed(error.to_string()))?;
            let tcx = TcAttachOptions::TcxOrder(LinkOrder::default());
            forward
                .attach_with_options(interface, TcAttachType::Ingress, tcx)
                .map_err(|error| failed(whole(&error)))?;
            indices.push(index);
        }
        let mut map = |name| program.take_map(name).ok_or_else(missing);
        Ok(Self {
            streams: map("streams")?.try_into().map_err(|error| refused(&error))?,
            copies: map("copies")?.try_into().map_err(|error| refused(&error))?,
            _program: program,
            interfaces: indices,
            routes: Routes::new()?,
            ways: HashMap::new(),
            epoch: clock::monotonic(),
        })
    }

    /// Enters a shortcut: packets that come to `ours` go on from `hearers`. `newest`: sequence number and timestamp of the
    /// newest packet. `None`: not here, because it is not IPv4 or leaves by another interface, or goes from another machine to
    /// this one, or the system refuses.
    pub fn enter(
        &mut self,
        shortcut: &Shortcut,
        ours: SocketAddr,
        hearers: SocketAddr,
        newest: (u16, u32),
    ) -> Option<Entry> {
        let (from, ours) = (v4(shortcut.from)?, v4(ours)?);
        let (hearers, to) = (v4(hearers)?, v4(shortcut.to)?);
        // Its packets come by the interface that leads to their sender, or by one that we do not look at; and the system takes
        // no packet from an address of this machine that came by a cable.
        let came_by = self.interface(self.egress(*ours.ip(), *from.ip())?)?;
        let way = (*hearers.ip(), *to.ip());
        let egress = self.egress(way.0, way.1)?;
        let interface = self.interface(egress)?;
        if interface == 0 && came_by != 0 {
            return None;
        }
        let key = key(from, ours);
        let stream = stream(shortcut, hearers, to, newest, interface);
        self.streams.insert(key, stream, 0).ok()?;
        self.ways.entry(way).or_insert((egress, 0)).1 += 1;
        Some(Entry { key, way })
    }

    /// Takes a shortcut out: packets that come from now on take the usual way. One that is on its way through the program on
    /// another core may still go on and be copied.
    pub fn withdraw(&mut self, entry: Entry) {
        // It is there: nobody else takes it out.
        let _ = self.streams.remove(&entry.key);
        if let Occupied(mut way) = self.ways.entry(entry.way) {
            way.get_mut().1 -= 1;
            if way.get().1 == 0 {
                way.remove();
            }
        }
    }

    /// Takes the copies of all packets that went on since.
    pub fn drain(&mut self, mut each: impl FnMut(Passed<'_>)) {
        while let Some(copy) = self.copies.next() {
            if let Some(passed) = passed(&copy, self.epoch) {
                each(passed);
            }
        }
    }

    /// Looks at the routes again; true when packets leave by another way than some shortcut says. All are to be withdrawn then.
    pub fn have_ways_changed(&self) -> bool {
        self.ways.iter().any(|((from, to), (way, _))| self.routes.egress(*from, *to).ok() != Some(*way))
    }

    fn egress(&self, from: Ipv4Addr, to: Ipv4Addr) -> Option<Egress> {
        let known = self.ways.get(&(from, to)).map(|(egress, _)| *egress);
        known.or_else(|| self.routes.egress(from, to).ok())
    }

    /// The interface that packets leave by: 0 to this machine itself, by loopback.
    fn interface(&self, egress: Egress) -> Option<u32> {
        match egress {
            Egress::Local => self.interfaces.contains(&LOOPBACK).then_some(0),
            Egress::Interface(index) => self.interfaces.contains(&index).then_some(index),
        }
    }
}

/// The interfaces that the program can be attached to, by name: those that carry Ethernet's header, which loopback does
/// too.
pub fn interfaces() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| matches!(of_interface(name, "type"), Ok(1 | 772))).collect();
    names.sort();
    names
}

fn of_interface(name: &str, what: &str) -> io::Result<u32> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/{what}"))?;
    text.trim().parse().map_err(io::Error::other)
}

fn whole(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    }
}

/// `struct key`.
fn key(from: SocketAddrV4, to: SocketAddrV4) -> [u8; KEY] {
    addresses(from, to)
}

fn addresses(from: SocketAddrV4, to: SocketAddrV4) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&from.ip().octets());
    bytes[4..8].copy_from_slice(&to.ip().octets());
    bytes[8..10].copy_from_slice(&from.port().to_be_bytes());
    bytes[10..].copy_from_slice(&to.port().to_be_bytes());
    bytes
}

/// `struct stream`.
fn stream(
    shortcut: &Shortcut,
    from: SocketAddrV4,
    to: SocketAddrV4,
    newest: (u16, u32),
    interface: u32,
) -> [u8; STREAM] {
    let copied = if shortcut.tapped { LONGEST } else { FIXED_LEN as u16 };
    let mut bytes = [0; STREAM];
    let mut at = 0;
    let mut put = |field: &[u8]| {
        bytes[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    };
    put(&addresses(from, to));
    put(&interface.to_ne_bytes());
    put(&shortcut.ssrc.0.to_be_bytes());
    put(&shortcut.ssrc.1.to_be_bytes());
    put(&shortcut.timestamp_offset.to_ne_bytes());
    put(&shortcut.longest_leap().to_ne_bytes());
    put(&newest.1.to_ne_bytes());
    put(&newest.0.to_ne_bytes());
    put(&shortcut.sequence_offset.to_ne_bytes());
    put(&[shortcut.payload_type.0, shortcut.payload_type.1]);
    put(&copied.to_ne_bytes());
    put(&(shortcut.slot.0 as u32).to_ne_bytes());
    put(&shortcut.leg.0.to_ne_bytes());
    bytes
}

/// Reads a `struct copy_head` and what follows it.
fn passed(copy: &[u8], (epoch, epoch_ns): (Instant, u64)) -> Option<Passed<'_>> {
    let (head, rtp) = copy.split_at_checked(HEAD)?;
    let u64_at = |at: usize| Some(u64::from_ne_bytes(*head[at..].first_chunk()?));
    let u16_at = |at: usize| Some(usize::from(u16::from_ne_bytes(*head[at..].first_chunk()?)));
    let since = Duration::from_nanos(u64_at(0)?.saturating_sub(epoch_ns));
    Some(Passed {
        at: epoch + since,
        leg: LegId(u64_at(8)?),
        slot: Slot(u32::from_ne_bytes(*head[16..].first_chunk()?) as usize),
        len: u16_at(20)?,
        rtp: rtp.get(..u16_at(22)?)?,
    })
}
