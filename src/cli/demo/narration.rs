//! Plays an act: tells what happens while it happens, keeps what the phones have seen, asks what a supervisor asks.

use std::ops::Range;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::desk::{self, Desk};
use super::judge::Seen;
use super::story::{AGENT, Act, CUSTOMER, SUPERVISOR, Scene};
use crate::clock;
use crate::codec::Direction;
use crate::record::mark::Side;
use crate::testing::driver::Running;
use crate::testing::phone::{Happened, Happening, Phone};

/// An act takes about twelve seconds; longer means that it hangs.
const PATIENCE: Duration = Duration::from_secs(25);

/// Which scene, and which role in it.
type Place = (usize, usize);

/// What the one who tells the story learns.
enum News {
    /// Of a phone.
    Phone(Place, Happened),
    /// Of a scene: its supervisor has been connected, or not.
    Connected(usize, Result<Range<Instant>, desk::Error>),
}

/// Before the call: the supervisor's desktop wants it.
pub(super) async fn ask_to_monitor(scene: &Scene, desk: &Desk) -> Result<(), desk::Error> {
    let (agent, supervisor) = (&scene.cast[AGENT], &scene.cast[SUPERVISOR]);
    let (desk, from, of) = (desk.clone(), supervisor.number, agent.number);
    blocking(move || desk.monitor(from, of)).await?;
    let path = format!("POST /v1/dns/{}/monitor-next-call", supervisor.number);
    println!("  before   {} wants to coach {}'s next call ({path})", supervisor.name, agent.name);
    Ok(())
}

/// Runs what blocks beside the phones.
async fn blocking<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> T {
    let asked = tokio::task::spawn_blocking(ask).await;
    asked.expect("asking does not panic, and nobody aborts it")
}

/// Tells what happens while it happens. What the phones of each scene have seen, and what went wrong.
pub(super) async fn narrate(act: &Act, phones: Vec<Vec<Running>>, desk: &Desk) -> (Vec<Seen>, Vec<String>) {
    let start = clock::now();
    let (report, mut story) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(());
    let mut watchers = Vec::new();
    for (scene, phones) in phones.into_iter().enumerate() {
        for (who, phone) in phones.into_iter().enumerate() {
            watchers.push(tokio::spawn(follow((scene, who), phone, report.clone(), stopped.clone())));
        }
    }
    // The story is over when every phone has dropped its end.
    let later = report.downgrade();
    drop(report);
    let (mut seen, mut wrong) = (vec![Seen::default(); act.scenes.len()], Vec::new());
    let telling = async {
        while let Some(news) = story.recv().await {
            let told = match news {
                News::Phone((place, who), happened) => {
                    let scene = &act.scenes[place];
                    let joins = who == SUPERVISOR && happened.what == Happening::Established;
                    if let (true, Some(supervision), Some(report)) = (joins, scene.supervision, later.upgrade()) {
                        let asks =
                            connect(place, supervision.coaches, scene.cast[SUPERVISOR].number, desk.clone(), report);
                        tokio::spawn(asks);
                    }
                    let told = tell(scene, who, &happened, start);
                    seen[place].story.push((who, happened));
                    told
                }
                News::Connected(place, result) => {
                    let told = tell_connected(&act.scenes[place], &result, start);
                    seen[place].connected = result.ok();
                    told
                }
            };
            wrong.extend(told.err());
        }
    };
    if tokio::time::timeout(PATIENCE, telling).await.is_err() {
        wrong.push(format!("the calls did not end within {} s", PATIENCE.as_secs()));
    }
    drop(stop);
    for watcher in watchers {
        let Ok(((scene, who), phone)) = watcher.await else {
            wrong.push("a phone has broken down".to_owned());
            continue;
        };
        if phone.heard().packets.is_empty() {
            wrong.push(format!("{} has heard nothing", act.scenes[scene].cast[who].name));
        }
        // Watchers come in the order of the cast.
        seen[scene].spoken.push(phone.spoken().to_vec());
        seen[scene].heard.push(phone.heard().clone());
    }
    seen.iter_mut().for_each(|seen| seen.story.sort_by_key(|(_, happened)| happened.at));
    (seen, wrong)
}

/// After a while has everybody hear the supervisor of a scene.
async fn connect(
    scene: usize,
    after: Duration,
    supervisor: &'static str,
    desk: Desk,
    report: mpsc::UnboundedSender<News>,
) {
    tokio::time::sleep(after).await;
    let result = blocking(move || desk.connect(supervisor)).await;
    // Whoever tells the story listens until the last sender is gone.
    drop(report.send(News::Connected(scene, result)));
}

/// Passes on what happens to a phone until it has ended or all are stopped.
async fn follow(
    place: Place,
    mut phone: Running,
    report: mpsc::UnboundedSender<News>,
    mut stopped: watch::Receiver<()>,
) -> (Place, Phone) {
    loop {
        let happened = tokio::select! {
            biased;
            happened = phone.next() => happened,
            _ = stopped.changed() => None,
        };
        match happened {
            // Whoever tells the story listens until the last phone has ended.
            Some(happened) => drop(report.send(News::Phone(place, happened))),
            None => break,
        }
    }
    drop(report);
    (place, phone.stop().await)
}

/// One line of the story; `Err`: what should not have happened.
fn tell(scene: &Scene, who: usize, happened: &Happened, start: Instant) -> Result<(), String> {
    let name = scene.cast[who].name;
    let owner = &scene.cast[if scene.owner == Side::Termination { AGENT } else { CUSTOMER }].name;
    let supervises = scene.supervision.is_some() && who == SUPERVISOR;
    let (customer, agent) = (scene.cast[CUSTOMER].name, scene.cast[AGENT].name);
    let line = match &happened.what {
        Happening::Calling => format!("{name} calls {agent}"),
        Happening::Rung => format!("{name}'s phone rings"),
        Happening::Established if who == AGENT => {
            format!("{name} answers; from here on the call is recorded ({owner}'s leg owns it)")
        }
        Happening::Established if supervises => {
            format!("{name} answers and coaches: {agent} hears {name}, {customer} does not")
        }
        Happening::Established if who > AGENT => format!("{name} answers and talks to {customer}"),
        Happening::Referred { .. } => {
            format!("{name} transfers the call to {} (REFER); the recording is silent", scene.cast[2].name)
        }
        Happening::Agreed { direction: Direction::SendOnly } => {
            format!("{name} holds the call (re-INVITE); the recording goes on and is silent")
        }
        Happening::Agreed { .. } => format!("{name} takes the call back (re-INVITE)"),
        Happening::Ended { by_peer: false } => format!("{name} hangs up"),
        Happening::Failed { code } => {
            let code = code.map_or("no answer".to_owned(), |code| code.to_string());
            return Err(format!("{name}'s call failed: {code}"));
        }
        Happening::Cancelled
        | Happening::Refused { .. }
        | Happening::ReferRefused { .. }
        | Happening::Unusable { .. }
        | Happening::NotPossible { .. } => return Err(format!("{name}: {:?}", happened.what)),
        _ => return Ok(()),
    };
    print_at(happened.at, start, &line);
    Ok(())
}

/// The same of the supervisor's request.
fn tell_connected(scene: &Scene, result: &Result<Range<Instant>, desk::Error>, start: Instant) -> Result<(), String> {
    let name = scene.cast[SUPERVISOR].name;
    let connected = result.as_ref().map_err(|error| format!("{name} could not be connected: {error}"))?;
    print_at(connected.end, start, &format!("{name} is connected (POST …/set-mute-off): everybody hears {name}"));
    Ok(())
}

fn print_at(at: Instant, start: Instant, line: &str) {
    let at = at.saturating_duration_since(start).as_secs_f64();
    println!("  {at:>5.1} s  {line}");
}
