//! Counters and gauges, read by `/metrics` in the OpenMetrics text format.
//!
//! What happened comes in as facts and totals from the signaling task; what is (queues, ports, disk) is set about once a
//! second. Nothing on the packet path touches this file: media threads count in their own memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::events;
use crate::bridge::command::LegStats;
use crate::call;
use crate::call::fact::{Fact, What};
use crate::call::view::RECORDING_STATES;
use crate::disk::floor::Room;
use crate::id::{ConnId, IdMap};
use crate::net::sip;
use crate::record::mark::StopCause as Stop;
use crate::runtime::{ivr, media as media_threads, mixer};
use crate::sip::endpoint;

mod drivers;
mod media;
mod mixing;
mod process;

use drivers::Drivers;
use media::Media;
use mixing::Mixing;

/// Labels of one family: static words, so that their number stays bounded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct How {
    how: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventName {
    event: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Message {
    direction: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// Causes that a family begins with at zero, so that a rate over it is there from the start; whatever else happens is
/// counted under its own name.
const ENDED: [&str; 12] = [
    "released",
    "abandoned",
    "busy",
    "rejected",
    "no-answer",
    "unreachable",
    "lost",
    "media",
    "recording-required",
    "shutdown",
    "transferred",
    "conferenced",
];
const NOT_TRANSFERRED: [&str; 4] = ["busy", "rejected", "no-answer", "unreachable"];
const REFUSED: [u16; 6] = [400, 403, 404, 480, 488, 503];
const STARTED: [&str; 7] = ["default", "dn", "trunk", "route", "request", "preference", "room"];
const NOT_RECORDED: [&str; 4] = ["codec", "no-space", "disk-full", "write-error"];

/// All metrics of the process. Shared by reference: every method takes `&self`.
pub struct Metrics {
    registry: Registry,
    calls: Gauge,
    calls_started: Counter,
    calls_answered: Counter,
    calls_ended: Family<Cause, Counter>,
    calls_refused: Family<Code, Counter>,
    transfers: Family<How, Counter>,
    transfers_failed: Family<Cause, Counter>,
    setup: Histogram,
    registrations: Gauge,
    authentication_failures: Counter,
    legs: Gauge,
    ports_ready: Gauge,
    recordings: Family<State, Gauge>,
    recordings_started: Family<Cause, Counter>,
    recordings_stopped: Family<Cause, Counter>,
    recordings_published: Counter,
    recordings_failed: Family<Cause, Counter>,
    recordings_unpublished: Gauge,
    recorder_backlog: Gauge,
    recorder_queued: Gauge,
    recordings_written: Counter,
    media: Media,
    mixing: Mixing,
    drivers: Drivers,
    packets_received: Counter,
    packets_sent: Counter,
    packets_lost: Counter,
    packets_refused: Counter,
    packets_untapped: Counter,
    sip_messages: Family<Message, Counter>,
    sip_dropped: Family<Reason, Counter>,
    sip_retransmissions: Counter,
    sip_stray: Counter,
    sip_transactions: Gauge,
    sip_dialogs: Gauge,
    disk_free: Gauge,
    disk_takes_new: Gauge,
    draining: Gauge,
    warnings: Counter,
    events: Family<EventName, Counter>,
    events_kept: Gauge,
    events_lost: Counter,
    events_dropped: Counter,
    events_unwritten: Counter,
    event_subscribers: Gauge,
}

/// Raises a counter whose total somebody else keeps to `total`; a lower one changes nothing.
fn raise(counter: &Counter, total: u64) {
    counter.inner().fetch_max(total, Ordering::Relaxed);
}

/// Counts facts; knows when the calls that ring began.
pub struct Observer {
    metrics: Arc<Metrics>,
    calling: IdMap<ConnId, Instant>,
}

impl Observer {
    /// Counts into `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, calling: IdMap::default() }
    }

    /// Counts what happened.
    pub fn fact(&mut self, fact: &Fact) {
        self.metrics.fact(fact);
        if let Some((consult, cause)) = joined(&fact.what) {
            self.metrics.calls_ended.get_or_create(&Cause { cause }).inc();
            self.calling.remove(&consult);
        }
        let Some(call) = fact.conn_id else { return };
        match fact.what {
            What::CallStarted { .. } => _ = self.calling.insert(call, fact.at),
            What::Answered { .. } => {
                if let Some(began) = self.calling.remove(&call) {
                    self.metrics.setup.observe(fact.at.saturating_duration_since(began).as_secs_f64());
                }
            }
            What::Released { .. } => _ = self.calling.remove(&call),
            _ => {}
        }
    }
}

/// The call that a fact of another one is the last of, and why it has ended.
fn joined(what: &What) -> Option<(ConnId, &'static str)> {
    match what {
        What::Transferred { consult, .. } => consult.map(|consult| (consult, "transferred")),
        What::PartyAdded { consult, .. } => consult.map(|consult| (consult, "conferenced")),
        _ => None,
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("stickytape");
        let media = Media::register(&mut registry);
        let mixing = Mixing::register(&mut registry);
        let drivers = Drivers::register(&mut registry);
        let mut made = Self {
            registry: Registry::default(),
            media,
            mixing,
            drivers,
            calls: Gauge::default(),
            calls_started: Counter::default(),
            calls_answered: Counter::default(),
            calls_ended: Family::default(),
            calls_refused: Family::default(),
            transfers: Family::default(),
            transfers_failed: Family::default(),
            // 10 ms to 82 s: a phone that answers at once, and one that rings for long.
            setup: Histogram::new(exponential_buckets(0.01, 2.0, 14)),
            registrations: Gauge::default(),
            authentication_failures: Counter::default(),
            legs: Gauge::default(),
            ports_ready: Gauge::default(),
            recordings: Family::default(),
            recordings_started: Family::default(),
            recordings_stopped: Family::default(),
            recordings_published: Counter::default(),
            recordings_failed: Family::default(),
            recordings_unpublished: Gauge::default(),
            recorder_backlog: Gauge::default(),
            recorder_queued: Gauge::default(),
            recordings_written: Counter::default(),
            packets_received: Counter::default(),
            packets_sent: Counter::default(),
            packets_lost: Counter::default(),
            packets_refused: Counter::default(),
            packets_untapped: Counter::default(),
            sip_messages: Family::default(),
            sip_dropped: Family::default(),
            sip_retransmissions: Counter::default(),
            sip_stray: Counter::default(),
            sip_transactions: Gauge::default(),
            sip_dialogs: Gauge::default(),
            disk_free: Gauge::default(),
            disk_takes_new: Gauge::default(),
            draining: Gauge::default(),
            warnings: Counter::default(),
            events: Family::default(),
            events_kept: Gauge::default(),
            events_lost: Counter::default(),
            events_dropped: Counter::default(),
            events_unwritten: Counter::default(),
            event_subscribers: Gauge::default(),
        };
        made.register_calls(&mut registry);
        made.register_recordings(&mut registry);
        made.register_packets_and_messages(&mut registry);
        made.register_events(&mut registry);
        made.disk_takes_new.set(1);
        made.begin();
        made.registry = registry;
        made
    }

    /// What can happen is at zero before it happens.
    fn begin(&self) {
        let causes = |family: &Family<Cause, Counter>, causes: &[&'static str]| {
            causes.iter().for_each(|cause| _ = family.get_or_create(&Cause { cause }));
        };
        causes(&self.calls_ended, &ENDED);
        causes(&self.transfers_failed, &NOT_TRANSFERRED);
        causes(&self.recordings_started, &STARTED);
        causes(&self.recordings_failed, &NOT_RECORDED);
        causes(&self.recordings_stopped, &STOP_CAUSES.map(stop_cause));
        REFUSED.iter().for_each(|code| _ = self.calls_refused.get_or_create(&Code { code: *code }));
        for how in [call::fact::Transfer::SingleStep, call::fact::Transfer::Consulted, call::fact::Transfer::Mute] {
            let _ = self.transfers.get_or_create(&How { how: how.label() });
        }
        self.levels(&call::Counters::default());
        self.sip_sockets(&sip::Counters::default());
        let _ = self.events.get_or_create(&EventName { event: "EventError" });
    }

    fn register_calls(&self, registry: &mut Registry) {
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "The running version", build);
        registry.register("calls", "Live calls", self.calls.clone());
        registry.register("calls_started", "Calls that were routed", self.calls_started.clone());
        registry.register("calls_answered", "Calls that were answered", self.calls_answered.clone());
        registry.register("calls_ended", "Calls that ended, by cause", self.calls_ended.clone());
        registry.register("calls_refused", "INVITEs refused before they became calls", self.calls_refused.clone());
        registry.register("transfers", "Transfers whose target was connected, by how", self.transfers.clone());
        let failed = self.transfers_failed.clone();
        registry.register("transfers_failed", "Transfers whose target was not reached, by cause", failed);
        let help = "Time from the INVITE to the answer";
        registry.register_with_unit("call_setup", help, Unit::Seconds, self.setup.clone());
        registry.register("registrations", "Contacts that DNs have registered", self.registrations.clone());
        let failures = self.authentication_failures.clone();
        registry.register("authentication_failures", "Requests with a wrong user name or password", failures);
        registry.register("legs", "Legs with media", self.legs.clone());
        registry.register("media_ports_ready", "Port pairs bound and ready to hand out", self.ports_ready.clone());
        registry.register("draining", "1 while the server stops", self.draining.clone());
        registry.register("warnings", "Facts that somebody should look at", self.warnings.clone());
    }

    fn register_recordings(&self, registry: &mut Registry) {
        registry.register("recordings", "Running recordings, by state", self.recordings.clone());
        let started = self.recordings_started.clone();
        registry.register("recordings_started", "Recordings started, by what started them", started);
        let stopped = self.recordings_stopped.clone();
        registry.register("recordings_stopped", "Recordings ended, by stop cause", stopped);
        registry.register("recordings_published", "Recordings published", self.recordings_published.clone());
        let failed = self.recordings_failed.clone();
        registry.register("recordings_failed", "Recordings refused or broken off, by cause", failed);
        let unpublished = self.recordings_unpublished.clone();
        registry.register("recordings_unpublished", "Ended recordings that wait for the publisher", unpublished);
        registry.register("recorder_backlog", "Marks that wait for recorder threads", self.recorder_backlog.clone());
        let help = "Audio that waits for the disk";
        registry.register_with_unit("recorder_queued", help, Unit::Bytes, self.recorder_queued.clone());
        let help = "Written to recordings' files";
        registry.register_with_unit("recordings_written", help, Unit::Bytes, self.recordings_written.clone());
        let help = "Free space of the recordings' file system";
        registry.register_with_unit("disk_free", help, Unit::Bytes, self.disk_free.clone());
        let help = "1 while the free space lets new recordings begin";
        registry.register("disk_takes_recordings", help, self.disk_takes_new.clone());
    }

    fn register_packets_and_messages(&self, registry: &mut Registry) {
        let rtp = "rtp_packets";
        let received = self.packets_received.clone();
        registry.register(format!("{rtp}_received"), "RTP packets accepted from ended legs", received);
        registry.register(format!("{rtp}_sent"), "RTP packets sent to ended legs", self.packets_sent.clone());
        let help = "RTP packets of ended legs missing by sequence number";
        registry.register(format!("{rtp}_lost"), help, self.packets_lost.clone());
        let help = "Packets refused: wrong source, unknown payload type, not RTP";
        registry.register(format!("{rtp}_refused"), help, self.packets_refused.clone());
        let help = "Copies for a recorder that found its ring full: gaps in recordings";
        registry.register(format!("{rtp}_untapped"), help, self.packets_untapped.clone());
        registry.register("sip_messages", "SIP messages, repeats too where received", self.sip_messages.clone());
        registry.register(
            "sip_dropped",
            "SIP messages that were refused or not carried, by reason",
            self.sip_dropped.clone(),
        );
        let help = "SIP messages that we sent again";
        registry.register("sip_retransmissions", help, self.sip_retransmissions.clone());
        registry.register(
            "sip_transactions",
            "SIP transactions, those that absorb repeats too",
            self.sip_transactions.clone(),
        );
        registry.register("sip_dialogs", "SIP dialogs, early ones too", self.sip_dialogs.clone());
        registry.register("sip_stray", "SIP events for calls that are over", self.sip_stray.clone());
    }

    fn register_events(&self, registry: &mut Registry) {
        registry.register("events", "Telephony events, by name", self.events.clone());
        registry.register("events_kept", "Events kept for replay", self.events_kept.clone());
        registry.register("events_lost", "Events that slow subscribers have missed", self.events_lost.clone());
        let help = "Events that found the queue full: nobody gets them";
        registry.register("events_dropped", help, self.events_dropped.clone());
        let help = "Events that are missing in the event log";
        registry.register("events_unwritten", help, self.events_unwritten.clone());
        registry.register("event_subscribers", "Subscribers of events", self.event_subscribers.clone());
    }

    /// Counts an event.
    pub fn event(&self, event: &'static str) {
        self.events.get_or_create(&EventName { event }).inc();
    }

    /// Sets what the kept events count.
    pub fn events(&self, counters: &events::Counters) {
        self.events_kept.set(level(counters.kept));
        self.event_subscribers.set(level(counters.subscribers));
        raise(&self.events_lost, counters.lost);
        raise(&self.events_dropped, counters.dropped);
        raise(&self.events_unwritten, counters.unwritten);
    }

    /// Counts what happened.
    fn fact(&self, fact: &Fact) {
        match &fact.what {
            What::CallStarted { .. } => _ = self.calls_started.inc(),
            What::Refused { code, .. } => _ = self.calls_refused.get_or_create(&Code { code: *code }).inc(),
            What::Answered { .. } => _ = self.calls_answered.inc(),
            // A room that opens is a call that we have answered.
            What::RoomEntered { opened: true, .. } => {
                self.calls_started.inc();
                self.calls_answered.inc();
            }
            What::Released { cause, .. } => {
                self.calls_ended.get_or_create(&Cause { cause: cause.label() }).inc();
            }
            What::Transferred { how, .. } => _ = self.transfers.get_or_create(&How { how: how.label() }).inc(),
            What::TransferFailed { cause, .. } => {
                self.transfers_failed.get_or_create(&Cause { cause: cause.label() }).inc();
            }
            What::RecordingStarted { trigger, .. } => {
                self.recordings_started.get_or_create(&Cause { cause: trigger }).inc();
            }
            What::RecordingStopped { cause, .. } => {
                self.recordings_stopped.get_or_create(&Cause { cause: stop_cause(*cause) }).inc();
            }
            What::RecordingPublished { .. } => _ = self.recordings_published.inc(),
            What::RecordingFailed { cause, .. } => {
                self.recordings_failed.get_or_create(&Cause { cause }).inc();
            }
            What::Warning { .. } => _ = self.warnings.inc(),
            What::RoomEntered { opened: false, .. }
            | What::NotMade { .. }
            | What::Ringing { .. }
            | What::Held { .. }
            | What::Retrieved { .. }
            | What::TransferStarted { .. }
            | What::PartyInvited { .. }
            | What::PartyAdded { .. }
            | What::PartyNotAdded { .. }
            | What::PartyDeleted { .. }
            | What::MuteChanged { .. }
            | What::ListenChanged { .. }
            | What::Monitoring { .. }
            | What::ObserverJoined { .. }
            | What::ObserverLeft { .. }
            | What::MonitorMode { .. }
            | What::PartyLeft { .. }
            | What::Redirected { .. }
            | What::Replaced { .. }
            | What::Preference { .. }
            | What::RecordingBegun { .. }
            | What::RecordingPaused { .. }
            | What::RecordingResumed { .. }
            | What::OwnerChanged { .. } => {}
        }
    }

    /// Sets the levels that call control keeps.
    pub fn levels(&self, counters: &call::Counters) {
        self.calls.set(level(counters.calls));
        for (state, count) in RECORDING_STATES.into_iter().zip(counters.recordings) {
            self.recordings.get_or_create(&State { state }).set(level(count));
        }
        self.ports_ready.set(level(counters.ports_ready));
        self.legs.set(level(counters.legs));
        self.registrations.set(level(counters.registrations));
        raise(&self.authentication_failures, counters.authentication_failures);
        raise(&self.sip_stray, counters.stray);
        self.sip(&counters.sip, counters.load);
    }

    /// Adds the totals of a leg that is gone.
    pub fn leg_ended(&self, stats: &LegStats) {
        self.packets_received.inc_by(stats.received);
        self.packets_sent.inc_by(stats.sent);
        self.packets_lost.inc_by(stats.lost);
        self.packets_refused.inc_by(stats.refused);
        self.packets_untapped.inc_by(stats.untapped);
    }

    /// Sets the totals that the SIP endpoint keeps.
    fn sip(&self, counters: &endpoint::Counters, load: endpoint::Load) {
        let message =
            |direction, kind, total| raise(&self.sip_messages.get_or_create(&Message { direction, kind }), total);
        message("received", "request", counters.requests);
        message("received", "response", counters.responses);
        message("sent", "response", counters.responses_sent);
        raise(&self.sip_retransmissions, counters.retransmits);
        let dropped = |reason, total| raise(&self.sip_dropped.get_or_create(&Reason { reason }), total);
        dropped("malformed", counters.malformed);
        dropped("stray-response", counters.stray_responses);
        dropped("stray-ack", counters.stray_acks);
        dropped("stray-cancel", counters.stray_cancels);
        dropped("foreign-source", counters.foreign_sources);
        dropped("out-of-order", counters.out_of_order);
        dropped("full", counters.refused);
        dropped("not-sent", counters.failed_transmits + counters.unsent);
        self.sip_transactions.set(level(load.transactions));
        self.sip_dialogs.set(level(load.dialogs));
    }

    /// Sets what the SIP sockets dropped before the endpoint saw it, or could not send.
    pub fn sip_sockets(&self, counters: &sip::Counters) {
        let dropped = |reason, total: &AtomicU64| {
            raise(&self.sip_dropped.get_or_create(&Reason { reason }), total.load(Ordering::Relaxed));
        };
        dropped("udp-queue-full", &counters.udp_dropped);
        dropped("udp-send-full", &counters.udp_send_full);
        dropped("udp-send-error", &counters.udp_send_errors);
        dropped("tcp-refused", &counters.tcp_refused);
        dropped("tcp-slow", &counters.tcp_slow);
        dropped("tcp-malformed", &counters.tcp_malformed);
        dropped("tcp-send-error", &counters.tcp_send_errors);
    }

    /// Sets what the recorders' queues hold: marks that wait, bytes of audio that wait for the disk, and recordings that
    /// wait for the publisher; and the bytes that have been written.
    pub fn recorders(&self, backlog: usize, queued_bytes: u64, unpublished: usize, written_bytes: u64) {
        self.recorder_backlog.set(level(backlog));
        self.recorder_queued.set(i64::try_from(queued_bytes).unwrap_or(i64::MAX));
        self.recordings_unpublished.set(level(unpublished));
        raise(&self.recordings_written, written_bytes);
    }

    /// Sets what the media threads have counted, and how full the fullest rings to recorders and mixers have been, in
    /// thousandths.
    pub fn media(&self, threads: &[Arc<media_threads::Counters>], to_recorders: usize, to_mixers: usize) {
        self.media.threads(threads);
        self.media.rings(to_recorders, to_mixers);
    }

    /// Sets what IVR drivers have sent and were told.
    pub fn drivers(&self, connected: usize, totals: &ivr::Totals) {
        self.drivers.set(connected, totals);
    }

    /// Sets what the mixer threads have counted.
    pub fn mixers(&self, mixers: &[Arc<mixer::Counters>]) {
        self.mixing.set(mixers);
    }

    /// Sets what the disk allows.
    pub fn room(&self, room: Room) {
        self.disk_takes_new.set(i64::from(room.takes_new()));
    }

    /// Sets the free bytes of the recordings' file system.
    pub fn disk_free(&self, bytes: u64) {
        self.disk_free.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The server stops.
    pub fn draining(&self) {
        self.draining.set(1);
    }

    /// Everything in the OpenMetrics text format, with the process's own figures.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(8_192);
        // Writing to a String cannot fail, and no metric of ours refuses to be written.
        if text::encode_registry(&mut out, &self.registry).is_err() {
            tracing::error!("metrics could not be written");
        }
        process::write(&mut out);
        out.push_str("# EOF\n");
        out
    }
}

fn level(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

const STOP_CAUSES: [Stop; 9] = [
    Stop::Released,
    Stop::OwnerLeft,
    Stop::Stopped,
    Stop::Shutdown,
    Stop::Crash,
    Stop::WriteError,
    Stop::DiskFull,
    Stop::NotAnswered,
    Stop::SessionExpired,
];

fn stop_cause(cause: Stop) -> &'static str {
    match cause {
        Stop::Released => "released",
        Stop::OwnerLeft => "owner-left",
        Stop::Stopped => "stopped",
        Stop::Shutdown => "shutdown",
        Stop::Crash => "crash",
        Stop::WriteError => "write-error",
        Stop::DiskFull => "disk-full",
        Stop::NotAnswered => "not-answered",
        Stop::SessionExpired => "session-expired",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::fact::{Party, ReleaseCause};
    use crate::clock;
    use crate::id::LegId;

    fn happened(metrics: &Metrics, what: What) {
        let wall = jiff::Timestamp::UNIX_EPOCH;
        metrics.fact(&Fact { at: clock::now(), wall, conn_id: None, cause: None, what });
    }

    #[track_caller]
    fn says(metrics: &Metrics, line: &str) {
        let page = metrics.encode();
        assert!(page.lines().any(|found| found == line), "{line}\nis not in\n{page}");
    }

    #[test]
    fn calls_are_counted_by_cause() {
        let metrics = Metrics::new();
        happened(&metrics, What::Refused { code: 404, reason: "no route" });
        for cause in [ReleaseCause::Released, ReleaseCause::Rejected(486), ReleaseCause::Rejected(600)] {
            happened(&metrics, What::Released { cause, by: None, answered: false });
        }
        says(&metrics, "stickytape_calls_refused_total{code=\"404\"} 1");
        says(&metrics, "stickytape_calls_ended_total{cause=\"busy\"} 2");
        says(&metrics, "stickytape_calls_ended_total{cause=\"released\"} 1");
    }

    #[test]
    fn transfers_are_counted_by_how_and_their_failures_by_cause() {
        let metrics = Metrics::new();
        let party = || Party { dn: None, trunk: None, number: "2003".into() };
        let (by, stays, target) = (LegId(2), LegId(1), LegId(3));
        let how = call::fact::Transfer::Mute;
        happened(&metrics, What::Transferred { by, stays, target, party: party(), how, consult: None });
        happened(&metrics, What::TransferFailed { by, to: party(), cause: ReleaseCause::Rejected(486) });
        says(&metrics, "stickytape_transfers_total{how=\"mute\"} 1");
        says(&metrics, "stickytape_transfers_failed_total{cause=\"busy\"} 1");
    }

    #[test]
    fn a_call_that_another_one_takes_in_has_ended_and_is_not_waited_for() {
        let metrics = Arc::new(Metrics::new());
        let mut observer = Observer::new(metrics.clone());
        let party = || Party { dn: None, trunk: None, number: "2003".into() };
        let (by, stays, target, how) = (LegId(2), LegId(1), LegId(3), call::fact::Transfer::Consulted);
        let mut say = |conn_id, what| {
            let (at, wall) = (clock::now(), jiff::Timestamp::UNIX_EPOCH);
            observer.fact(&Fact { at, wall, conn_id: Some(ConnId(conn_id)), cause: None, what });
        };
        for (consult, consult_of) in [(2, 1), (3, 1)] {
            let call_uuid = crate::id::CallUuid(uuid::Uuid::nil());
            let consult_of = Some(ConnId(consult_of));
            let (caller, called) = (party(), party());
            say(consult, What::CallStarted { call_uuid, leg: by, caller, called, consult_of, origin: None });
        }
        say(1, What::Transferred { by, stays, target, party: party(), how, consult: Some(ConnId(2)) });
        say(1, What::PartyAdded { leg: target, party: party(), by, consult: Some(ConnId(3)) });
        assert!(observer.calling.is_empty());
        says(&metrics, "stickytape_calls_ended_total{cause=\"transferred\"} 1");
        says(&metrics, "stickytape_calls_ended_total{cause=\"conferenced\"} 1");
    }

    #[test]
    fn stop_causes_are_named_as_in_the_metadata() {
        for cause in STOP_CAUSES {
            assert_eq!(serde_json::json!(cause), stop_cause(cause));
        }
    }

    #[test]
    fn levels_go_up_and_down_and_totals_only_up() {
        let metrics = Metrics::new();
        metrics.levels(&call::Counters { calls: 5, stray: 9, ..Default::default() });
        metrics.levels(&call::Counters { calls: 2, stray: 7, ..Default::default() });
        says(&metrics, "stickytape_calls 2");
        says(&metrics, "stickytape_sip_stray_total 9");
    }

    #[test]
    fn packets_of_ended_legs_add_up() {
        let metrics = Metrics::new();
        let stats = LegStats { received: 50, lost: 2, untapped: 1, ..Default::default() };
        metrics.leg_ended(&stats);
        metrics.leg_ended(&stats);
        says(&metrics, "stickytape_rtp_packets_received_total 100");
        says(&metrics, "stickytape_rtp_packets_lost_total 4");
        says(&metrics, "stickytape_rtp_packets_untapped_total 2");
    }

    #[test]
    fn the_page_is_whole_and_names_the_process() {
        let page = Metrics::new().encode();
        assert!(page.ends_with("# EOF\n") && page.matches("# EOF").count() == 1, "{page}");
        assert!(page.contains("\nprocess_resident_memory_bytes ") && page.contains("\nprocess_open_fds "), "{page}");
        assert!(page.contains("stickytape_build_info{version="), "{page}");
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }

    #[test]
    fn events_are_counted_by_name_and_subscribers_as_they_are() {
        let metrics = Metrics::new();
        metrics.event("EventRinging");
        metrics.events(&events::Counters { kept: 3, subscribers: 2, lost: 5, dropped: 1, unwritten: 4 });
        metrics.events(&events::Counters { subscribers: 1, lost: 5, ..Default::default() });
        says(&metrics, "stickytape_events_total{event=\"EventRinging\"} 1");
        says(&metrics, "stickytape_event_subscribers 1");
        says(&metrics, "stickytape_events_lost_total 5");
        says(&metrics, "stickytape_events_unwritten_total 4");
    }

    #[test]
    fn the_disk_and_the_drain_are_shown() {
        let metrics = Metrics::new();
        says(&metrics, "stickytape_disk_takes_recordings 1");
        metrics.room(Room::Low);
        metrics.disk_free(1 << 30);
        metrics.draining();
        says(&metrics, "stickytape_disk_takes_recordings 0");
        says(&metrics, "stickytape_disk_free_bytes 1073741824");
        says(&metrics, "stickytape_draining 1");
    }
}
