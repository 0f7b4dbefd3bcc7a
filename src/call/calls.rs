//! All calls: inputs find their call, outputs leave in order.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;

use super::call::{Call, Ending};
use super::core::{Core, Key, Timer};
use super::directory::Directory;
use super::fact::{ReleaseCause, What};
use super::leg::Leg;
use super::options::{Options, Plan};
use super::registrar::{Origin, on_register};
use super::setup::{Begun, on_invite, source};
use super::view::CallView;
use super::{Counters, Input, Output, Reason, Seats};
use crate::bridge::command::mix::MixNotice;
use crate::bridge::command::{self, Command};
use crate::id::{LegId, WorkerId};
use crate::record::mark::{self, StopCause};
use crate::sip::endpoint::{self, Event, Flow, Reply, ServerTx};
use crate::sip::headers::Headers;
use crate::sip::message::Request;
use crate::sip::method::Method;
use crate::sip::name::Name;

/// Call control.
#[derive(Debug)]
pub struct Calls {
    pub(super) core: Core,
    pub(super) calls: BTreeMap<Key, Call>,
    drain: Drain,
    stray: u64,
}

/// ```text
/// No ──Drain──► Until(deadline) ──deadline or HangUpAll, and nothing left──► Done
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    /// Calls may go on until then; `None`: they have been hung up.
    Until(Option<Instant>),
    Done,
}

impl Calls {
    /// A machine without calls. Its first outputs ask for ports and names: poll before the first input.
    pub fn new(options: Options, seats: Seats, now: Instant) -> Self {
        let mut core = Core::new(options, seats, now);
        core.endpoint.set_conferences(core.directory.conferences());
        upkeep(&mut core);
        Self { core, calls: BTreeMap::new(), drain: Drain::No, stray: 0 }
    }

    /// Takes one input; drain [`Calls::poll_output`] afterwards. `wall` is the wall-clock time of `now`.
    pub fn handle(&mut self, input: Input, now: Instant, wall: Timestamp) {
        self.core.now = now;
        self.core.wall = wall;
        match input {
            Input::Sip(input) => {
                if let endpoint::Input::Closed(connection) = input {
                    self.core.registrar.closed(connection);
                }
                self.core.endpoint.handle(input, now);
            }
            Input::Media(worker, notice) => self.on_media(worker, notice),
            Input::Mix(_, notice) => self.on_mix(&notice),
            Input::Record(_, notice) => self.on_record(notice),
            Input::Space { ok } => self.core.space_ok = ok,
            Input::Congested(congested) => self.core.congested = congested,
            Input::Reload(plan) => self.reload(*plan),
            Input::Resolved { host, addresses } => {
                // A resolver that fails takes nothing back.
                if !addresses.is_empty() {
                    self.core.endpoint.learn(&host, addresses.clone());
                    self.core.names.resolved(&host, addresses);
                    self.refresh_sources();
                }
            }
            Input::Request(ticket, request) => self.on_asked(ticket, *request),
            Input::DnRequest(ticket, request) => self.on_dn_request(ticket, &request),
            Input::Drain => self.begin_drain(now + self.core.options.sip.drain_timeout),
            Input::HangUpAll => self.begin_drain(now),
            Input::Timeout => {}
        }
        // What has come counts before what is due: a 2xx at the instant of the ring timeout has won.
        self.drain_endpoint();
        self.on_time();
        self.drain_endpoint();
        self.finish();
        upkeep(&mut self.core);
        self.end_drain();
    }

    /// The next thing to do; `None`: nothing until the next input or timeout.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.core.pop_output()
    }

    /// When to call `handle(Input::Timeout)`, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        let drain = match self.drain {
            Drain::Until(at) => at,
            _ => None,
        };
        [
            self.core.endpoint.poll_timeout().map(|(at, reason)| (at, Reason::Sip(reason))),
            self.core.next_timer().map(|at| (at, Reason::Call)),
            self.core.names.next().map(|at| (at, Reason::Resolve)),
            self.core.ports.next().map(|at| (at, Reason::Ports)),
            self.core.registrar.next().map(|at| (at, Reason::Registration)),
            drain.map(|at| (at, Reason::Drain)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    /// True once calls can be taken: every media thread has bound its first ports, or has said that it cannot. Before
    /// that an INVITE would be refused for want of ports that are about to be there.
    pub fn is_able(&self) -> bool {
        self.core.ports.settled()
    }

    /// The live calls, oldest first.
    pub fn snapshot(&self) -> Vec<CallView> {
        let mut views: Vec<CallView> = self.calls.values().flat_map(|call| call.views(&self.core)).collect();
        for companion in self.calls.values().flat_map(|call| call.companion_views(&self.core)) {
            if let Some(main) = views.iter_mut().find(|view| view.conn_id == companion.conn_id) {
                main.parties.push(companion.party);
            }
        }
        views.sort_by_key(|v| v.started);
        views
    }

    /// Totals and levels.
    pub fn counters(&self) -> Counters {
        Counters {
            calls: self.calls.len(),
            recordings: self.calls.values().fold([0; 3], |sum, call| call.count_recordings(sum)),
            ports_ready: self.core.ports.ready(),
            legs: self.core.index.legs.len(),
            stray: self.stray,
            registrations: self.core.registrar.len(),
            authentication_failures: self.core.registrar.failures(),
            sip: *self.core.endpoint.counters(),
            load: self.core.endpoint.load(),
        }
    }

    /// True when nothing is left of any call: no leg, dialog, transaction, timer, session.
    pub fn is_empty(&self) -> bool {
        let index = &self.core.index;
        self.calls.is_empty()
            && index.txs.is_empty()
            && index.invites.is_empty()
            && index.dialogs.is_empty()
            && index.requests.is_empty()
            && index.legs.is_empty()
            && index.recordings.is_empty()
            && index.conns.is_empty()
            && index.rooms.is_empty()
            && index.focuses.is_empty()
            && index.subscriptions.is_empty()
            && index.dns.is_empty()
            && self.core.pairs.is_empty()
            && self.core.joins.is_empty()
            && self.core.entering.is_empty()
            && self.core.rooms() == 0
            && self.core.ending.byes.is_empty()
            && self.core.ending.invites.is_empty()
            && self.core.ending.notifies.is_empty()
            && self.core.trunk_legs.is_empty()
            && !self.core.has_timers()
            && self.core.ports.legs() == 0
            && self.core.endpoint.is_empty()
    }

    /// What the input in hand has left to do in more than one call.
    fn finish(&mut self) {
        loop {
            self.join_calls();
            self.follow_calls();
            self.drain_endpoint();
            let core = &self.core;
            if core.joins.is_empty() && core.entering.is_empty() && !core.pairs.has_news() {
                return;
            }
        }
    }

    fn drain_endpoint(&mut self) {
        while let Some(output) = self.core.endpoint.poll_output() {
            match output {
                endpoint::Output::Transmit(transmit) => self.core.push(Output::Sip(transmit)),
                endpoint::Output::Event(event) => {
                    self.on_event(event);
                    self.join_calls();
                }
            }
        }
    }

    /// Lets a call handle something; a call that is over by then is forgotten.
    pub(super) fn with(&mut self, id: Option<Key>, act: impl FnOnce(&mut Call, &mut Core)) {
        let Some(id) = id else {
            self.stray += 1;
            return;
        };
        let Some(call) = self.calls.get_mut(&id) else {
            self.stray += 1;
            return;
        };
        act(call, &mut self.core);
        call.align_next(&mut self.core);
        call.take_waiting(&mut self.core);
        call.announce(&mut self.core);
        call.call_supervisors(&mut self.core);
        call.align_mixed(&mut self.core);
        call.may_enter(&mut self.core);
        call.tell_subscribers(&mut self.core);
        if call.is_over() {
            self.calls.remove(&id);
        }
    }

    /// What an INVITE has come to.
    fn begin(&mut self, begun: Begun) {
        match begun {
            Begun::Call(call) => _ = self.calls.insert(call.key, *call),
            Begun::Room(call) => {
                let key = call.key;
                self.calls.insert(key, *call);
                // It may enter at once.
                self.with(Some(key), |_, _| {});
            }
            Begun::Newcomer(newcomer) => self.on_newcomer(newcomer),
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Invite { tx, flow, request } => {
                if let Some(begun) = on_invite(&mut self.core, tx, flow, request, &self.calls) {
                    self.begin(begun);
                }
            }
            Event::Request { tx, dialog: None, flow, request } => self.on_outside(tx, flow, request),
            Event::Request { tx, dialog: Some(dialog), request, .. } => {
                match self.core.index.dialogs.get(&dialog).copied() {
                    Some(id) => self.with(Some(id), |c, core| c.on_request(core, tx, dialog, request)),
                    // The call is over.
                    None => self.core.answer(tx, None, Reply::new(481)),
                }
            }
            Event::Subscribe { tx, dialog, flow, request } => self.on_subscribe(tx, dialog, flow, &request),
            Event::NotifyDue { subscription, is_last } => self.on_notify_due(subscription, is_last),
            Event::Unsubscribed { subscription } => self.on_unsubscribed(subscription),
            Event::Ack { dialog, request } => {
                let id = self.core.index.dialogs.get(&dialog).copied();
                self.with(id, |call, core| call.on_ack(core, dialog, &request));
            }
            Event::Cancelled { tx, request } => {
                let id = self.core.index.txs.remove(&tx);
                self.with(id, |call, core| call.on_cancelled(core, tx, &request));
            }
            Event::NoAck { dialog } => {
                let id = self.core.index.dialogs.get(&dialog).copied();
                self.with(id, |call, core| call.on_no_ack(core, dialog));
            }
            Event::Trying { invite } => {
                let id = self.core.index.invites.get(&invite).copied();
                self.with(id, |call, core| call.on_trying(core, invite));
            }
            Event::Provisional { invite, dialog, response } => {
                let id = self.core.index.invites.get(&invite).copied();
                self.with(id, |call, core| call.on_provisional(core, invite, dialog, response));
            }
            Event::Answered { invite, dialog, response } => {
                let id = self.core.index.invites.get(&invite).copied();
                if id.is_none() {
                    // Nobody waits for it any more: never leave a phone in a call with nobody.
                    let _ = self.core.endpoint.ack(dialog, None, self.core.now);
                    self.core.bye(dialog, Headers::new(), None);
                }
                self.with(id, |call, core| call.on_answered(core, invite, dialog, response));
            }
            Event::Unwanted { invite, cancelled: true, .. } => _ = self.core.ending.invites.remove(&invite),
            Event::Unwanted { .. } => {}
            Event::Failed { invite, failure } => {
                if !self.core.ending.invites.remove(&invite) {
                    let id = self.core.index.invites.get(&invite).copied();
                    self.with(id, |call, core| call.on_failed(core, invite, failure));
                }
            }
            Event::Response { request, dialog, outcome } => {
                if !self.core.ending.takes(&mut self.core.endpoint, request, self.core.now) {
                    let id = self.core.index.requests.remove(&request);
                    self.with(id, |call, core| call.on_response(core, request, dialog, outcome));
                }
            }
        }
    }

    /// A request outside of a dialog; the endpoint has answered OPTIONS.
    fn on_outside(&mut self, tx: ServerTx, flow: Flow, request: Request) {
        match request.method {
            Method::Register => {
                let source = source(&self.core, &flow, &request);
                on_register(&mut self.core, tx, Origin { flow, source }, &request);
            }
            Method::Refer => self.on_refer_outside(tx, flow, request),
            Method::Options => self.on_options(tx, flow, &request),
            // It belongs to no subscription of ours (RFC 6665 §4.1.3).
            Method::Notify => self.core.answer(tx, None, Reply::new(481)),
            _ => self.core.answer(tx, None, Reply::new(405)),
        }
    }

    /// Figures of a leg: nothing follows from them.
    fn count(&mut self, leg: LegId, take: impl FnOnce(&mut Leg)) {
        let call = self.core.index.legs.get(&leg).and_then(|key| self.calls.get_mut(key));
        match call.and_then(|call| call.leg_mut(leg)) {
            Some(leg) => take(leg),
            None => self.stray += 1,
        }
    }

    fn on_media(&mut self, worker: WorkerId, notice: command::Notice) {
        use command::Notice;
        let call_of = |core: &Core, leg| core.index.legs.get(&leg).copied();
        match notice {
            Notice::PortsBound(pairs) => self.core.ports.bound(worker, pairs),
            Notice::PortsFailed { address, missing } => {
                let now = self.core.now;
                if self.core.ports.failed(worker, address, missing, now) {
                    self.core.fact(None, What::Warning { text: "the port range of a media thread is used up" });
                }
            }
            Notice::Inactive { leg } => {
                let id = call_of(&self.core, leg);
                self.with(id, |call, core| call.on_inactive(core, leg));
            }
            Notice::Stats { leg, stats } => self.count(leg, |leg| leg.stats = stats),
            Notice::Latched { leg, from } => self.count(leg, |leg| leg.stats.latched = Some(from)),
            Notice::Digit { leg, digit, length } => {
                let id = call_of(&self.core, leg);
                self.with(id, |call, core| call.on_digit(core, leg, digit, length));
            }
            Notice::Moved { leg } => {
                let id = call_of(&self.core, leg);
                self.with(id, |call, core| call.on_moved(core, leg, worker));
            }
            Notice::Removed { .. } => self.core.ports.removed(worker),
        }
    }

    fn on_mix(&mut self, notice: &MixNotice) {
        // What else a mixer says is of its own counters, or of a leg that has gone meanwhile.
        if let MixNotice::Refused { leg, .. } = notice {
            let id = self.core.index.legs.get(leg).copied();
            self.with(id, |call, core| call.on_mix(core, notice));
        }
    }

    fn on_record(&mut self, notice: mark::Notice) {
        use mark::Notice;
        let (Notice::Begun(id) | Notice::Failed { id, .. } | Notice::Published(id) | Notice::Measured { id, .. }) =
            notice;
        if let Some(call) = self.core.index.recordings.get(&id).copied() {
            return self.with(Some(call), |call, core| call.on_record(core, notice));
        }
        // The session has ended; what happens to its files is still worth telling.
        let what = match notice {
            Notice::Begun(id) => What::RecordingBegun { id },
            Notice::Published(id) => What::RecordingPublished { id },
            Notice::Failed { id, cause, .. } => What::RecordingFailed {
                id: Some(id),
                cause: if cause == StopCause::DiskFull { "disk-full" } else { "write-error" },
                required: false,
            },
            Notice::Measured { .. } => return,
        };
        self.core.fact(None, what);
    }

    fn reload(&mut self, plan: Plan) {
        let now = self.core.now;
        self.core.names.follow(&plan, now);
        self.core.locals.forget();
        self.core.directory = Directory::new(plan);
        self.core.endpoint.set_conferences(self.core.directory.conferences());
        let directory = &self.core.directory;
        self.core.registrar.retain(|number| directory.account(number).is_some());
        self.refresh_sources();
    }

    /// Names or the plan have changed: running dialogs take requests from the addresses that their DN or trunk has now
    /// (spec/sip.md §4). One that is no longer configured keeps its own.
    fn refresh_sources(&mut self) {
        for call in self.calls.values_mut() {
            call.refresh_sources(&mut self.core);
        }
    }

    fn on_time(&mut self) {
        let now = self.core.now;
        self.core.registrar.expire(now);
        if self.core.endpoint.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.core.endpoint.handle(endpoint::Input::Timeout, now);
            self.drain_endpoint();
        }
        while let Some((id, timer)) = self.core.due() {
            self.with(Some(id), |call, core| match timer {
                Timer::Attempt(dial) => call.on_attempt_timeout(core, dial),
                Timer::Ring(dial) => call.on_ring_timeout(core, dial),
                Timer::Glare => call.on_glare_timer(core),
                Timer::Parting => call.on_parting(core),
                Timer::Waiting => call.on_waiting(core),
                Timer::Untap => call.on_untap(core),
                Timer::Digit => call.press_next(core),
                Timer::Pin => call.on_pin_timeout(core),
            });
        }
        if let Drain::Until(Some(deadline)) = self.drain
            && deadline <= now
        {
            self.drain = Drain::Until(None);
            self.hang_up_all();
        }
    }

    fn begin_drain(&mut self, deadline: Instant) {
        self.core.draining = true;
        self.core.endpoint.set_available(false);
        self.drain = match self.drain {
            Drain::No => Drain::Until(Some(deadline)),
            Drain::Until(Some(earlier)) => Drain::Until(Some(earlier.min(deadline))),
            later => later,
        };
    }

    fn hang_up_all(&mut self) {
        for mut call in std::mem::take(&mut self.calls).into_values() {
            let mut bye_headers = Headers::new();
            bye_headers.push(Name::Reason, "SIP;cause=503;text=\"Shutdown\"");
            let ending = Ending { answer_headers: Core::busy().headers, bye_headers, ..Ending::code(503) };
            call.release(&mut self.core, ReleaseCause::Shutdown, StopCause::Shutdown, None, ending);
        }
    }

    fn end_drain(&mut self) {
        let ending = &self.core.ending;
        let waiting = matches!(self.drain, Drain::Until(_));
        if waiting && self.calls.is_empty() && ending.byes.is_empty() && ending.invites.is_empty() {
            self.drain = Drain::Done;
            self.core.push(Output::Drained);
        }
    }
}

/// Asks for ports and names that are due.
fn upkeep(core: &mut Core) {
    let now = core.now;
    for bind in core.ports.poll(now) {
        core.media(bind.worker, Command::BindPorts { address: bind.address, count: bind.count });
    }
    for host in core.names.poll(now) {
        core.push(Output::Resolve { host });
    }
}
