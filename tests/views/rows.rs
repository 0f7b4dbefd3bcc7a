//! spec/events.md §1 row by row: facts written by hand, and exactly who is told what, in which order.

use std::sync::Arc;

use crate::views_support::line;
use stickytape::call::fact::{Asked, Fact, Party, ReleaseCause, Transfer, What};
use stickytape::call::request::{Ask, Code, Denied, DnAsk, DnRequest, Request};
use stickytape::id::{CallUuid, ConnId, LegId, RecordingId};
use stickytape::record::mark::{Side, StopCause};
use stickytape::views::telephony::Telephony;

const C1: ConnId = ConnId(1);
const C2: ConnId = ConnId(2);
/// Legs: A's, B's, C's.
const A: LegId = LegId(1);
const B: LegId = LegId(2);
const C: LegId = LegId(3);
/// B's second dialog.
const B2: LegId = LegId(4);

fn dn(number: &str) -> Party {
    Party { dn: Some(number.into()), trunk: None, number: number.into() }
}

fn customer(number: &str) -> Party {
    Party { dn: None, trunk: Some("carrier".into()), number: number.into() }
}

fn uuid(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(n)
}

/// Feeds facts; collects the lines of their events.
struct Tape {
    view: Telephony,
    asked: Option<Arc<Asked>>,
}

impl Tape {
    fn new() -> Self {
        Self { view: Telephony::new(100), asked: None }
    }

    fn by(mut self, dn: &str, reference: &str) -> Self {
        self.asked = Some(Arc::new(Asked { dn: dn.into(), reference: Some(reference.into()) }));
        self
    }

    fn asks(&mut self, dn: &str, reference: &str) {
        self.asked = Some(Arc::new(Asked { dn: dn.into(), reference: Some(reference.into()) }));
    }

    fn tell(&mut self, conn_id: ConnId, what: What) -> Vec<String> {
        let wall = "2026-11-20T10:00:00Z".parse().unwrap();
        let at = stickytape::clock::now();
        let events = self.view.project(&Fact { at, wall, conn_id: Some(conn_id), cause: self.asked.clone(), what });
        events.iter().map(line).collect()
    }

    fn start(&mut self, conn_id: ConnId, leg: LegId, caller: Party, called: Party) -> Vec<String> {
        self.start_consult(conn_id, leg, caller, called, None)
    }

    fn start_consult(
        &mut self,
        conn_id: ConnId,
        leg: LegId,
        caller: Party,
        called: Party,
        consult_of: Option<ConnId>,
    ) -> Vec<String> {
        let call_uuid = CallUuid(uuid(7));
        self.tell(conn_id, What::CallStarted { call_uuid, leg, caller, called, consult_of, origin: None })
    }

    fn ring(&mut self, conn_id: ConnId, leg: LegId, party: Party) -> Vec<String> {
        self.tell(conn_id, What::Ringing { leg, party, early_media: false })
    }

    fn release(&mut self, conn_id: ConnId, cause: ReleaseCause, by: Option<LegId>) -> Vec<String> {
        self.tell(conn_id, What::Released { cause, by, answered: true })
    }

    /// A call that is answered; its events are another test's.
    fn talk(&mut self, conn_id: ConnId, caller: (LegId, Party), called: (LegId, Party)) {
        self.start(conn_id, caller.0, caller.1, called.1.clone());
        self.ring(conn_id, called.0, called.1.clone());
        self.tell(conn_id, What::Answered { leg: called.0, party: called.1 });
    }

    /// Rows 5 ff.: A talks to B, B consults C with `leg`.
    fn consult(caller: Party, leg: LegId, is_answered: bool) -> Self {
        let mut tape = Self::new();
        tape.talk(C1, (A, caller), (B, dn("B")));
        tape.tell(C1, What::Held { leg: B });
        tape.start_consult(C2, leg, dn("B"), dn("C"), Some(C1));
        tape.ring(C2, C, dn("C"));
        if is_answered {
            tape.tell(C2, What::Answered { leg: C, party: dn("C") });
        }
        tape
    }
}

fn transferred(how: Transfer, consult: Option<ConnId>) -> What {
    What::Transferred { by: B, stays: A, target: C, party: dn("C"), how, consult }
}

#[track_caller]
fn tells(found: Vec<String>, expected: &[&str]) {
    assert_eq!(found, expected);
}

#[test]
fn row_1_a_call_between_dns() {
    let mut tape = Tape::new();
    tells(
        tape.start(C1, A, dn("A"), dn("B")),
        &["A Dialing C1 Internal ThisDNRole=Origination OtherDN=B OtherDNRole=Destination CallState=OK"],
    );
    tells(
        tape.ring(C1, B, dn("B")),
        &["B Ringing C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination CallState=OK"],
    );
    tells(
        tape.tell(C1, What::Answered { leg: B, party: dn("B") }),
        &[
            "A Established C1 Internal ThisDNRole=Origination OtherDN=B OtherDNRole=Destination CallState=OK",
            "B Established C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination CallState=OK",
        ],
    );
}

#[test]
fn row_1_a_trunk_gets_nothing_and_is_seen_by_its_number() {
    let mut tape = Tape::new();
    tells(tape.start(C1, A, customer("+4930"), dn("B")), &[]);
    tells(
        tape.ring(C1, B, dn("B")),
        &["B Ringing C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination CallState=OK"],
    );
    tells(
        tape.tell(C1, What::Answered { leg: B, party: dn("B") }),
        &["B Established C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination CallState=OK"],
    );
    let mut tape = Tape::new();
    tells(
        tape.start(C1, A, dn("A"), customer("+4930")),
        &["A Dialing C1 Outbound ThisDNRole=Origination OtherDN=+4930 OtherDNRole=Destination CallState=OK"],
    );
    tells(tape.ring(C1, B, customer("+4930")), &[]);
    tells(
        tape.tell(C1, What::Answered { leg: B, party: customer("+4930") }),
        &["A Established C1 Outbound ThisDNRole=Origination OtherDN=+4930 OtherDNRole=Destination CallState=OK"],
    );
    let mut tape = Tape::new();
    tells(tape.start(C1, A, customer("+4930"), customer("+4940")), &[]);
}

#[test]
fn row_1_who_does_not_say_its_number_is_left_out() {
    let long = "1".repeat(129);
    for nameless in ["", "anonymous", "Anonymous", "unavailable", &long] {
        let mut tape = Tape::new();
        tape.start(C1, A, customer(nameless), dn("B"));
        tells(tape.ring(C1, B, dn("B")), &["B Ringing C1 Inbound ThisDNRole=Destination CallState=OK"]);
    }
}

#[test]
fn row_1_a_phone_that_answers_at_once_has_rung() {
    let mut tape = Tape::new();
    tape.start(C1, A, customer("+4930"), dn("B"));
    tells(
        tape.tell(C1, What::Answered { leg: B, party: dn("B") }),
        &[
            "B Ringing C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination CallState=OK",
            "B Established C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination CallState=OK",
        ],
    );
}

#[test]
fn row_1_two_phones_of_one_dn_ring_once_and_two_dns_ring_each() {
    let mut tape = Tape::new();
    tape.start(C1, A, customer("+4930"), dn("B"));
    assert_eq!(tape.ring(C1, B, dn("B")).len(), 1);
    tells(tape.ring(C1, B2, dn("B")), &[]);
    assert_eq!(tape.ring(C1, C, dn("C")).len(), 1);
    tells(
        tape.tell(C1, What::Answered { leg: B, party: dn("B") }),
        &[
            "C Abandoned C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination CallState=OK",
            "B Established C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination CallState=OK",
        ],
    );
    assert_eq!(tape.release(C1, ReleaseCause::Released, Some(A)).len(), 1);
}

#[test]
fn rows_2_and_3_how_a_call_ends_before_the_answer() {
    const PARTIES: &str = "C1 Internal ThisDNRole=Origination OtherDN=B OtherDNRole=Destination";
    const RINGING: &str = "C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination";
    for (cause, by, expected) in [
        (
            ReleaseCause::Rejected(486),
            None,
            vec!["A DestinationBusy * CallState=Busy Cause=Busy", "A Released * CallState=Busy Cause=Busy", "B reject"],
        ),
        (ReleaseCause::NoAnswer, None, vec!["A Released * CallState=NoAnswer Cause=NoAnswer", "B Abandoned"]),
        (ReleaseCause::Rejected(480), None, vec!["A Released * CallState=NoAnswer Cause=NoAnswer", "B Abandoned"]),
        (ReleaseCause::Rejected(603), None, vec!["A Released * CallState=RemoteRelease Cause=Reject", "B reject"]),
        (ReleaseCause::Rejected(404), None, vec!["A Released * CallState=GeneralError", "B reject"]),
        (ReleaseCause::Rejected(500), None, vec!["A Released * CallState=SystemError", "B reject"]),
        (ReleaseCause::Unreachable, None, vec!["A Released * CallState=GeneralError", "B Abandoned"]),
        (ReleaseCause::Shutdown, None, vec!["A Released * CallState=SystemError", "B Abandoned"]),
        // Row 3.
        (ReleaseCause::Abandoned, Some(A), vec!["B Abandoned", "A Released * CallState=OK"]),
        (ReleaseCause::Released, Some(A), vec!["B Abandoned", "A Released * CallState=OK"]),
        // The called DN's own request.
        (ReleaseCause::Released, Some(B), vec!["A Released * CallState=RemoteRelease Cause=Reject", "B reject"]),
    ] {
        let expected: Vec<String> = expected
            .into_iter()
            .map(|line| match line {
                "B reject" => format!("B Released {RINGING} CallState=OK Cause=Reject"),
                "B Abandoned" => format!("B Abandoned {RINGING} CallState=OK"),
                line => line.replace('*', PARTIES),
            })
            .collect();
        let mut tape = Tape::new();
        tape.start(C1, A, dn("A"), dn("B"));
        tape.ring(C1, B, dn("B"));
        assert_eq!(tape.release(C1, cause, by), expected, "{cause:?}");
        // Who was never told that it rings is not told that it does not.
        let mut tape = Tape::new();
        tape.start(C1, A, dn("A"), dn("B"));
        let quiet: Vec<String> = expected.iter().filter(|line| line.starts_with('A')).cloned().collect();
        if by != Some(B) {
            assert_eq!(tape.release(C1, cause, by), quiet, "{cause:?}, not ringing");
            assert_eq!(tape.view.calls(), 0);
        }
    }
}

#[test]
fn row_4_only_the_holder_is_told() {
    let mut tape = Tape::new().by("B", "r1");
    tape.talk(C1, (A, dn("A")), (B, dn("B")));
    tells(
        tape.tell(C1, What::Held { leg: B }),
        &["B Held C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination CallState=OK ReferenceID=r1"],
    );
    tells(
        tape.tell(C1, What::Retrieved { leg: B }),
        &[
            "B Retrieved C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination CallState=OK ReferenceID=r1",
        ],
    );
    tells(
        tape.tell(C1, What::Held { leg: A }),
        &["A Held C1 Internal ThisDNRole=Origination OtherDN=B OtherDNRole=Destination CallState=OK"],
    );
    let mut tape = Tape::new();
    tape.talk(C1, (A, customer("+4930")), (B, dn("B")));
    tells(tape.tell(C1, What::Held { leg: A }), &[]);
}

#[test]
fn row_4_who_holds_by_its_phone_and_by_a_request_is_told_so_once() {
    let mut tape = Tape::new();
    tape.talk(C1, (A, dn("A")), (B, dn("B")));
    let mut told = |what| tape.tell(C1, what).len();
    assert_eq!(told(What::Retrieved { leg: B }), 0);
    assert_eq!([told(What::Held { leg: B }), told(What::Held { leg: B })], [1, 0]);
    assert_eq!([told(What::Retrieved { leg: B }), told(What::Retrieved { leg: B })], [1, 0]);
}

#[test]
fn row_5_a_consultation_has_its_own_conn_id_and_names_the_call_before() {
    // By one dialog and by a second one alike.
    for leg in [B, B2] {
        let mut tape = Tape::new().by("B", "r2");
        tape.talk(C1, (A, customer("+4930")), (B, dn("B")));
        tells(
            tape.tell(C1, What::Held { leg: B }),
            &[
                "B Held C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination CallState=OK ReferenceID=r2",
            ],
        );
        tells(
            tape.start_consult(C2, leg, dn("B"), dn("C"), Some(C1)),
            &["B Dialing C2 Consult ThisDNRole=Origination OtherDN=C OtherDNRole=Destination PreviousConnID=C1 \
               CallState=OK ReferenceID=r2"],
        );
        tape.asked = None;
        tells(
            tape.ring(C2, C, dn("C")),
            &["C Ringing C2 Consult ThisDNRole=Destination OtherDN=B OtherDNRole=Origination CallState=OK"],
        );
        tells(
            tape.tell(C2, What::Answered { leg: C, party: dn("C") }),
            &[
                "B Established C2 Consult ThisDNRole=Origination OtherDN=C OtherDNRole=Destination CallState=OK",
                "C Established C2 Consult ThisDNRole=Destination OtherDN=B OtherDNRole=Origination CallState=OK",
            ],
        );
    }
}

#[test]
fn row_6_the_main_call_keeps_its_conn_id_and_the_target_comes_from_the_consultation() {
    let mut tape = Tape::consult(dn("A"), B, true).by("B", "r3");
    tells(
        tape.tell(C1, transferred(Transfer::Consulted, Some(C2))),
        &[
            "B Released C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=C \
             ThirdPartyDNRole=Destination CallState=Transferred ReferenceID=r3",
            "B Released C2 Consult ThisDNRole=Origination OtherDN=C OtherDNRole=Destination CallState=Transferred \
             ReferenceID=r3",
            "A PartyChanged C1 Internal ThisDNRole=Origination OtherDN=C OtherDNRole=Destination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C1 CallState=Transferred",
            "C PartyChanged C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C2 CallState=Transferred",
        ],
    );
    assert_eq!(tape.view.calls(), 1, "the consult call is over");
    tells(
        tape.release(C1, ReleaseCause::Released, Some(A)),
        &[
            "A Released C1 Internal ThisDNRole=Origination OtherDN=C OtherDNRole=Destination CallState=OK",
            "C Released C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination CallState=OK",
        ],
    );
    assert_eq!(tape.view.calls(), 0);
}

#[test]
fn row_6_of_a_customer_by_a_phone_with_two_dialogs() {
    let mut tape = Tape::consult(customer("+4930"), B2, true);
    tells(
        tape.tell(C1, transferred(Transfer::Consulted, Some(C2))),
        &[
            "B Released C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination ThirdPartyDN=C \
             ThirdPartyDNRole=Destination CallState=Transferred",
            "B Released C2 Consult ThisDNRole=Origination OtherDN=C OtherDNRole=Destination CallState=Transferred",
            "C PartyChanged C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C2 CallState=Transferred",
        ],
    );
}

#[test]
fn row_6_of_an_agent_that_has_called_to_a_customer() {
    // The agent A called the customer, consults C and leaves: C takes the place over.
    let mut tape = Tape::new();
    tape.talk(C1, (A, dn("A")), (B, customer("+4930")));
    tape.tell(C1, What::Held { leg: A });
    tape.start_consult(C2, A, dn("A"), dn("C"), Some(C1));
    tape.ring(C2, C, dn("C"));
    tape.tell(C2, What::Answered { leg: C, party: dn("C") });
    let how = Transfer::Consulted;
    tells(
        tape.tell(C1, What::Transferred { by: A, stays: B, target: C, party: dn("C"), how, consult: Some(C2) }),
        &[
            "A Released C1 Outbound ThisDNRole=Origination OtherDN=+4930 OtherDNRole=Destination ThirdPartyDN=C \
             ThirdPartyDNRole=Destination CallState=Transferred",
            "A Released C2 Consult ThisDNRole=Origination OtherDN=C OtherDNRole=Destination CallState=Transferred",
            "C PartyChanged C1 Outbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Destination ThirdPartyDN=A \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C2 CallState=Transferred",
        ],
    );
}

#[test]
fn row_6_a_target_that_still_rings_is_established_in_the_main_call() {
    let mut tape = Tape::consult(dn("A"), B2, false);
    let found = tape.tell(C1, transferred(Transfer::Consulted, Some(C2)));
    tells(
        found[3..].to_vec(),
        &[
            "C PartyChanged C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C2 CallState=Transferred",
            "C Established C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination CallState=OK",
        ],
    );
}

#[test]
fn row_6_a_transferor_that_hangs_up_while_the_consulted_party_rings_names_it() {
    let mut tape = Tape::consult(dn("A"), B2, false);
    tells(
        tape.tell(C1, What::PartyLeft { leg: B }),
        &["B Released C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=C \
           ThirdPartyDNRole=Destination CallState=Transferred"],
    );
    let found = tape.tell(C1, transferred(Transfer::Consulted, Some(C2)));
    let told: Vec<&str> = found.iter().map(|line| line.split(" Internal").next().unwrap()).collect();
    assert_eq!(told[1..], ["A PartyChanged C1", "C PartyChanged C1", "C Established C1"]);
    assert!(found[0].starts_with("B Released C2 Consult") && found[1].contains("ThirdPartyDN=B"), "{found:?}");
}

fn single_step(caller: Party) -> Tape {
    let mut tape = Tape::new();
    tape.talk(C1, (A, caller), (B, dn("B")));
    tells(tape.tell(C1, What::TransferStarted { by: B, to: dn("C"), how: Transfer::SingleStep }), &[]);
    tape
}

#[test]
fn row_7_a_single_step_transfer() {
    let mut tape = single_step(dn("A"));
    tells(
        tape.ring(C1, C, dn("C")),
        &["C Ringing C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination CallState=Transferred"],
    );
    tape.asks("B", "r4");
    tells(
        tape.tell(C1, transferred(Transfer::SingleStep, None)),
        &[
            "B Released C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=C \
             ThirdPartyDNRole=Destination CallState=Transferred Cause=1stepTransfer ReferenceID=r4",
            "A PartyChanged C1 Internal ThisDNRole=Origination OtherDN=C OtherDNRole=Destination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C1 CallState=Transferred",
            "C Established C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination CallState=OK",
        ],
    );
}

#[test]
fn row_7_of_a_customer_whose_agent_hangs_up_at_once() {
    let mut tape = single_step(customer("+4930"));
    tells(
        tape.tell(C1, What::PartyLeft { leg: B }),
        &["B Released C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination ThirdPartyDN=C \
           ThirdPartyDNRole=Destination CallState=Transferred Cause=1stepTransfer"],
    );
    // It answers without having said that it rings.
    tells(
        tape.tell(C1, transferred(Transfer::SingleStep, None)),
        &[
            "C Ringing C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination CallState=Transferred",
            "C Established C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination CallState=OK",
        ],
    );
    assert_eq!(tape.release(C1, ReleaseCause::Released, Some(C)).len(), 1);
}

#[test]
fn row_7_to_a_customer_says_who_was_called() {
    let mut tape = Tape::new();
    tape.talk(C1, (A, dn("A")), (B, dn("B")));
    let to = customer("+4940");
    tape.tell(C1, What::TransferStarted { by: B, to: to.clone(), how: Transfer::SingleStep });
    tells(tape.ring(C1, C, to.clone()), &[]);
    let how = Transfer::SingleStep;
    tells(
        tape.tell(C1, What::Transferred { by: B, stays: A, target: C, party: to, how, consult: None }),
        &[
            "B Released C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=+4940 \
             ThirdPartyDNRole=Destination CallState=Transferred Cause=1stepTransfer",
            "A PartyChanged C1 Internal ThisDNRole=Origination OtherDN=+4940 OtherDNRole=Destination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C1 CallState=Transferred",
        ],
    );
}

#[test]
fn row_7_a_transfer_that_fails_is_told_to_who_has_asked_and_to_who_rang() {
    let mut tape = single_step(customer("+4930"));
    tape.ring(C1, C, dn("C"));
    tape.asks("B", "r5");
    tells(
        tape.tell(C1, What::TransferFailed { by: B, to: dn("C"), cause: ReleaseCause::Rejected(486) }),
        &[
            "C Released C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination CallState=OK Cause=Reject",
            "B Error C1 Inbound ThisDNRole=Destination OtherDN=C OtherDNRole=Destination CallState=Busy Cause=Busy \
             ReferenceID=r5 Request=single-step-transfer Code=busy \
             Reason=the target was not reached: the call is as before",
        ],
    );
    tape.asked = None;
    tells(
        tape.release(C1, ReleaseCause::Released, Some(A)),
        &["B Released C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination CallState=OK"],
    );
}

#[test]
fn row_7_a_transfer_that_fails_after_the_transferor_has_gone_ends_the_call() {
    let mut tape = single_step(dn("A"));
    tape.tell(C1, What::PartyLeft { leg: B });
    tells(tape.tell(C1, What::TransferFailed { by: B, to: dn("C"), cause: ReleaseCause::NoAnswer }), &[]);
    tells(
        tape.release(C1, ReleaseCause::NoAnswer, None),
        &["A Released C1 Internal ThisDNRole=Origination CallState=NoAnswer Cause=NoAnswer"],
    );
}

#[test]
fn row_8_a_mute_transfer_is_a_consultation_that_nobody_hears() {
    let mut tape = Tape::consult(dn("A"), B, false);
    tells(
        tape.tell(C1, transferred(Transfer::Mute, Some(C2))),
        &[
            "B Released C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=C \
             ThirdPartyDNRole=Destination CallState=Transferred",
            "B Released C2 Consult ThisDNRole=Origination OtherDN=C OtherDNRole=Destination CallState=Transferred",
            "A PartyChanged C1 Internal ThisDNRole=Origination OtherDN=C OtherDNRole=Destination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C1 CallState=Transferred",
            "C PartyChanged C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C2 CallState=Transferred",
            "C Established C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination CallState=OK",
        ],
    );
}

#[test]
fn row_9_alternating_holds_the_active_and_retrieves_the_held_call() {
    let mut tape = Tape::consult(customer("+4930"), B, true);
    tells(
        tape.tell(C2, What::Held { leg: B }),
        &["B Held C2 Consult ThisDNRole=Origination OtherDN=C OtherDNRole=Destination CallState=OK"],
    );
    tells(
        tape.tell(C1, What::Retrieved { leg: B }),
        &["B Retrieved C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination CallState=OK"],
    );
}

#[test]
fn row_10_dropping_the_consultation() {
    let mut tape = Tape::consult(customer("+4930"), B, true).by("B", "r6");
    tells(
        tape.release(C2, ReleaseCause::Released, Some(B)),
        &[
            "B Released C2 Consult ThisDNRole=Origination OtherDN=C OtherDNRole=Destination CallState=OK ReferenceID=r6",
            "C Released C2 Consult ThisDNRole=Destination OtherDN=B OtherDNRole=Origination CallState=OK",
        ],
    );
    tells(
        tape.tell(C1, What::Retrieved { leg: B }),
        &[
            "B Retrieved C1 Inbound ThisDNRole=Destination OtherDN=+4930 OtherDNRole=Origination CallState=OK ReferenceID=r6",
        ],
    );
    assert_eq!(tape.view.calls(), 1);
}

#[test]
fn row_13_both_are_told_whoever_hangs_up() {
    for by in [Some(A), Some(B), None] {
        let mut tape = Tape::new();
        tape.talk(C1, (A, dn("A")), (B, dn("B")));
        tells(
            tape.release(C1, ReleaseCause::Released, by),
            &[
                "A Released C1 Internal ThisDNRole=Origination OtherDN=B OtherDNRole=Destination CallState=OK",
                "B Released C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination CallState=OK",
            ],
        );
        assert_eq!(tape.view.calls(), 0);
    }
    for (cause, state) in [
        (ReleaseCause::Lost, "Dropped"),
        (ReleaseCause::Shutdown, "SystemError"),
        (ReleaseCause::Media, "GeneralError"),
    ] {
        let mut tape = Tape::new();
        tape.talk(C1, (A, dn("A")), (B, customer("+4930")));
        tells(
            tape.release(C1, cause, None),
            &[&format!(
                "A Released C1 Outbound ThisDNRole=Origination OtherDN=+4930 OtherDNRole=Destination CallState={state}"
            )],
        );
    }
}

#[test]
fn row_17_the_call_rings_somewhere_else() {
    let mut tape = Tape::new();
    tape.start(C1, A, dn("A"), dn("B"));
    tape.ring(C1, B, dn("B"));
    tape.asks("B", "r7");
    tells(
        tape.tell(C1, What::Redirected { from: dn("B"), to: dn("C") }),
        &["B Released C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=C \
           ThirdPartyDNRole=Destination CallState=Redirected Cause=Redirect ReferenceID=r7"],
    );
    tape.asked = None;
    tells(
        tape.ring(C1, C, dn("C")),
        &["C Ringing C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination CallState=Redirected"],
    );
    tells(
        tape.tell(C1, What::Answered { leg: C, party: dn("C") }),
        &[
            "A Established C1 Internal ThisDNRole=Origination OtherDN=C OtherDNRole=Destination CallState=OK",
            "C Established C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination CallState=OK",
        ],
    );
}

#[test]
fn row_17_who_never_rang_does_not_leave() {
    let mut tape = Tape::new();
    tape.start(C1, A, customer("+4930"), dn("B"));
    tells(tape.tell(C1, What::Redirected { from: dn("B"), to: customer("+4940") }), &[]);
    tells(tape.ring(C1, C, customer("+4940")), &[]);
}

#[test]
fn another_device_of_a_dn_is_the_same_party_and_another_dn_takes_the_place_over() {
    let mut tape = Tape::new();
    tape.talk(C1, (A, dn("A")), (B, dn("B")));
    tells(tape.tell(C1, What::Replaced { leg: B, by: B2, party: dn("B") }), &[]);
    tells(
        tape.tell(C1, What::Replaced { leg: B2, by: C, party: dn("C") }),
        &[
            "B Released C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination ThirdPartyDN=C \
             ThirdPartyDNRole=Destination CallState=Transferred",
            "A PartyChanged C1 Internal ThisDNRole=Origination OtherDN=C OtherDNRole=Destination ThirdPartyDN=B \
             ThirdPartyDNRole=TransferredBy PreviousConnID=C1 CallState=Transferred",
            "C Established C1 Internal ThisDNRole=Destination OtherDN=A OtherDNRole=Origination CallState=OK",
        ],
    );
}

const R1: RecordingId = RecordingId(uuid::Uuid::from_u128(1));

fn recording_started(owner: LegId, side: Side) -> What {
    What::RecordingStarted { id: R1, owner, side, trigger: "request", required: false }
}

#[test]
fn row_22_a_recording_is_told_to_who_asked_and_to_its_owner() {
    let id = format!("RecordingID={}", R1);
    let mut tape = Tape::new();
    tape.talk(C1, (A, dn("A")), (B, dn("B")));
    tape.asks("B", "r8");
    // B asks for A's recording.
    tells(
        tape.tell(C1, recording_started(A, Side::Origination)),
        &[
            &format!("B PrivateInfo C1 Internal ThisDNRole=Destination ReferenceID=r8 {id} RecordingState=Recording"),
            &format!("A PrivateInfo C1 Internal ThisDNRole=Origination {id} RecordingState=Recording"),
        ],
    );
    tape.asks("S", "r9");
    // A supervisor that is not in the call pauses it.
    tells(
        tape.tell(C1, What::RecordingPaused { id: R1 }),
        &[
            &format!("B PrivateInfo C1 Internal ThisDNRole=Destination {id} RecordingState=Paused"),
            &format!("S PrivateInfo C1 Internal ReferenceID=r9 {id} RecordingState=Paused"),
            &format!("A PrivateInfo C1 Internal ThisDNRole=Origination {id} RecordingState=Paused"),
        ],
    );
    tape.asked = None;
    let both = |state: &str| {
        [
            format!("B PrivateInfo C1 Internal ThisDNRole=Destination {id} RecordingState={state}"),
            format!("A PrivateInfo C1 Internal ThisDNRole=Origination {id} RecordingState={state}"),
        ]
    };
    assert_eq!(tape.tell(C1, What::RecordingResumed { id: R1 }), both("Recording"));
    assert_eq!(tape.tell(C1, What::RecordingStopped { id: R1, cause: StopCause::Released }), both("Stopped"));
    tells(tape.tell(C1, What::RecordingPaused { id: R1 }), &[]);
}

#[test]
fn row_22_a_recording_that_begins_with_the_answer_is_told_to_its_owner_once() {
    let mut tape = Tape::new();
    tape.start(C1, A, customer("+4930"), dn("B"));
    // The owner's leg is not known before the answer: its side says who it is.
    tells(
        tape.tell(C1, recording_started(B, Side::Termination)),
        &[&format!("B PrivateInfo C1 Inbound ThisDNRole=Destination RecordingID={R1} RecordingState=Recording")],
    );
    let mut tape = Tape::new();
    tape.start(C1, A, customer("+4930"), dn("B"));
    tells(tape.tell(C1, recording_started(A, Side::Origination)), &[]);
}

#[test]
fn row_22_a_recording_that_breaks_off_has_failed_and_not_stopped() {
    let mut tape = Tape::new();
    tape.talk(C1, (A, customer("+4930")), (B, dn("B")));
    tape.tell(C1, recording_started(B, Side::Termination));
    tells(tape.tell(C1, What::RecordingStopped { id: R1, cause: StopCause::DiskFull }), &[]);
    tells(
        tape.tell(C1, What::RecordingFailed { id: Some(R1), cause: "disk-full", required: false }),
        &[&format!(
            "B PrivateInfo C1 Inbound ThisDNRole=Destination RecordingID={R1} RecordingState=Failed Code=disk-full"
        )],
    );
    // One that never began has no owner: every DN of the call is told.
    tells(
        tape.tell(C1, What::RecordingFailed { id: None, cause: "codec", required: false }),
        &["B PrivateInfo C1 Inbound ThisDNRole=Destination RecordingState=Failed Code=codec"],
    );
}

#[test]
fn row_22_a_recording_that_outlives_its_owner_is_told_to_the_next() {
    let mut tape = Tape::new();
    tape.talk(C1, (A, dn("A")), (B, dn("B")));
    tape.tell(C1, recording_started(B, Side::Termination));
    tells(
        tape.tell(C1, What::OwnerChanged { id: R1, owner: A }),
        &[&format!("A PrivateInfo C1 Internal ThisDNRole=Origination RecordingID={R1} RecordingState=Recording")],
    );
    assert_eq!(tape.tell(C1, What::RecordingPaused { id: R1 }).len(), 1);
}

#[test]
fn a_preference_is_told_to_the_dn_whose_phone_has_it() {
    let mut tape = Tape::new();
    tape.talk(C1, (A, customer("+4930")), (B, dn("B")));
    tells(
        tape.tell(C1, What::Preference { leg: B, wish: "off", obeyed: false }),
        &["B PrivateInfo C1 Inbound ThisDNRole=Destination RecordPreference=off"],
    );
    tells(tape.tell(C1, What::Preference { leg: A, wish: "off", obeyed: false }), &[]);
}

#[test]
fn a_refused_request_is_an_error_to_who_has_asked() {
    let request = |this_dn: &str| Request {
        conn_id: C1,
        this_dn: this_dn.into(),
        reference: Some("r10".into()),
        ask: Ask::HoldCall,
    };
    let denied = |code| Denied { code, detail: "it is held already".into(), state: "held".into() };
    let event = Telephony::error(&request("B"), &denied(Code::WrongState)).unwrap();
    assert_eq!(
        line(&event),
        "B Error C1 ReferenceID=r10 Request=hold-call Code=wrong-state Reason=it is held already State=held"
    );
    let event = Telephony::error(&request("B"), &denied(Code::UnknownCall)).unwrap();
    assert!(line(&event).contains("Code=unknown-call"), "{}", line(&event));
    assert_eq!(Telephony::error(&request("nobody"), &denied(Code::UnknownDn)), None, "it is no DN");
    let ask = DnAsk::CancelMonitoring { agent: "B".into() };
    let request = DnRequest { this_dn: "S".into(), reference: Some("r11".into()), ask };
    let event = Telephony::dn_error(&request, &denied(Code::WrongState)).unwrap();
    assert_eq!(
        line(&event),
        "S Error ReferenceID=r11 Request=cancel-monitoring Code=wrong-state Reason=it is held already State=held"
    );
    assert_eq!(Telephony::dn_error(&request, &denied(Code::UnknownDn)), None);
}

#[test]
fn an_event_names_its_call_for_as_long_as_it_lives() {
    let mut tape = Tape::new();
    let wall = "2026-11-20T10:00:00Z".parse().unwrap();
    let what = What::CallStarted {
        call_uuid: CallUuid(uuid(7)),
        leg: A,
        caller: dn("A"),
        called: dn("B"),
        consult_of: None,
        origin: None,
    };
    let fact = Fact { at: stickytape::clock::now(), wall, conn_id: Some(C1), cause: None, what };
    let events = tape.view.project(&fact);
    assert_eq!(
        serde_json::to_string(&events[0]).unwrap(),
        r#"{"event":"EventDialing","ConnID":"0000000000000001","CallUUID":"00000000-0000-0000-0000-000000000007","CallType":"Internal","ThisDN":"A","ThisDNRole":"Origination","OtherDN":"B","OtherDNRole":"Destination","CallState":"OK"}"#
    );
    assert!(tape.view.project(&Fact { conn_id: None, ..fact }).is_empty());
}

#[test]
fn nothing_is_told_of_calls_that_are_over_or_beyond_the_limit() {
    let mut tape = Tape { view: Telephony::new(1), asked: None };
    tape.talk(C1, (A, dn("A")), (B, dn("B")));
    tells(tape.start(C2, C, dn("C"), dn("B")), &[]);
    tells(tape.ring(C2, B2, dn("B")), &[]);
    assert_eq!(tape.release(C1, ReleaseCause::Released, None).len(), 2);
    tells(tape.tell(C1, What::Held { leg: A }), &[]);
    tells(tape.tell(C1, What::RecordingPublished { id: R1 }), &[]);
    assert_eq!(tape.start(C2, C, dn("C"), dn("B")).len(), 1, "there is room again");
}
