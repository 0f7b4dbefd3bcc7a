//! Single values of the file, each from the text or number that was typed. Errors say what was expected.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::raw::describe;
use crate::call::options::{Host, Listener, Numbers, PeerAddress, Transport};
use crate::codec::Codec;
use crate::net::kernel;

/// The default SIP port (RFC 3261 §19.1.2).
const SIP_PORT: u16 = 5060;

/// Text.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    as_text(value, "a text in quotes").map(str::to_owned)
}

fn as_text<'a>(value: &'a DeValue<'_>, expected: &str) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("expected {expected}, found {}", describe(value)))
}

/// Text with something in it.
pub(super) fn some_text(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    if text.trim().is_empty() { Err("must not be empty".to_owned()) } else { Ok(text) }
}

/// An interface that this machine has.
pub(super) fn interface(value: &DeValue<'_>) -> Result<String, String> {
    let name = some_text(value)?;
    let here = kernel::interfaces();
    match here.contains(&name) {
        true => Ok(name),
        false => Err(format!("no interface for it here is called {name:?}; there are {}", here.join(", "))),
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("expected true or false, found {}", describe(value)))
}

/// A whole number within `range`.
pub(super) fn number(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<u64, String> {
    move |value| {
        let expected = || format!("expected a whole number from {} to {}", range.start(), range.end());
        let Some(integer) = value.as_integer() else {
            return Err(format!("{}, found {}", expected(), describe(value)));
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("{}, found {integer}", expected())),
        }
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let names = words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        let text = as_text(value, &format!("one of {names}"))?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| format!("expected one of {names}, found {text:?}"))
    }
}

/// A duration such as `"60s"`, `"1ms"`, `"1h30m"` within `range`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&DeValue<'_>) -> Result<Duration, String> {
    move |value| {
        const EXPECTED: &str = "a duration with its unit, such as \"60s\" or \"1ms\"";
        let text = as_text(value, EXPECTED)?;
        let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        let Some(duration) = parsed else { return Err(format!("expected {EXPECTED}, found {text:?}")) };
        if range.contains(&duration) {
            return Ok(duration);
        }
        Err(format!("must be from {:?} to {:?}, found {text:?}", range.start(), range.end()))
    }
}

/// A size in bytes such as `"1GiB"` or `"512MB"` within `range`.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<u64, String> {
    move |value| {
        const EXPECTED: &str = "a size with its unit, such as \"1GiB\" or \"512MiB\"";
        let text = as_text(value, EXPECTED)?;
        let Ok(size) = text.parse::<bytesize::ByteSize>() else {
            return Err(format!("expected {EXPECTED}, found {text:?}"));
        };
        if range.contains(&size.as_u64()) {
            return Ok(size.as_u64());
        }
        let show = |bytes: &u64| bytesize::ByteSize(*bytes).to_string();
        Err(format!("must be from {} to {}, found {text:?}", show(range.start()), show(range.end())))
    }
}

/// An IP address without a port.
pub(super) fn ip(value: &DeValue<'_>) -> Result<IpAddr, String> {
    let text = as_text(value, "an IP address")?;
    let address = text.parse::<IpAddr>().map_err(|_| format!("expected an IP address, found {text:?}"))?;
    if address.is_unspecified() { Err(format!("no peer can reach {address}")) } else { Ok(address) }
}

/// A network `"10.0.0.0/8"`; a single address stands for itself.
pub(super) fn network(value: &DeValue<'_>) -> Result<IpNet, String> {
    let text = as_text(value, "a network such as \"10.0.0.0/8\"")?;
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map(|net| net.trunc()).map_err(|_| format!("expected a network such as \"10.0.0.0/8\", found {text:?}"))
}

/// `"127.0.0.1:8080"`.
pub(super) fn socket(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let text = as_text(value, "ADDRESS:PORT")?;
    text.parse().map_err(|_| format!("expected ADDRESS:PORT such as \"127.0.0.1:8080\", found {text:?}"))
}

/// `"udp:0.0.0.0:5060"`.
pub(super) fn listener(value: &DeValue<'_>) -> Result<Listener, String> {
    const EXPECTED: &str = "TRANSPORT:ADDRESS:PORT such as \"udp:0.0.0.0:5060\"";
    let text = as_text(value, EXPECTED)?;
    let wrong = || format!("expected {EXPECTED}, found {text:?}");
    let (transport, address) = text.split_once(':').ok_or_else(wrong)?;
    let transport = match transport {
        "udp" => Transport::Udp,
        "tcp" => Transport::Tcp,
        "tls" => return Err("not built yet: SIP over TLS; listen on udp: and tcp:".to_owned()),
        _ => return Err(wrong()),
    };
    let address = address.parse::<SocketAddr>().map_err(|_| wrong())?;
    Ok(Listener { transport, address })
}

/// `"10000-32767"`, both ends included.
pub(super) fn ports(value: &DeValue<'_>) -> Result<RangeInclusive<u16>, String> {
    const EXPECTED: &str = "a range of ports such as \"10000-32767\"";
    let text = as_text(value, EXPECTED)?;
    let ends = text.split_once('-').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    let Some((first, last)) = ends else { return Err(format!("expected {EXPECTED}, found {text:?}")) };
    if first < 1024 {
        return Err(format!("must begin at 1024 or above, found {text:?}"));
    }
    let range: RangeInclusive<u16> = first..=last;
    match super::capacity::pairs(&range) {
        0 | 1 => Err(format!("a call needs two pairs, each an even port and the next one; {text:?} has fewer")),
        _ => Ok(range),
    }
}

/// An encoding as `a=rtpmap` names it: `"PCMU"`, `"L16/8000/1"`; the clock is 8,000 unless it is written.
pub(super) fn codec(value: &DeValue<'_>) -> Result<Codec, String> {
    const EXPECTED: &str = "a codec such as \"PCMU\" or \"L16/8000/1\"";
    let text = as_text(value, EXPECTED)?;
    let wrong = || format!("expected {EXPECTED}, found {text:?}");
    let mut parts = text.split('/');
    let name = parts.next().filter(|name| !name.is_empty() && name.bytes().all(is_token)).ok_or_else(wrong)?;
    let clock = parts.next().map_or(Ok(8_000), |clock| clock.parse().map_err(|_| wrong()))?;
    let channels = parts.next().map_or(Ok(1), |channels| channels.parse().map_err(|_| wrong()))?;
    if parts.next().is_some() || clock == 0 || channels == 0 {
        return Err(wrong());
    }
    Ok(Codec::new(name, clock, channels))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._+".contains(&byte)
}

/// `"2001"` or `"2000-2499"`.
pub(super) fn numbers(value: &DeValue<'_>) -> Result<Numbers, String> {
    let text = as_text(value, "a number in quotes such as \"2001\" or \"2000-2499\"")?.trim();
    let digits = |part: &str| !part.is_empty() && part.len() <= 18 && part.bytes().all(|byte| byte.is_ascii_digit());
    let Some((first, last)) = text.split_once('-').filter(|(a, b)| digits(a) && digits(b)) else {
        let usable = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "<>\"@;:".contains(c));
        return if usable { Ok(Numbers::One(text.to_owned())) } else { Err(format!("{text:?} cannot be dialled")) };
    };
    if first.len() != last.len() {
        return Err(format!("both ends of {text:?} need the same number of digits"));
    }
    // At most 18 digits each, so they fit.
    let (Ok(from), Ok(to)) = (first.parse(), last.parse()) else { return Err(format!("{text:?} is out of range")) };
    if from > to {
        Err(format!("{text:?} runs backwards"))
    } else {
        Ok(Numbers::Range { first: from, last: to, width: first.len() })
    }
}

/// `"sip:198.51.100.10:5060;transport=udp"`, with or without a user part.
pub(super) fn sip_address(value: &DeValue<'_>) -> Result<PeerAddress, String> {
    sip_uri(as_text(value, "a SIP address such as \"sip:198.51.100.10:5060\"")?)
}

/// As [`sip_address`], from bare text.
pub(super) fn sip_uri(text: &str) -> Result<PeerAddress, String> {
    let wrong = |why: &str| format!("expected a SIP address such as \"sip:198.51.100.10:5060\", found {text:?}: {why}");
    let rest = match text.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("sip") => rest,
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("sips") => {
            return Err("not built yet: SIP over TLS; write sip:".to_owned());
        }
        _ => return Err(wrong("it does not begin with sip:")),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) if !user.is_empty() => (Some(user.to_owned()), rest),
        Some(_) => return Err(wrong("the part before @ is empty")),
        None => (None, rest),
    };
    let mut parameters = rest.split(';');
    let (host, port) = host_port(parameters.next().unwrap_or_default()).map_err(|why| wrong(&why))?;
    let mut transport = None;
    for parameter in parameters {
        transport = Some(match parameter.to_ascii_lowercase().as_str() {
            "transport=udp" => Transport::Udp,
            "transport=tcp" => Transport::Tcp,
            "transport=tls" => return Err("not built yet: SIP over TLS; write transport=tcp or udp".to_owned()),
            _ => return Err(wrong(&format!("unknown parameter {parameter:?}"))),
        });
    }
    Ok(PeerAddress { user, host, port: port.unwrap_or(SIP_PORT), transport })
}

/// `HOST:PORT`, `HOST`, `[IPv6]:PORT`, as `--to` takes it: one peer for every call.
pub(super) fn peer(text: &str) -> Result<PeerAddress, String> {
    let (host, port) = host_port(text)?;
    Ok(PeerAddress { user: None, host, port: port.unwrap_or(SIP_PORT), transport: None })
}

fn host_port(text: &str) -> Result<(Host, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("the ] is missing")?;
            let ip = host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("{host:?} is no IPv6 address"))?;
            (Host::Ip(ip.into()), rest.strip_prefix(':').or(if rest.is_empty() { None } else { Some(rest) }))
        }
        None if text.matches(':').count() > 1 => return Err("write an IPv6 address in brackets".to_owned()),
        None => match text.split_once(':') {
            Some((host, port)) => (name(host)?, Some(port)),
            None => (name(text)?, None),
        },
    };
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0).ok_or(format!("{port:?} is no port"))?),
        None => None,
    };
    Ok((host, port))
}

fn name(text: &str) -> Result<Host, String> {
    if let Ok(ip) = text.parse::<std::net::Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    let label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    // A last label of digits alone is a mistyped address, not a name (RFC 3696 §2).
    let is_name =
        text.split('.').all(label) && !text.rsplit('.').next().unwrap_or_default().bytes().all(|b| b.is_ascii_digit());
    if is_name { Ok(Host::Name(text.to_ascii_lowercase().into())) } else { Err(format!("{text:?} is no host")) }
}
