//! The figures of docs/performance.md and of the README are those of docs/performance.json, written by benches/report.py.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn report(arguments: &[&str], files: &[(&str, &Path)]) -> Output {
    let mut command = Command::new("python3");
    command.arg(root().join("benches/report.py")).args(arguments);
    files.iter().for_each(|(name, path)| _ = command.arg(name).arg(path));
    command.output().expect("python3, which test.sh installs")
}

#[track_caller]
fn refuses(output: &Output, what: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains(what), "{:?}: {said}", output.status);
}

#[test]
fn page_and_readme_say_what_was_measured() {
    let output = report(&["--check"], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_figure_written_by_hand_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (page, readme) = (folder.path().join("performance.md"), folder.path().join("README.md"));
    let copy = |from: &str, to: &Path| fs::write(to, fs::read_to_string(root().join(from)).unwrap()).unwrap();
    copy("docs/performance.md", &page);
    copy("README.md", &readme);
    let files = [("--page", page.as_path()), ("--readme", readme.as_path())];
    assert!(report(&["--check"], &files).status.success());
    for path in [&page, &readme] {
        let text = fs::read_to_string(path).unwrap();
        let (before, row) = text.split_once("| recorded |").expect("a row of recorded calls");
        fs::write(path, format!("{before}| recorded | 0{row}")).unwrap();
        refuses(&report(&["--check"], &files), path.to_str().unwrap());
        fs::write(path, text).unwrap();
    }
}

#[test]
fn what_no_bench_wrote_is_refused_and_what_is_missing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (page, readme, data) =
        (folder.path().join("page.md"), folder.path().join("README.md"), folder.path().join("merged"));
    fs::copy(root().join("README.md"), &readme).unwrap();
    let files = [
        ("--from", folder.path()),
        ("--data", data.as_path()),
        ("--page", page.as_path()),
        ("--readme", readme.as_path()),
    ];
    // Nothing was measured: the page says so.
    let output = report(&[], &files);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("missing: `call_setup` was not run"), "{said}");
    assert!(fs::read_to_string(&page).unwrap().contains("- `anchored_calls` was not run"));
    assert!(fs::read_to_string(&readme).unwrap().contains("`anchored_calls` was not run."));
    fs::write(folder.path().join("other.json"), "[1, 2]").unwrap();
    refuses(&report(&[], &files), "not written by a bench");
}
