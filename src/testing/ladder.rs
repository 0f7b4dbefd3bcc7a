//! Ladder diagrams of what went over a simulated network: what a person wants to see when a test fails.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use super::network::Traced;

/// Width between two columns, in characters.
const WIDTH: usize = 34;

/// Draws what was sent: a column per party, an arrow per SIP message, one line per direction for the RTP packets between two
/// SIP messages. `parties` are
/// the column heads with the addresses (SIP and RTP) that belong to them; datagrams of others are left out.
pub fn draw(trace: &[Traced], parties: &[(&str, &[SocketAddr])], start: Instant) -> String {
    let column = |address: SocketAddr| parties.iter().position(|(_, owned)| owned.contains(&address));
    let mut text = head(parties);
    let mut rtp: Vec<Rtp> = Vec::new();
    for traced in trace {
        let (Some(from), Some(to)) = (column(traced.datagram.from), column(traced.datagram.to)) else {
            continue;
        };
        let Some(label) = sip_label(&traced.datagram.bytes) else {
            match rtp.iter_mut().find(|run| run.from == from && run.to == to) {
                Some(run) => run.count += 1,
                None => rtp.push(Rtp { from, to, since: traced.sent, count: 1 }),
            }
            continue;
        };
        flush(&mut text, &mut rtp, parties.len(), start);
        arrow(&mut text, traced.sent, start, (from, to), parties.len(), &label, traced.lost);
    }
    flush(&mut text, &mut rtp, parties.len(), start);
    text
}

/// The RTP packets of one direction since the last SIP message.
struct Rtp {
    from: usize,
    to: usize,
    since: Instant,
    count: usize,
}

fn flush(text: &mut String, runs: &mut Vec<Rtp>, columns: usize, start: Instant) {
    for run in runs.drain(..) {
        arrow(text, run.since, start, (run.from, run.to), columns, &format!("RTP x{}", run.count), false);
    }
}

fn head(parties: &[(&str, &[SocketAddr])]) -> String {
    let mut text = " ".repeat(8);
    for (name, _) in parties {
        let _ = write!(text, "{name:^WIDTH$}");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn arrow(
    text: &mut String,
    at: Instant,
    start: Instant,
    (from, to): (usize, usize),
    columns: usize,
    label: &str,
    lost: bool,
) {
    let _ = write!(text, "{:>7.3} ", at.saturating_duration_since(start).as_secs_f64());
    let centre = |column: usize| column * WIDTH + WIDTH / 2;
    let (left, right) = (centre(from.min(to)), centre(from.max(to)));
    let mut row: Vec<char> = vec![' '; columns * WIDTH];
    for column in 0..columns {
        row[centre(column)] = '|';
    }
    row[left + 1..right].fill('-');
    if from != to {
        let (head, sign) = if from < to { (right - 1, '>') } else { (left + 1, '<') };
        row[head] = if lost { 'X' } else { sign };
        let room = right.saturating_sub(left + 5);
        let label: Vec<char> = label.chars().take(room).collect();
        let at = left + 1 + (right - left - label.len()) / 2;
        row[at..at + label.len()].copy_from_slice(&label);
    }
    text.extend(row);
    text.truncate(text.trim_end().len());
    text.push('\n');
}

/// `INVITE`, `INVITE (SDP)`, `REFER (Replaces)`, `NOTIFY (180)`, `200 INVITE (SDP)`; `None` when it is not SIP.
pub fn sip_label(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let first = text.lines().next()?;
    let with_body = if text.contains("\r\n\r\nv=0") { " (SDP)" } else { "" };
    if let Some(status) = first.strip_prefix("SIP/2.0 ") {
        let code = status.split(' ').next()?;
        let method = text
            .lines()
            .find_map(|line| line.split_once(':').filter(|(name, _)| name.trim().eq_ignore_ascii_case("cseq")))
            .and_then(|(_, value)| value.split_ascii_whitespace().nth(1))
            .unwrap_or("?");
        return Some(format!("{code} {method}{with_body}"));
    }
    let (method, rest) = first.split_once(' ')?;
    let replaces = if text.contains("\r\nReplaces:") || text.contains("?Replaces=") { " (Replaces)" } else { "" };
    // The status of a transfer (RFC 3420).
    let fragment = text.split_once("\r\n\r\nSIP/2.0 ").and_then(|(_, status)| status.get(..3));
    let fragment = fragment.map(|code| format!(" ({code})")).unwrap_or_default();
    rest.ends_with("SIP/2.0").then(|| format!("{method}{replaces}{fragment}{with_body}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::testing::network::Datagram;

    #[test]
    fn the_messages_of_a_transfer_are_told_apart() {
        let label = |text: &str| sip_label(text.as_bytes()).unwrap();
        assert_eq!(label("REFER sip:x SIP/2.0\r\nRefer-To: <sip:y>\r\n\r\n"), "REFER");
        assert_eq!(label("REFER sip:x SIP/2.0\r\nRefer-To: <sip:y?Replaces=z>\r\n\r\n"), "REFER (Replaces)");
        assert_eq!(label("INVITE sip:x SIP/2.0\r\nReplaces: z\r\n\r\nv=0\r\n"), "INVITE (Replaces) (SDP)");
        assert_eq!(label("NOTIFY sip:x SIP/2.0\r\nEvent: refer\r\n\r\nSIP/2.0 180 Ringing\r\n"), "NOTIFY (180)");
        assert_eq!(label("SIP/2.0 202 Accepted\r\nCSeq: 2 REFER\r\n\r\n"), "202 REFER");
    }

    #[test]
    fn a_ladder_shows_messages_losses_and_runs_of_rtp() {
        let start = crate::clock::now();
        let (a, b): (SocketAddr, SocketAddr) = ("10.0.0.1:5060".parse().unwrap(), "10.0.0.2:5060".parse().unwrap());
        let traced = |ms, from, to, text: &'static str, lost| Traced {
            sent: start + Duration::from_millis(ms),
            datagram: Datagram { from, to, bytes: Bytes::from_static(text.as_bytes()) },
            lost,
        };
        let trace = [
            traced(0, a, b, "INVITE sip:b SIP/2.0\r\n\r\nv=0\r\n", true),
            traced(1_500, b, a, "SIP/2.0 180 Ringing\r\nCSeq: 1 INVITE\r\n\r\n", false),
            traced(1_600, a, b, "\u{80}rtp", false),
            traced(1_620, a, b, "\u{80}rtp", false),
            traced(2_000, a, "10.9.9.9:1".parse().unwrap(), "BYE sip:x SIP/2.0\r\n\r\n", false),
        ];
        let drawn = draw(&trace, &[("Ann", &[a]), ("Bob", &[b])], start);
        let expected = concat!(
            "                       Ann                               Bob\n",
            "  0.000                  |-----------INVITE (SDP)---------X|\n",
            "  1.500                  |<-----------180 INVITE-----------|\n",
            "  1.600                  |--------------RTP x2------------>|\n",
        );
        assert_eq!(drawn, expected, "\n{drawn}");
    }
}
