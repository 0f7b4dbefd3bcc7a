//! The rest of the process, as far as the API asks it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stickytape::api::{
    AgentLine, Answer, Backend, Content, Deletion, Event, Item, Media, Readiness, RecordingPage, RecordingQuery,
    Subscription, Unavailable,
};
use stickytape::call::request::{Accepted, Denied, DnRequest, Request};
use stickytape::call::view::{CallView, PartyView, RecordingView};
use stickytape::id::{CallUuid, ConnId, LegId, RecordingId};
use stickytape::record::mark::Level;
use stickytape::record::metadata::Recording;
use stickytape::views::interaction::NotRegistered;
use stickytape::views::interaction::message::AgentId;
use tokio::sync::watch;

pub(crate) const CALL: ConnId = ConnId(0xab);

/// A backend that answers as the test tells it and remembers what it was asked.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) readiness: Mutex<Readiness>,
    pub(crate) broken: bool,
    pub(crate) asked: Mutex<Vec<RecordingQuery>>,
    pub(crate) requests: Mutex<Vec<Request>>,
    pub(crate) dn_requests: Mutex<Vec<DnRequest>>,
    /// Answers to requests, in order; accepted when there is none.
    pub(crate) answers: Mutex<VecDeque<Result<Accepted, Denied>>>,
    /// Time that a request takes.
    pub(crate) takes: Mutex<Duration>,
    /// Media files by name, of every recording.
    pub(crate) files: BTreeMap<&'static str, Vec<u8>>,
    pub(crate) hash: Option<String>,
    pub(crate) deletion: Mutex<Option<Deletion>>,
    pub(crate) hub: Arc<Hub>,
    /// Agents that wanted to register, and what they were answered.
    pub(crate) registering: Mutex<Vec<String>>,
    pub(crate) refuses: Option<NotRegistered>,
}

impl Backend for Fake {
    fn calls(&self) -> Answer<'_, Option<Vec<CallView>>> {
        let call = CallView {
            previous_conn_id: None,
            conn_id: CALL,
            call_uuid: CallUuid(uuid::Uuid::nil()),
            state: "talking",
            started: "2026-11-20T09:00:00Z".parse().unwrap(),
            answered: None,
            caller_phone_number: "+4930123".into(),
            dialed_phone_number: "2001".into(),
            parties: vec![party()],
            recordings: vec![recording()],
        };
        let answer = (!self.broken).then(|| vec![call]);
        Box::pin(async move { answer })
    }

    fn request(&self, request: Request) -> Answer<'_, Option<Result<Accepted, Denied>>> {
        let answer = self.answers.lock().unwrap().pop_front();
        let answer = (!self.broken).then(|| answer.unwrap_or(Ok(Accepted::new(request.conn_id))));
        self.requests.lock().unwrap().push(request);
        let takes = *self.takes.lock().unwrap();
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            answer
        })
    }

    fn dn_request(&self, request: DnRequest) -> Answer<'_, Option<Result<(), Denied>>> {
        self.dn_requests.lock().unwrap().push(request);
        let answer = (!self.broken).then_some(Ok(()));
        Box::pin(async move { answer })
    }

    fn events(&self, dn: Option<String>, after: Option<u64>) -> Box<dyn Subscription> {
        let latest = self.hub.latest.subscribe();
        let next = after.unwrap_or(*latest.borrow()) + 1;
        Box::new(Reader { hub: self.hub.clone(), latest, dn, next })
    }

    fn reporting(&self, after: Option<u64>) -> Box<dyn Subscription> {
        self.events(None, after)
    }

    fn agent(&self, agent: AgentId, dn: String) -> Result<Box<dyn AgentLine>, NotRegistered> {
        self.registering.lock().unwrap().push(format!("{} {dn}", agent.as_str()));
        Err(self.refuses.unwrap_or(NotRegistered::Limit))
    }

    fn recordings(&self, query: &RecordingQuery) -> Result<RecordingPage, Unavailable> {
        self.asked.lock().unwrap().push(query.clone());
        if self.broken {
            return Err(Unavailable("/srv/secret/place: permission denied".into()));
        }
        Ok(RecordingPage { recordings: Vec::new(), next: Some("c2".into()) })
    }

    fn recording(&self, _: RecordingId) -> Result<Option<Recording>, Unavailable> {
        Ok(None)
    }

    fn media(&self, _: RecordingId, file: &str) -> Result<Option<Media>, Unavailable> {
        let Some(bytes) = self.files.get(file) else { return Ok(None) };
        let content = Arc::new(Bytes(bytes.clone()));
        Ok(Some(Media { len: bytes.len() as u64, media_type: "audio/wav".into(), sha256: self.hash.clone(), content }))
    }

    fn delete(&self, _: RecordingId) -> Result<Deletion, Unavailable> {
        let deletion = *self.deletion.lock().unwrap();
        deletion.ok_or_else(|| Unavailable("/srv/secret/place: read-only".into()))
    }

    fn readiness(&self) -> Readiness {
        *self.readiness.lock().unwrap()
    }

    fn metrics(&self) -> String {
        "# EOF\n".into()
    }
}

fn party() -> PartyView {
    PartyView {
        leg_id: LegId(1),
        dn: Some("2001".into()),
        trunk: None,
        number: "2001".into(),
        role: "agent",
        state: "established",
        holds: false,
        codec: Some("PCMU/8000".into()),
        media: Some("192.0.2.7:4000".parse().unwrap()),
        received: 1_500,
        sent: 1_499,
        lost: 3,
        refused: 2,
        jitter_ms: Some(1.3),
        clock_skew_ppm: Some(-42.5),
        last_packet: Some("2026-11-20T09:00:30.5Z".parse().unwrap()),
    }
}

fn recording() -> RecordingView {
    let level = |channel, peak_dbfs, rms_dbfs| Level { file: "mixed.wav".into(), channel, peak_dbfs, rms_dbfs };
    RecordingView {
        id: RecordingId(uuid::Uuid::nil()),
        owner_leg: LegId(1),
        trigger: "dn",
        paused: false,
        state: "recording",
        levels: vec![level(0, Some(-12.1), Some(-23.4)), level(1, None, None)],
    }
}

struct Bytes(Vec<u8>);

impl Content for Bytes {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = &self.0[(offset as usize).min(self.0.len())..];
        let read = rest.len().min(out.len());
        out[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }
}

/// Events kept so far; those that go are lost for whoever has not read them.
pub(crate) struct Hub {
    kept: Mutex<VecDeque<Arc<Line>>>,
    latest: watch::Sender<u64>,
    most: usize,
}

struct Line {
    seq: u64,
    dn: String,
    json: String,
}

impl Event for Line {
    fn seq(&self) -> u64 {
        self.seq
    }

    fn name(&self) -> &str {
        "EventHeld"
    }

    fn json(&self) -> &str {
        &self.json
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self::keeping(1_000)
    }
}

impl Hub {
    pub(crate) fn keeping(most: usize) -> Self {
        Self { kept: Mutex::default(), latest: watch::channel(0).0, most }
    }

    /// One more event for `dn`, padded to `size` bytes.
    pub(crate) fn tell(&self, dn: &str, size: usize) {
        let mut kept = self.kept.lock().unwrap();
        let seq = *self.latest.borrow() + 1;
        let padding = "x".repeat(size);
        let json = format!(r#"{{"seq":{seq},"event":"EventHeld","ThisDN":"{dn}","padding":"{padding}"}}"#);
        kept.push_back(Arc::new(Line { seq, dn: dn.into(), json }));
        if kept.len() > self.most {
            kept.pop_front();
        }
        drop(kept);
        self.latest.send_replace(seq);
    }
}

struct Reader {
    hub: Arc<Hub>,
    latest: watch::Receiver<u64>,
    dn: Option<String>,
    next: u64,
}

impl Reader {
    /// The next item that is kept; `None`: there is none yet.
    fn look(&mut self) -> Option<Item> {
        let kept = self.hub.kept.lock().unwrap();
        let first = kept.front()?.seq;
        if first > self.next {
            let count = first - std::mem::replace(&mut self.next, first);
            return Some(Item::Lost { count, next: first });
        }
        let mut rest = kept.iter().filter(|line| line.seq >= self.next);
        let line = rest.find(|line| self.dn.as_ref().is_none_or(|dn| *dn == line.dn))?;
        self.next = line.seq + 1;
        Some(Item::Event(line.clone()))
    }
}

impl Subscription for Reader {
    fn next(&mut self) -> Answer<'_, Option<Item>> {
        Box::pin(async {
            loop {
                if let Some(item) = self.look() {
                    return Some(item);
                }
                self.latest.changed().await.ok()?;
            }
        })
    }
}
