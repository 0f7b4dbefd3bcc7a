//! Binding listeners, and errors that say what is in the way.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Datagrams that the kernel may hold for us while the signaling task is busy, in bytes. As much of it as the system
/// allows is taken.
const UDP_BUFFER: usize = 4 * 1024 * 1024;
/// Connections that the kernel may hold for us before we accept them.
const BACKLOG: i32 = 1024;

/// Why a listener cannot be had, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket has it.
    #[error(
        "cannot listen on {transport}:{address}: the address is in use. Another program, or another stickytape, has it \
         (`ss -lnp 'sport = :{}'` names it); stop it or choose another port", address.port()
    )]
    InUse {
        /// `udp`, `tcp`, …
        transport: &'static str,
        /// What was to be bound.
        address: SocketAddr,
    },
    /// We may not.
    #[error(
        "cannot listen on {transport}:{address}: permission denied. Ports below 1024 need CAP_NET_BIND_SERVICE; choose a \
         higher port or grant it"
    )]
    Permission {
        /// `udp`, `tcp`, …
        transport: &'static str,
        /// What was to be bound.
        address: SocketAddr,
    },
    /// The machine does not have the address.
    #[error(
        "cannot listen on {transport}:{address}: this machine has no such address (`ip address` lists those that it has). \
         To be reached at an address of a NAT or load balancer set `advertise`"
    )]
    NoAddress {
        /// `udp`, `tcp`, …
        transport: &'static str,
        /// What was to be bound.
        address: SocketAddr,
    },
    /// Too many descriptors are open.
    #[error("cannot listen on {transport}:{address}: no descriptor is free; raise the limit (`ulimit -n`)")]
    Descriptors {
        /// `udp`, `tcp`, …
        transport: &'static str,
        /// What was to be bound.
        address: SocketAddr,
    },
    /// This program has no such transport.
    #[error("cannot listen on {transport}:{address}: this version has no {transport}; listen on udp or tcp")]
    Transport {
        /// `tls`, …
        transport: &'static str,
        /// What was to be bound.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {transport}:{address}: {source}")]
    Other {
        /// `udp`, `tcp`, …
        transport: &'static str,
        /// What was to be bound.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    /// Says what an error of the system means for a listener.
    pub fn of(transport: &'static str, address: SocketAddr, source: io::Error) -> BindError {
        match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { transport, address },
            io::ErrorKind::PermissionDenied => BindError::Permission { transport, address },
            io::ErrorKind::AddrNotAvailable => BindError::NoAddress { transport, address },
            _ if too_many_files(&source) => BindError::Descriptors { transport, address },
            _ => BindError::Other { transport, address, source },
        }
    }
}

/// Whether the process or the system has no descriptor left.
pub(super) fn too_many_files(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(rustix::io::Errno::MFILE.raw_os_error()) || code == Some(rustix::io::Errno::NFILE.raw_os_error())
}

/// A non-blocking UDP socket. An IPv6 address takes IPv6 only, so that `0.0.0.0` and `[::]` can be bound side by side.
pub fn udp(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let bind = || -> io::Result<UdpSocket> {
        let socket = open(address, Type::DGRAM, Protocol::UDP)?;
        // Best effort: the system's limit may be lower, and a smaller buffer only loses what the peer repeats.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    bind().map_err(|error| BindError::of("udp", address, error))
}

/// A non-blocking TCP listener; IPv6 as in [`udp`]. A port whose old connections still linger can be bound again.
pub fn tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bind = || -> io::Result<TcpListener> {
        let socket = open(address, Type::STREAM, Protocol::TCP)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|error| BindError::of("tcp", address, error))
}

fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_is_named_with_its_transport_and_what_to_do() {
        let first = udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let text = udp(address).unwrap_err().to_string();
        assert!(
            text.contains(&format!("udp:{address}")) && text.contains("in use") && text.contains("ss -lnp"),
            "{text}"
        );
        let listener = tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = tcp(listener.local_addr().unwrap()).unwrap_err();
        assert!(matches!(error, BindError::InUse { transport: "tcp", .. }), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let error = udp("192.0.2.77:5060".parse().unwrap()).unwrap_err();
        assert!(matches!(error, BindError::NoAddress { .. }), "{error}");
    }

    #[test]
    fn ipv4_and_ipv6_wildcards_are_bound_side_by_side() {
        // Machines without IPv6 have nothing to show here.
        let Ok(six) = udp("[::]:0".parse().unwrap()) else { return };
        let port = six.local_addr().unwrap().port();
        // Another test may hold this port in IPv4; what must not happen is that our own IPv6 socket holds it too.
        if let Err(error) = udp(SocketAddr::from(([127, 0, 0, 77], port))) {
            panic!("{error}");
        }
    }
}
