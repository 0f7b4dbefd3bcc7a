//! Which interface reaches a peer, by the system's routing table with its rules.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// Where packets for a peer leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Egress {
    /// Nowhere: the peer is on this machine.
    Local,
    /// By the interface of that index.
    Interface(u32),
}

/// A conversation with the system about routes.
#[derive(Debug)]
pub struct Routes(Socket);

impl Routes {
    /// Asks nothing yet.
    pub fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// How packets from one of our addresses reach `to`. Answered by the kernel at once, without a packet.
    pub fn egress(&self, from: Ipv4Addr, to: Ipv4Addr) -> io::Result<Egress> {
        let mut question = RouteMessage::default();
        question.header.address_family = AddressFamily::Inet;
        (question.header.destination_prefix_length, question.header.source_prefix_length) = (32, 32);
        let address = |ip| RouteAddress::from(IpAddr::V4(ip));
        question.attributes = vec![RouteAttribute::Destination(address(to)), RouteAttribute::Source(address(from))];
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        let mut message = NetlinkMessage::new(header, RouteNetlinkMessage::GetRoute(question).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let (answer, _) = self.0.recv_from_full()?;
        let answer = NetlinkMessage::deserialize(&answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => egress(&route),
            NetlinkPayload::Error(error) => Err(error.to_io()),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }
}

fn egress(route: &RouteMessage) -> io::Result<Egress> {
    match route.header.kind {
        RouteType::Local => return Ok(Egress::Local),
        RouteType::Unicast => {}
        // To several, or to nobody.
        _ => return Err(ErrorKind::HostUnreachable.into()),
    }
    let interface = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    interface.map(Egress::Interface).ok_or(ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_here_and_what_has_no_route_is_an_error() {
        let routes = Routes::new().unwrap();
        let here = Ipv4Addr::LOCALHOST;
        assert_eq!(routes.egress(here, Ipv4Addr::new(127, 9, 9, 9)).unwrap(), Egress::Local);
        assert!(routes.egress(here, Ipv4Addr::new(198, 51, 100, 1)).is_err(), "not from loopback");
        assert!(routes.egress(here, Ipv4Addr::BROADCAST).is_err(), "to several");
        assert_eq!(routes.egress(here, here).unwrap(), Egress::Local, "the conversation goes on after a refusal");
    }
}
