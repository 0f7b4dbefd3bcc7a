//! Events are numbered, replayed and streamed; who is slow loses only its own stream; the event log is whole lines.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use stickytape::id::ConnId;
use stickytape::runtime::event_log::{self, Limits};
use stickytape::runtime::events::{self, Events, Item, Kept, Publisher, Subscription};
use stickytape::views::telephony::event::{Event, Name};

/// As many are kept whatever `keep` says.
const LEAST: u64 = 1_024;

fn event(dn: &str) -> Event {
    Event::new(Name::EventRinging, ConnId(0xA1), dn)
}

fn time() -> Timestamp {
    "2026-11-20T10:00:00.1239Z".parse().unwrap()
}

/// A running keeper.
fn keeper(keep: usize) -> (Events, Publisher<Event>) {
    let (events, publisher, queue) = events::events(keep);
    tokio::spawn(events::run(queue, None));
    (events, publisher)
}

/// Publishes to 2001 and 2002 by turns and waits until all is kept.
async fn publish(events: &Events, publisher: &mut Publisher<Event>, count: u64) {
    let mut all = events.subscribe(None, None);
    for n in 0..count {
        publisher.publish(time(), event(if n % 2 == 0 { "2001" } else { "2002" }));
        assert!(seq(all.next().await) > 0, "published in step, none is lost");
    }
}

fn seq(item: Option<Item>) -> u64 {
    match item {
        Some(Item::Event(kept)) => kept.seq,
        _ => 0,
    }
}

/// What is there now, as `seq` or `-count`.
async fn read(subscription: &mut Subscription) -> Vec<i64> {
    let mut found = Vec::new();
    while let Ok(Some(item)) = tokio::time::timeout(Duration::from_millis(50), subscription.next()).await {
        found.push(match item {
            Item::Event(kept) => kept.seq as i64,
            Item::Lost { count, .. } => -(count as i64),
        });
    }
    found
}

#[tokio::test]
async fn events_are_numbered_from_one_and_carry_their_time_to_the_millisecond() {
    let (events, mut publisher) = keeper(10);
    let mut all = events.subscribe(None, None);
    publisher.publish(time(), event("2001"));
    let Some(Item::Event(first)) = all.next().await else { panic!("an event") };
    assert_eq!(
        first.json,
        r#"{"seq":1,"time":"2026-11-20T10:00:00.123Z","event":"EventRinging","ConnID":"00000000000000A1","ThisDN":"2001"}"#
    );
    assert_eq!((first.seq, first.dn.as_deref(), first.name), (1, Some("2001"), "EventRinging"));
    publisher.publish(time(), event("2001"));
    assert_eq!(seq(all.next().await), 2);
}

#[tokio::test]
async fn a_subscription_begins_where_after_says() {
    let (events, mut publisher) = keeper(0);
    publish(&events, &mut publisher, 10).await;
    for (after, expected) in [
        (None, vec![]),
        (Some(0), (1..=10).collect::<Vec<i64>>()),
        (Some(7), vec![8, 9, 10]),
        (Some(10), vec![]),
        // Of an earlier run of the server: its numbers mean nothing here.
        (Some(11), [0].into_iter().chain(1..=10).collect()),
    ] {
        assert_eq!(read(&mut events.subscribe(None, after)).await, expected, "{after:?}");
    }
    let mut next = events.subscribe(None, None);
    publish(&events, &mut publisher, 1).await;
    assert_eq!(read(&mut next).await, [11]);
}

#[tokio::test]
async fn a_dn_gets_its_own_events_only() {
    let (events, mut publisher) = keeper(0);
    publish(&events, &mut publisher, 6).await;
    assert_eq!(read(&mut events.subscribe(Some("2001".into()), Some(0))).await, [1, 3, 5]);
    assert_eq!(read(&mut events.subscribe(Some("2002".into()), Some(2))).await, [4, 6]);
    assert_eq!(read(&mut events.subscribe(Some("2003".into()), Some(0))).await, [0; 0]);
}

#[tokio::test]
async fn a_dn_is_found_behind_thousands_of_events_for_others() {
    let (events, mut publisher) = keeper(10_000);
    let mut quiet = events.subscribe(Some("2009".into()), None);
    publish(&events, &mut publisher, 5_000).await;
    publisher.publish(time(), event("2009"));
    assert_eq!(read(&mut quiet).await, [5_001]);
}

#[tokio::test]
async fn who_is_slow_is_told_what_it_has_missed_and_nobody_else_misses_anything() {
    let (events, mut publisher) = keeper(0);
    let mut slow = events.subscribe(None, None);
    publish(&events, &mut publisher, 1).await;
    assert_eq!(seq(slow.next().await), 1);
    // `publish` reads along, and asserts that it loses nothing.
    publish(&events, &mut publisher, 2 * LEAST).await;
    assert_eq!(events.counters().lost, 0, "nobody was told yet");
    let lost = slow.next().await;
    assert_eq!(lost, Some(Item::Lost { count: LEAST, next: LEAST + 2 }));
    let rest = read(&mut slow).await;
    assert_eq!((rest.first(), rest.len() as u64), (Some(&(LEAST as i64 + 2)), LEAST));
    assert_eq!(events.counters().lost, LEAST);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_subscribers_that_read_lose_nothing_while_one_does_not_read_at_all() {
    const EVENTS: u64 = 5_000;
    let (events, mut publisher) = keeper(EVENTS as usize);
    let idle = events.subscribe(None, None);
    let readers: Vec<_> = (0..200)
        .map(|n| {
            let mut reader = events.subscribe((n % 2 == 0).then(|| "2001".to_owned()), None);
            tokio::spawn(async move {
                let mut count = 0;
                while let Some(item) = reader.next().await {
                    assert!(matches!(item, Item::Event(_)), "nothing is lost");
                    count += 1;
                }
                count
            })
        })
        .collect();
    for n in 0..EVENTS {
        publisher.publish(time(), event(if n % 2 == 0 { "2001" } else { "2002" }));
    }
    drop(publisher);
    for (n, reader) in readers.into_iter().enumerate() {
        assert_eq!(reader.await.unwrap(), if n % 2 == 0 { EVENTS / 2 } else { EVENTS });
    }
    assert_eq!((events.counters().lost, events.counters().dropped), (0, 0));
    drop(idle);
}

#[tokio::test]
async fn a_client_that_comes_back_too_late_is_told_so() {
    let (events, mut publisher) = keeper(0);
    publish(&events, &mut publisher, LEAST + 10).await;
    let found = read(&mut events.subscribe(None, Some(4))).await;
    assert_eq!(found[..2], [-6, 11], "5 to 10 are gone");
    let all = read(&mut events.subscribe(None, Some(0))).await;
    assert_eq!(all[0], 11, "who asks for all that is kept misses nothing");
}

#[tokio::test]
async fn long_events_take_no_more_memory_than_as_many_usual_ones() {
    let (events, mut publisher) = keeper(0);
    let mut long = event("2001");
    long.reason = Some("x".repeat(64 * 1_024));
    let mut all = events.subscribe(None, None);
    for _ in 0..100 {
        publisher.publish(time(), long.clone());
        assert!(all.next().await.is_some());
    }
    assert_eq!(events.counters().kept, 15, "a mebibyte");
}

#[tokio::test]
async fn a_publisher_never_waits_and_what_it_drops_is_a_gap() {
    let (events, mut publisher, queue) = events::events(100_000);
    for _ in 0..16_384 + 5 {
        publisher.publish(time(), event("2001"));
    }
    assert_eq!(events.counters().dropped, 5);
    tokio::spawn(events::run(queue, None));
    let mut all = events.subscribe(None, Some(0));
    for expected in 1..=16_384 {
        assert_eq!(seq(all.next().await), expected);
    }
    publisher.publish(time(), event("2001"));
    assert_eq!(all.next().await, Some(Item::Lost { count: 5, next: 16_390 }));
    assert_eq!(seq(all.next().await), 16_390);
}

#[tokio::test]
async fn subscriptions_end_after_what_is_kept_when_the_server_stops() {
    let (events, mut publisher) = keeper(0);
    let mut first = events.subscribe(None, None);
    publish(&events, &mut publisher, 2).await;
    let mut second = events.subscribe(None, Some(1));
    drop(publisher);
    assert_eq!(seq(first.next().await), 1);
    assert_eq!(seq(first.next().await), 2);
    assert_eq!(first.next().await, None);
    assert_eq!(seq(second.next().await), 2);
    assert_eq!(second.next().await, None);
}

#[tokio::test]
async fn a_wait_that_is_given_up_loses_nothing() {
    let (events, mut publisher) = keeper(0);
    let mut all = events.subscribe(None, None);
    for round in 1..=20 {
        assert!(tokio::time::timeout(Duration::from_millis(1), all.next()).await.is_err());
        publish(&events, &mut publisher, 1).await;
        assert_eq!(seq(all.next().await), round);
    }
}

#[tokio::test]
async fn subscribers_are_counted_while_they_live() {
    let (events, _publisher) = keeper(0);
    let two = (events.subscribe(None, None), events.subscribe(None, Some(9)));
    assert_eq!(events.counters().subscribers, 2);
    drop(two);
    assert_eq!(events.counters().subscribers, 0);
}

fn kept(seq: u64) -> Arc<Kept> {
    Arc::new(Kept { seq, dn: Some("2001".into()), name: "EventRinging", json: format!("{{\"seq\":{seq}}}") })
}

/// Writes numbered lines, one block each, and ends the thread.
fn write(path: &Path, limits: Limits, seqs: std::ops::RangeInclusive<u64>) -> u64 {
    let unwritten = Arc::new(AtomicU64::new(0));
    for seq in seqs {
        let (log, writer) = event_log::open(path, limits, unwritten.clone()).unwrap();
        log.write(kept(seq));
        drop(log);
        writer.finish();
    }
    unwritten.load(Ordering::Relaxed)
}

fn seqs(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.map(|line| line["seq"].as_u64().unwrap()).collect()
}

#[test]
fn the_event_log_is_continued_and_rotated_by_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson");
    // Four lines of at most 11 bytes fit.
    let limits = Limits { max_bytes: 44, generations: 2 };
    assert_eq!(write(&path, limits, 1..=3), 0);
    assert_eq!(seqs(&path), [1, 2, 3]);
    assert_eq!(write(&path, limits, 10..=22), 0);
    let older = |n: u32| folder.path().join(format!("events.ndjson.{n}"));
    assert_eq!(seqs(&path), [19, 20, 21, 22]);
    assert_eq!(seqs(&older(1)), [15, 16, 17, 18]);
    assert_eq!(seqs(&older(2)), [11, 12, 13, 14]);
    assert!(!older(3).exists(), "1, 2, 3 and 10 have gone");
    assert!([&path, &older(1), &older(2)].iter().all(|path| fs::metadata(path).unwrap().len() <= 44));
}

#[test]
fn a_line_that_a_crash_left_unfinished_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson");
    fs::write(&path, "{\"seq\":1}\n{\"seq\":2,\"ti").unwrap();
    assert_eq!(write(&path, Limits::default(), 3..=3), 0);
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"seq\":1}\n{\"seq\":2,\"ti\n{\"seq\":3}\n");
}

#[test]
fn a_full_disk_is_counted() {
    assert_eq!(write(Path::new("/dev/full"), Limits::default(), 1..=3), 3);
}

#[test]
fn a_file_that_cannot_be_rotated_takes_no_more_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson");
    fs::create_dir(folder.path().join("events.ndjson.1")).unwrap();
    let limits = Limits { max_bytes: 20, generations: 1 };
    assert_eq!(write(&path, limits, 1..=4), 2);
    assert_eq!(seqs(&path), [1, 2]);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_once() {
    let unwritten = Arc::new(AtomicU64::new(0));
    assert!(event_log::open(Path::new("/nowhere/events.ndjson"), Limits::default(), unwritten).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_disk_delays_no_subscriber() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("events.ndjson");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (events, mut publisher, queue) = events::events(0);
    let unwritten = queue.unwritten();
    // A pipe that nobody reads takes 64 KiB and then stalls its writer.
    let (log, _writer) = event_log::open(&pipe, Limits::default(), unwritten).unwrap();
    tokio::spawn(events::run(queue, Some(log)));
    tokio::time::timeout(Duration::from_secs(60), publish(&events, &mut publisher, 12_000)).await.unwrap();
    assert!(events.counters().unwritten > 0, "what found the queue full is counted");
    assert_eq!(events.counters().dropped, 0);
    // The thread is released, so that the process can end.
    let mut reader = fs::File::open(&pipe).unwrap();
    drop(publisher);
    std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
}
