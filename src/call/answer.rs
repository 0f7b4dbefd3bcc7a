//! AnswerCall: a phone that rings is asked to answer by NOTIFY `Event: talk` in its early dialog (spec/sip.md §6).
//!
//! Only a phone can answer: it must have said `Allow-Events: talk`, in its 18x or when it registered. That it has answered
//! comes as its 200, like any other.

use super::call::{Call, Purpose};
use super::core::Core;
use super::dial::Branch;
use super::fact::What;
use super::request::{Accepted, Code, Denied};
use crate::id::LegId;
use crate::sip::endpoint::DialogId;
use crate::sip::headers::Headers;
use crate::sip::method::Method;
use crate::sip::name::Name;

impl Call {
    /// Asks the phone of a DN to answer. Of several that ring the first one that can be asked.
    pub(super) fn ask_answer(&mut self, core: &mut Core, by: LegId) -> Result<Accepted, Denied> {
        let phones = self.phones_beside(by);
        if phones.is_empty() {
            return Err(self.denied(Code::WrongState, "ThisDN has answered"));
        }
        let ringing: Vec<&Branch> = phones.into_iter().filter(|branch| branch.ringing).collect();
        if ringing.is_empty() {
            return Err(self.denied(Code::WrongState, "ThisDN does not ring yet"));
        }
        let takes_talk = |branch: &&Branch| self.leg(branch.leg).is_some_and(|leg| leg.keys.talk);
        let phone = ringing.into_iter().filter(takes_talk).find_map(|branch| Some(branch.forks.last()?.dialog));
        let Some(dialog) = phone else {
            return Err(self.denied(Code::NotSupported, "the phone has not said Allow-Events: talk"));
        };
        match self.press_key(core, dialog, "talk") {
            true => Ok(Accepted::new(self.conn_id)),
            false => Err(self.denied(Code::NotSupported, "the phone cannot be asked now")),
        }
    }

    /// The phones of a leg's DN that are being called.
    fn phones_beside(&self, leg: LegId) -> Vec<&Branch> {
        let dn = self.leg(leg).and_then(|leg| leg.identity.dn.as_ref());
        let is_its = |branch: &&Branch| self.leg(branch.leg).is_some_and(|own| own.identity.dn.as_ref() == dn);
        self.dials().flat_map(|dial| &dial.branches).filter(is_its).collect()
    }

    /// Presses a key of a phone: what follows is the phone's. False: it could not be sent.
    pub(super) fn press_key(&mut self, core: &mut Core, dialog: DialogId, event: &'static str) -> bool {
        let mut headers = Headers::new();
        headers.push(Name::Event, event);
        headers.push(Name::SubscriptionState, "active");
        match core.endpoint.request(dialog, Method::Notify, headers, None, core.now) {
            Ok(request) => {
                core.index.requests.insert(request, self.key);
                self.pending.push((request, Purpose::Key));
                true
            }
            Err(_) => {
                self.fact(core, What::Warning { text: "a phone takes no NOTIFY of hold or talk" });
                false
            }
        }
    }
}
