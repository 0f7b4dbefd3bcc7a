//! REFER to a focus: somebody is called into the conference, or removed from it (RFC 4579 §5.5, §5.11, spec/sip.md §5).
//!
//! Who takes part may ask for both, in its dialog or by REFER to the conference's URI. A trunk needs `transfer = true`, as
//! for any REFER. Several may be called in at once; each REFER has its own NOTIFYs.

use crate::call::Calls;
use crate::call::call::{Call, Ending};
use crate::call::conference::{Invitation, Joins};
use crate::call::core::Core;
use crate::call::fact::ReleaseCause;
use crate::call::refer::{From, Read, refused};
use crate::call::request::Code;
use crate::call::setup::Sender;
use crate::call::talk::Doing;
use crate::call::waiting::Waiting;
use crate::id::LegId;
use crate::record::mark::StopCause;
use crate::sip::endpoint::{Flow, Found, Peer, Reply, ServerTx};
use crate::sip::message::Request;
use crate::sip::method::Method;
use crate::sip::values::called_number;

impl Calls {
    /// A REFER to the URI of a conference. False: it is sent to none.
    pub(in crate::call) fn on_refer_to_conference(
        &mut self,
        tx: ServerTx,
        flow: Flow,
        request: &Request,
        sender: &Sender,
    ) -> bool {
        let Some(key) = super::conference_named(&self.core, request, sender) else { return false };
        self.with(Some(key), |call, core| {
            let dialog = call.part_of(sender).and_then(|leg| call.leg(leg)?.dialog);
            match dialog {
                Some(dialog) => call.on_refer(core, tx, From { dialog, outside: Some(flow), to_focus: true }, request),
                None => core.answer(tx, None, Reply::new(403)),
            }
        });
        true
    }
}

impl Call {
    /// A REFER that is for the focus and not for the call of its sender.
    pub(in crate::call) fn is_for_focus(&self, core: &Core, from: From) -> bool {
        self.focus.is_some() && (from.to_focus || core.endpoint.is_focus(from.dialog))
    }

    /// What our Contact says in the dialog that a REFER outside of one makes.
    pub(in crate::call) fn said_to(&self, from: From, peer: Peer) -> Peer {
        match &self.focus {
            Some(focus) if from.to_focus => focus.said_to(peer),
            _ => peer,
        }
    }

    /// A REFER to the focus by the leg `by`.
    pub(in crate::call) fn on_refer_to_focus(
        &mut self,
        core: &mut Core,
        tx: ServerTx,
        from: From,
        by: LegId,
        (request, read): (&Request, Read),
    ) {
        if !self.takes_part(by) {
            return core.answer(tx, None, Reply::new(403));
        }
        if self.has_open_offer() {
            return self.wait(core, Waiting::Refer { tx, from, request: Box::new(request.clone()) });
        }
        let done = match self.talk().map(|talk| &talk.doing) {
            Some(Doing::Nothing) if read.refer.method == Method::Bye => {
                self.remove(core, tx, from, by, (request, read))
            }
            Some(Doing::Nothing) => self.add(core, tx, from, by, (request, read)),
            // Somebody consults or is being transferred.
            _ => Err(Box::new(Reply::new(491))),
        };
        if let Err(reply) = done {
            core.answer(tx, None, *reply);
        }
    }

    /// Calls the target of Refer-To into the conference.
    fn add(
        &mut self,
        core: &mut Core,
        tx: ServerTx,
        from: From,
        by: LegId,
        (request, read): (&Request, Read),
    ) -> Result<(), Box<Reply>> {
        if let Some(replaces) = &read.refer.replaces {
            let found = core.endpoint.find_dialog(&replaces.call_id, &replaces.to_tag, &replaces.from_tag, core.now);
            match found {
                // The target is to replace a dialog that it has with somebody else.
                None => {}
                Some(Found::Ended) => return Err(Box::new(Reply::new(603))),
                Some(_) => return Err(refused(501, "Calls that are up join a conference by merge-calls".to_owned())),
            }
        }
        let allowed = self.must_be_mixable().and_then(|()| self.must_have_places(1));
        allowed.map_err(|denied| match denied.code {
            Code::Limit => refused(486, "The conference is full".to_owned()),
            _ => Box::new(Reply::new(488)),
        })?;
        let (destination, number) = self.destination_of(core, by, &read).map_err(|code| Box::new(Reply::new(code)))?;
        let report = self.report_to(core, tx, from, by, request, read.is_subscribed())?;
        self.accept_refer(core, tx, &report);
        let extra = self.referral(by, &read);
        let max_forwards = read.max_forwards();
        let joins = Joins::Member { holds: false };
        self.invite(core, Invitation { by, destination, number, joins, report, max_forwards, extra });
        Ok(())
    }

    /// Removes who has the number of Refer-To, with all its devices.
    fn remove(
        &mut self,
        core: &mut Core,
        tx: ServerTx,
        from: From,
        by: LegId,
        (request, read): (&Request, Read),
    ) -> Result<(), Box<Reply>> {
        let number = called_number(read.refer.target.uri()).filter(|number| !number.is_empty());
        let dn = self.leg(by).and_then(|leg| leg.identity.dn.clone());
        let roster = self.roster(core);
        // Who is not to be seen is not to be found.
        let seen = roster.seen_by(dn.as_deref());
        let legs: Vec<LegId> = seen.filter(|p| number.as_ref() == Some(&p.number)).map(|p| p.leg).collect();
        if legs.is_empty() {
            return Err(refused(404, "Not in the conference".to_owned()));
        }
        let report = self.report_to(core, tx, from, by, request, read.is_subscribed())?;
        crate::call::refer::accept(core, tx, &report);
        self.notify(core, &report, 200, b"OK");
        for leg in legs {
            self.remove_one(core, leg, by);
        }
        Ok(())
    }

    fn remove_one(&mut self, core: &mut Core, leg: LegId, by: LegId) {
        if self.is_over() || self.leg(leg).is_none() {
            return;
        }
        if let Some(dial) = self.dialling(leg) {
            return self.revoke(core, dial);
        }
        match self.goes_on_without(leg) {
            true => self.end_leg(core, leg, by),
            false => self.release(core, ReleaseCause::Released, StopCause::Released, None, Ending::default()),
        }
    }
}
