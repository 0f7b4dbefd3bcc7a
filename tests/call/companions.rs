//! Supervisors of an agent that consults over a second dialog of its own phone (`monitor-consult-calls`), in virtual time:
//! where they are, who hears them, what their recordings and requests come to (spec/recording.md §4.4 and §4.6).

use crate::call_world::mixed::*;
use crate::call_world::*;
use stickytape::bridge::command::Notice;
use stickytape::bridge::command::mix::{Hearing, Mode};
use stickytape::call::Input;
use stickytape::call::fact::What;
use stickytape::call::options::{DefaultOwner, DnRole, MonitorConsult, Options};
use stickytape::call::request::{
    Accepted, Ask, Code, Denied, DnAsk, DnRequest, MonitorMode, MonitorNextCall, MonitorScope, OwnerWish, Request,
    Ticket,
};
use stickytape::codec::Codec;
use stickytape::id::{ConnId, LegId, WorkerId};
use stickytape::record::mark::{Change, Conversation, Role, StopCause};
use stickytape::sip::name::Name;
use stickytape::testing::phone::{self, Action, HoldForm, Incoming, Refer};

/// The customer, leg 1.
const D1: usize = 0;
/// The agent, leg 2; its second line is leg 4.
const D2: usize = 1;
/// Who is consulted, leg 5.
const D3: usize = 2;
/// The supervisor 2005, leg 3.
const S: usize = 4;

/// D1 talks to D2, whom S supervises in this mode; D2's supervisors go along.
fn supervised(change: impl FnOnce(&mut Options), mode: MonitorMode, scope: MonitorScope) -> World {
    supervised_with(change, mode, scope, |_, _| {})
}

/// As [`supervised`]; phone 200n is as `own` says.
fn supervised_with(
    change: impl FnOnce(&mut Options),
    mode: MonitorMode,
    scope: MonitorScope,
    own: impl Fn(u8, &mut phone::Options),
) -> World {
    let mut options = options();
    options.plan.dns[1].intrusion = true;
    options.plan.dns[1].monitor_consult = MonitorConsult::Orig;
    options.plan.dns[4].role = DnRole::Supervisor;
    change(&mut options);
    let mut world = World::new(options);
    for n in 1..=5 {
        world.phone(n, |o| {
            (o.lines, o.call_waiting, o.yields, o.seed) = (3, true, true, u64::from(n));
            own(n, o);
        });
    }
    world.act(D1, Action::call("2002"));
    world.run(ms(1_000));
    let agent = "2002".to_owned();
    let wish = MonitorNextCall { agent, mode: Some(mode), scope: Some(scope), all: true, intrusion: true };
    let request = DnRequest { this_dn: "2005".into(), reference: None, ask: DnAsk::MonitorNextCall(wish) };
    world.tell(Input::DnRequest(Ticket(1), Box::new(request)));
    world.run(ms(500));
    assert!(world.phones[S].is_talking());
    world
}

/// D2 holds, and talks to D3 on its second line.
fn consult(world: &mut World) {
    world.act(D2, Action::Hold(HoldForm::SendOnly));
    world.run(ms(300));
    world.act(D2, Action::on(1, Action::call("2003")));
    world.run(ms(1_500));
    assert!(world.phones[D3].is_talking());
}

fn consulting(change: impl FnOnce(&mut Options), mode: MonitorMode) -> World {
    let mut world = supervised(change, mode, MonitorScope::Agent);
    consult(&mut world);
    world
}

fn both(options: &mut Options) {
    options.recording.default = DefaultOwner::Both;
    options.plan.dns[1].record_consult = true;
}

fn conn_ids(world: &World) -> Vec<ConnId> {
    world.proxy.calls.snapshot().iter().map(|call| call.conn_id).collect()
}

fn hang_up(mut world: World) {
    for phone in 0..world.phones.len() {
        (0..3).for_each(|line| world.act(phone, Action::on(line, Action::HangUp)));
    }
    world.settle();
}

/// Asks, and gives a phone that holds the time to give its audio.
fn asked(world: &mut World, conn_id: ConnId, dn: &str, ask: Ask) -> Result<Accepted, Denied> {
    let ticket = Ticket(world.proxy.answers.len() as u64 + 1);
    let request = Request { conn_id, this_dn: dn.to_owned(), reference: None, ask };
    world.tell(Input::Request(ticket, Box::new(request)));
    world.run(ms(500));
    let answer = world.proxy.answers.iter().find(|(answered, _)| *answered == ticket);
    answer.expect("answered").1.clone()
}

/// The direction of the last re-INVITE to a phone.
fn last_offer(world: &World, phone: usize) -> Option<String> {
    let offer = world.phones[phone].requests().iter().rfind(|r| r.method.as_str() == "INVITE")?;
    let text = String::from_utf8_lossy(&offer.body).into_owned();
    let directions = ["sendrecv", "sendonly", "recvonly", "inactive"];
    directions.into_iter().find(|d| text.contains(&format!("a={d}"))).map(ToOwned::to_owned)
}

/// Members in the order of their legs.
fn sorted(world: &World, session: usize) -> String {
    let text = conversation(world, session);
    let mut members: Vec<&str> = text.split(' ').collect();
    members.sort_unstable();
    members.join(" ")
}

/// What the recorder knows of a session.
fn told(world: &World, session: usize) -> Conversation {
    let start = &world.proxy.starts()[session].1;
    let changes = world.proxy.marks.iter().rev().filter_map(|(_, mark)| match &mark.change {
        Change::Conversation { id, conversation } if *id == start.id => Some(conversation.clone()),
        _ => None,
    });
    changes.into_iter().next().unwrap_or_else(|| start.conversation.clone())
}

#[test]
fn a_supervisor_is_with_its_agent_when_the_agent_s_dn_says_so() {
    use MonitorConsult::{All, Dest, None, Orig};
    for (follows, comes) in [(None, false), (Dest, false), (Orig, true), (All, true)] {
        let change = |o: &mut Options| {
            both(o);
            o.plan.dns[1].monitor_consult = follows;
        };
        let mut world = consulting(change, MonitorMode::Connect);
        let (customer, agent) = if comes { ("1c 2a-held", "2a 3s 5x") } else { ("1c 2a-held 3s", "2a 5x") };
        assert_eq!((sorted(&world, 0), sorted(&world, 1)), (customer.into(), agent.into()), "{follows:?}");
        assert_eq!(mixed(&world).0, if comes { vec![3, 4, 5] } else { vec![3] });
        assert_eq!(open_rooms(&world), 1);
        assert_eq!(last_offer(&world, D1), comes.then_some("sendonly".to_owned()), "relayed, it is held by its phone");
        if comes {
            assert_eq!(hearing(&world, 3), Hearing::supervisor(Mode::Connect, LegId(4)));
        }
        world.act(D2, Action::on(1, Action::HangUp));
        world.run(ms(300));
        assert_eq!(mixed(&world).0, [3], "the customer is held still");
        world.act(D2, Action::on(0, Action::Retrieve));
        world.run(ms(300));
        assert_eq!(mixed(&world).0, [1, 2, 3]);
        assert_eq!(hearing(&world, 3), Hearing::supervisor(Mode::Connect, LegId(2)));
        assert_eq!((conversation(&world, 0), conversation(&world, 1)), ("1c 2a 3s".into(), "1c 2a 3s".into()));
        assert_eq!(
            (open_rooms(&world), last_offer(&world, D1), invites(&world, S)),
            (1, comes.then_some("sendrecv".to_owned()), 1),
            "who was told of the hold is told of its end"
        );
        hang_up(world);
    }
}

#[test]
fn while_the_third_party_rings_the_supervisor_is_with_the_held_call() {
    let own = |n, o: &mut phone::Options| {
        if n == 3 {
            o.incoming = Incoming::Manual;
        }
    };
    let mut world = supervised_with(|_| {}, MonitorMode::Connect, MonitorScope::Agent, own);
    world.act(D2, Action::Hold(HoldForm::SendOnly));
    world.run(ms(300));
    world.act(D2, Action::on(1, Action::call("2003")));
    world.run(ms(500));
    assert_eq!(mixed(&world).0, [3]);
    world.act(D3, Action::Answer);
    world.run(ms(500));
    assert_eq!(mixed(&world).0, [3, 4, 5]);
    hang_up(world);
}

#[test]
fn whoever_ends_the_consultation_the_supervisor_goes_back_to_the_held_call() {
    for who in ["consulted", "agent", "request"] {
        let mut world = consulting(both, MonitorMode::Coach);
        let calls = conn_ids(&world);
        match who {
            "consulted" => world.act(D3, Action::HangUp),
            "agent" => world.act(D2, Action::on(1, Action::HangUp)),
            _ => {
                let accepted = asked(&mut world, calls[1], "2002", Ask::ReconnectCall { other: None });
                assert_eq!(accepted.map(|a| a.conn_id), Ok(calls[0]));
            }
        }
        world.run(ms(500));
        assert!(world.phones[S].is_talking() && world.phones[D3].is_idle() && world.phones[D1].is_talking());
        assert_eq!(conn_ids(&world), calls[..1]);
        assert_eq!(hearing(&world, 3), Hearing::supervisor(Mode::Coach, LegId(2)), "{who}");
        assert_eq!(world.proxy.story().iter().filter(|fact| fact.starts_with("observer 3")).count(), 1, "joined once");
        assert!(causes(&world).is_empty());
        world.act(D2, Action::on(0, Action::Retrieve));
        world.run(ms(300));
        assert_eq!((sorted(&world, 0), sorted(&world, 1)), ("1c 2a 3s".into(), "1c 2a 3s".into()));
        // The second time is as the first one.
        consult(&mut world);
        assert_eq!((sorted(&world, 0), sorted(&world, 1)), ("1c 2a-held".into(), "2a 3s 7x".into()));
        hang_up(world);
    }
}

#[test]
fn the_agent_alternates_and_its_supervisor_with_it() {
    let mut world = consulting(both, MonitorMode::Connect);
    let calls = conn_ids(&world);
    for _ in 0..2 {
        asked(&mut world, calls[1], "2002", Ask::AlternateCall { other: None }).expect("accepted");
        world.run(ms(300));
        assert_eq!(
            (mixed(&world).0, sorted(&world, 0), sorted(&world, 1)),
            (vec![1, 2, 3], "1c 2a 3s".into(), "1c 2a 3s".into())
        );
        asked(&mut world, calls[0], "2002", Ask::AlternateCall { other: None }).expect("accepted");
        world.run(ms(300));
        assert_eq!((mixed(&world).0, sorted(&world, 1)), (vec![3, 4, 5], "2a 3s 5x".into()));
        assert!(!sorted(&world, 0).contains("3s"));
    }
    // Both on hold: nobody is consulted, and the supervisor is in the call that was there first.
    world.act(D2, Action::on(1, Action::Hold(HoldForm::SendOnly)));
    world.run(ms(300));
    assert_eq!((mixed(&world).0, sorted(&world, 0)), (vec![2, 3], "1c 2a-held 3s".into()), "coached beside the hold");
    hang_up(world);
}

#[test]
fn when_the_transfer_is_complete_scope_decides_about_the_supervisor() {
    for (scope, by_request) in [
        (MonitorScope::Agent, true),
        (MonitorScope::Agent, false),
        (MonitorScope::Call, true),
        (MonitorScope::Call, false),
    ] {
        let mut world = supervised(both, MonitorMode::Connect, scope);
        consult(&mut world);
        let calls = conn_ids(&world);
        match by_request {
            true => _ = asked(&mut world, calls[1], "2002", Ask::CompleteTransfer { other: None }).expect("accepted"),
            false => world.act(D2, Action::on(0, Action::Refer(Refer::to_line(1)))),
        }
        // A phone that does not hang up after its REFER is hung up.
        world.run(ms(3_500));
        let stays = scope == MonitorScope::Call;
        assert_eq!(world.phones[S].is_talking(), stays, "{scope:?}");
        assert!(world.phones[D1].is_talking() && world.phones[D3].is_talking() && world.phones[D2].is_idle());
        assert_eq!(mixed(&world).0, if stays { vec![1, 3, 5] } else { vec![] });
        assert_eq!(sorted(&world, 0), if stays { "1c 3s 5a" } else { "1c 5a" });
        assert_eq!(causes(&world), [StopCause::OwnerLeft], "the agent's");
        hang_up(world);
    }
}

#[test]
fn when_the_conference_is_complete_the_supervisor_is_in_it() {
    for merges in [false, true] {
        let mut world = consulting(both, MonitorMode::Coach);
        let calls = conn_ids(&world);
        let complete = match merges {
            true => Ask::MergeCalls { other: calls[0] },
            false => Ask::CompleteConference { other: None },
        };
        asked(&mut world, calls[1], "2002", complete).expect("accepted");
        world.run(ms(1_000));
        assert_eq!(mixed(&world).0, [1, 2, 3, 5]);
        assert_eq!(hearing(&world, 3), Hearing::supervisor(Mode::Coach, LegId(2)), "only its agent hears it");
        assert_eq!((sorted(&world, 0), sorted(&world, 1)), ("1c 2a 3s 5a".into(), "1c 2a 3s 5a".into()));
        assert_eq!(open_rooms(&world), 1);
        world.act(D2, Action::HangUp);
        world.run(ms(300));
        assert!(world.phones[S].is_idle(), "its agent has left");
        hang_up(world);
    }
}

#[test]
fn when_the_held_party_hangs_up_the_supervisor_goes_on_in_the_consult_call() {
    let mut world = consulting(both, MonitorMode::Connect);
    let calls = conn_ids(&world);
    world.act(D1, Action::HangUp);
    world.run(ms(500));
    assert_eq!(conn_ids(&world), calls[1..]);
    assert_eq!(mixed(&world).0, [3, 4, 5]);
    assert_eq!(sorted(&world, 1), "2c 3s 5a", "the agent's recording goes on in the consult call");
    let joined = world.proxy.facts.iter().filter(|fact| matches!(fact.what, What::ObserverJoined { .. }));
    assert_eq!(joined.map(|fact| fact.conn_id).collect::<Vec<_>>(), [Some(calls[0]), Some(calls[1])]);
    let parties = |world: &World| world.proxy.calls.snapshot()[0].parties.len();
    assert_eq!(parties(&world), 3);
    // It is a supervisor like another one there, and is not called in a second time.
    ask_in(&mut world, calls[1], "2005", Ask::SetMuteOn { coach: false }).expect("accepted");
    assert_routed(&world, 4, 5);
    ask_in(&mut world, calls[1], "2005", Ask::ReleaseCall).expect("accepted");
    world.run(ms(500));
    assert!(world.phones[S].is_idle() && world.phones[D2].is_talking());
    assert_eq!((parties(&world), sorted(&world, 1)), (2, "2c 5a".into()));
    hang_up(world);
}

#[test]
fn a_supervisor_that_hangs_up_in_the_consult_call_has_left_the_held_one() {
    let own = |o: &mut Options| {
        both(o);
        (o.plan.dns[4].record, o.plan.dns[4].record_consult) = (Some(true), true);
    };
    let mut world = consulting(own, MonitorMode::Connect);
    let calls = conn_ids(&world);
    world.act(S, Action::HangUp);
    world.run(ms(300));
    let left = world.proxy.facts.iter().find(|f| matches!(f.what, What::ObserverLeft { .. })).expect("told");
    assert_eq!(left.conn_id, Some(calls[0]), "told of the call in which it was seen");
    assert_eq!(causes(&world), [StopCause::OwnerLeft]);
    let story = world.proxy.mark_story();
    let at = |what: &str| story.iter().rposition(|line| line == what).unwrap_or_else(|| panic!("no {what}: {story:?}"));
    assert!(at("stop OwnerLeft") < at("ended 3"), "no session names it any more");
    assert_eq!(story.iter().filter(|line| *line == "event supervisor-left").count(), 2, "in the others' metadata");
    assert_eq!(sorted(&world, 1), "2a 5x");
    assert_routed(&world, 4, 5);
    assert_eq!((seats(&world), open_rooms(&world)), (vec![], 0));
    hang_up(world);
}

#[test]
fn a_supervisor_s_own_recording_follows_when_its_dn_says_so_and_is_silent_else() {
    for follows in [true, false] {
        let change = |o: &mut Options| {
            o.recording.default = DefaultOwner::None;
            (o.plan.dns[4].record, o.plan.dns[4].record_consult) = (Some(true), follows);
        };
        let mut world = consulting(change, MonitorMode::Connect);
        let now = told(&world, 0);
        assert_eq!(now.owner, LegId(3));
        match follows {
            true => assert_eq!((sorted(&world, 0), now.consult, now.unbridged), ("2a 3s 5x".into(), true, false)),
            false => {
                assert_eq!((sorted(&world, 0), now.consult, now.unbridged), ("1c 2a-held 3s".into(), false, true));
            }
        }
        world.act(D3, Action::HangUp);
        world.act(D2, Action::on(0, Action::Retrieve));
        world.run(ms(500));
        let now = told(&world, 0);
        assert_eq!((sorted(&world, 0), now.consult, now.unbridged), ("1c 2a 3s".into(), false, false));
        assert!(causes(&world).is_empty(), "one session throughout");
        consult(&mut world);
        // It goes on where its owner does.
        world.act(D1, Action::HangUp);
        world.run(ms(500));
        let now = told(&world, 0);
        assert_eq!(
            (sorted(&world, 0), now.consult, now.unbridged),
            (if follows { "2c 3s 7a" } else { "3s 6c 7a" }.into(), false, false)
        );
        assert!(causes(&world).is_empty());
        world.act(S, Action::HangUp);
        world.run(ms(300));
        assert_eq!(causes(&world), [StopCause::OwnerLeft]);
        hang_up(world);
    }
}

#[test]
fn requests_of_the_supervisor_concern_the_call_in_which_it_was_seen() {
    let change = |o: &mut Options| {
        o.recording.default = DefaultOwner::None;
        o.plan.dns[4].record_consult = true;
    };
    let mut world = consulting(change, MonitorMode::Mute);
    let calls = conn_ids(&world);
    let main = calls[0];
    for (ask, mode, listen) in [
        (Ask::SetMuteOff { coach: false }, Mode::Connect, vec![3, 4, 5]),
        (Ask::SetMuteOn { coach: true }, Mode::Coach, vec![3, 4, 5]),
        (Ask::SetMuteOn { coach: false }, Mode::Mute, vec![3]),
        (Ask::SetMuteOff { coach: false }, Mode::Connect, vec![3, 4, 5]),
    ] {
        assert_eq!(ask_in(&mut world, main, "2005", ask).map(|a| a.conn_id), Ok(main));
        assert_eq!((hearing(&world, 3), mixed(&world).0), (Hearing::supervisor(mode, LegId(4)), listen));
    }
    let modes = world.proxy.facts.iter().filter_map(|fact| match fact.what {
        What::MonitorMode { leg, agent, .. } => Some((fact.conn_id, leg.0, agent.0)),
        _ => None,
    });
    assert_eq!(modes.collect::<Vec<_>>(), vec![(Some(main), 3, 2); 4], "of its agent in that call");
    // It hears nobody for a while, as the agent wishes.
    for deaf in [true, false] {
        let party = Some("2005".to_owned());
        let listen = if deaf { Ask::ListenDisconnect { party } } else { Ask::ListenReconnect { party } };
        assert_eq!(ask_in(&mut world, main, "2002", listen).map(|a| a.conn_id), Ok(main));
        assert_eq!(hearing(&world, 3).deaf, deaf);
    }
    let refused = ask_in(&mut world, main, "2005", Ask::HoldCall).expect_err("refused");
    assert_eq!((refused.code, refused.detail.as_str()), (Code::WrongState, "ThisDN only observes the call"));
    // Recordings: of its own, by itself or by the agent.
    let start = |owner| Ask::RecordStart { owner };
    let id = ask_in(&mut world, main, "2005", start(OwnerWish::Source)).expect("accepted").recording.expect("started");
    assert_eq!(mixed(&world).0, [3, 4, 5], "it is there still");
    assert_eq!((told(&world, 0).owner, sorted(&world, 0)), (LegId(3), "2a 3s 5x".into()));
    let again = ask_in(&mut world, calls[1], "2002", start(OwnerWish::Dn("2005".into()))).expect("accepted");
    assert_eq!((again.recording, again.conn_id), (Some(id), main));
    for (ask, mark) in [
        (Ask::RecordPause { recording: None }, "pause"),
        (Ask::RecordResume { recording: None }, "resume"),
        (Ask::RecordStop { recording: None }, "stop Stopped"),
    ] {
        assert_eq!(ask_in(&mut world, main, "2005", ask).map(|a| a.conn_id), Ok(main));
        assert!(world.proxy.mark_story().iter().any(|line| line == mark), "{mark}");
    }
    assert_eq!(ask_in(&mut world, main, "2005", Ask::ReleaseCall).map(|a| a.conn_id), Ok(main));
    world.run(ms(300));
    assert!(world.phones[S].is_idle());
    hang_up(world);
}

#[test]
fn views_show_the_supervisor_in_the_held_call() {
    let mut world = consulting(|_| {}, MonitorMode::Mute);
    let legs = |world: &World| {
        let calls = world.proxy.calls.snapshot();
        calls.iter().map(|call| call.parties.iter().map(|p| p.leg_id.0).collect()).collect::<Vec<Vec<u64>>>()
    };
    assert_eq!(legs(&world), [vec![1, 2, 3], vec![4, 5]]);
    world.act(D3, Action::HangUp);
    world.run(ms(300));
    assert_eq!(legs(&world), [vec![1, 2, 3]]);
    hang_up(world);
}

#[test]
fn a_consult_call_that_cannot_be_mixed_leaves_the_supervisor_where_it_is() {
    let wide = Codec::new("L16", 48_000, 1);
    let codecs = vec![Codec::pcmu(), wide.clone()];
    let change = |o: &mut Options| o.media.codecs.clone_from(&codecs);
    let own = |n, o: &mut phone::Options| match n {
        2 => o.codecs.clone_from(&codecs),
        3 => o.codecs = vec![wide.clone()],
        _ => {}
    };
    let mut world = supervised_with(change, MonitorMode::Connect, MonitorScope::Agent, own);
    consult(&mut world);
    assert_eq!(mixed(&world).0, [3]);
    assert!(world.proxy.has_fact("warning a supervisor cannot go with its agent into a consult call"));
    world.act(S, Action::Hold(HoldForm::SendOnly));
    world.run(ms(300));
    world.act(S, Action::Retrieve);
    world.run(ms(300));
    let warnings = world.proxy.story().iter().filter(|fact| fact.starts_with("warning")).count();
    assert_eq!(warnings, 1, "told once");
    world.act(D2, Action::on(1, Action::HangUp));
    world.act(D2, Action::on(0, Action::Retrieve));
    world.run(ms(500));
    assert_eq!(mixed(&world).0, [1, 2, 3]);
    hang_up(world);
}

#[test]
fn of_two_consult_calls_the_supervisor_is_in_the_one_in_which_the_agent_talks() {
    let mut world = consulting(both, MonitorMode::Connect);
    world.act(D2, Action::on(1, Action::Hold(HoldForm::SendOnly)));
    world.run(ms(300));
    world.act(D2, Action::on(2, Action::call("2004")));
    world.run(ms(1_500));
    assert_eq!(world.proxy.calls.snapshot().len(), 3);
    assert_eq!((mixed(&world).0, sorted(&world, 1)), (vec![3, 6, 7], "2a 3s 7x".into()));
    world.act(3, Action::HangUp);
    world.run(ms(300));
    assert_eq!(mixed(&world).0, [3], "back in the call that was there first");
    world.act(D2, Action::on(1, Action::Retrieve));
    world.run(ms(300));
    assert_eq!((mixed(&world).0, sorted(&world, 1)), (vec![3, 4, 5], "2a 3s 5x".into()));
    hang_up(world);
}

#[test]
fn a_supervisor_s_open_offer_does_not_get_lost_when_the_consult_call_ends() {
    for busy in [false, true] {
        let mut world = consulting(both, MonitorMode::Connect);
        // Its phone has our offer, and has not answered it yet.
        world.act(S, Action::AskForOffer);
        if busy {
            // In the call to which it goes back an offer is open, too.
            world.act(D2, Action::on(0, Action::Retrieve));
        }
        world.run(ms(3));
        world.act(D3, Action::HangUp);
        world.run(ms(6));
        assert_eq!(world.proxy.calls.snapshot().len(), 1, "the supervisor is back");
        world.run(ms(700));
        assert!(world.phones[S].is_talking() && world.phones[D1].is_talking());
        world.act(D2, Action::on(0, Action::Retrieve));
        world.run(ms(500));
        assert_eq!(mixed(&world).0, [1, 2, 3]);
        world.act(S, Action::Hold(HoldForm::SendOnly));
        world.run(ms(500));
        assert!(hearing(&world, 3).muted, "busy {busy}: its phone is heard");
        let calls = conn_ids(&world);
        assert!(ask_in(&mut world, calls[0], "2002", Ask::RecordPause { recording: None }).is_ok(), "nothing is open");
        hang_up(world);
    }
}

#[test]
fn what_a_supervisor_s_phone_is_asked_is_answered_in_the_call_to_which_it_has_gone_back() {
    let mut world = consulting(both, MonitorMode::Connect);
    let silent = || Input::Media(WorkerId(0), Notice::Inactive { leg: LegId(3) });
    // Nothing has come from it: its phone is asked whether it is there.
    world.run(ms(2));
    world.act(D3, Action::HangUp);
    world.run(ms(2));
    world.tell(silent());
    world.run(ms(500));
    assert!(world.phones[S].is_talking());
    // It is asked again, and this time there is nobody.
    world.act(S, Action::Vanish);
    world.tell(silent());
    world.run(ms(40_000));
    assert!(world.proxy.has_fact("observer 3 left") && world.phones[D1].is_talking());
    hang_up(world);
}

#[test]
fn who_has_left_a_consultation_is_not_called_into_what_becomes_of_it() {
    let change = |o: &mut Options| o.plan.dns[1].monitor_consult = MonitorConsult::All;
    let mut world = consulting(change, MonitorMode::Mute);
    world.act(D1, Action::HangUp);
    world.run(ms(500));
    assert!(world.phones[S].is_talking());
    world.act(S, Action::HangUp);
    world.run(ms(1_000));
    assert!(world.phones[S].is_idle() && world.phones[D2].is_talking());
    hang_up(world);
}

#[test]
fn the_held_call_that_becomes_one_with_another_is_the_supervisor_s_from_then_on() {
    let own = |n, o: &mut phone::Options| o.yields = n != 2;
    let mut world = supervised_with(both, MonitorMode::Mute, MonitorScope::Agent, own);
    consult(&mut world);
    let before = conn_ids(&world)[0];
    // The customer holds, talks to 2004 and connects the two that it talks to.
    world.act(D1, Action::Hold(HoldForm::SendOnly));
    world.run(ms(300));
    world.act(D1, Action::on(1, Action::call("2004")));
    world.run(ms(1_500));
    world.act(D1, Action::on(1, Action::HangUp));
    world.run(ms(300));
    world.act(3, Action::call("2001"));
    world.run(ms(1_500));
    let calls = conn_ids(&world);
    assert_eq!(calls.len(), 3);
    let refer = Action::on(1, Action::Refer(Refer::to_line(0)));
    world.act(D1, refer);
    world.run(ms(3_500));
    let now = conn_ids(&world).into_iter().find(|id| calls.contains(id) && *id != calls[1]).expect("it goes on");
    assert_ne!(now, before, "in the call of the other line");
    assert_eq!(mixed(&world).0, [3], "the supervisor is with its agent");
    assert_eq!(ask_in(&mut world, now, "2005", Ask::SetMuteOff { coach: false }).map(|a| a.conn_id), Ok(now));
    assert_eq!(mixed(&world).0, [3, 4, 5]);
    hang_up(world);
}

#[test]
fn when_the_agent_transfers_the_held_party_to_a_third_call_its_supervisor_stays_where_it_talks() {
    let change = |o: &mut Options| {
        o.recording.default = DefaultOwner::None;
        (o.plan.dns[4].record, o.plan.dns[4].record_consult) = (Some(true), true);
    };
    let mut world = consulting(change, MonitorMode::Connect);
    for action in [
        Action::on(1, Action::Hold(HoldForm::SendOnly)),
        Action::on(2, Action::call("2004")),
        Action::on(2, Action::Hold(HoldForm::SendOnly)),
        Action::on(1, Action::Retrieve),
    ] {
        world.act(D2, action);
        world.run(ms(1_000));
    }
    let calls = conn_ids(&world);
    assert_eq!((calls.len(), mixed(&world).0), (3, vec![3, 4, 5]));
    world.act(D2, Action::on(0, Action::Refer(Refer::to_line(2))));
    world.run(ms(3_500));
    assert_eq!(conn_ids(&world), calls[..2], "the customer talks to 2004, the agent to 2003");
    assert_routed(&world, 1, 7);
    assert_eq!((mixed(&world).0, told(&world, 0).owner), (vec![3, 4, 5], LegId(3)));
    assert_eq!((told(&world, 0).conn_id, causes(&world)), (calls[1], vec![]), "its recording goes on there");
    let id = world.proxy.starts()[0].1.id;
    let stop = Ask::RecordStop { recording: Some(id) };
    assert!(ask_in(&mut world, calls[1], "2005", stop).is_ok());
    hang_up(world);
}

#[test]
fn music_in_a_consult_call_is_music_in_the_recording_that_follows() {
    let change = |o: &mut Options| {
        both(o);
        o.recording.hold_music = true;
        o.media.hold_audio = Some(vec![1_000; 8_000].into());
    };
    let mut world = consulting(change, MonitorMode::Mute);
    world.act(D3, Action::Hold(HoldForm::SendOnly));
    world.run(ms(500));
    let members = told(&world, 1).members;
    let music: Vec<_> = members.iter().filter(|member| member.role == Role::System).collect();
    assert_eq!(music.len(), 1, "{members:?}");
    let (agent, third) = (&members[0], members.iter().find(|member| member.role == Role::Consulted).expect("held"));
    assert_eq!((agent.leg, music[0].channel, third.channel), (LegId(2), third.channel, agent.channel.opposite()));
    hang_up(world);
}

#[test]
fn a_shutdown_ends_a_supervisor_in_a_consult_call_as_it_ends_everybody() {
    let mut world = consulting(both, MonitorMode::Mute);
    world.tell(Input::HangUpAll);
    world.run(ms(500));
    for phone in [D1, D2, D3, S] {
        let bye = world.phones[phone].requests().iter().rfind(|r| r.method.as_str() == "BYE").expect("hung up");
        assert_eq!(text(bye.headers.values(Name::Reason).next()), "SIP;cause=503;text=\"Shutdown\"", "phone {phone}");
    }
    assert_eq!(causes(&world), [StopCause::Shutdown; 2]);
    hang_up(world);
}

#[test]
fn a_supervisor_goes_along_with_an_exchange_of_its_own_open() {
    let mut world = supervised(both, MonitorMode::Connect, MonitorScope::Agent);
    world.act(D2, Action::Hold(HoldForm::SendOnly));
    world.run(ms(300));
    world.act(D2, Action::on(1, Action::call("2003")));
    let moved = |world: &World| mixed(world).0 == [3, 4, 5];
    let waited = (0..2_000).take_while(|_| {
        world.run(ms(1));
        !moved(&world)
    });
    let after = waited.count() as u64;
    hang_up(world);
    // The same again, with our offer to its phone open at that moment.
    let mut world = supervised(both, MonitorMode::Connect, MonitorScope::Agent);
    world.act(D2, Action::Hold(HoldForm::SendOnly));
    world.run(ms(300));
    world.act(D2, Action::on(1, Action::call("2003")));
    world.run(ms(after - 8));
    world.act(S, Action::AskForOffer);
    world.run(ms(500));
    assert!(moved(&world));
    world.act(S, Action::Hold(HoldForm::SendOnly));
    world.run(ms(500));
    assert!(hearing(&world, 3).muted);
    hang_up(world);
}
