//! docs/requests.md shows what deploy/examples/call_flow.sh prints, played with SIPp against the live server.

mod peers;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use peers::{Options, Server, Setup, Sipp, V4, free_ports};
use serde_json::Value;

fn of_the_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The transcript with everything replaced that differs from run to run.
fn normal(transcript: &str) -> String {
    let mut names: Vec<(String, String)> = Vec::new();
    let mut known = |found: &str, kind: &str| {
        if !names.iter().any(|(name, _)| name == found) {
            let number = names.iter().filter(|(_, known)| known.starts_with(kind)).count() + 1;
            names.push((found.to_owned(), format!("{kind}-{number}")));
        }
    };
    for json in transcript.lines().filter_map(|line| line.starts_with('{').then(|| line.split(" (").next())?) {
        let Ok(Value::Object(fields)) = serde_json::from_str(json) else { panic!("no JSON: {json}") };
        for (field, kind) in
            [("ConnID", "CONNID"), ("CallUUID", "UUID"), ("RecordingID", "RECORDING"), ("time", "TIME")]
        {
            if let Some(text) = fields.get(field).and_then(Value::as_str) {
                known(text, kind);
            }
        }
    }
    let mut text = transcript.to_owned();
    for (found, name) in names {
        // One time says as little as the other.
        text = text.replace(&found, if name.starts_with("TIME") { "TIME" } else { &name });
    }
    let process = text.split("flow-").nth(1).and_then(|rest| rest.split('-').next()).unwrap_or_default().to_owned();
    text.replace(&format!("flow-{process}-"), "flow-").trim().to_owned()
}

#[test]
fn the_transcript_of_the_documentation_is_what_the_script_prints() {
    let [first, second, third] = [(); 3].map(|()| free_ports(1));
    let dns = [("2001", first), ("2002", second), ("2003", third)]
        .map(|(dn, port)| format!("[[dn]]\nnumber = \"{dn}\"\ncontact = \"sip:{dn}@{V4}:{port}\"\n"));
    let mut server = Server::start(&Setup { plan: dns.concat(), ..Setup::default() });
    let folder = server.folder.path().to_owned();
    std::fs::copy(of_the_repository("fixtures/sipp/d1.ulaw"), folder.join("d1.ulaw")).unwrap();
    let phones = [first, second, third].map(|port| {
        let talk = Duration::from_secs(30);
        Sipp::start(&folder, &Options { scenario: "uas_party", port, talk, ..Options::default() })
    });
    let script = of_the_repository("deploy/examples/call_flow.sh");
    let api = format!("http://{V4}:{}", server.api);
    let output = Command::new("sh").arg(script).arg(api).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{printed}\n{said}\nserver:\n{}", server.log());
    phones.into_iter().for_each(|phone| phone.succeed(&server));

    let page = std::fs::read_to_string(of_the_repository("docs/requests.md")).unwrap();
    let (_, rest) = page.split_once("```text\n").unwrap();
    let (documented, _) = rest.split_once("```").unwrap();
    let printed = normal(&printed);
    let differs = documented.trim().lines().zip(printed.lines()).find(|(wanted, found)| wanted != found);
    assert!(documented.trim() == printed, "first difference: {differs:#?}\nnow the script prints:\n{printed}");
    server.published(1);
    server.stop_and_verify();
}

#[test]
fn the_example_configuration_is_one_for_the_phones_that_the_page_starts() {
    let page = std::fs::read_to_string(of_the_repository("docs/requests.md")).unwrap();
    let text = std::fs::read_to_string(of_the_repository("deploy/examples/call_flow.toml")).unwrap();
    stickytape::config::Config::parse(&text).unwrap_or_else(|problems| panic!("{problems:?}"));
    for (dn, port) in [("2001", "5071"), ("2002", "5072"), ("2003", "5073")] {
        assert!(text.contains(&format!("contact = \"sip:{dn}@127.0.0.1:{port}\"")), "{dn}");
        assert!(page.lines().any(|line| line.contains(&format!("-p {port} ")) && line.ends_with(dn)), "{dn}");
    }
}
