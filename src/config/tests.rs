//! What a configuration may say, and what each mistake is answered with.

use super::*;
use crate::call::fact::Origin;
use crate::call::options::{
    Account, Beep, BeepTo, Conference, Contact, DefaultOwner, Dtmf, HoldBy, Host, Nat, Numbers, Password, RouteTarget,
    Transport, WhenAlone,
};
use crate::sip::values::Algorithm;

fn problems(text: &str) -> Vec<String> {
    let problems = Config::parse(text).expect_err("this text is wrong");
    problems.iter().map(|problem| format!("{}: {problem}", problem.line)).collect()
}

#[track_caller]
fn only_problem(text: &str, expected: &str) {
    assert_eq!(problems(text), [expected], "{text}");
}

const DN: &str = "[[dn]]\nnumber = \"2001\"\ncontact = \"sip:10.0.0.5:5060\"\n";

#[test]
fn an_empty_file_means_the_defaults_of_the_interface() {
    let config = Config::default();
    let listen: Vec<_> = config.listen.iter().map(|l| (l.transport, l.address.to_string())).collect();
    assert_eq!(listen, [(Transport::Udp, "0.0.0.0:5060".to_owned()), (Transport::Tcp, "0.0.0.0:5060".to_owned())]);
    assert_eq!(config.sip.ring_timeout, Duration::from_secs(60));
    assert_eq!(config.sip.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.max_calls, MaxCalls::Auto);
    assert_eq!(config.threads.ports, 10_000..=32_767);
    assert_eq!(config.threads.cooldown, Duration::from_secs(2));
    assert_eq!(config.threads.batch_interval, Duration::from_millis(1));
    assert_eq!(config.threads.priority, Priority::Realtime);
    let codecs: Vec<_> = config.media.codecs.iter().map(ToString::to_string).collect();
    assert_eq!(codecs, ["PCMU/8000", "PCMA/8000", "L16/8000/1", "telephone-event/8000"]);
    assert_eq!(config.media.inactivity_timeout, Duration::from_secs(60));
    assert_eq!(config.recording.default, DefaultOwner::Origination);
    assert_eq!(config.recording.sample_rate, 8_000);
    assert!(!config.recording.required && !config.recording.early_media);
    assert_eq!(config.storage.directory, Path::new("recordings"));
    assert_eq!(config.storage.min_free_space, 1 << 30);
    assert_eq!(config.storage.max_file_size, 4_095 << 20);
    assert_eq!(config.storage.buffer, 512 << 20);
    assert_eq!(config.api.listen, Some("127.0.0.1:8080".parse().unwrap()));
    assert!(config.api.token.is_none() && config.plan.to.is_none());
}

#[test]
fn every_default_may_be_written_out() {
    let text = include_str!("../../fixtures/config/defaults.toml");
    let config = Config::parse(text).unwrap();
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
}

#[test]
fn trunks_dns_and_routes_are_read_whole() {
    let config = Config::parse(include_str!("../../fixtures/config/office.toml")).unwrap();
    let trunk = &config.plan.trunks[0];
    assert_eq!((&*trunk.name, trunk.addresses.len(), trunk.max_calls), ("carrier", 2, 100));
    assert_eq!(trunk.addresses[1].host, Host::Name("backup.example.net".into()));
    assert_eq!(trunk.addresses[1].transport, Some(Transport::Tcp));
    assert_eq!((trunk.nat, trunk.record), (Nat::Yes, Some(false)));
    assert_eq!(trunk.attempt_timeout, Duration::from_secs(2));
    assert_eq!(trunk.caller_id.as_deref(), Some("+4930555"));
    assert_eq!(config.plan.dns[0].numbers, Numbers::Range { first: 2000, last: 2499, width: 4 });
    assert_eq!(config.plan.dns[0].contact.fixed().unwrap().user.as_deref(), Some("{number}"));
    assert_eq!(config.plan.dns[0].record, Some(true));
    assert_eq!(config.plan.dns[1].record, None, "a key that is not written says nothing");
    assert_eq!(config.plan.routes[0].to, RouteTarget::Trunk("carrier".into()));
    assert_eq!(config.plan.routes[1].to, RouteTarget::Dn("$1".into()));
    assert_eq!(config.plan.routes[1].from.as_deref(), Some("carrier"));
    assert_eq!(config.plan.routes[1].origin, Some(Origin::Queue("sales".into())));
    assert_eq!(config.max_calls, MaxCalls::Exactly(500));
}

#[test]
fn the_configuration_to_start_from_is_right() {
    let config = Config::parse(include_str!("../../deploy/stickytape.toml")).unwrap();
    assert_eq!((config.plan.trunks.len(), config.plan.dns.len(), config.plan.routes.len()), (1, 1, 2));
}

#[test]
fn all_mistakes_are_named_at_once_in_the_order_of_the_file() {
    let text = "[sip]\nring-timout = \"60s\"\nring-timeout = 60\n\n[media]\nlatch = \"loose\"\n[recordings]\n";
    assert_eq!(
        problems(text),
        [
            "2: sip.ring-timout: unknown key; did you mean `ring-timeout`?",
            "3: sip.ring-timeout: expected a duration with its unit, such as \"60s\" or \"1ms\", found the number 60",
            "6: media.latch: expected one of \"strict\", \"off\", found \"loose\"",
            "7: recordings: unknown section; did you mean `recording`?",
        ]
    );
}

#[test]
fn a_syntax_error_names_its_line() {
    let found = problems("[sip]\nring-timeout = \n");
    assert!(found[0].starts_with("2: "), "{found:?}");
}

#[test]
fn underscores_are_answered_with_the_name_in_hyphens() {
    only_problem("[sip]\nmax_calls = 4\n", "2: sip.max_calls: unknown key; did you mean `max-calls`?");
}

#[test]
fn a_list_names_each_wrong_item() {
    let found =
        problems("[sip]\nlisten = [\n  \"udp:0.0.0.0\",\n  \"udp:0.0.0.0:5060\",\n  \"tls:0.0.0.0:5061\",\n]\n");
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with("3: sip.listen: expected TRANSPORT:ADDRESS:PORT"), "{found:?}");
    assert!(found[1].starts_with("5: sip.listen: not built yet: SIP over TLS"), "{found:?}");
}

#[test]
fn a_route_must_name_what_exists() {
    let text = format!("{DN}[[trunk]]\nname = \"carrier\"\naddress = \"sip:192.0.2.1\"\n");
    let route = |body: &str| problems(&format!("{text}[[route]]\n{body}\n"));
    assert_eq!(
        route("match = \"^9\"\nto = \"trunk:carier\""),
        ["9: route[1].to: there is no trunk \"carier\"; did you mean \"carrier\"?"]
    );
    assert_eq!(route("match = \"^9\"\nto = \"dn:2002\""), ["9: route[1].to: no [[dn]] has the number \"2002\""]);
    assert_eq!(route("match = \"^9\"\nto = \"dn:2001\"\nfrom = \"x\""), ["10: route[1].from: there is no trunk \"x\""]);
    assert_eq!(route("to = \"dn:2001\""), ["7: route[1]: `match` is missing"]);
    assert!(route("match = \"^9(\"\nto = \"dn:2001\"")[0].starts_with("8: route[1].match: not a regular expression"));
    assert_eq!(
        route("match = \"^9(.*)\"\nto = \"trunk:carrier\"\nrewrite = \"$2\""),
        ["10: route[1].rewrite: $2 names no group of `match`"]
    );
    assert_eq!(
        route("match = \"^9(.*)\"\nto = \"trunk:carrier\"\nrewrite = \"$1a\""),
        ["10: route[1].rewrite: $1a names no group of `match`; write ${1} when more text follows"]
    );
}

#[test]
fn numbers_and_names_are_given_once() {
    let twice = format!("{DN}[[dn]]\nnumber = \"2000-2499\"\ncontact = \"sip:10.0.0.6\"\n");
    only_problem(&twice, "5: dn[2].number: another [[dn]] has this number already");
    let trunks = "[[trunk]]\nname = \"a\"\nfrom = \"10.0.0.1\"\n[[trunk]]\nname = \"a\"\nfrom = \"10.0.0.2\"\n";
    only_problem(trunks, "5: trunk[2].name: there is another trunk \"a\"");
}

#[test]
fn a_section_that_stands_once_and_one_that_repeats_are_not_confused() {
    only_problem(
        "[trunk]\nname = \"a\"\n",
        "1: trunk: expected [[trunk]], found a table; write [[trunk]], with two brackets, once for each",
    );
    only_problem("sip = 5\n", "1: sip: expected a section [sip], found the number 5");
}

#[test]
fn supervision_is_read_for_each_dn_and_for_all() {
    use crate::call::options::{DnRole, MonitorConsult};
    use crate::call::request::{MonitorMode, MonitorScope};
    let keys = "role = \"supervisor\"\nmonitor-consult-calls = \"orig\"\nintrusion = true\n";
    let plan = Config::parse(&format!("{DN}{keys}[supervision]\nmode = \"coach\"\nscope = \"agent\"\n")).unwrap().plan;
    let dn = &plan.dns[0];
    assert_eq!((dn.role, dn.monitor_consult, dn.intrusion), (DnRole::Supervisor, MonitorConsult::Orig, true));
    assert_eq!((plan.supervision.mode, plan.supervision.scope), (MonitorMode::Coach, MonitorScope::Agent));
    let plan = Config::parse(DN).unwrap().plan;
    assert_eq!((plan.dns[0].role, plan.dns[0].intrusion), (DnRole::Agent, false));
    assert_eq!((plan.supervision.mode, plan.supervision.scope), (MonitorMode::Mute, MonitorScope::Call));
}

#[test]
fn a_feature_that_is_not_built_is_refused_by_its_key_unless_it_is_off() {
    only_problem(
        "[media]\nsrtp = \"required\"\n",
        "2: media.srtp: not built yet: SRTP; leave the key out or write \"off\"",
    );
    only_problem(
        "[sip]\nsession-timer = \"90s\"\n",
        "2: sip.session-timer: not built yet: session timers (RFC 4028); leave the key out or write \"off\"",
    );
    only_problem("[supervision]\nmood = 1\n", "2: supervision.mood: unknown key; did you mean `mode`?");
    assert!(
        Config::parse("[sip]\nsession-timer = \"off\"\n[supervision]\nmode = \"mute\"\n[events]\nkeep = 100000\n")
            .is_ok()
    );
}

#[test]
fn what_parties_are_told_and_music_in_recordings_are_off_unless_they_are_written() {
    let config = Config::default();
    assert!(!config.sip.connected_id && !config.recording.hold_music && !config.recording.honour_preference);
    assert_eq!(config.recording.beep, None);
    let text = "[sip]\nconnected-id = true\n[recording]\nhold-music = true\nhonour-preference = true\n\
        beep = { every = \"15s\", to = \"all\" }\n";
    let config = Config::parse(text).unwrap();
    assert!(config.sip.connected_id && config.recording.hold_music && config.recording.honour_preference);
    assert_eq!(config.recording.beep, Some(Beep { every: Duration::from_secs(15), to: BeepTo::All }));
    let beep = |value: &str| Config::parse(&format!("[recording]\nbeep = {value}\n"));
    assert_eq!(beep("{ every = \"1m\" }").unwrap().recording.beep.unwrap().to, BeepTo::Customer);
    only_problem(
        "[recording]\nbeep = { to = \"all\" }\n",
        "2: recording.beep: `every` is missing; write beep = { every = \"15s\", to = \"customer\" }",
    );
    only_problem(
        "[recording]\nbeep = { every = \"15s\", to = \"agent\" }\n",
        "2: recording.beep.to: expected one of \"customer\", \"all\", found \"agent\"",
    );
    only_problem(
        "[recording]\nbeep = { every = \"15s\", too = \"all\" }\n",
        "2: recording.beep.too: unknown key; did you mean `to`?",
    );
    only_problem(
        "[recording]\nbeep = { every = \"100ms\" }\n",
        "2: recording.beep.every: must be from 1s to 3600s, found \"100ms\"",
    );
    only_problem("[recording]\nbeep = true\n", "2: recording.beep: expected a table, { … }, found true");
}

#[test]
fn ivr_ports_need_the_interface_that_they_belong_to() {
    let config = Config::default();
    assert_eq!((config.ivr.listen, config.sip.ivr_busy), (None, vec![486, 600]));
    let port = format!("{DN}ivr = true\n");
    let config = Config::parse(&format!("[ivr]\nlisten = \"127.0.0.1:8090\"\nbusy = [480]\n{port}")).unwrap();
    assert_eq!(config.ivr.listen, Some(([127, 0, 0, 1], 8090).into()));
    assert_eq!((config.sip.ivr_busy, config.plan.dns[0].ivr), (vec![480], true));
    only_problem(
        &port,
        "4: dn[1].ivr: an IVR port without [ivr] `listen` belongs to nobody; add `listen = \"127.0.0.1:8090\"` to [ivr]",
    );
    only_problem("[ivr]\nbusy = [200]\n", "2: ivr.busy: expected a whole number from 400 to 699, found 200");
}

#[test]
fn events_are_kept_and_written_as_the_file_says() {
    let events = Config::default().events;
    assert_eq!((events.keep, events.file), (100_000, None));
    let events = Config::parse("[events]\nkeep = 500\nfile = \"events.ndjson\"\n").unwrap().events;
    assert_eq!((events.keep, events.file.as_deref()), (500, Some(Path::new("events.ndjson"))));
    only_problem(
        "[events]\nkeep = 1000001\n",
        "2: events.keep: expected a whole number from 0 to 1000000, found 1000001",
    );
    only_problem("[events]\nkep = 1\n", "2: events.kep: unknown key; did you mean `keep`?");
    only_problem(
        "[events]\nnats = \"nats://127.0.0.1:4222\"\n",
        "2: events.nats: not built yet: events over NATS; leave the key out",
    );
}

#[test]
fn invitations_and_where_interactions_come_from_are_held_to_their_forms() {
    let config = |text: &str| Config::parse(text).unwrap();
    assert_eq!(config("").interaction.invitation_timeout, Duration::from_secs(30));
    for (text, seconds) in [("1s", 1), ("24h", 86_400)] {
        let text = format!("[interaction]\ninvitation-timeout = {text:?}\n");
        assert_eq!(config(&text).interaction.invitation_timeout, Duration::from_secs(seconds));
    }
    for wrong in ["0s", "86401s"] {
        let found = problems(&format!("[interaction]\ninvitation-timeout = {wrong:?}\n"));
        assert!(found[0].contains("interaction.invitation-timeout: must be from 1s to 86400s"), "{found:?}");
    }
    let route = |origin: &str| format!("[[route]]\nmatch = \"1\"\nto = \"sip:192.0.2.1\"\norigin = {origin:?}\n");
    assert_eq!(config(&route("workbin:anna")).plan.routes[0].origin, Some(Origin::Workbin("anna".into())));
    assert_eq!(config(&route("")).plan.routes[0].origin, None, "the default may be written");
    for wrong in ["sales", "queue:", "list:sales"] {
        let expected = format!("4: route[1].origin: expected queue:NAME or workbin:NAME, found {wrong:?}");
        only_problem(&route(wrong), &expected);
    }
}

#[test]
fn a_listener_beyond_loopback_needs_a_token() {
    only_problem(
        "[api]\nlisten = \"0.0.0.0:8080\"\n",
        "1: api.token-file: required when listening on 0.0.0.0:8080; name a file that holds the token, or listen on 127.0.0.1",
    );
    assert_eq!(Config::parse("[api]\nlisten = \"off\"\n").unwrap().api.listen, None);
}

#[test]
fn a_secret_comes_from_a_file_or_the_environment_and_is_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "correct-horse\r\n").unwrap();
    let text = format!("[api]\nlisten = \"0.0.0.0:8080\"\ntoken-file = {file:?}\n");
    let config = Config::parse(&text).unwrap();
    assert_eq!(config.api.token.as_ref().unwrap().reveal(), "correct-horse");
    assert!(!format!("{config:?}").contains("correct-horse"));

    std::fs::write(&file, "\n").unwrap();
    assert!(problems(&text)[0].contains("is empty"));
    std::fs::write(&file, [b'x'; 5_000]).unwrap();
    assert!(problems(&text)[0].contains("longer than 4096 bytes"));
    let missing = "[api]\ntoken-env = \"STICKYTAPE_TEST_NOT_SET\"\n";
    only_problem(missing, "2: api.token-env: the environment variable \"STICKYTAPE_TEST_NOT_SET\" is not set");
}

#[test]
fn credentials_are_whole_or_absent() {
    let trunk = |body: &str| problems(&format!("[[trunk]]\nname = \"a\"\naddress = \"sip:192.0.2.1\"\n{body}\n"));
    assert_eq!(
        trunk("username = \"u\""),
        ["4: trunk[1].username: a user name without a password; add `password-file` or `password-env`"]
    );
}

#[test]
fn values_are_held_to_their_limits() {
    let one = |text: &str| problems(text).remove(0);
    assert!(one("[sip]\nring-timeout = \"0s\"\n").contains("must be from 1s to 3600s"));
    assert!(one("[sip]\nmax-calls = 0\n").contains("from 1 to 100000"));
    assert!(one("[sip]\nmax-calls = \"many\"\n").contains("\"auto\" or a number"));
    assert!(one("[media]\nports = \"10000\"\n").contains("range of ports"));
    assert!(one("[media]\nports = \"10000-10002\"\n").contains("two pairs"));
    assert!(one("[media]\nports = \"20000-10000\"\n").contains("two pairs"));
    assert!(one("[media]\ncodecs = [\"telephone-event\"]\n").contains("carries speech"));
    assert!(one("[media]\ncodecs = [\"PCMU/x\"]\n").contains("expected a codec"));
    assert!(one("[recording]\nsample-rate = 44100\n").contains("8000, 16000 or 48000"));
    assert!(one("[recording]\nmax-file-size = \"5GiB\"\n").contains("must be from"));
    assert!(one("[recording]\ndirectory = \"\"\n").contains("must not be empty"));
    assert!(one("[sip]\nadvertise = \"0.0.0.0\"\n").contains("no peer can reach"));
    assert!(one("[sip]\nlisten = []\n").contains("at least one"));
    assert!(one("[sip]\nlisten = [\"udp:127.0.0.1:5060\", \"udp:127.0.0.1:5060\"]\n").contains("twice"));
    assert!(one("[[dn]]\nnumber = \"2499-2000\"\ncontact = \"sip:10.0.0.1\"\n").contains("runs backwards"));
    assert!(one("[[dn]]\nnumber = \"20-200\"\ncontact = \"sip:10.0.0.1\"\n").contains("same number of digits"));
    assert!(one("[[dn]]\nnumber = \"2001\"\n").contains("`contact` is missing"));
    assert!(one("[[dn]]\nnumber = \"2001\"\ncontact = \"10.0.0.1\"\n").contains("does not begin with sip:"));
    assert!(one("[[dn]]\nnumber = \"2001\"\ncontact = \"sip:fe80::1\"\n").contains("in brackets"));
    assert!(one("[[dn]]\nnumber = \"2001\"\ncontact = \"sip:10.0.0.256\"\n").contains("is no host"));
    assert!(one("[[trunk]]\nname = \"a\"\n").contains("carries no calls"));
}

#[test]
fn interfaces_that_forward_are_those_that_there_are() {
    let text = |list: &str| format!("[media]\nkernel-forwarding = {list}\n");
    let read = |list: &str| Config::parse(&text(list)).unwrap().threads.kernel_forwarding;
    assert_eq!(read("[]"), Vec::<String>::new());
    assert_eq!(read("[\"lo\"]"), ["lo"]);
    let problem = problems(&text("[\"lo\", \"loo\"]")).remove(0);
    assert!(problem.contains("media.kernel-forwarding") && problem.contains("\"loo\"; there are "), "{problem}");
    assert!(problem.ends_with("lo") || problem.contains("lo,"), "{problem}");
}

#[test]
fn addresses_are_read_in_every_form() {
    let contact = |text: &str| values::sip_uri(text).unwrap();
    let plain = contact("sip:10.0.0.5");
    assert_eq!((plain.port, plain.transport, plain.user), (5060, None, None));
    let full = contact("SIP:{number}@Phones.Example.net:5070;transport=TCP");
    assert_eq!(full.host, Host::Name("phones.example.net".into()));
    assert_eq!((full.port, full.transport, full.user.as_deref()), (5070, Some(Transport::Tcp), Some("{number}")));
    assert_eq!(contact("sip:[::1]:5062").host, Host::Ip("::1".parse().unwrap()));
    assert_eq!(values::peer("127.0.0.1:5070").unwrap().port, 5070);
    assert_eq!(values::peer("[::1]").unwrap().port, 5060);
    for wrong in ["", ":5060", "a:b:c", "host:0", "host:99999", "[::1]x", "sip:host"] {
        assert!(values::peer(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn to_alone_means_that_no_file_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.toml");
    std::fs::write(&file, DN).unwrap();
    let config = Config::load(Some(&file), Some("127.0.0.1:5070")).unwrap();
    assert!(config.plan.to.is_some() && !config.plan.to_alone);
    assert!(matches!(Config::load(Some(&folder.path().join("none")), None), Err(ConfigError::Read { .. })));
    assert!(matches!(Config::load(Some(&file), Some("a:b:c")), Err(ConfigError::To { .. })));
}

#[test]
fn an_error_is_written_as_file_line_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.toml");
    std::fs::write(&file, "\n[sip]\nlisen = []\n").unwrap();
    let error = Config::load(Some(&file), None).unwrap_err().to_string();
    assert_eq!(error, format!("{}:3: sip.lisen: unknown key; did you mean `listen`?", file.display()));
}

#[test]
fn the_form_of_dtmf_is_read_for_trunks_and_dns() {
    let text = format!("{DN}dtmf = \"info\"\n[[trunk]]\nname = \"a\"\nfrom = \"10.0.0.1\"\ndtmf = \"info\"\n");
    let config = Config::parse(&text).unwrap();
    assert_eq!((config.plan.dns[0].dtmf, config.plan.trunks[0].dtmf), (Dtmf::Info, Dtmf::Info));
    assert_eq!(Config::parse(DN).unwrap().plan.dns[0].dtmf, Dtmf::Rfc4733);
}

#[test]
fn how_a_dn_is_held_by_request_is_read() {
    let config = Config::parse(&format!("{DN}hold = \"notify\"\n")).unwrap();
    assert_eq!(config.plan.dns[0].hold, HoldBy::Notify);
    assert_eq!(Config::parse(DN).unwrap().plan.dns[0].hold, HoldBy::Media);
    assert!(Config::parse(&format!("{DN}hold = \"sip\"\n")).is_err());
}

#[test]
fn a_dn_registers_with_the_password_of_a_file_and_has_no_contact_then() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "s3cret\n").unwrap();
    let dn = |rest: &str| format!("[[dn]]\nnumber = \"3001\"\n{rest}\n");
    let good = dn(&format!("registration = {{ password-file = {file:?} }}"));
    let config = Config::parse(&good).unwrap();
    assert_eq!(
        config.plan.dns[0].contact,
        Contact::Registered(Account { password: Password::new("s3cret"), algorithms: vec![Algorithm::Md5] })
    );
    let both = good.replace(" }", ", algorithms = [\"SHA-256\", \"MD5\"] }");
    let Contact::Registered(account) = &Config::parse(&both).unwrap().plan.dns[0].contact else { panic!("{both}") };
    assert_eq!(account.algorithms, [Algorithm::Sha256, Algorithm::Md5]);
    for algorithms in ["[]", "[\"MD5\", \"MD5\"]", "\"SHA-1\""] {
        let bad = problems(&good.replace(" }", &format!(", algorithms = {algorithms} }}"))).join(" ");
        assert!(bad.contains("SHA-256"), "{bad}");
    }
    assert!(!format!("{:?}", config.plan).contains("s3cret"));
    for (rest, expected) in [
        ("registration = {}", "password-file"),
        ("registration = true", "expected a table"),
        ("registration = { password-file = \"/nowhere/at/all\" }", "No such file"),
        ("registration = { password-file = \"/nowhere\", realm = \"x\" }", "unknown key"),
        ("", "`contact` is missing"),
    ] {
        let found = problems(&dn(rest)).join(" ");
        assert!(found.contains(expected), "{rest}: {found}");
    }
    let both = dn(&format!("contact = \"sip:10.0.0.1\"\nregistration = {{ password-file = {file:?} }}"));
    assert!(problems(&both).join(" ").contains("exclude each other"));
}

#[test]
fn ringback_and_hold_audio_are_read_and_made_ready_to_be_played() {
    let config = Config::default();
    assert_eq!(config.sounds, Sounds { ringback: Sound::Tone(Ringback::Europe), hold_audio: None });
    assert_eq!((config.media.ringback.len(), config.media.hold_audio), (40_000, None));
    let config = Config::parse("[media]\nringback = \"us\"\nhold-audio = \"none\"").unwrap();
    assert_eq!((config.media.ringback.len(), config.media.hold_audio), (48_000, None));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hold.wav");
    let spec = crate::disk::wav::Spec { sample_rate: 16_000, channels: 2 };
    let mut writer = crate::disk::wav::Writer::create(&crate::disk::RealDisk, &file, spec).unwrap();
    writer.append(&[1_000; 64_000]).unwrap();
    writer.commit().unwrap();
    let text = format!("[media]\nringback = {file:?}\nhold-audio = {file:?}");
    let config = Config::parse(&text).unwrap();
    assert_eq!(config.sounds, Sounds { ringback: Sound::File(file.clone()), hold_audio: Some(file) });
    assert_eq!(config.media.ringback.len(), 16_000);
    assert_eq!(config.media.hold_audio.unwrap()[8_000], 1_000);
}

#[test]
fn a_sound_that_cannot_be_played_is_a_mistake_of_its_key() {
    let advice = "write \"none\" or a WAV file of 16-bit PCM, mono or stereo, 8000 to 48000 Hz, up to 10 min";
    let found = problems("[media]\nworkers = 1\nhold-audio = \"/nowhere/hold.wav\"\nringback = \"uk\"");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("3: media.hold-audio: /nowhere/hold.wav: No such file"), "{}", found[0]);
    assert!(found[0].contains(advice), "{}", found[0]);
    assert!(found[1].starts_with("4: media.ringback: uk: No such file") && found[1].contains("\"us\""), "{}", found[1]);
}

#[test]
fn a_room_is_read_with_its_defaults_and_its_limits() {
    let plan = |text: &str| Config::parse(text).unwrap().plan;
    let rooms = plan("[[conference]]\nnumber = \"800\"\n").conferences;
    assert_eq!(*rooms[0], Conference::new("800"));
    assert_eq!((rooms[0].max_members, rooms[0].when_alone, rooms[0].record), (64, WhenAlone::End, None));
    let rest = "pin = \"0042\"\nmax-members = 256\nwhen-alone = \"wait\"\nrecord = false\n";
    let rooms = plan(&format!("[[conference]]\nnumber = \"+49800\"\n{rest}")).conferences;
    assert_eq!(rooms[0].pin.as_ref().unwrap().reveal(), "0042");
    assert_eq!((rooms[0].max_members, rooms[0].when_alone, rooms[0].record), (256, WhenAlone::Wait, Some(false)));
    let routed = format!("{DN}[[conference]]\nnumber = \"800\"\n[[route]]\nmatch = \"^9$\"\nto = \"dn:800\"\n");
    assert_eq!(plan(&routed).conferences.len(), 1, "a route may lead to a room");
}

#[test]
fn what_is_wrong_with_a_room_is_told_without_its_pin() {
    let room = |rest: &str| format!("[[conference]]\nnumber = \"800\"\n{rest}\n");
    only_problem(
        &format!("{}{}", room(""), room("")),
        "5: conference[2].number: another [[conference]] has this number already",
    );
    only_problem(
        &format!("{DN}[[conference]]\nnumber = \"2001\"\n"),
        "5: conference[1].number: a [[dn]] has this number already",
    );
    only_problem("[[conference]]\npin = \"1\"\n", "1: conference[1]: `number` is missing");
    only_problem("[[conference]]\nnumber = \"800-809\"\n", "2: conference[1].number: a room has one number");
    for pin in ["\"12a\"", "\"\"", "\"123456789012345678901234567890123\"", "\"98 76\""] {
        only_problem(&room(&format!("pin = {pin}")), "3: conference[1].pin: expected 1 to 32 digits");
    }
    only_problem(&room("pin = 9876"), "3: conference[1].pin: expected digits in quotes");
    for members in [1, 257] {
        let wrong = format!("3: conference[1].max-members: expected a whole number from 2 to 256, found {members}");
        only_problem(&room(&format!("max-members = {members}")), &wrong);
    }
    only_problem(
        &room("when-alone = \"stay\""),
        "3: conference[1].when-alone: expected one of \"end\", \"wait\", found \"stay\"",
    );
}
