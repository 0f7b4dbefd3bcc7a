//! stickytape demo: recorded calls on one machine.
//!
//! The proxy is started as `serve` starts it, on loopback and free ports. The phones are [`testing::phone`]s on sockets of
//! their own that know the proxy by its SIP address and nothing else. What they do stands in [`story`]; what the recordings
//! must hold follows from what the phones have seen and said ([`judge`]), not from what the proxy says of itself.
//!
//! [`testing::phone`]: crate::testing::phone

pub mod desk;
pub mod judge;
mod narration;
pub mod report;
pub mod story;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use self::desk::Desk;
use self::judge::Clocks;
use self::story::{AGENT, Act, Role, SUPERVISOR};
use crate::app::{Server, StartError};
use crate::clock;
use crate::config::Config;
use crate::disk::store::{self, METADATA};
use crate::record::mark::Side;
use crate::testing::driver::{self, Running, Sockets};
use crate::testing::phone::{Options, Phone};

/// Where recordings go without `--dir`.
const DIRECTORY: &str = "recordings";
/// Where they go when a server that runs here holds [`DIRECTORY`].
const OTHER_DIRECTORY: &str = "demo-recordings";

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
    /// The API does not do what a supervisor's desktop asks.
    #[error("the supervisor's request failed: {0}")]
    Desk(#[from] desk::Error),
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
    println!("stickytape demo: phones that call each other through the proxy, and what it records.\n");
    let acts = story::acts();
    let mut sockets = bind(&acts).await?;
    let (server, directory) = start(directory, &acts, &sockets).await?;
    // A configuration without a SIP listener does not start.
    let proxy = server.listeners()[0].address;
    // The configuration names a listener.
    let api = server.http().ok_or_else(|| Error::Phone(std::io::ErrorKind::AddrNotAvailable.into()))?;
    println!("  proxy   sip:{proxy}, http://{api}, records to {}", directory.display());
    for role in acts.iter().flat_map(|act| &act.scenes).flat_map(|scene| &scene.cast) {
        let who = if role.is_outside() { "a caller from outside" } else { "one of our extensions" };
        println!("  {:<7} {}, {who}", role.name, role.number);
    }

    let since = whole_milliseconds(clock::wall());
    let clocks = Clocks { now: clock::now(), wall: clock::wall() };
    let desk = Desk::new(api);
    let mut wrong = Vec::new();
    let mut played = Vec::new();
    for act in &acts {
        println!("\n{}\n", capital(act.title));
        for scene in act.scenes.iter().filter(|scene| scene.supervision.is_some()) {
            narration::ask_to_monitor(scene, &desk).await?;
        }
        let phones = start_phones(act, &mut sockets, proxy)?;
        let (seen, problems) = narration::narrate(act, phones, &desk).await;
        wrong.extend(problems);
        played.extend(act.scenes.iter().zip(seen));
    }
    server.drain();
    server.hang_up();
    server.stop().await;

    let judged = judge::judge(&directory, since, clocks, &played)?;
    wrong.extend(judged.wrong);
    println!("\nWho is heard in which second (# heard, . not, ! wrong), held to what the phones have said:\n");
    print!("{}", judged.strips);
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
    println!("Listen with any audio player (who called is left, the others are right), for example:");
    println!("  play \"{}\"", file.display());
    // The library's commands read the folder that the configuration names.
    if directory == Path::new(DIRECTORY) {
        println!("Look closer, or check again later:");
        println!("  stickytape recordings list");
        println!("  stickytape recordings verify");
    }
    println!("Everything about a call stands beside its files, in {METADATA}.");
}

/// The sockets of every phone, in the order of the story.
async fn bind(acts: &[Act]) -> Result<Vec<Sockets>, Error> {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let mut sockets = Vec::new();
    for _ in acts.iter().flat_map(|act| &act.scenes).flat_map(|scene| &scene.cast) {
        sockets.push(Sockets::bind(loopback).await.map_err(Error::Phone)?);
    }
    // They are taken from the end.
    sockets.reverse();
    Ok(sockets)
}

/// The proxy, and the folder that it records to.
async fn start(wanted: Option<&Path>, acts: &[Act], sockets: &[Sockets]) -> Result<(Server, PathBuf), Error> {
    let roles = acts.iter().flat_map(|act| &act.scenes).flat_map(|scene| &scene.cast);
    let mut phones = Vec::new();
    for (role, sockets) in roles.zip(sockets.iter().rev()) {
        phones.push((role, sockets.sip_address().map_err(Error::Phone)?));
    }
    let config = configuration(acts, &phones);
    let directory = wanted.unwrap_or(Path::new(DIRECTORY)).to_owned();
    match serve(&directory, &config).await {
        Err(Error::Start(StartError::Recordings(store::Error::InUse(_)))) if wanted.is_none() => {
            println!("  (a running server records to {DIRECTORY}, so the demo takes another folder)");
            let directory = PathBuf::from(OTHER_DIRECTORY);
            Ok((serve(&directory, &config).await?, directory))
        }
        result => Ok((result?, directory)),
    }
}

async fn serve(directory: &Path, config: &str) -> Result<Server, Error> {
    let mut config = Config::parse(config).map_err(|problems| {
        // Only a change of the configuration's rules can bring this about; a test holds the text to them.
        crate::config::ConfigError::Wrong { file: "demo".into(), problems }
    })?;
    config.storage.directory = directory.to_owned();
    config.claim_capacity()?;
    Ok(Server::start(config).await?)
}

/// What an operator would write for a trunk, some extensions, and the numbers that lead to them.
fn configuration(acts: &[Act], phones: &[(&Role, SocketAddr)]) -> String {
    let mut text = String::from(
        r#"
[sip]
listen = ["udp:127.0.0.1:0"]
max-calls = 4

[media]
workers = 2
priority = "normal"

[recording]
default = "none"
layout = "stereo"
min-free-space = "16MiB"
buffer = "16MiB"

[api]
listen = "127.0.0.1:0"

[[trunk]]
name = "carrier"
from = ["127.0.0.0/8"]
"#,
    );
    for (role, address) in phones.iter().filter(|(role, _)| !role.is_outside()) {
        let number = role.number;
        text += &format!("\n[[dn]]\nnumber = \"{number}\"\ncontact = \"sip:{number}@{address}\"\n");
        let supervises = |scene: &&story::Scene| scene.supervision.is_some() && scene.cast[SUPERVISOR].number == number;
        if acts.iter().flat_map(|act| &act.scenes).any(|scene| supervises(&scene)) {
            text += "role = \"supervisor\"\n";
        }
    }
    for scene in acts.iter().flat_map(|act| &act.scenes) {
        // The customer's side, or the agent's.
        let record = if scene.owner == Side::Termination { "destination" } else { "source" };
        let agent = scene.cast[AGENT].number;
        text += &format!("\n[[route]]\nmatch = \"^\\\\+4930{agent}$\"\nto = \"dn:{agent}\"\nrecord = \"{record}\"\n");
    }
    text
}

/// The phones of an act, scene by scene.
fn start_phones(act: &Act, sockets: &mut Vec<Sockets>, proxy: SocketAddr) -> Result<Vec<Vec<Running>>, Error> {
    let mut start = |role: &Role| {
        // There is a pair of sockets for each role.
        let sockets = sockets.pop().ok_or(Error::Phone(std::io::ErrorKind::AddrNotAvailable.into()))?;
        let (sip, rtp) = (sockets.sip_address().map_err(Error::Phone)?, sockets.rtp_address().map_err(Error::Phone)?);
        let options = Options {
            name: Some(role.name.to_owned()),
            script: role.script.clone(),
            incoming: role.incoming,
            ..Options::new(role.number, sip, rtp, proxy)
        };
        Ok(driver::start(Phone::new(options), sockets))
    };
    act.scenes.iter().map(|scene| scene.cast.iter().map(&mut start).collect()).collect()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_the_demo_is_right() {
        let acts = story::acts();
        let roles = acts.iter().flat_map(|act| &act.scenes).flat_map(|scene| &scene.cast);
        let phones: Vec<_> = roles.map(|role| (role, "127.0.0.1:5070".parse().unwrap())).collect();
        let config = Config::parse(&configuration(&acts, &phones)).unwrap();
        assert_eq!(config.listen[0].address, "127.0.0.1:0".parse().unwrap());
        assert_eq!(config.api.listen, Some("127.0.0.1:0".parse().unwrap()));
        assert_eq!((config.plan.trunks.len(), config.plan.dns.len(), config.plan.routes.len()), (1, 7, 4));
    }
}
