//! Forwarding in the kernel between interfaces: a server in a network of its own, caller and callee in one each. The server's
//! network passes nothing on by itself, so whatever crosses it is the server's doing. Takes root.

mod peers;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use peers::networks::{Network, Packets};
use peers::{Options, Server, Sipp, at, heard, wait_for};
use serde_json::Value;
use stickytape::clock;

const SIP: u16 = 5060;
const API: u16 = 8080;
/// Both ends of the cable between caller and server.
const CALLER: &str = "10.97.1.2";
const TO_CALLER: &str = "10.97.1.1";
/// Between server and callee.
const CALLEE: &str = "10.97.2.2";
const TO_CALLEE: &str = "10.97.2.1";
/// The callee's end of a second cable, and an address of the callee that is behind both.
const OTHER_CALLEE: &str = "10.97.3.2";
const BEHIND: &str = "10.97.9.2";
/// What packets of the phones start with: other than ours.
const PHONES_TTL: u32 = 33;

const FORWARDED: &str = "stickytape_media_kernel_forwarded_total";
const STREAMS: &str = "stickytape_media_kernel_streams";

/// The server's network between two others. The interfaces: `phone` of either phone, `to-caller` and `to-callee` of the
/// server, `other` on both ends of the second cable to the callee.
struct World {
    /// One at a time: phones that send late are no fault of what is tested.
    _alone: MutexGuard<'static, ()>,
    caller: Network,
    proxy: Network,
    callee: Network,
}

impl World {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        // One that failed leaves nothing behind.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let [caller, proxy, callee] = ["caller", "proxy", "callee"].map(Network::new);
        proxy.join(("to-caller", "10.97.1.1/24"), &caller, ("phone", "10.97.1.2/24"));
        proxy.join(("to-callee", "10.97.2.1/24"), &callee, ("phone", "10.97.2.2/24"));
        proxy.join(("other", "10.97.3.1/24"), &callee, ("other", "10.97.3.2/24"));
        callee.ip(&format!("address add {BEHIND}/32 dev lo"));
        proxy.ip(&format!("route add {BEHIND}/32 via {CALLEE}"));
        caller.set("ip_default_ttl", PHONES_TTL);
        callee.set("ip_default_ttl", PHONES_TTL);
        Self { _alone: alone, caller, proxy, callee }
    }
}

/// A call of so many seconds, whose phones speak all the time.
struct Call<'a> {
    world: &'a World,
    server: Server,
    phones: [Sipp; 2],
    packets: [Packets; 2],
}

/// What is left of one: its recording, what arrived at the callee and at the caller, and how many packets the kernel sent on.
struct Ended {
    /// It has the folder of the recording.
    _server: Server,
    recording: Value,
    to_callee: Vec<Value>,
    to_caller: Vec<Value>,
    /// The ports that our descriptions named to the callee and to the caller.
    ports: [BTreeSet<u16>; 2],
    forwarded: usize,
}

impl<'a> Call<'a> {
    /// The callee has that address in that network.
    fn begin(world: &'a World, interfaces: &str, (network, callee): (&Network, &'static str), seconds: u64) -> Self {
        let config = format!(
            "[sip]\nlisten = [\"udp:{TO_CALLER}:{SIP}\", \"udp:{TO_CALLEE}:{SIP}\"]\n\
             [media]\nkernel-forwarding = [{interfaces}]\nports = \"20000-20099\"\npriority = \"normal\"\n\
             [recording]\nmin-free-space = \"1MiB\"\nlayout = \"stereo\"\n\
             [api]\nlisten = \"127.0.0.1:{API}\"\n\
             [[trunk]]\nname = \"carrier\"\naddress = \"sip:{CALLER}:{SIP}\"\nfrom = [\"{CALLER}\"]\n\
             [[dn]]\nnumber = \"2001\"\ncontact = \"sip:{{number}}@{callee}:{SIP}\"\n\
             [[route]]\nfrom = \"carrier\"\nmatch = \"^2(\\\\d+)$\"\nto = \"dn:2$1\"\n"
        );
        let server = world.proxy.serve(&config, SIP, API);
        let folder = server.folder.path();
        let tones = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sipp");
        for tone in ["d1.ulaw", "d3.ulaw"] {
            std::fs::copy(tones.join(tone), folder.join(tone)).unwrap();
        }
        let packets = [network, &world.caller].map(|network| network.read_packets(folder));
        let talk = Duration::from_secs(seconds);
        let answers = Options { scenario: "uas_target", host: callee, port: SIP, talk, ..Options::default() };
        let target = Some(at(TO_CALLER, SIP));
        let calls =
            Options { scenario: "uac_transferred", host: CALLER, port: SIP, target, talk, ..Options::default() };
        let answers = network.within(|| Sipp::start(folder, &answers));
        let calls = world.caller.within(|| Sipp::start(folder, &calls));
        Self { world, server, phones: [calls, answers], packets }
    }

    fn metric(&self, name: &str) -> f64 {
        let value = self.world.proxy.within(|| self.server.metric(name));
        value.unwrap_or_else(|| panic!("there is no {name}\n{}", self.server.log()))
    }

    /// Waits until the kernel sends so many streams on.
    #[track_caller]
    fn streams(&self, wanted: u32) {
        let until = clock::now() + Duration::from_secs(5);
        while self.metric(STREAMS) != f64::from(wanted) {
            let (streams, forwarded) = (self.metric(STREAMS), self.metric(FORWARDED));
            let log = self.server.log();
            assert!(clock::now() < until, "{streams} streams, not {wanted}; {forwarded} packets forwarded\n{log}");
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits until packets arrive at the callee by that interface: a moment more than the second between two looks.
    #[track_caller]
    fn arrive_by(&self, interface: &str) {
        let what = format!("packets by {interface}");
        let newest = || self.packets[0].rtp().pop().is_some_and(|packet| packet["interface"] == interface);
        wait_for(&what, Duration::from_millis(2_500), || newest().then_some(()));
    }

    /// Waits for the callee to hang up. No packet that a phone sent was missed here or in the recording.
    #[track_caller]
    fn end(mut self) -> Ended {
        let [calls, answers] = self.phones;
        calls.succeed(&self.server);
        answers.succeed(&self.server);
        let server = &mut self.server;
        self.world.proxy.within(|| {
            let zero = |name: &str| (server.metric(name) == Some(0.0)).then_some(());
            wait_for("the end of the call", Duration::from_secs(10), || zero("stickytape_legs"));
            wait_for("no stream in the kernel", Duration::from_secs(5), || zero(STREAMS));
            for what in ["rtp_packets_lost", "rtp_packets_refused", "rtp_packets_untapped"] {
                let name = format!("stickytape_{what}_total");
                assert_eq!(server.metric(&name), Some(0.0), "{name}");
            }
        });
        let forwarded = self.world.proxy.within(|| server.metric(FORWARDED)).unwrap() as usize;
        let recording = server.published(1).remove(0);
        server.stop();
        self.world.proxy.verify(server);
        let [callee, caller] = &self.packets;
        Ended {
            recording,
            to_callee: callee.rtp(),
            to_caller: caller.rtp(),
            ports: [callee.described("INVITE"), caller.described("SIP/2.0 200")],
            forwarded,
            _server: self.server,
        }
    }
}

impl Ended {
    /// It has both tones, each where it belongs, and nothing else.
    #[track_caller]
    fn is_recorded(&self, milliseconds: Range<u64>) {
        heard(&self.recording, &[("13", milliseconds)]);
        let gaps = self.recording["gaps"].as_array().unwrap();
        assert!(gaps.is_empty(), "{gaps:#?}");
    }

    /// The kernel sent most of what arrived on.
    #[track_caller]
    fn went_by_the_kernel(&self) {
        let all = self.to_callee.len() + self.to_caller.len();
        assert!(self.forwarded <= all && self.forwarded * 10 >= all * 8, "{} of {all}", self.forwarded);
    }

    /// Each phone heard one stream from the port that it was told of.
    #[track_caller]
    fn are_streams_of_ours(&self) {
        let sides = [(&self.to_callee, TO_CALLEE), (&self.to_caller, TO_CALLER)];
        for ((packets, address), ports) in sides.into_iter().zip(&self.ports) {
            are_of_ours(packets, ports.iter().map(|port| format!("{address}:{port}")).collect());
        }
    }
}

/// One source, one address, sound headers.
#[track_caller]
fn are_of_ours(packets: &[Value], from: BTreeSet<String>) {
    assert_eq!(from.len(), 1, "one description: {from:?}");
    let all = |what: &dyn Fn(&Value) -> String| packets.iter().map(what).collect::<BTreeSet<_>>();
    assert_eq!(all(&|packet| packet["rtp"]["ssrc"].to_string()).len(), 1, "one SSRC");
    assert_eq!(all(&|packet| packet["rtp"]["kind"].to_string()), ["0".to_owned()].into(), "PCMU");
    assert_eq!(all(&|packet| packet["from"].as_str().unwrap().to_owned()), from);
    assert_eq!(all(&|packet| packet["to"].to_string()).len(), 1, "one port of the phone");
    let lifetimes = all(&|packet| packet["ttl"].to_string());
    assert_eq!(lifetimes, ["64".to_owned()].into(), "of a packet that begins here");
    assert_eq!(all(&|packet| packet["ip"].to_string()), ["\"right\"".to_owned()].into(), "checksum of the IP header");
}

#[track_caller]
fn checksums(packets: &[Value], allowed: &[&str]) {
    let wrong = packets.iter().find(|packet| !allowed.contains(&packet["udp"].as_str().unwrap()));
    assert!(wrong.is_none(), "{}", wrong.unwrap());
}

/// The steps of sequence numbers and timestamps from each packet to the next.
fn steps(packets: &[Value]) -> Vec<(u16, u32)> {
    let numbers = |packet: &Value| {
        let number = |what: &str| packet["rtp"][what].as_u64().unwrap() as u32;
        (number("sequence") as u16, number("timestamp"))
    };
    let step = |pair: &[Value]| {
        let (before, after) = (numbers(&pair[0]), numbers(&pair[1]));
        (after.0.wrapping_sub(before.0), after.1.wrapping_sub(before.1))
    };
    packets.windows(2).map(step).collect()
}

/// No packet is missing, none came twice, and the clock went on with them. On a busy machine some may still lie in the
/// socket when their stream is entered, and then follow the first ones that the kernel sends on.
#[track_caller]
fn is_whole(packets: &[Value]) {
    assert!(packets.len() > 250, "{} packets in five seconds at the least", packets.len());
    let first = packets[0]["rtp"]["sequence"].as_u64().unwrap() as u16;
    let mut sorted = packets.to_vec();
    // The first one may itself be late.
    sorted.sort_by_key(|packet| {
        (packet["rtp"]["sequence"].as_u64().unwrap() as u16).wrapping_sub(first).wrapping_add(100)
    });
    let whole = steps(&sorted);
    let wrong = whole.iter().position(|step| *step != (1, 160));
    assert!(wrong.is_none(), "{:?} at {wrong:?}: {:#?}", whole[wrong.unwrap()], sorted[wrong.unwrap()]);
    let late: Vec<_> = steps(packets).into_iter().filter(|step| *step != (1, 160)).collect();
    assert!(late.len() <= 6, "out of their order: {late:?}");
}

/// Interfaces by which packets arrived, one after the other.
fn ways(packets: &[Value]) -> Vec<&str> {
    let mut ways: Vec<&str> = packets.iter().map(|packet| packet["interface"].as_str().unwrap()).collect();
    ways.dedup();
    ways
}

#[test]
fn a_recorded_call_crosses_in_the_kernel_and_nothing_of_it_tells() {
    let world = World::new();
    // Every checksum is complete on its way, and looked at where it arrives.
    for (network, interface) in
        [(&world.caller, "phone"), (&world.proxy, "to-caller"), (&world.proxy, "to-callee"), (&world.callee, "phone")]
    {
        network.without_offload(interface);
    }
    let call = Call::begin(&world, "\"to-caller\", \"to-callee\"", (&world.callee, CALLEE), 10);
    call.streams(2);
    sleep(Duration::from_secs(3));
    // Whose hardware has that address must be asked again, in the middle of a stream.
    world.proxy.ip("neigh flush dev to-callee");
    world.proxy.ip("neigh flush dev to-caller");
    sleep(Duration::from_secs(3));
    call.streams(2);
    let ended = call.end();
    ended.went_by_the_kernel();
    ended.are_streams_of_ours();
    for (packets, interface, phone) in
        [(&ended.to_callee, "to-callee", &world.callee), (&ended.to_caller, "to-caller", &world.caller)]
    {
        is_whole(packets);
        checksums(packets, &["right"]);
        let hardware = serde_json::json!([world.proxy.hardware(interface), phone.hardware("phone")]);
        assert!(packets.iter().all(|packet| packet["hardware"] == hardware), "{hardware}");
    }
    ended.is_recorded(9_800..11_000);
}

#[test]
fn a_call_takes_another_way_when_its_route_changes() {
    let world = World::new();
    let call = Call::begin(&world, "\"to-caller\", \"to-callee\", \"other\"", (&world.callee, BEHIND), 12);
    call.streams(2);
    sleep(Duration::from_secs(2));
    world.proxy.ip(&format!("route replace {BEHIND}/32 via {OTHER_CALLEE}"));
    call.arrive_by("other");
    sleep(Duration::from_secs(1));
    call.streams(2);
    world.proxy.ip(&format!("route replace {BEHIND}/32 via {CALLEE}"));
    call.arrive_by("phone");
    sleep(Duration::from_secs(1));
    call.streams(2);
    let ended = call.end();
    ended.are_streams_of_ours();
    assert_eq!(ways(&ended.to_callee), ["phone", "other", "phone"]);
    checksums(&ended.to_callee, &["right", "partial"]);
    // The way that there was has ended before the look that finds the new one: a second of packets, twice at the most.
    for (sequence, timestamp) in steps(&ended.to_callee) {
        assert!((1..=65).contains(&sequence), "{sequence} packets at once");
        assert_eq!(timestamp, u32::from(sequence) * 160);
    }
    is_whole(&ended.to_caller);
    ended.is_recorded(11_800..13_000);
}

#[test]
fn a_call_goes_on_without_the_kernel_where_its_way_leads_by_an_interface_that_is_not_named() {
    let world = World::new();
    let call = Call::begin(&world, "\"to-caller\", \"to-callee\"", (&world.callee, CALLEE), 12);
    call.streams(2);
    sleep(Duration::from_secs(2));
    world.proxy.ip(&format!("route add {CALLEE}/32 via {OTHER_CALLEE}"));
    call.arrive_by("other");
    // What that way leads to is not expected by another one either.
    call.streams(0);
    let before = call.metric(FORWARDED);
    sleep(Duration::from_secs(2));
    assert_eq!(call.metric(FORWARDED), before);
    world.proxy.ip(&format!("route del {CALLEE}/32 via {OTHER_CALLEE}"));
    call.arrive_by("phone");
    call.streams(2);
    let ended = call.end();
    ended.are_streams_of_ours();
    assert_eq!(ways(&ended.to_callee), ["phone", "other", "phone"]);
    for packets in [&ended.to_callee, &ended.to_caller] {
        is_whole(packets);
        checksums(packets, &["right", "partial"]);
    }
    ended.is_recorded(11_800..13_000);
}

#[test]
fn what_an_interface_sees_of_others_goes_nowhere() {
    let world = World::new();
    let call = Call::begin(&world, "\"to-caller\", \"to-callee\"", (&world.callee, CALLEE), 12);
    call.streams(2);
    // Late ones are taken after so many.
    sleep(Duration::from_secs(3));
    world.caller.send_astray("phone");
    call.streams(2);
    let ended = call.end();
    ended.went_by_the_kernel();
    is_whole(&ended.to_callee);
    is_whole(&ended.to_caller);
    ended.is_recorded(11_800..14_000);
}

#[test]
fn a_phone_on_the_servers_machine_hears_what_comes_from_another() {
    let world = World::new();
    world.proxy.ip("address add 10.97.5.2/32 dev lo");
    let call = Call::begin(&world, "\"to-caller\", \"lo\"", (&world.proxy, "10.97.5.2"), 6);
    sleep(Duration::from_secs(2));
    call.streams(1);
    let mut ended = call.end();
    ended
        .to_callee
        .retain(|packet| packet["interface"] == "lo" && packet["to"].as_str().unwrap().starts_with("10.97.5.2:"));
    is_whole(&ended.to_callee);
    is_whole(&ended.to_caller);
    checksums(&ended.to_caller, &["right", "partial"]);
    ended.is_recorded(5_800..7_000);
}
