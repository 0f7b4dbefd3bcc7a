//! RTCP is terminated per leg: our own reports with our SSRC and CNAME; nothing is passed through.

use stickytape::bridge::command::Remote;
use stickytape::bridge::relay::{Channel, MAX_TRANSMIT};
use stickytape::codec::Direction;
use stickytape::rtp::rtcp::{Compound, Item, MAX_LEN, Report, SenderInfo};

use crate::{A, B, World, address, remote, rtcp_address, ssrc, voice};

/// A compound packet of a peer.
fn compound(ssrc: u32, sender: Option<SenderInfo>, bye: bool) -> Vec<u8> {
    let mut bytes = [0; MAX_LEN];
    let len = Report { ssrc, sender, block: None, cname: "theirs", bye }.write(&mut bytes);
    bytes[..len].to_vec()
}

fn items(bytes: &[u8]) -> Vec<Item> {
    let mut items = vec![];
    Compound::parse(bytes).unwrap().for_each(|item| items.push(item));
    items
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn each_leg_gets_reports_of_our_own_about_every_five_seconds() {
    let mut world = World::bridged();
    let reports = world.run_until(300_000);
    let to_a: Vec<_> = reports.iter().filter(|(_, transmit, _)| transmit.to == rtcp_address(A)).collect();
    assert!((50..100).contains(&to_a.len()), "{}", to_a.len());
    assert!(to_a[0].0 <= 3_100, "the first one comes after half the time");
    for (_, transmit, bytes) in &to_a {
        assert_eq!(transmit.channel, Channel::Rtcp);
        assert_eq!(Compound::parse(bytes).unwrap().ssrc, ssrc(A));
        assert!(contains(bytes, b"cname"));
        assert_eq!(items(bytes), [], "nothing was sent or received: an empty RR");
    }
}

#[test]
fn a_sender_report_counts_what_we_sent_and_a_block_what_we_got() {
    let mut world = World::bridged();
    for n in (0..100_u16).filter(|n| n % 4 != 1) {
        world.at(u64::from(n) * 20);
        world.say(A, &voice(7, n, 160 * u32::from(n)));
    }
    let last = world.say(A, &voice(7, 100, 16_000)).unwrap();
    world.at(2_000);
    let info = SenderInfo { ntp: 0x1122_3344_5566_7788, timestamp: 0, packets: 1, octets: 1 };
    assert!(world.rtcp(A, rtcp_address(A), &compound(7, Some(info), false)));
    let reports = world.run_until(10_000);
    let to = |leg| reports.iter().find(|(at, transmit, _)| *at > 2_000 && transmit.to == rtcp_address(leg)).unwrap();

    let (at, _, to_b) = to(B);
    let Item::Sender { ssrc: sender, info } = items(to_b)[0] else { panic!("B was sent RTP: an SR") };
    assert_eq!((sender, info.packets, info.octets), (ssrc(B), 76, 76 * 160));
    // The RTP timestamp of the report's own instant (RFC 3550 §6.4.1).
    let since = (*at - 1_980) * 8;
    let expected = last.packet.timestamp.wrapping_add(since as u32);
    assert!(info.timestamp.abs_diff(expected) <= 16, "{} {expected}", info.timestamp);
    assert!((info.ntp >> 32) >= 1 && (info.ntp >> 32) <= 11);

    let (at, _, to_a) = to(A);
    let Item::Block(block) = items(to_a)[0] else { panic!("A was sent nothing: an RR with a block") };
    assert_eq!((block.ssrc, block.lost, block.highest_sequence), (7, 25, 100));
    assert_eq!(block.last_sr, 0x3344_5566);
    let delay_ms = u64::from(block.delay_since_last_sr) * 1_000 / 65_536;
    assert!(delay_ms.abs_diff(*at - 2_000) <= 1);
}

#[test]
fn reports_go_on_while_a_call_is_held_but_not_to_a_peer_without_an_address() {
    let mut world = World::bridged();
    world.relay.set_remote(A, Remote { direction: Direction::Inactive, ..remote(A) }).unwrap();
    world.relay.set_remote(B, Remote { rtp: None, rtcp: None, ..remote(B) }).unwrap();
    let reports = world.run_until(30_000);
    assert!(reports.iter().any(|(_, transmit, _)| transmit.to == rtcp_address(A)));
    assert!(!reports.iter().any(|(_, transmit, _)| transmit.slot == world.relay.slot(B).unwrap()));
}

#[test]
fn nothing_of_a_peers_rtcp_reaches_the_other_peer() {
    let mut world = World::bridged();
    world.say(A, &voice(7, 0, 0));
    for second in 0..60 {
        world.rtcp(A, rtcp_address(A), &compound(7, None, false));
        for (_, transmit, bytes) in world.run_until(second * 1_000) {
            assert!(!contains(&bytes, b"theirs"), "to {}", transmit.to);
        }
    }
}

#[test]
fn a_bye_ends_the_source_in_our_reports_and_nothing_else() {
    let mut world = World::bridged();
    world.say(A, &voice(7, 0, 0));
    assert!(world.rtcp(A, rtcp_address(A), &compound(7, None, true)));
    let reports = world.run_until(10_000);
    let (.., report) = reports.iter().find(|(_, transmit, _)| transmit.to == rtcp_address(A)).unwrap();
    assert_eq!(items(report), []);
    assert!(world.say(A, &voice(7, 1, 160)).is_some(), "what it sends afterwards is relayed as before");
    let reports = world.run_until(20_000);
    let (.., report) = reports.iter().rfind(|(_, transmit, _)| transmit.to == rtcp_address(A)).unwrap();
    assert!(matches!(items(report)[..], [Item::Block(_)]));
}

#[test]
fn rtcp_latches_apart_from_rtp() {
    let mut world = World::bridged();
    let nat = "198.51.100.7:50001".parse().unwrap();
    assert!(!world.rtcp(A, nat, &compound(7, None, false)));
    assert!(!world.rtcp(A, nat, &compound(7, None, false)));
    assert!(world.rtcp(A, nat, &compound(7, None, false)));
    let reports = world.run_until(10_000);
    assert!(reports.iter().any(|(_, transmit, _)| transmit.to == nat));
    assert_eq!(world.say(B, &voice(9, 0, 0)).unwrap().to, address(A), "RTP goes where it went");
}

#[test]
fn with_rtcp_mux_both_share_the_rtp_port_in_both_directions() {
    let mut world = World::bridged();
    world.relay.set_remote(A, Remote { rtcp_mux: true, ..remote(A) }).unwrap();
    assert!(world.say(A, &voice(7, 0, 0)).is_some());
    let (verdict, sent) = world.datagram(A, address(A), &compound(7, None, false));
    assert_eq!((verdict.refused, sent), (None, None));
    let stranger = "203.0.113.1:9".parse().unwrap();
    assert!(world.datagram(A, stranger, &compound(7, None, false)).0.refused.is_some());
    assert!(!world.rtcp(A, rtcp_address(A), &compound(7, None, false)), "the other port is not used");
    let reports = world.run_until(10_000);
    let slot = world.relay.slot(A).unwrap();
    let (_, transmit, _) = reports.iter().find(|(_, transmit, _)| transmit.slot == slot).unwrap();
    assert_eq!((transmit.channel, transmit.to), (Channel::Rtp, address(A)));
}

#[test]
fn a_leg_that_has_reported_says_bye_at_its_end() {
    let mut out = [0; MAX_TRANSMIT];
    let mut world = World::bridged();
    let now = world.now();
    assert_eq!(world.relay.farewell(A, now, &mut out), None);
    world.run_until(10_000);
    let now = world.now();
    let transmit = world.relay.farewell(A, now, &mut out).unwrap();
    assert_eq!(transmit.to, rtcp_address(A));
    assert_eq!(items(&out[..transmit.len]).last(), Some(&Item::Bye(ssrc(A))));
}
