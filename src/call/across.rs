//! Requests that concern two calls of one DN, each over a dialog of its own (spec/sip.md §6).
//!
//! The path of a request names the call in which the DN is active, `OtherConnID` the other one; it may be left out when
//! the DN has exactly two.

use super::Calls;
use super::call::{Call, Ending};
use super::core::{Core, Key};
use super::fact::ReleaseCause;
use super::fetch::Key as PhoneKey;
use super::join::{End, can_join};
use super::pairs::Across;
use super::policy::asked;
use super::refer::Report;
use super::request::{Accepted, Ask, Code, Denied, OwnerWish, Request, Ticket};
use super::waiting::Waiting;
use crate::id::{ConnId, LegId};
use crate::record::mark::StopCause;

/// A DN's two calls.
#[derive(Debug, Clone, Copy)]
struct Two {
    path: Key,
    by: LegId,
    other: Key,
    other_by: LegId,
}

impl Call {
    /// What of a request is not for this call alone.
    pub(super) fn across(&self, core: &Core, ticket: Ticket, request: &Request) -> Option<Across> {
        let by = self.legs.iter().find(|l| l.identity.dn.as_ref() == Some(&request.this_dn)).map(|l| l.id);
        let boxed = || Box::new(request.clone());
        if let Some(supervisor) = self.companion(core, request) {
            return match &request.ask {
                Ask::RecordStart { .. } => Some(Across::AtHome { ticket, request: boxed(), supervisor }),
                Ask::RecordPause { .. } | Ask::RecordResume { .. } | Ask::RecordStop { .. } => {
                    let main = core.pairs.companions.get(&supervisor).copied()?;
                    let is_elsewhere = self.leg(main).is_none();
                    is_elsewhere.then(|| Across::Recording { ticket, request: boxed(), main })
                }
                _ if self.leg(supervisor).is_some() => None,
                _ => Some(Across::There { ticket, request: boxed(), supervisor }),
            };
        }
        match &request.ask {
            Ask::MergeCalls { .. } => Some(Across::Two { ticket, request: boxed(), fetched: None }),
            Ask::CompleteTransfer { .. }
            | Ask::CompleteConference { .. }
            | Ask::AlternateCall { .. }
            | Ask::ReconnectCall { .. } => {
                // One that has waited here for the offer of this call may be for the other one.
                let is_elsewhere = core.index.conns.get(&request.conn_id) != Some(&self.key);
                let consults = by.is_some() && self.consult().map(|c| c.by) == by;
                let has_two = by.is_some() && !others(core, &request.this_dn, self.key).is_empty();
                (is_elsewhere || !consults && has_two).then(|| Across::Two { ticket, request: boxed(), fetched: None })
            }
            Ask::RecordStart { owner } => {
                let (second, main) = self.consulting(core).filter(|_| self.talk().is_some())?;
                let dn = self.leg(second)?.identity.dn.clone()?;
                let mut request = boxed();
                if *owner != OwnerWish::Source {
                    request.ask = Ask::RecordStart { owner: OwnerWish::Dn(dn) };
                }
                let is_device = self.owner_wished(by, owner).ok() == Some(second);
                is_device.then_some(Across::Recording { ticket, request, main })
            }
            Ask::RecordPause { recording } | Ask::RecordResume { recording } | Ask::RecordStop { recording } => {
                let (second, main) = self.consulting(core)?;
                let is_theirs = match recording {
                    Some(id) => core.index.recordings.get(id) == core.index.legs.get(&main),
                    None => by == Some(second),
                };
                is_theirs.then(|| Across::Recording { ticket, request: boxed(), main })
            }
            _ => None,
        }
    }
}

/// The legs that a DN has in other calls.
fn others(core: &Core, dn: &str, here: Key) -> Vec<(Key, LegId)> {
    let legs = core.index.dns.get(dn).into_iter().flatten();
    let found = legs.filter_map(|leg| Some((*core.index.legs.get(leg)?, *leg)));
    found.filter(|(key, _)| *key != here).collect()
}

impl Calls {
    /// Carries out what requests have asked of two calls.
    pub(super) fn ask_across(&mut self) {
        while let Some(across) = self.core.pairs.asked.pop_front() {
            match across {
                Across::Recording { ticket, request, main } => {
                    let key = self.core.index.legs.get(&main).copied();
                    self.ask_in(key, ticket, *request);
                }
                Across::There { ticket, request, supervisor } => {
                    let key = self.core.index.legs.get(&supervisor).copied();
                    self.ask_in(key, ticket, *request);
                }
                Across::AtHome { ticket, request, supervisor } => {
                    if self.core.pairs.companions.contains_key(&supervisor) {
                        self.go_home(supervisor);
                    }
                    let key = self.core.index.legs.get(&supervisor).copied();
                    self.ask_in(key, ticket, *request);
                }
                Across::Two { ticket, request, fetched } => {
                    self.core.asked = Some(asked(&request));
                    self.ask_two(ticket, request, fetched);
                }
            }
            self.core.asked = None;
        }
    }

    /// One call decides what was asked of another one.
    fn ask_in(&mut self, key: Option<Key>, ticket: Ticket, request: Request) {
        self.core.asked = Some(asked(&request));
        match key.filter(|key| self.calls.contains_key(key)) {
            Some(key) => self.with(Some(key), |call, core| call.on_asked(core, ticket, request)),
            None => self.core.answer_request(ticket, Err(unknown_call(&request))),
        }
    }

    fn ask_two(&mut self, ticket: Ticket, request: Box<Request>, fetched: Option<LegId>) {
        let answer = match self.two_of(&request) {
            Ok(two) => self.decide_two(two, ticket, request, fetched.is_some()),
            Err(denied) => Some(Err(denied)),
        };
        if let Some(answer) = answer {
            if answer.is_err()
                && let Some(leg) = fetched
            {
                // The phone talks already: the call goes on so.
                let key = self.core.index.legs.get(&leg).copied();
                self.with(key, |call, core| call.resume(core, leg));
            }
            self.core.answer_request(ticket, answer);
        }
    }

    /// The two calls that a request concerns.
    fn two_of(&self, request: &Request) -> Result<Two, Denied> {
        let calls = &self.calls;
        let key = |conn_id: &ConnId| self.core.index.conns.get(conn_id).copied();
        let unknown = || unknown_call(request);
        let path = key(&request.conn_id).ok_or_else(unknown)?;
        let call = calls.get(&path).ok_or_else(unknown)?;
        let leg = call.legs.iter().find(|l| l.identity.dn.as_ref() == Some(&request.this_dn));
        let by = leg.ok_or_else(|| call.denied(Code::NotAParty, "ThisDN has no leg in this call"))?.id;
        call.must_be_allowed(by, &request.ask)?;
        let other = match &request.ask {
            Ask::CompleteTransfer { other }
            | Ask::CompleteConference { other }
            | Ask::AlternateCall { other }
            | Ask::ReconnectCall { other } => *other,
            Ask::MergeCalls { other } => Some(*other),
            _ => return Err(call.denied(Code::WrongState, "the request concerns one call")),
        };
        let observes = |key: Key, leg| calls.get(&key).is_some_and(|call| call.observer(leg).is_some());
        let mut others = others(&self.core, &request.this_dn, path);
        others.retain(|(other, leg)| !observes(*other, *leg));
        if let Some(named) = other {
            others.retain(|(other, _)| key(&named) == Some(*other));
        }
        match (others.as_slice(), other) {
            ([(other, other_by)], _) => Ok(Two { path, by, other: *other, other_by: *other_by }),
            ([], None) => Err(call.denied(Code::WrongState, "ThisDN has no other call")),
            (_, Some(_)) => Err(call.denied(Code::OtherCall, "OtherConnID names no other call of ThisDN")),
            (_, None) => Err(call.denied(Code::OtherCall, "ThisDN has several other calls: OtherConnID must name one")),
        }
    }

    /// Decides; `None`: the answer comes later.
    fn decide_two(
        &mut self,
        two: Two,
        ticket: Ticket,
        request: Box<Request>,
        is_fetched: bool,
    ) -> Option<Result<Accepted, Denied>> {
        let open = [two.path, two.other].into_iter().find(|key| self.calls.get(key).is_some_and(Call::has_open_offer));
        if let Some(open) = open.filter(|_| !is_fetched) {
            let call = self.calls.get_mut(&open)?;
            call.wait(&mut self.core, Waiting::Request { ticket, request });
            return None;
        }
        if !self.calls.contains_key(&two.path) || !self.calls.contains_key(&two.other) {
            return Some(Err(unknown_call(&request)));
        }
        let (path, other) = (self.calls.remove(&two.path)?, self.calls.remove(&two.other)?);
        let (mut path, mut other) = (End { call: path, by: two.by }, End { call: other, by: two.other_by });
        let core = &mut self.core;
        let answer = match &request.ask {
            Ask::CompleteTransfer { .. } => match completable(&path, &other) {
                Ok(()) => {
                    return Some(Ok(Accepted::new(self.merge(other, path, Report::Nobody))));
                }
                Err(denied) => Err(denied),
            },
            Ask::CompleteConference { .. } | Ask::MergeCalls { .. } => match mergeable(&path, &other) {
                Ok(()) => {
                    if !is_fetched && other.call.holds_alone(other.by) {
                        other.call.fetch(core, other.by, ticket, request);
                        self.put_back(path.call, other.call);
                        return None;
                    }
                    return Some(Ok(Accepted::new(self.merge_conference(path, other))));
                }
                Err(denied) => Err(denied),
            },
            ask => match switchable(&path, &other, is_fetched, ask) {
                Ok(()) if !is_fetched && other.call.holds_alone(other.by) => {
                    other.call.fetch(core, other.by, ticket, request);
                    self.put_back(path.call, other.call);
                    return None;
                }
                Ok(()) => {
                    match ask {
                        Ask::AlternateCall { .. } => alternate(core, &mut path, &mut other),
                        _ => reconnect(core, &mut path, &mut other),
                    }
                    Ok(Accepted::new(if path.call.is_over() { other.call.conn_id } else { request.conn_id }))
                }
                Err(denied) => Err(denied),
            },
        };
        self.put_back(path.call, other.call);
        Some(answer)
    }

    fn put_back(&mut self, first: Call, second: Call) {
        for call in [first, second] {
            if !call.is_over() {
                self.calls.insert(call.key, call);
            }
        }
    }
}

fn unknown_call(request: &Request) -> Denied {
    let detail = format!("no live call has the ConnID {}", request.conn_id);
    Denied { code: Code::UnknownCall, detail, state: "none".to_owned() }
}

/// Whether the held party and the consulted one can be connected.
fn completable(path: &End, other: &End) -> Result<(), Denied> {
    match can_join((&other.call, other.by), (&path.call, path.by)) {
        true => Ok(()),
        false => {
            Err(path.call.denied(Code::WrongState, "both calls must be between two parties, nothing else going on"))
        }
    }
}

/// Whether two calls can become one conference.
fn mergeable(path: &End, other: &End) -> Result<(), Denied> {
    for call in [&path.call, &other.call] {
        call.must_be_settled()?;
        call.must_be_mixable()?;
    }
    match (path.call.is_room(), other.call.is_room()) {
        (true, true) => Err(path.call.denied(Code::WrongState, "two rooms do not become one")),
        (false, true) => other.call.must_have_room_for(&path.call),
        (_, false) => path.call.must_have_room_for(&other.call),
    }
}

/// Whether a DN can go from one of its calls to the other.
fn switchable(path: &End, other: &End, is_fetched: bool, ask: &Ask) -> Result<(), Denied> {
    let denied = |detail| Err(path.call.denied(Code::WrongState, detail));
    let holds = other.call.leg(other.by).is_some_and(|leg| leg.has_hold());
    if !other.call.talks_to_one(other.by) || !(holds || is_fetched) {
        return denied("the other call of ThisDN is not held");
    }
    if !matches!(ask, Ask::AlternateCall { .. }) {
        return Ok(());
    }
    let talks = path.call.talks_to_one(path.by) && path.call.leg(path.by).is_some_and(|leg| !leg.has_hold());
    if talks { Ok(()) } else { denied("ThisDN does not talk in this call") }
}

/// Holds one call and retrieves the other.
fn alternate(core: &mut Core, path: &mut End, other: &mut End) {
    if !path.call.press(core, path.by, PhoneKey::Hold) {
        path.call.suspend(core, path.by);
    }
    other.call.talk_again(core, other.by);
}

/// Ends the consult call and retrieves the held one.
fn reconnect(core: &mut Core, path: &mut End, other: &mut End) {
    let cause = if path.call.answered.is_some() { ReleaseCause::Released } else { ReleaseCause::Abandoned };
    path.call.release(core, cause, StopCause::Released, None, Ending::code(487));
    other.call.talk_again(core, other.by);
}
