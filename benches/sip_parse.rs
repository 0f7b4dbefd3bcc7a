//! What reading a SIP message costs: ns, allocations and bytes allocated per message; least of several rounds.
//!
//! `cargo bench --bench sip_parse -- --json out.json`. Read means: the lines, then Via, From, To, Call-ID, CSeq, Contact and
//! routes as values (`Essentials`); written means: encoded again.

mod steps;

use std::hint::black_box;

use serde_json::json;
use steps::cpu_ns;
use steps::sip::{messages, read_and_write};
use stickytape::sip::message::Message;

const ROUNDS: usize = 20;
const TIMES: u64 = 2_000;

fn main() {
    println!(
        "{:<18} {:>6} {:>9} {:>15} {:>12} {:>9}",
        "message", "bytes", "parse ns", "and written ns", "allocations", "of bytes"
    );
    let mut rows = vec![];
    for (name, bytes) in messages() {
        let parse = least(|| drop(black_box(Message::parse(&bytes))));
        let whole = least(|| _ = black_box(read_and_write(&bytes)));
        let counted = allocation_counter::measure(|| _ = read_and_write(&bytes));
        let (count, total) = (counted.count_total, counted.bytes_total);
        println!("{name:<18} {:>6} {parse:>9.0} {whole:>15.0} {count:>12} {total:>9}", bytes.len());
        rows.push(json!({
            "message": name,
            "bytes": bytes.len(),
            "parseNs": parse,
            "readAndWrittenNs": whole,
            "allocations": count,
            "allocatedBytes": total,
        }));
    }
    steps::write_json(&json!(rows));
}

/// CPU ns of one time, in the round that took least.
fn least(mut act: impl FnMut()) -> f64 {
    let round = || {
        let begun = cpu_ns();
        (0..TIMES).for_each(|_| act());
        (cpu_ns() - begun) as f64 / TIMES as f64
    };
    std::iter::repeat_with(round).take(ROUNDS).fold(f64::MAX, f64::min)
}
