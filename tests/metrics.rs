//! What a Prometheus finds on the live server is what docs/metrics.md says, and the dashboard asks for nothing else.

mod peers;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use peers::{Options, Server, Setup, Sipp, V4, at, free_ports, wait_for};
use serde_json::Value;
use stickytape::ivr::frame::{Kind, encode};

/// A family: its type and labels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The rows of docs/metrics.md.
fn documented() -> BTreeMap<String, Family> {
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let page = text("docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let family = Family { kind: cells[2].into(), labels: quoted(cells[3]).into_iter().collect() };
        (quoted(cells[1]).remove(0), family)
    })
    .collect()
}

/// The families of an answer of `/metrics`, and the names of their samples.
fn scraped(page: &str) -> (BTreeMap<String, Family>, BTreeSet<String>) {
    let (mut families, mut samples) = (BTreeMap::new(), BTreeSet::new());
    let mut latest = String::new();
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            latest = name.to_owned();
            families.insert(latest.clone(), Family { kind: kind.into(), labels: BTreeSet::new() });
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            assert!(name.starts_with(&latest), "{name} is not of {latest}");
            samples.insert(name.to_owned());
            let of_family = &mut families.get_mut(&latest).unwrap().labels;
            let names = labels.trim_end_matches('}').split(',').filter_map(|label| Some(label.split_once('=')?.0));
            of_family.extend(names.filter(|name| *name != "le").map(str::to_owned));
        }
    }
    (families, samples)
}

fn server(plan: &str) -> Server {
    Server::start(&Setup { plan: plan.into(), ..Setup::default() })
}

fn above(server: &Server, name: &str, least: f64) {
    let metric = || server.metric(name).unwrap_or_else(|| panic!("there is no {name}"));
    wait_for(name, Duration::from_secs(10), || (metric() >= least).then_some(()));
}

#[test]
fn every_documented_name_is_there_before_anything_has_happened_and_no_other() {
    let server = server("");
    let (families, _) = scraped(&server.get("/metrics").unwrap().1);
    let documented = documented();
    let names = |of: &BTreeMap<String, Family>| of.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&families), names(&documented));
    assert_eq!(families, documented, "types and labels");
}

#[test]
fn the_dashboard_is_for_grafana_and_asks_only_for_what_is_there() {
    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/stickytape.json")).unwrap();
    assert!(dashboard["schemaVersion"].as_u64() >= Some(38), "the schema of Grafana 10");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let of = |name: &str| variables.iter().find(|variable| variable["name"] == name);
    assert_eq!(of("datasource").unwrap()["type"], "datasource");
    assert_eq!(of("instance").unwrap()["datasource"]["uid"], "${datasource}");
    let server = server("");
    let (_, samples) = scraped(&server.get("/metrics").unwrap().1);
    let mut ids = BTreeSet::new();
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "each panel has an id of its own");
        let place = |field: &str| panel["gridPos"][field].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{panel}");
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let names: Vec<_> =
                words.filter(|word| word.starts_with("stickytape_") || word.starts_with("process_")).collect();
            assert!(!names.is_empty(), "{expression}");
            for name in names {
                assert!(samples.contains(name), "{name} of {expression:?} is not in /metrics");
                asked.insert(name.to_owned());
            }
        }
    }
    let families: BTreeSet<_> = documented().into_keys().collect();
    let shown = |family: &String| asked.iter().any(|name| name.starts_with(family.as_str()));
    assert_eq!(families.iter().filter(|family| !shown(family)).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn a_recorded_call_with_sound_moves_the_figures_that_speak_of_it() {
    let port = free_ports(1);
    let server = server(&format!(
        "[[trunk]]\nname = \"callers\"\nfrom = [\"{V4}\"]\n[[dn]]\nnumber = \"2001\"\ncontact = \"sip:2001@{V4}:{port}\"\n"
    ));
    let folder = server.folder.path().to_owned();
    std::fs::write(folder.join("tone.ulaw"), [0x20; 8_000]).unwrap();
    let talk = Duration::from_secs(4);
    let callee =
        Sipp::start(&folder, &Options { scenario: "uas_answer", port, echo: true, talk, ..Options::default() });
    let target = Some(at(V4, server.sip));
    let caller = Sipp::start(&folder, &Options { scenario: "uac_stream", target, talk, ..Options::default() });
    let above = |name, least| above(&server, name, least);
    // While it is up.
    above("stickytape_calls", 1.0);
    above("stickytape_recordings{state=\"recording\"}", 1.0);
    above("stickytape_media_datagrams_total{direction=\"received\"}", 50.0);
    above("stickytape_media_datagrams_total{direction=\"sent\"}", 50.0);
    above("stickytape_recordings_written_bytes_total", 8_000.0);
    above("stickytape_ring_fill_ratio{to=\"recorder\"}", 0.000_1);
    above("stickytape_sip_transactions", 1.0);
    caller.succeed(&server);
    callee.succeed(&server);
    above("stickytape_calls_ended_total{cause=\"released\"}", 1.0);
    above("stickytape_recordings_stopped_total{cause=\"released\"}", 1.0);
    above("stickytape_recordings_published_total", 1.0);
    above("stickytape_call_setup_seconds_count", 1.0);
    assert_eq!(server.metric("stickytape_media_dropped_total{reason=\"recorder-ring-full\"}"), Some(0.0));
}

#[test]
fn an_ivr_driver_and_what_it_sends_wrong_are_counted() {
    let port = free_ports(1);
    let server = server(&format!("[ivr]\nlisten = \"{V4}:{port}\"\n"));
    let mut driver = TcpStream::connect((V4, port)).unwrap();
    driver.write_all(&encode(Kind::KeepAliveRequest, b"")).unwrap();
    driver.write_all(&encode(Kind::Xml, b"<not-xml")).unwrap();
    above(&server, "stickytape_ivr_drivers", 1.0);
    above(&server, "stickytape_ivr_frames_total{direction=\"received\"}", 2.0);
    above(&server, "stickytape_ivr_frames_total{direction=\"sent\"}", 2.0);
    above(&server, "stickytape_ivr_errors_total{reason=\"malformed\"}", 1.0);
    drop(driver);
    let gone = || (server.metric("stickytape_ivr_drivers") == Some(0.0)).then_some(());
    wait_for("the driver is gone", Duration::from_secs(10), gone);
}
