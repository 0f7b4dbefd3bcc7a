//! Two calls on two media threads joined by an attended transfer, a thousand times in virtual time and fifty times with the
//! real threads and sockets: no packet lost, none at a wrong peer, each stream whole from its first packet to its last.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::whole::{Threads, World, addr};
use stickytape::app::Server;
use stickytape::call::options::Options as CallOptions;
use stickytape::clock;
use stickytape::config::Config;
use stickytape::testing::driver::{self, Sockets};
use stickytape::testing::phone::{Action, Happening, Incoming, Leave, Options, Phone, Refer, StreamReport};
use stickytape::testing::tones::{self, Voice};

/// Groups of D1, D2, D3 in one world.
///
/// An odd number: calls go to the thread with the fewest legs, so the second call of a trio goes to the other one.
const TRIOS: usize = 7;
const WORLDS: u64 = 143;
/// Each party says a tone of its own.
const LEVEL: f64 = -20.0;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// No odd multiple of one is another party's, so the distortion of G.711 makes no false one.
fn hz(phone: usize) -> f64 {
    1_350.0 + 50.0 * phone as f64
}

/// An attended transfer as a phone without hold on its second line does it: both calls are in talk, on whichever media
/// threads had room. D1 is phone 0 of a trio, D2 phone 1, D3 phone 2.
struct Script {
    consult: Duration,
    join: Duration,
    end: Duration,
}

const VIRTUAL: Script = Script { consult: ms(250), join: ms(500), end: ms(900) };

fn refer() -> Action {
    Action::on(0, Action::Refer(Refer { leave: Leave::WhenDone, ..Refer::to_line(1) }))
}

fn phone(number: String, place: usize, sip: SocketAddr, rtp: SocketAddr, proxy: SocketAddr) -> Options {
    Options {
        lines: 2,
        voice: Voice::Tone { hz: hz(place), dbfs: LEVEL },
        incoming: Incoming::Answer { ring: ms(0), answer: ms(20) },
        ..Options::new(&number, sip, rtp, proxy)
    }
}

fn number(place: usize) -> String {
    format!("{}", 2_001 + place)
}

/// DNs for every phone, each where `contact` says.
fn dns(contacts: impl Iterator<Item = SocketAddr>) -> String {
    let dn = |(place, at): (usize, SocketAddr)| {
        let number = number(place);
        format!("[[dn]]\nnumber = \"{number}\"\ncontact = \"sip:{number}@{at}\"\n")
    };
    contacts.enumerate().map(dn).collect()
}

fn virtual_options() -> CallOptions {
    let contacts = (0..3 * TRIOS).map(|place| addr(&format!("10.0.0.{}:5060", place + 1)));
    let text = format!(
        "[sip]\nlisten = [\"udp:10.0.1.1:5060\"]\n[recording]\ndefault = \"none\"\n[media]\nports = \"20000-20999\"\n{}",
        dns(contacts)
    );
    let parsed =
        Config::parse(&text).map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<String>()).unwrap();
    let (mut sip, mut media) = (parsed.sip, parsed.media);
    sip.max_calls = 100;
    media.ports_ahead = 4 * TRIOS;
    CallOptions { listeners: parsed.listen, sip, media, recording: parsed.recording, plan: parsed.plan }
}

/// One stream of a phone, whole, and no longer without a packet than a change of who speaks explains.
#[track_caller]
fn assert_whole(who: &str, report: &StreamReport, packets: std::ops::Range<usize>, gap: Duration) {
    assert!(report.is_unbroken(), "{who}: {report:?}");
    assert_eq!((report.duplicates, report.reordered), (0, 0), "{who}: {report:?}");
    assert!(packets.contains(&report.packets), "{who}: {packets:?} packets are due: {report:?}");
    assert!(report.longest_gap <= gap, "{who}: {report:?}");
}

/// Every packet is `speaker`'s: nothing is mixed here, so each holds one party's tone.
#[track_caller]
fn assert_hears(who: &str, phone: &Phone, speaker: usize, from: Instant, to: Instant) {
    let packets = phone.heard_on(0).between(from, to);
    assert!(packets.len() >= 3, "{who} hears {} packets", packets.len());
    for packet in packets {
        let level = tones::tone_level(&packet.samples, 8_000, hz(speaker));
        assert!(level > LEVEL - 1.0, "{who} hears party {speaker} at {level:.1} dBFS");
    }
}

#[test]
fn a_thousand_joins_across_media_threads_lose_no_packet_and_send_none_to_a_wrong_peer() {
    let mut moves = 0;
    for seed in 0..WORLDS {
        let threads = Threads { media: 2, seed, ..Threads::default() };
        let mut world = World::new(virtual_options(), threads);
        let proxy = addr("10.0.1.1:5060");
        for place in 0..3 * TRIOS {
            let at = |port| addr(&format!("10.0.0.{}:{port}", place + 1));
            world.phone(Phone::new(phone(number(place), place, at(5_060), at(4_000), proxy)));
        }
        // Ten milliseconds and something between two trios: joins meet packets at every phase of their 20 ms.
        let after = |trio: usize, at: Duration| at + ms(13 * trio as u64) + Duration::from_micros(seed * 160);
        let mut steps = Vec::new();
        for trio in 0..TRIOS {
            let (d1, d2) = (3 * trio, 3 * trio + 1);
            steps.push((after(trio, ms(0)), d1, Action::call(&number(d2))));
            steps.push((after(trio, VIRTUAL.consult), d2, Action::on(1, Action::call(&number(d2 + 1)))));
            steps.push((after(trio, VIRTUAL.join), d2, refer()));
            steps.push((after(trio, VIRTUAL.end), d1, Action::HangUp));
        }
        steps.sort_by_key(|(at, ..)| *at);
        for (at, phone, action) in steps {
            world.run_until(at);
            world.act(phone, action);
        }
        // The last transactions end after 64 · T1.
        world.run_until(VIRTUAL.end + ms(40_000));
        for trio in 0..TRIOS {
            let (d1, d2, d3) = (3 * trio, 3 * trio + 1, 3 * trio + 2);
            let name = |who: &str| format!("{who} of trio {trio}, seed {seed}");
            let report = |place: usize, line| world.phones[place].stream_report(line);
            // A packet each 20 ms; where another one begins to speak its phase is another one.
            assert_whole(&name("D1"), &report(d1, 0), 38..48, ms(60));
            assert_whole(&name("D3"), &report(d3, 0), 25..34, ms(60));
            assert_whole(&name("D2, first line"), &report(d2, 0), 20..29, ms(60));
            assert_whole(&name("D2, second line"), &report(d2, 1), 8..16, ms(60));
            let start = world.start + after(trio, ms(0));
            let talked = [(d1, ms(100), VIRTUAL.join, d2), (d3, VIRTUAL.consult + ms(100), VIRTUAL.join, d2)];
            let joined = [(d1, VIRTUAL.join + ms(80), VIRTUAL.end, d3), (d3, VIRTUAL.join + ms(80), VIRTUAL.end, d1)];
            for (who, from, to, speaker) in talked.into_iter().chain(joined) {
                assert_hears(&name("D1/D3"), &world.phones[who], speaker, start + from, start + to);
            }
            assert!([d1, d2, d3].iter().all(|place| world.phones[*place].is_idle()), "{}", name("all"));
        }
        assert!(world.product.failures.is_empty(), "{:?}", world.product.failures);
        assert!(world.product.is_idle(), "seed {seed}: {}", world.product.left());
        moves += world.product.moves;
    }
    assert!(moves >= 1_000, "only {moves} joins were across threads");
    println!("{moves} of {} joins were across threads", WORLDS * TRIOS as u64);
}

/// Joins at a time, and how often.
const REAL_TRIOS: usize = 13;
const ROUNDS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_joins_with_real_threads_and_sockets_lose_no_packet_and_send_none_to_a_wrong_peer() {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let folder = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        let mut sockets = Vec::new();
        for _ in 0..3 * REAL_TRIOS {
            sockets.push(Sockets::bind_lines(loopback, 2).await.unwrap());
        }
        let contacts = sockets.iter().map(|sockets| sockets.sip_address().unwrap());
        let text = format!(
            "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\nmax-calls = 50\n[api]\nlisten = \"off\"\n\
             [media]\nworkers = 2\npriority = \"normal\"\n\
             [recording]\ndefault = \"none\"\ndirectory = {:?}\nmin-free-space = \"1MiB\"\nbuffer = \"16MiB\"\n{}",
            folder.path(),
            dns(contacts)
        );
        let mut config = Config::parse(&text).map_err(|_| "the configuration is wrong").unwrap();
        config.claim_capacity().unwrap();
        let server = Server::start(config).await.unwrap();
        let proxy = server.listeners()[0].address;
        let mut phones = Vec::new();
        for (place, sockets) in sockets.into_iter().enumerate() {
            let (sip, rtp) = (sockets.sip_address().unwrap(), sockets.rtp_address().unwrap());
            phones.push(driver::start(Phone::new(phone(number(place), place, sip, rtp, proxy)), sockets));
        }
        // Media ports are bound while the server is ready already; a call before that is refused.
        tokio::time::sleep(ms(300)).await;
        let each = |what: fn(usize) -> (usize, Action)| (0..REAL_TRIOS).map(what).collect::<Vec<_>>();
        let act = |steps: Vec<(usize, Action)>| steps.into_iter().for_each(|(place, action)| phones[place].act(action));
        act(each(|trio| (3 * trio, Action::call(&number(3 * trio + 1)))));
        tokio::time::sleep(ms(500)).await;
        act(each(|trio| (3 * trio + 1, Action::on(1, Action::call(&number(3 * trio + 2))))));
        tokio::time::sleep(ms(500)).await;
        act(each(|trio| (3 * trio + 1, refer())));
        tokio::time::sleep(ms(700)).await;
        let end = clock::now();
        act(each(|trio| (3 * trio, Action::HangUp)));
        tokio::time::sleep(ms(200)).await;
        let mut stopped = Vec::new();
        for phone in phones {
            stopped.push(phone.stop().await);
        }
        server.drain();
        server.stop().await;
        for trio in 0..REAL_TRIOS {
            let (d1, d2, d3) = (&stopped[3 * trio], &stopped[3 * trio + 1], &stopped[3 * trio + 2]);
            let name = |who: &str| format!("{who} of trio {trio}, round {round}");
            let told = d2.happenings();
            let done = told.iter().find(|happened| matches!(happened.what, Happening::Notified { code: 200, .. }));
            let joined = done.unwrap_or_else(|| panic!("{}: {told:?}", name("D2"))).at + ms(100);
            for (who, phone, line) in [("D1", d1, 0), ("D3", d3, 0), ("D2", d2, 0), ("D2", d2, 1)] {
                // How late a packet is depends on the machine; that it comes does not.
                assert_whole(&name(who), &phone.stream_report(line), 5..usize::MAX, Duration::from_secs(1));
            }
            assert_hears(&name("D1"), d1, 3 * trio + 2, joined, end);
            assert_hears(&name("D3"), d3, 3 * trio, joined, end);
        }
    }
}
