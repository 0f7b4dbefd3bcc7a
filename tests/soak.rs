//! Half the load that `sipp_load` carries, for longer: calls with media come and go beside others that stay. Memory and
//! descriptors of the server stay flat, no packet's copy is dropped, and there is a verified recording of every call.
//!
//! `cargo test --test soak` takes about two minutes: 90 s under load, 30 long calls and 25 short ones a second of 0.8 s, so
//! that 50 talk at any moment; two cores shared with SIPp and with an unoptimised server carry twice that.
//! STICKYTAPE_SOAK_SECONDS and STICKYTAPE_SOAK_RATE (short calls a second) make it longer and more:
//!
//! ```text
//! STICKYTAPE_SOAK_SECONDS=600 cargo test --test soak                                    # ten minutes
//! STICKYTAPE_SOAK_SECONDS=3900 STICKYTAPE_SOAK_RATE=50 cargo test --release --test soak # an hour; 12 GB below $TMPDIR
//! ```

mod peers;

use std::time::{Duration, Instant};

use peers::{Options, Server, Setup, Sipp, V4, at, free_ports};
use stickytape::clock;

/// Calls that last from begin to end.
const LONG: u32 = 30;
/// How long the others talk.
const SHORT: Duration = Duration::from_millis(800);
/// Until rings, buffers and tables have their size: in the first minute resident memory rises by a tenth and more, and for
/// some minutes by what the allocator keeps for the largest load that it has seen. A long run has time for them: a
/// thirteenth, so that an hour and five minutes judge an hour.
fn warm_up(load: Duration) -> Duration {
    (load / 13).max(Duration::from_secs(50))
}
/// Samples are compared by the medians of the first and the last so many seconds after the warm-up.
const WINDOW: usize = 15;

/// Resident memory may grow by this part, and so many kB, between the windows: what an allocator does not give back.
/// 25 calls a second for 25 s are 625: a leak of 3 kB a call is found in 90 s, one of 200 bytes in ten minutes.
const MEMORY_PART: f64 = 0.02;
const MEMORY_KB: f64 = 1_024.0;
/// Descriptors go up and down with the calls of the moment: one lost in every twentieth call is found in 90 s.
const DESCRIPTORS: f64 = 30.0;

/// Counters that stay at zero, each with its family: copies that found a ring full, recordings refused or broken off,
/// events that nobody gets.
const NEVER: &[(&str, &str)] = &[
    ("stickytape_rtp_packets_untapped", ""),
    ("stickytape_media_dropped", "{reason=\"recorder-ring-full\"}"),
    ("stickytape_recordings_failed", ""),
    ("stickytape_events_dropped", ""),
];

/// The sum of a family's counters whose labels begin so; those that never counted have no line.
fn total(page: &str, family: &str, labels: &str) -> f64 {
    assert!(page.contains(&format!("# TYPE {family} counter")), "no counter {family}:\n{page}");
    let begin = format!("{family}_total{labels}");
    let of_family = page.lines().filter(|line| line.starts_with(&begin));
    of_family.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn number(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}: a number, not {text:?}")))
}

/// What the server holds at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    kilobytes: f64,
    descriptors: f64,
}

impl Sample {
    fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kilobytes = line.split_whitespace().next().and_then(|text| text.parse().ok()).expect("kilobytes");
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count();
        Self { kilobytes, descriptors: descriptors as f64 }
    }
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn start_server(port: u16) -> Server {
    let server = Server::start(&Setup {
        media_ports: 3_000,
        recording: "layout = \"stereo\"".into(),
        plan: format!(
            "[events]\nkeep = 1000\n[[trunk]]\nname = \"callers\"\nfrom = [\"127.0.0.1\"]\n\
             [[dn]]\nnumber = \"2001\"\ncontact = \"sip:2001@{V4}:{port}\"\n"
        ),
        // A failure prints the log: not a line for each of some thousand calls.
        log: "warn",
        ..Setup::default()
    });
    // A square wave of 500 Hz as µ-law, a second of it: what SIPp streams.
    let tone: Vec<u8> = (0..8_000).map(|sample| if (sample / 8) % 2 == 0 { 0x20 } else { 0xa0 }).collect();
    std::fs::write(server.folder.path().join("tone.ulaw"), tone).unwrap();
    server
}

/// One sample a second from the end of the warm-up to the end of the load.
fn watch(server: &Server, begin: Instant, load: Duration) -> Vec<Sample> {
    let wait_until = |at: Instant| std::thread::sleep(at.saturating_duration_since(clock::now()));
    wait_until(begin + warm_up(load));
    let seconds = (load - warm_up(load)).as_secs() as u32;
    let sample = |second| {
        wait_until(begin + warm_up(load) + Duration::from_secs(1) * second);
        Sample::of(server.pid())
    };
    (0..seconds).map(sample).collect()
}

#[test]
fn memory_and_descriptors_stay_flat_and_nothing_is_dropped() {
    let (seconds, rate) = (number("STICKYTAPE_SOAK_SECONDS", 90), number("STICKYTAPE_SOAK_RATE", 25) as u32);
    let load = Duration::from_secs(seconds);
    assert!(load >= warm_up(load) + Duration::from_secs(2 * WINDOW as u64), "too short to compare begin and end");
    let short = rate * seconds as u32;
    let port = free_ports(1);
    let mut server = start_server(port);
    let folder = server.folder.path().to_owned();
    let callee = Options {
        scenario: "uas_answer_at_once",
        port,
        calls: LONG + short,
        rate,
        limit: 1_000,
        talk: load,
        echo: true,
        ..Options::default()
    };
    let callee = Sipp::start(&folder, &callee);
    let caller = |calls, limit, rate, talk| {
        let target = Some(at(V4, server.sip));
        Sipp::start(
            &folder,
            &Options { scenario: "uac_stream", target, calls, limit, rate, talk, ..Options::default() },
        )
    };
    let begin = clock::now();
    let callers = [caller(LONG, LONG, 10, load), caller(short, 1_000, rate, SHORT)];
    let samples = watch(&server, begin, load);
    for sipp in callers.into_iter().chain([callee]) {
        sipp.succeed(&server);
    }

    let calls = (LONG + short) as usize;
    peers::wait_for("every recording is published", Duration::from_secs(30 + calls as u64 / 10), || {
        let active = std::fs::read_dir(server.directory().join(".active")).unwrap();
        let over = !active.flatten().any(|entry| entry.path().is_dir());
        (over && server.metric("stickytape_calls") == Some(0.0)).then_some(())
    });
    eprintln!("{calls} calls in {seconds} s, published {:.1} s after their begin", peers::since(begin));
    let (_, page) = server.get("/metrics").expect("the listener answers");
    let mut wrong = vec![];
    for (family, labels) in NEVER {
        let count = total(&page, family, labels);
        if count != 0.0 {
            wrong.push(format!("{family}{labels}: {count}"));
        }
    }
    let (first, last) = (&samples[..WINDOW], &samples[samples.len() - WINDOW..]);
    let mut flat = |what: &str, of: fn(&Sample) -> f64, allowed: fn(f64) -> f64| {
        let [before, after] = [first, last].map(|window| median(window, of));
        let line = format!("{what}: {before:.0} after the warm-up, {after:.0} at the end");
        // Whether it goes on rising or has found its height is seen between the two.
        let tenths = samples.chunks(samples.len().div_ceil(10)).map(|tenth| format!(" {:.0}", median(tenth, of)));
        eprintln!("{line}; by tenths:{}", tenths.collect::<String>());
        if after > allowed(before) {
            wrong.push(format!("{line}, which is more than {:.0}", allowed(before)));
        }
    };
    flat("kB of resident memory", |sample| sample.kilobytes, |before| before * (1.0 + MEMORY_PART) + MEMORY_KB);
    flat("descriptors", |sample| sample.descriptors, |before| before + DESCRIPTORS);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.stop_and_verify();
    let recordings = server.published(calls);
    assert_eq!(recordings.len(), calls, "a recording for every call");
    let early = recordings.iter().filter(|recording| recording["recordingSession"]["stopCause"] != "released").count();
    assert_eq!(early, 0, "recordings that did not end with the call");
}
