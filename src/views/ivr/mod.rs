//! The IVR driver interface (spec/events.md §2): calls of IVR ports as drivers are told of them, and what drivers ask.
//!
//! [`Ivr`] is fed with every fact, every driver's message and every answer to the requests that it gives out. One call may
//! have one IVR port at a time: the first DN with `ivr = true` in it. The consult call of a port is told under the CallId
//! of the call that the port holds; when that one ends first, the consult call goes on under its own.
//!
//! Messages for one call are taken one after the other, each when the one before is answered; EndCall waits for nothing.

mod call;
mod facts;
pub mod message;
mod rows;

use std::collections::HashMap;
use std::sync::Arc;

use self::call::{Asking, Call, Order, Stage};
use self::message::{Audience, CallError, DriverId, FailedReq, Message, Say, Telling};
use self::rows::{Cue, Line};
use crate::call::fact::ReleaseCause;
use crate::call::request::{Accepted, Ask, Code, Denied, Request};
use crate::id::ConnId;

/// Messages for one call that wait for the one in hand; one more is refused.
const MAX_WAITING: usize = 8;

/// `TLibErrCode`: invalid ConnectionID.
const UNKNOWN_CALL: u16 = 56;

/// Names a request that was given out until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AskId(pub u64);

/// What comes out, in the order in which it must be carried out.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Tell drivers.
    Tell(Telling),
    /// Ask call control; the answer goes to [`Ivr::answered`].
    Ask(AskId, Request),
}

/// A call that is being made for a port.
#[derive(Debug)]
struct Making {
    /// The call of the driver's message.
    call: ConnId,
    order: Order,
}

/// Tells the numbers of IVR ports from others.
pub type IsPort = Box<dyn Fn(&str) -> bool + Send>;

/// How the interface is set up.
pub struct Options {
    /// Final answers that count as Busy (`busy`).
    pub busy: Vec<u16>,
    /// Which DNs are IVR ports.
    pub is_port: IsPort,
    /// Of calls beyond so many nothing is told: the limit of call control, twice, for each may have a consultation.
    pub max_calls: usize,
}

/// All live calls of IVR ports.
pub struct Ivr {
    options: Options,
    calls: HashMap<ConnId, Call>,
    /// Consult calls of ports, and the calls that they hold.
    consults: HashMap<ConnId, ConnId>,
    /// Calls that are being made by MakeCall, and whose port has not answered.
    making: HashMap<ConnId, Making>,
    /// Of calls that ended while a MakeCall is without an answer: it may be theirs.
    ended: HashMap<ConnId, ReleaseCause>,
    /// Requests without an answer.
    asked: HashMap<AskId, ConnId>,
    asks: u64,
    out: Vec<Output>,
}

impl Ivr {
    /// Knows no call yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            calls: HashMap::new(),
            consults: HashMap::new(),
            making: HashMap::new(),
            ended: HashMap::new(),
            asked: HashMap::new(),
            asks: 0,
            out: Vec::new(),
        }
    }

    /// Live calls of IVR ports.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Nothing is remembered of any call.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
            && self.consults.is_empty()
            && self.asked.is_empty()
            && self.making.is_empty()
            && self.ended.is_empty()
    }

    /// Other DNs are IVR ports from now on; a port keeps the call that it has.
    pub fn reload(&mut self, is_port: IsPort) {
        self.options.is_port = is_port;
    }

    /// A driver's message for a call.
    pub fn message(
        &mut self,
        driver: DriverId,
        call: ConnId,
        req_id: Option<Arc<str>>,
        message: Message,
    ) -> Vec<Output> {
        let order = Order { driver: Some(driver), req_id, message };
        let Some(known) = self.calls.get_mut(&call) else {
            self.fail(call, &order, FailedReq::NoSuchCall, Some(UNKNOWN_CALL));
            return self.take();
        };
        match (&order.message, &known.asking) {
            (Message::EndCall, _) => self.end(call, order),
            (_, None) => self.start(call, order),
            (_, Some(_)) if known.waiting.len() < MAX_WAITING => known.waiting.push_back(order),
            (_, Some(_)) => self.fail(call, &order, FailedReq::NotAllowed, None),
        }
        self.take()
    }

    /// The answer to a request; `None`: there will be none, for the server stops.
    pub fn answered(&mut self, id: AskId, answer: Option<Result<Accepted, Denied>>) -> Vec<Output> {
        let Some(conn_id) = self.asked.remove(&id) else { return Vec::new() };
        let Some(call) = self.calls.get_mut(&conn_id) else { return Vec::new() };
        let Some(Asking { order, .. }) = call.asking.take_if(|asking| asking.id == id) else {
            return Vec::new();
        };
        let consult = call.consult.as_ref().map(|consult| consult.conn_id);
        match answer {
            Some(Ok(accepted)) if matches!(order.message, Message::MakeCall { .. }) => {
                self.makes(conn_id, accepted.conn_id, order);
            }
            Some(Err(denied)) => self.refused(conn_id, consult, &order, &denied),
            Some(Ok(_))
                if consult.is_some() && matches!(order.message, Message::CompleteXfer | Message::CompleteConf) =>
            {
                call.completing = Some(order);
            }
            _ => {}
        }
        self.go_on(conn_id);
        if !self.awaits_make() {
            self.ended.clear();
        }
        self.take()
    }

    /// What a driver that connects is told: the state of every call. Each is told as it came about.
    pub fn state(&self) -> Vec<Telling> {
        let mut calls: Vec<_> = self.calls.iter().collect();
        calls.sort_by_key(|(conn_id, call)| (call.since, **conn_id));
        let told = |(conn_id, call): (&ConnId, &Call)| {
            let conn_id = *conn_id;
            let tell = move |status| Telling { call: conn_id, to: Audience::All, say: Say::Status(status) };
            call.story().into_iter().map(tell)
        };
        calls.into_iter().flat_map(told).collect()
    }

    fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    /// Takes up a message; the call has none in hand.
    fn start(&mut self, conn_id: ConnId, order: Order) {
        let Some(call) = self.calls.get(&conn_id) else { return };
        let consult = call.consult.as_ref().map(|consult| consult.conn_id);
        // Complete, reconnect: the path is the consult call (spec/sip.md §6).
        let active = consult.unwrap_or(conn_id);
        let other = consult.map(|_| conn_id);
        let (path, ask) = match &order.message {
            Message::OneStepXfer { to } => (conn_id, Ask::SingleStepTransfer { to: to.clone() }),
            Message::InitXfer { to } => (conn_id, Ask::InitiateTransfer { to: to.clone() }),
            Message::InitConf { to } => (conn_id, Ask::InitiateConference { to: to.clone() }),
            Message::OneStepConf { to } => (conn_id, Ask::SingleStepConference { to: to.clone(), hold: true }),
            Message::CompleteConf => (active, Ask::CompleteConference { other }),
            Message::CompleteXfer => (active, Ask::CompleteTransfer { other }),
            Message::RetrieveCall if consult.is_some() => (active, Ask::ReconnectCall { other }),
            Message::RetrieveCall => (conn_id, Ask::RetrieveCall),
            Message::MakeCall { to } => (Request::NO_CALL, Ask::MakeCall { to: to.clone() }),
            Message::EndCall => return self.end(conn_id, order),
        };
        let Some(id) = self.ask(conn_id, path, &order, ask) else { return };
        if let Some(call) = self.calls.get_mut(&conn_id) {
            call.asking = Some(Asking { id, order });
        }
    }

    /// Call control makes a call for the port of `call`. Its facts may have come before this answer.
    fn makes(&mut self, call: ConnId, new: ConnId, order: Order) {
        match (self.calls.get_mut(&new), self.ended.remove(&new)) {
            (Some(made), _) if made.stage == Stage::Calling => made.made_by = Some(order),
            (Some(_), _) => {}
            (None, Some(cause)) => self.fail(call, &order, order.message.request(), rows::failure(cause)),
            (None, None) => _ = self.making.insert(new, Making { call, order }),
        }
    }

    /// A call that may be one of MakeCall has ended before that was answered.
    fn ends_early(&mut self, conn_id: ConnId, cause: ReleaseCause) {
        if self.awaits_make() {
            self.ended.insert(conn_id, cause);
        }
    }

    /// A MakeCall is without an answer.
    fn awaits_make(&self) -> bool {
        self.calls.values().any(|call| call.order(|message| matches!(message, Message::MakeCall { .. })).is_some())
    }

    /// Takes up what waits.
    fn go_on(&mut self, conn_id: ConnId) {
        let Some(call) = self.calls.get_mut(&conn_id) else { return };
        if call.asking.is_none()
            && let Some(next) = call.waiting.pop_front()
        {
            self.start(conn_id, next);
        }
    }

    /// EndCall: the port leaves, and who it consults is let go. What waits is not done any more.
    fn end(&mut self, conn_id: ConnId, order: Order) {
        let Some(call) = self.calls.get_mut(&conn_id) else { return };
        let consult = call.consult.as_ref().map(|consult| consult.conn_id);
        for given_up in std::mem::take(&mut call.waiting) {
            self.fail(conn_id, &given_up, given_up.message.request(), None);
        }
        if let Some(consult) = consult {
            self.ask(conn_id, consult, &order, Ask::ReleaseCall);
        }
        let Some(id) = self.ask(conn_id, conn_id, &order, Ask::ReleaseCall) else { return };
        if let Some(call) = self.calls.get_mut(&conn_id) {
            call.asking = Some(Asking { id, order });
        }
    }

    fn ask(&mut self, conn_id: ConnId, path: ConnId, order: &Order, ask: Ask) -> Option<AskId> {
        let this_dn = self.calls.get(&conn_id)?.dn.clone();
        self.asks += 1;
        let id = AskId(self.asks);
        self.asked.insert(id, conn_id);
        let reference = order.req_id.clone();
        self.out.push(Output::Ask(id, Request { conn_id: path, this_dn, reference, ask }));
        Some(id)
    }

    /// A request was refused. A consultation that cannot be completed is ended: the state is as before it.
    fn refused(&mut self, conn_id: ConnId, consult: Option<ConnId>, order: &Order, denied: &Denied) {
        let failed = match denied.code {
            Code::UnknownCall | Code::NotAParty => FailedReq::NoSuchCall,
            _ => order.message.request(),
        };
        self.fail(conn_id, order, failed, rows::refusal(failed, denied.code));
        if let (Some(consult), Message::CompleteConf | Message::CompleteXfer) = (consult, &order.message) {
            let order = Order { driver: None, req_id: None, message: Message::RetrieveCall };
            let ask = Ask::ReconnectCall { other: Some(conn_id) };
            if let Some(id) = self.ask(conn_id, consult, &order, ask)
                && let Some(call) = self.calls.get_mut(&conn_id)
            {
                call.asking = Some(Asking { id, order });
            }
        }
    }

    /// CallError to the driver whose request this was, if a driver's it was.
    fn fail(&mut self, call: ConnId, order: &Order, failed: FailedReq, code: Option<u16>) {
        let Some(driver) = order.driver else { return };
        let error = CallError { failed, code, req_id: order.req_id.clone() };
        self.out.push(Output::Tell(Telling { call, to: Audience::Driver(driver), say: Say::Error(error) }));
    }

    /// Tells a row. `order` is the request that has failed, `code` why.
    fn cue(&mut self, call: ConnId, cue: Cue, order: Option<&Order>, code: Option<u16>) {
        for line in rows::row(cue) {
            match line {
                Line::Tell(status) => {
                    let say = Say::Status(*status);
                    self.out.push(Output::Tell(Telling { call, to: Audience::All, say }));
                }
                Line::Fail => {
                    if let Some(order) = order {
                        self.fail(call, order, order.message.request(), code);
                    }
                }
            }
        }
    }
}
