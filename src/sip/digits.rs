//! Numbers and addresses as text, without the machinery of `format!`: every message of ours has a dozen of them.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

/// Decimal digits without an allocation.
pub(super) fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// Adds decimal digits.
pub(super) fn put_decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(decimal(number, &mut [0; 20]));
}

/// Adds hexadecimal digits, small ones: `least` of them or as many as it takes.
pub(super) fn put_hex(out: &mut Vec<u8>, number: u64, least: u32) {
    let needed = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..needed.max(least.min(16))).rev() {
        let digit = (number >> (4 * place)) as u8 & 0xf;
        out.push(if digit < 10 { b'0' + digit } else { b'a' - 10 + digit });
    }
}

/// Adds a host as SIP writes it: IPv6 in brackets.
pub(super) fn put_host(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            for (index, octet) in ip.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                put_decimal(out, u64::from(octet));
            }
        }
        IpAddr::V6(ip) => {
            // Writing to a Vec has no error to give.
            let _ = write!(out, "[{ip}]");
        }
    }
}

/// Adds `host:port`.
pub(super) fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    // A scope says something on its own machine only.
    put_host(out, address.ip());
    out.push(b':');
    put_decimal(out, u64::from(address.port()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(put: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = vec![];
        put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for number in [0, 1, 9, 10, 15, 16, 255, 256, 65_535, 0xfedc_ba98_7654_3210, u64::MAX] {
            assert_eq!(text(|out| put_decimal(out, number)), number.to_string());
            assert_eq!(text(|out| put_hex(out, number, 0)), format!("{number:x}"));
            assert_eq!(text(|out| put_hex(out, number, 16)), format!("{number:016x}"));
        }
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        for address in ["0.0.0.0:0", "10.20.255.1:5060", "[2001:db8::a]:65535", "[::]:1"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(text(|out| put_address(out, address)), address.to_string());
        }
    }
}
