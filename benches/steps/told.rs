//! What a bench writes for `benches/report.py`: its rows, and where, when and how they were measured.

use serde_json::{Value, json};
use stickytape::clock;

/// The rows of a run of this program, with the machine and the command line. A list is called `rows`; an object's members,
/// each a list of rows of one kind, keep their names.
pub fn document(rows: &Value) -> Value {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let file = program.rsplit('/').next().unwrap_or_default();
    // Cargo appends a hash to the name of what it builds.
    let bench = file.rsplit_once('-').map_or(file, |(name, _)| name);
    let rest: Vec<String> = arguments.filter(|argument| argument != "--bench").collect();
    let mut document = json!({
        "bench": bench,
        "command": format!("cargo bench --bench {bench} -- {}", rest.join(" ")),
        "date": clock::wall().strftime("%Y-%m-%d").to_string(),
        "machine": machine(),
    });
    match rows {
        Value::Object(tables) => {
            tables.iter().for_each(|(name, rows)| document[name.as_str()] = rows.clone());
        }
        rows => document["rows"] = rows.clone(),
    }
    document
}

/// The processor, its cores that the system sees, the memory and the kernel.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let of = |name: &str| {
        let value = |line: &str| Some(line.strip_prefix(name)?.split_once(':')?.1.trim().to_owned());
        cpus.lines().find_map(value)
    };
    let flags = of("flags").unwrap_or_default();
    let vectors = ["avx512f", "avx2", "sse2"].into_iter().find(|flag| flags.split(' ').any(|has| has == *flag));
    let memory = read("/proc/meminfo");
    let kilobytes = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    json!({
        "processor": of("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        "vectors": vectors,
        "cores": cpus.lines().filter(|line| line.starts_with("processor")).count(),
        "virtual": flags.split(' ').any(|flag| flag == "hypervisor"),
        "memoryGiB": kilobytes.and_then(|text| text.parse::<u64>().ok()).map(|kilobytes| kilobytes >> 20),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}
