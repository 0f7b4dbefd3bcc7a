//! What is shown: acts one after the other, the scenes of an act side by side, each a call with its cast.

use std::time::Duration;

use crate::record::mark::{Side, StopCause};
use crate::testing::phone::{Action, HoldForm, Incoming, Leave, Refer, Signal, Step};
use crate::testing::speech::{self, Speaker};
use crate::testing::tones::Voice;

/// The places in a cast: who calls, who answers, and who supervises where somebody does.
pub const CUSTOMER: usize = 0;
/// See [`CUSTOMER`].
pub const AGENT: usize = 1;
/// See [`CUSTOMER`].
pub const SUPERVISOR: usize = 2;

/// A third voice, between [`Speaker::LOW`] and [`Speaker::HIGH`].
const MIDDLE: Speaker = Speaker { pitch: 145.0, formants: 1.03 };

/// One part of the demo.
pub struct Act {
    /// What it shows.
    pub title: &'static str,
    /// Calls that are shown side by side.
    pub scenes: Vec<Scene>,
}

/// One call and the recording that it must leave.
pub struct Scene {
    /// The caller first.
    pub cast: Vec<Role>,
    /// The side whose leg owns the recording.
    pub owner: Side,
    /// Why the recording ends.
    pub stop: StopCause,
    /// The third one supervises the second one.
    pub supervision: Option<Supervision>,
    /// What the table's reader should know of the recording.
    pub moral: &'static str,
}

/// A supervisor that is called into the call, coaches and is then connected. Its desktop asks for both over HTTP.
#[derive(Debug, Clone, Copy)]
pub struct Supervision {
    /// How long it coaches.
    pub coaches: Duration,
}

/// Somebody with a phone.
pub struct Role {
    /// As the story calls it.
    pub name: &'static str,
    /// A number of a customer (with `+`) or an extension.
    pub number: &'static str,
    /// What it does.
    pub script: Vec<Step>,
    /// What it does when it is called.
    pub incoming: Incoming,
}

impl Role {
    /// True when its calls come in by the trunk.
    pub fn is_outside(&self) -> bool {
        self.number.starts_with('+')
    }

    /// What it says, in this order.
    pub fn phrases(&self) -> impl Iterator<Item = &[i16]> {
        self.script.iter().filter_map(|step| match &step.action {
            Action::Speak(Voice::Samples(samples)) => Some(&samples[..]),
            _ => None,
        })
    }
}

/// The whole demo. Numbers that begin with +4930200 lead to the extensions; whose side is recorded stands in the routes.
pub fn acts() -> Vec<Act> {
    vec![
        Act {
            title: "a call with hold and two transfers side by side; one transferred call is the caller's, one the agent's",
            scenes: vec![
                hold(),
                transfer(["Cleo", "Dan", "Eva"], ["+4930123457", "+49302002", "2002", "2003"], Side::Origination),
                transfer(["Finn", "Gina", "Hugo"], ["+4930123458", "+49302004", "2004", "2005"], Side::Termination),
            ],
        },
        Act {
            title: "a conference: a customer, an agent, a supervisor who coaches and then connects",
            scenes: vec![conference()],
        },
    ]
}

fn phrase(speaker: Speaker, text: &str) -> Action {
    Action::Speak(Voice::Samples(speech::say(speaker, text)))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Ann calls, speaks, listens, is held, and hangs up after the farewell. Bob answers, replies, asks to hold the line, holds,
/// and takes the call back.
fn hold() -> Scene {
    let ann = vec![
        Step::after(ms(300), Action::call("+49302001")),
        Step::on(Signal::Established, ms(400), phrase(Speaker::HIGH, speech::HELLO)),
        Step::on(Signal::Reoffered, ms(0), Action::Speak(Voice::Silence)),
        Step::on(Signal::Reoffered, ms(2_400), Action::HangUp),
    ];
    let bob = vec![
        Step::on(Signal::Established, ms(2_500), phrase(Speaker::LOW, speech::HEAR_YOU)),
        Step::after(ms(2_400), phrase(Speaker::LOW, speech::HOLD)),
        Step::after(ms(1_900), Action::Hold(HoldForm::SendOnly)),
        Step::on(Signal::Agreed, ms(1_200), Action::Retrieve),
        Step::on(Signal::Agreed, ms(300), phrase(Speaker::LOW, speech::BYE)),
    ];
    let answers = Incoming::Answer { ring: ms(50), answer: ms(600) };
    Scene {
        cast: vec![
            Role { name: "Ann", number: "+4930123456", script: ann, incoming: Incoming::Manual },
            Role { name: "Bob", number: "2001", script: bob, incoming: answers },
        ],
        owner: Side::Origination,
        stop: StopCause::Released,
        supervision: None,
        moral: "silent while Bob holds",
    }
}

/// The first one calls the second one, who transfers the call to the third one. The first two go on talking while the
/// third one's phone rings: nobody hears that, and it is in no recording.
fn transfer(names: [&'static str; 3], numbers: [&'static str; 4], owner: Side) -> Scene {
    let [caller, dialled, agent, target] = numbers;
    let calls = vec![
        Step::after(ms(300), Action::call(dialled)),
        Step::on(Signal::Established, ms(200), phrase(Speaker::HIGH, speech::HELLO)),
        Step::after(ms(4_300), phrase(Speaker::HIGH, speech::HELLO)),
    ];
    let transfers = vec![
        Step::on(Signal::Established, ms(2_600), phrase(Speaker::LOW, speech::HOLD)),
        Step::after(ms(1_800), Action::Refer(Refer { leave: Leave::WhenDone, ..Refer::to(target) })),
        Step::after(ms(100), phrase(Speaker::LOW, speech::BYE)),
    ];
    let takes_over = vec![
        Step::on(Signal::Established, ms(200), phrase(MIDDLE, speech::HEAR_YOU)),
        Step::after(ms(2_500), Action::HangUp),
    ];
    let answers = |after| Incoming::Answer { ring: ms(50), answer: ms(after) };
    let (stop, moral) = match owner {
        Side::Termination => (StopCause::OwnerLeft, "it was the agent's: it ended when the agent had left"),
        _ => (StopCause::Released, "it is the caller's: it went on in the same file"),
    };
    Scene {
        cast: vec![
            Role { name: names[0], number: caller, script: calls, incoming: Incoming::Manual },
            Role { name: names[1], number: agent, script: transfers, incoming: answers(600) },
            Role { name: names[2], number: target, script: takes_over, incoming: answers(1_200) },
        ],
        owner,
        stop,
        supervision: None,
        moral,
    }
}

/// Ivy calls Jack, whose next call Kim wants to supervise. Kim's phone rings at Jack's answer. Ivy speaks, Kim coaches, Jack
/// speaks, and Kim, connected meanwhile, speaks to both.
fn conference() -> Scene {
    let ivy = vec![
        Step::after(ms(300), Action::call("+49302006")),
        Step::on(Signal::Established, ms(700), phrase(Speaker::HIGH, speech::HELLO)),
        Step::after(ms(6_900), Action::HangUp),
    ];
    let jack = vec![Step::on(Signal::Established, ms(3_900), phrase(Speaker::LOW, speech::HEAR_YOU))];
    let kim = vec![
        Step::on(Signal::Established, ms(2_400), phrase(MIDDLE, speech::SAY_YES)),
        Step::after(ms(2_900), phrase(MIDDLE, speech::SEND_IT)),
    ];
    let answers = |after| Incoming::Answer { ring: ms(50), answer: ms(after) };
    Scene {
        cast: vec![
            Role { name: "Ivy", number: "+4930123459", script: ivy, incoming: Incoming::Manual },
            Role { name: "Jack", number: "2006", script: jack, incoming: answers(300) },
            Role { name: "Kim", number: "2007", script: kim, incoming: answers(300) },
        ],
        owner: Side::Origination,
        stop: StopCause::Released,
        supervision: Some(Supervision { coaches: ms(4_300) }),
        moral: "Kim has a file of her own; what she coaches only Jack hears",
    }
}
