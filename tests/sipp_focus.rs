//! A subscriber to a room, played by SIPp against the real server; what it must see is in `fixtures/sipp/subscribe.xml`.

mod peers;

use std::time::Duration;

use peers::{Options, Server, Setup, Sipp, V4, at, free_ports};

/// Parties in the room.
fn parties(server: &Server) -> usize {
    let calls = server.json("/v1/calls");
    calls["calls"].as_array().unwrap().iter().map(|call| call["parties"].as_array().unwrap().len()).sum()
}

#[test]
fn a_supervisor_is_told_who_comes_to_a_room_and_who_leaves_it() {
    for tcp in [false, true] {
        let port = free_ports(1);
        let transport = if tcp { ";transport=tcp" } else { "" };
        let mut server = Server::start(&Setup {
            recording: "default = \"none\"".into(),
            plan: format!(
                "[[trunk]]\nname = \"callers\"\nfrom = [\"127.0.0.1\"]\n\
                 [[dn]]\nnumber = \"2009\"\nrole = \"supervisor\"\ncontact = \"sip:2009@{V4}:{port}{transport}\"\n\
                 [[conference]]\nnumber = \"800\"\nwhen-alone = \"wait\"\n"
            ),
            ..Setup::default()
        });
        let folder = server.folder.path().to_owned();
        let to_room = |scenario, port, talk| Options {
            scenario,
            port,
            tcp,
            number: "800",
            talk: Duration::from_millis(talk),
            target: Some(at(V4, server.sip)),
            ..Options::default()
        };
        let is_in = |count: usize| {
            peers::wait_for("the parties", Duration::from_secs(10), || (parties(&server) == count).then_some(()))
        };
        let first = Sipp::start(&folder, &to_room("uac_talk", 0, 7_000));
        is_in(1);
        let subscriber = Sipp::start(&folder, &to_room("subscribe", port, 0));
        std::thread::sleep(Duration::from_millis(700));
        let second = Sipp::start(&folder, &to_room("uac_talk", 0, 1_500));
        is_in(2);
        second.succeed(&server);
        subscriber.succeed(&server);
        first.succeed(&server);
        is_in(0);
        server.stop();
    }
}
