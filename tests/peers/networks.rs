//! Networks of a test's own: namespaces of the kernel, joined by virtual cables, and what runs in them. They take root.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use super::{Server, wait_for};

/// A network namespace, which goes with its interfaces when this is dropped.
pub struct Network {
    name: String,
}

impl Network {
    /// One with nothing but loopback, that passes nothing on from one interface to another.
    pub fn new(place: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("stickytape-{}-{}-{place}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        must("ip", &["netns", "add", &name]);
        let network = Self { name };
        network.ip("link set lo up");
        network.set("ip_forward", 0);
        network.set("conf/all/rp_filter", 0);
        network
    }

    /// `ip` with these arguments, in here.
    #[track_caller]
    pub fn ip(&self, arguments: &str) {
        must("ip", &[vec!["-n", &self.name], arguments.split(' ').collect()].concat());
    }

    /// A setting of IPv4, by its path below `net/ipv4`.
    #[track_caller]
    pub fn set(&self, setting: &str, value: u32) {
        let path = format!("/proc/sys/net/ipv4/{setting}");
        self.within(|| fs::write(&path, value.to_string())).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// A cable to another network; each end is the name of its interface and its address with the length of the prefix.
    #[track_caller]
    pub fn join(&self, (here, address): (&str, &str), other: &Self, (there, others): (&str, &str)) {
        self.ip(&format!("link add {here} type veth peer name {there} netns {}", other.name));
        for (network, interface, address) in [(self, here, address), (other, there, others)] {
            network.set(&format!("conf/{interface}/rp_filter"), 0);
            network.ip(&format!("address add {address} dev {interface}"));
            network.ip(&format!("link set {interface} up"));
        }
    }

    /// Has the system complete each checksum before a packet leaves, and look at those that come.
    #[track_caller]
    pub fn without_offload(&self, interface: &str) {
        self.within(|| must("ethtool", &["-K", interface, "tx", "off", "rx", "off"]));
    }

    /// The address of an interface's hardware.
    pub fn hardware(&self, interface: &str) -> String {
        let path = format!("/sys/class/net/{interface}/address");
        let output = self.command("cat").arg(&path).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Puts frames onto the cable at an interface that carries RTP, which are not for whoever is at its other end.
    #[track_caller]
    pub fn send_astray(&self, interface: &str) {
        let status = self.command("python3").arg(script("send_astray")).arg(interface).status().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Does something in here: sockets that it opens and programs that it starts stay in this network.
    pub fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let there = || {
            let file = File::open(format!("/run/netns/{}", self.name)).expect("the network is there");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter it");
            what()
        };
        let done = thread::scope(|scope| scope.spawn(there).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A program in here that sees the interfaces of this network in `/sys`, too.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// A server in here, as [`Server::start_as`] has one; its API listens on loopback.
    pub fn serve(&self, config: &str, sip: u16, api: u16) -> Server {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("stickytape.toml"), config).unwrap();
        let log = File::create(folder.path().join("server.log")).unwrap();
        let child = self
            .command(env!("CARGO_BIN_EXE_stickytape"))
            .args(["serve", "--config", "stickytape.toml"])
            .current_dir(folder.path())
            .env("RUST_LOG", "info")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("ip is installed (./test.sh)");
        let server = Server { folder, sip, api, child: Some(child) };
        self.within(|| server.ready())
    }

    /// Has every recording of a server that has ended verified.
    #[track_caller]
    pub fn verify(&self, server: &Server) {
        let mut program = self.command(env!("CARGO_BIN_EXE_stickytape"));
        let output = program.args(["recordings", "verify"]).current_dir(server.folder.path()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&said));
    }

    /// Notes what arrives here from now on.
    pub fn read_packets(&self, folder: &Path) -> Packets {
        let file = folder.join(format!("{}.packets", self.name));
        let noted = File::create(&file).unwrap();
        let child =
            self.command("python3").arg(script("read_packets")).stdout(noted).spawn().expect("python3 is installed");
        let packets = Packets { child, file };
        wait_for("the reader", Duration::from_secs(10), || (!packets.lines().is_empty()).then_some(()));
        packets
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Nothing more can be done about a failure.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/support/{name}.py"))
}

/// Runs a program that must succeed.
#[track_caller]
fn must(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error} (./test.sh installs it)"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {}, as root: {said}", arguments.join(" "));
}

/// The packets that arrive in a network.
pub struct Packets {
    child: Child,
    file: PathBuf,
}

impl Packets {
    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Those of UDP so far; what has just come may be missing.
    pub fn all(&self) -> Vec<Value> {
        self.lines().split_off(1)
    }

    /// Those of RTP so far.
    pub fn rtp(&self) -> Vec<Value> {
        self.all().into_iter().filter(|packet| packet["rtp"].is_object()).collect()
    }

    /// The ports of audio that the descriptions in messages that begin so name.
    pub fn described(&self, start: &str) -> BTreeSet<u16> {
        let all = self.all();
        let texts = all.iter().filter_map(|packet| packet["sip"].as_str()?.strip_prefix(start));
        let ports = texts.filter_map(|text| text.split_once("m=audio ")?.1.split(' ').next()?.parse().ok());
        ports.collect()
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
