//! stickytape demo: a recorded call on one machine.
//!
//! The proxy is started as `serve` starts it, on loopback and free ports. The two phones are [`testing::phone`]s on
//! sockets of their own that know the proxy by its SIP address and nothing else.
//!
//! [`testing::phone`]: crate::testing::phone

pub mod report;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::app::{Server, StartError};
use crate::clock;
use crate::codec::Direction;
use crate::config::Config;
use crate::disk::store::{self, METADATA};
use crate::testing::driver::{self, Running, Sockets};
use crate::testing::phone::{Action, Happened, Happening, HoldForm, Incoming, Options, Phone, Signal, Step};
use crate::testing::speech::{self, Speaker};
use crate::testing::tones::Voice;

/// Where recordings go without `--dir`.
const DIRECTORY: &str = "recordings";
/// Where they go when a server that runs here holds [`DIRECTORY`].
const OTHER_DIRECTORY: &str = "demo-recordings";
/// The whole call takes about twelve seconds; longer means that it hangs.
const PATIENCE: Duration = Duration::from_secs(25);
/// Ann's number; her calls come in by the trunk.
const ANN: &str = "+4930123456";
/// Bob's extension.
const BOB: &str = "2001";

/// `stickytape demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// The folder for the recordings. Without it ./recordings, or ./demo-recordings while a server records there.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The proxy did not start.
    #[error("the proxy did not start: {0}")]
    Start(#[from] StartError),
    /// This machine cannot carry even the demo.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// Sockets of the phones, or the runtime.
    #[error("a phone did not start: {0}")]
    Phone(std::io::Error),
    /// The folder of recordings.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Shows it. Exit code 0: the call was recorded and everything about the recording is right; 1: not so.
pub fn run(args: &Demo) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.map_err(Error::Phone).and_then(|runtime| runtime.block_on(show(args.dir.as_deref())));
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(super::exit::FAILED),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(super::exit::FAILED)
        }
    }
}

/// The demo from start to table; true when all is well.
async fn show(directory: Option<&Path>) -> Result<bool, Error> {
    println!("stickytape demo: two phones, a call through the proxy, a recording.\n");
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let ann = Sockets::bind(loopback).await.map_err(Error::Phone)?;
    let bob = Sockets::bind(loopback).await.map_err(Error::Phone)?;
    let (ann_sip, bob_sip) = (ann.sip_address().map_err(Error::Phone)?, bob.sip_address().map_err(Error::Phone)?);
    let (server, directory) = start(directory, ann_sip, bob_sip).await?;
    // A configuration without a SIP listener does not start.
    let proxy = server.listeners()[0].address;
    println!("  proxy   sip:{proxy}, records to {}", directory.display());
    println!("  Ann     {ANN}, a caller from outside");
    println!("  Bob     {BOB}, one of our extensions\n");

    let since = whole_milliseconds(clock::wall());
    let ann = driver::start(Phone::new(caller(&ann, proxy).map_err(Error::Phone)?), ann);
    let bob = driver::start(Phone::new(callee(&bob, proxy).map_err(Error::Phone)?), bob);
    let wrong = narrate(ann, bob).await;
    server.drain();
    server.hang_up();
    server.stop().await;

    verdict(&directory, Some(since), wrong)
}

/// The last part of the demo: prints the table of what was recorded in `directory` from `since` on, what is wrong with it
/// besides what was `wrong` before, and how to listen to it. True when nothing is wrong.
///
/// # Errors
/// The folder cannot be read.
pub fn verdict(directory: &Path, since: Option<jiff::Timestamp>, mut wrong: Vec<String>) -> Result<bool, Error> {
    let report = report::report(directory, since)?;
    if !report.is_empty() {
        println!("\nThe recordings, as their files tell:\n\n{report}");
    }
    if report.len() > 1 {
        wrong.push(format!("one recording was expected, {} were made", report.len()));
    }
    wrong.extend(report.wrong());
    conclude(&wrong, directory, report.first_file());
    Ok(wrong.is_empty())
}

/// Metadata has whole milliseconds: a recording may begin in the millisecond in which the demo did.
fn whole_milliseconds(time: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

fn conclude(wrong: &[String], directory: &Path, file: Option<&Path>) {
    for wrong in wrong {
        println!("WRONG: {wrong}");
    }
    let (Some(file), true) = (file, wrong.is_empty()) else {
        return;
    };
    println!("Listen to it with any audio player (Ann left, Bob right, the silence is the hold):");
    println!("  play \"{}\"", file.display());
    // The library's commands read the folder that the configuration names.
    if directory == Path::new(DIRECTORY) {
        println!("Look closer, or check again later:");
        println!("  stickytape recordings list");
        println!("  stickytape recordings verify");
    }
    println!("Everything about the call stands beside it, in {METADATA}.");
}

/// The proxy, and the folder that it records to.
async fn start(wanted: Option<&Path>, ann: SocketAddr, bob: SocketAddr) -> Result<(Server, PathBuf), Error> {
    let directory = wanted.unwrap_or(Path::new(DIRECTORY)).to_owned();
    match serve(&directory, ann, bob).await {
        Err(Error::Start(StartError::Recordings(store::Error::InUse(_)))) if wanted.is_none() => {
            println!("  (a running server records to {DIRECTORY}, so the demo takes another folder)");
            let directory = PathBuf::from(OTHER_DIRECTORY);
            Ok((serve(&directory, ann, bob).await?, directory))
        }
        result => Ok((result?, directory)),
    }
}

async fn serve(directory: &Path, ann: SocketAddr, bob: SocketAddr) -> Result<Server, Error> {
    let mut config = Config::parse(&configuration(ann, bob)).map_err(|problems| {
        // Only a change of the configuration's rules can bring this about; a test holds the text to them.
        crate::config::ConfigError::Wrong { file: "demo".into(), problems }
    })?;
    config.storage.directory = directory.to_owned();
    config.claim_capacity()?;
    Ok(Server::start(config).await?)
}

/// What an operator would write for a trunk and an extension.
fn configuration(ann: SocketAddr, bob: SocketAddr) -> String {
    format!(
        r#"
[sip]
listen = ["udp:127.0.0.1:0"]
max-calls = 4

[media]
workers = 1
priority = "normal"

[recording]
layout = "stereo"
min-free-space = "16MiB"
buffer = "16MiB"

[api]
listen = "off"

[[trunk]]
name = "carrier"
address = "sip:{ann}"
from = ["127.0.0.0/8"]

[[dn]]
number = "{BOB}"
contact = "sip:{BOB}@{bob}"
"#
    )
}

fn phrase(speaker: Speaker, text: &str) -> Action {
    Action::Speak(Voice::Samples(speech::say(speaker, text)))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Ann calls, speaks, listens, is held, and hangs up after the farewell.
fn caller(sockets: &Sockets, proxy: SocketAddr) -> std::io::Result<Options> {
    let script = vec![
        Step::after(ms(300), Action::call(BOB)),
        Step::on(Signal::Established, ms(400), phrase(Speaker::HIGH, speech::HELLO)),
        Step::on(Signal::Reoffered, ms(0), Action::Speak(Voice::Silence)),
        Step::on(Signal::Reoffered, ms(2_400), Action::HangUp),
    ];
    let (sip, rtp) = (sockets.sip_address()?, sockets.rtp_address()?);
    Ok(Options { name: Some("Ann".to_owned()), script, ..Options::new(ANN, sip, rtp, proxy) })
}

/// Bob answers, replies, asks to hold the line, holds, and takes the call back.
fn callee(sockets: &Sockets, proxy: SocketAddr) -> std::io::Result<Options> {
    let script = vec![
        Step::on(Signal::Established, ms(2_700), phrase(Speaker::LOW, speech::HEAR_YOU)),
        Step::after(ms(2_100), phrase(Speaker::LOW, speech::HOLD)),
        Step::after(ms(1_900), Action::Hold(HoldForm::SendOnly)),
        Step::on(Signal::Agreed, ms(1_500), Action::Retrieve),
        Step::on(Signal::Agreed, ms(300), phrase(Speaker::LOW, speech::BYE)),
    ];
    let incoming = Incoming::Answer { ring: ms(50), answer: ms(1_000) };
    let (sip, rtp) = (sockets.sip_address()?, sockets.rtp_address()?);
    Ok(Options { name: Some("Bob".to_owned()), script, incoming, ..Options::new(BOB, sip, rtp, proxy) })
}

/// Tells what happens while it happens; what went wrong.
async fn narrate(mut ann: Running, mut bob: Running) -> Vec<String> {
    let start = clock::now();
    let mut wrong = Vec::new();
    let story = async {
        loop {
            let (name, happened) = tokio::select! {
                biased;
                Some(happened) = ann.next() => ("Ann", happened),
                Some(happened) = bob.next() => ("Bob", happened),
                else => break,
            };
            if let Err(problem) = tell(name, &happened, start) {
                wrong.push(problem);
            }
        }
    };
    if tokio::time::timeout(PATIENCE, story).await.is_err() {
        wrong.push(format!("the call did not end within {} s", PATIENCE.as_secs()));
    }
    let (ann, bob) = (ann.stop().await, bob.stop().await);
    for (name, phone, other) in [("Ann", &ann, "Bob"), ("Bob", &bob, "Ann")] {
        if phone.heard().packets.is_empty() {
            wrong.push(format!("{name} has heard nothing of {other}"));
        }
    }
    wrong
}

/// One line of the story; `Err`: what should not have happened.
fn tell(name: &str, happened: &Happened, start: Instant) -> Result<(), String> {
    let line = match (&happened.what, name) {
        (Happening::Calling, _) => format!("{name} calls {BOB}"),
        (Happening::Rung, _) => format!("{name}'s phone rings"),
        (Happening::Established, "Bob") => "Bob answers; from here on the call is recorded".to_owned(),
        (Happening::Agreed { direction: Direction::SendOnly }, _) => {
            format!("{name} holds the call (re-INVITE); the recording goes on and is silent")
        }
        (Happening::Agreed { .. }, _) => format!("{name} takes the call back (re-INVITE)"),
        (Happening::Ended { by_peer: false }, _) => format!("{name} hangs up; the recording is closed and published"),
        (Happening::Failed { code }, _) => {
            let code = code.map_or("no answer".to_owned(), |code| code.to_string());
            return Err(format!("{name}'s call failed: {code}"));
        }
        (
            Happening::Cancelled
            | Happening::Refused { .. }
            | Happening::Unusable { .. }
            | Happening::NotPossible { .. },
            _,
        ) => return Err(format!("{name}: {:?}", happened.what)),
        _ => return Ok(()),
    };
    let at = happened.at.saturating_duration_since(start).as_secs_f64();
    println!("  {at:>5.1} s  {line}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_the_demo_is_right() {
        let text = configuration("127.0.0.1:5070".parse().unwrap(), "127.0.0.1:5080".parse().unwrap());
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.listen[0].address, "127.0.0.1:0".parse().unwrap());
        assert_eq!(config.api.listen, None);
        assert_eq!((config.plan.trunks.len(), config.plan.dns.len()), (1, 1));
    }
}
