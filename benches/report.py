#!/usr/bin/env python3
"""Writes docs/performance.md and the README's figures from what the benches measured.

python3 benches/report.py --from target/bench   takes every *.json there, and profile.txt, into docs/performance.json first
python3 benches/report.py                       writes both anew from docs/performance.json
python3 benches/report.py --check               compares only; exit code 1 when a figure is not the measured one
"""

import argparse
import json
import re
import sys
from pathlib import Path

import peers

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- figures: written by benches/report.py, do not edit -->"
END = "<!-- end of figures -->"
# Threads of the media path, by the begin of their names, and of what becomes of a recording.
RECORDING = ("recorder-", "writer-", "publisher", "disk-")
# What the benches are, in the order of the page.
BENCHES = {
    "anchored_calls": "Anchored calls",
    "call_setup": "Call setup",
    "sip_parse": "SIP messages",
    "recording": "The recorder alone",
    "mixing": "The mixer and the recorder alone",
}
# What every bench writes beside its rows (benches/steps/told.rs).
ENVELOPE = ("bench", "command", "date", "machine")
NOTES = {
    "anchored_calls": "PCMU, 20 ms, over real sockets on loopback; the subject on one core at real-time priority, the phones on "
    "another. CPU-ms per call-second is what the scheduler charged to the subject's threads; least, median and most of the "
    "rounds; ratios are of the medians, to the bare reflector (epoll, receive, send) of the same run. Latency is from one "
    "phone's send to the other's receive. `phones` is the CPU time of the phones' own process in the round with the least CPU: what "
    "a case has done elsewhere would show there, because loopback charges the sender. kB a call is the growth of resident memory, socket buffers not included.",
    "call_setup": "INVITE, 200, ACK, BYE and 200 through the whole server, with descriptions and ports, without packets. "
    "`bare` is a loop that receives and sends as many datagrams and does nothing else; `repeated` counts what the server sent "
    "twice because an answer was late.",
    "sip_parse": "One thread, least of 20 rounds.",
    "recording": "Packets to samples without sockets.",
    "mixing": "CPU ns per party and 20 ms frame, without sockets; least and median of five rounds. `bare` is a plain loop of the "
    "same kernels.",
}


def number(value):
    """A figure with as many digits as it is worth."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (int, float)):
        return "–" if value is None else str(value)
    size = abs(value)
    if isinstance(value, int) or size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"


def table(titles, rows):
    """A Markdown table; figures stand right."""
    left = [all(not re.match(r"^[–0-9]", str(row[n])) for row in rows) for n in range(len(titles))]
    marks = ["---" if is_left else "---:" for is_left in left]
    lines = [titles, marks, *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def words(name):
    """`cpuMsPerCall` as `cpu ms per call`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: " " + found[1].lower(), name)


def measured(document):
    """The rows of a document that are measurements."""
    return [row for row in document.get("rows", []) if "notMeasured" not in row]


class Case:
    """All rounds of one case of anchored_calls at one number of calls."""

    def __init__(self, rows, reflector):
        rows = sorted(rows, key=lambda row: row["cpuMsPerCallSecond"])
        self.name, self.calls = rows[0]["case"], rows[0]["calls"]
        self.cpu = [row["cpuMsPerCallSecond"] for row in rows]
        # As the bench has it: of an even number of rounds the upper one.
        self.best, self.middle = rows[0], rows[len(rows) // 2]
        self.median = self.middle["cpuMsPerCallSecond"]
        self.ratio = self.median / reflector if reflector else None
        self.lost, self.sent = sum(row["lost"] for row in rows), sum(row["sent"] for row in rows)
        self.lost_at_start = sum(row.get("lostAtStart", 0) for row in rows)
        self.threads = self.middle["cpuMsPerCallSecondByThread"]
        # What a peer says of itself begins with its version.
        self.versions = [row["subject"].split("; ")[0] for row in rows if "; " in row.get("subject", "")]

    def of_threads(self, begins):
        """CPU of the threads whose names begin so, in the round of the median."""
        return sum(ms for name, ms in self.threads.items() if name.startswith(begins))

    def cells(self):
        latency = [self.latency(part) for part in ("p50", "p99", "p999")]
        figures = [self.cpu[0], self.median, self.cpu[-1], self.ratio]
        memory = round(self.best["residentKilobytesPerCall"])
        cells = [self.name, number(self.calls), *(f"{f:.3f}" if f else "–" for f in figures[:3])]
        phones = self.best.get("phonesCpuMsPerCallSecond")
        cells += [f"{self.ratio:.2f}" if self.ratio else "–", f"{phones:.3f}" if phones else "–", self.share_lost()]
        return [*cells, *latency, number(memory)]

    def share_lost(self):
        """Of the packets sent; what was lost in the first second, as some peers do, is told apart."""
        later = self.lost - self.lost_at_start
        shares = [f"{100 * later / self.sent:.2g} %"] if later else []
        shares += [f"{100 * self.lost_at_start / self.sent:.2g} % at start"] if self.lost_at_start else []
        return ", ".join(shares) or "0"

    def latency(self, part):
        """Added latency of the round with the least CPU; what a mixer sends is no packet that came."""
        return "–" if self.name.startswith("conference") else f"{self.best['latencyMs'][part]:.2f}"


CASE_TITLES = ["case", "calls", "least", "median", "most", "ratio", "phones", "lost", "p50 ms", "p99 ms", "p99.9 ms", "kB a call"]


def cases(document):
    """The cases of a run of anchored_calls, each at each number of calls, in the order of the run."""
    groups = {}
    for row in measured(document):
        groups.setdefault((row["calls"], row["case"]), []).append(row)
    order = list(dict.fromkeys(name for _, name in groups))
    keys = sorted(groups, key=lambda key: (key[0], order.index(key[1])))

    def reflector(calls):
        rows = sorted(row["cpuMsPerCallSecond"] for row in groups.get((calls, "reflector"), []))
        return rows[len(rows) // 2] if rows else None

    return [Case(groups[key], reflector(key[0])) for key in keys]


class Data:
    """What was measured, by bench."""

    def __init__(self, merged):
        self.documents = merged["documents"]
        self.profile = merged.get("profile")

    def of(self, bench):
        return [document for document in self.documents if document["bench"] == bench]

    def case(self, name, calls=None, beside=None):
        """A case of anchored_calls, at these calls if they are given, of the run with the most rounds of it (and `beside`)."""
        all_found = []
        for document in self.of("anchored_calls"):
            found = cases(document)
            if beside and not any(case.name == beside for case in found):
                continue
            all_found += [case for case in found if case.name == name and calls in (None, case.calls)]
        return max(all_found, key=lambda case: len(case.cpu), default=None)

    def missing(self):
        """What the page would have and is not there."""
        gaps = [f"`{bench}` was not run" for bench in BENCHES if not self.of(bench)]
        if self.of("mixing") and not any(document.get("costs") for document in self.of("mixing")):
            gaps.append("of `mixing` only how late ticks begin was measured, not what a party costs")
        for document in self.documents:
            gaps += [f"`{row['case']}`: {row['notMeasured']}" for row in document.get("rows", []) if "notMeasured" in row]
        return gaps + ([] if self.profile else ["no profile was taken"])


def machine(document):
    box = document["machine"]
    kind = "virtual machine" if box.get("virtual") else "machine"
    return (
        f"{box['processor']} ({box.get('vectors') or 'no vectors known'}), {kind} with {box['cores']} cores and "
        f"{box.get('memoryGiB')} GiB, Linux {box['kernel']}"
    )


def goals(data):
    """Goal, what was measured, and whether it is met; `None` where there is no measurement."""
    rows = []

    def goal(what, limit, value, unit="", at_least=False):
        sign = "≥" if at_least else "≤"
        verdict = "not measured" if value is None else "yes" if (value >= limit if at_least else value <= limit) else "no"
        rows.append([what, f"{sign} {number(limit)}{unit}", "–" if value is None else number(value) + unit, verdict])

    reflector, relay, recorded = (data.case(name, 200, "reflector") for name in ("reflector", "relay", "recorded"))
    goal("relay to reflector, 200 calls", 1.25, relay and relay.ratio)
    goal("recorded in stereo to reflector, 200 calls", 1.40, recorded and recorded.ratio)
    cost = recorded.median - relay.median if recorded and relay else None
    of_its_threads = recorded.of_threads(RECORDING) if recorded else None
    goal("recording, its own threads, per call-second", 0.10, of_its_threads, " CPU-ms")
    # The media thread's copies are in it, and the difference between two runs of that thread.
    goal("recorded calls less relayed ones, per call-second", 0.10, cost, " CPU-ms")
    for name, length in (("recorded-ending", "10 s"), ("recorded-minute", "a minute")):
        ending, lasting = data.case(name, beside="recorded"), data.case("recorded", beside=name)
        # The media thread does not know that calls end, and its share moves by more than this is.
        more = ending.of_threads(RECORDING) - lasting.of_threads(RECORDING) if ending and lasting else None
        goal(f"hashing and publishing more, calls of {length}", 0.05, more, " CPU-ms")
    thousand = data.case("recorded", 1000, "reflector")
    goal("recorded to reflector, 1,000 calls", 0.85, thousand and thousand.ratio)
    in_kernel = data.case("recorded-kernel", 1000, "reflector")
    goal("the same, the kernel forwards", 0.85, in_kernel and in_kernel.ratio)
    goal("packets lost, 1,000 recorded calls", 0, thousand and thousand.lost)
    goal("the same, the kernel forwards", 0, in_kernel and in_kernel.lost)
    naive = data.case("reflector", 1000)
    late = thousand.best["latencyMs"]["p999"] - naive.best["latencyMs"]["p999"] if thousand and naive else None
    goal("p99.9 above the reflector's, 1,000 recorded calls", 4, late, " ms")
    naive = data.case("reflector", 1000, "recorded-kernel")
    # A reference that is full says nothing about latency.
    late = in_kernel.best["latencyMs"]["p999"] - naive.best["latencyMs"]["p999"] if in_kernel and naive and not naive.lost else None
    goal("the same, the kernel forwards", 4, late, " ms")
    many = data.case("recorded-kernel", 2000)
    goal("packets lost, 2,000 recorded calls on one core, the kernel forwards", 0, many and many.lost)
    largest = [case for document in data.of("anchored_calls") for case in cases(document) if case.name == "recorded"]
    largest = max((case for case in largest if case.lost == 0), key=lambda case: (case.calls, len(case.cpu)), default=None)
    same_run = data.case("recorded", 200)
    growth = largest.median / same_run.median if largest and same_run and largest.calls > 200 else None
    at = f" ({number(largest.calls)})" if growth else ""
    goal(f"cost of a recorded call at the most without loss{at} to that at 200", 1.0, growth)
    memory = recorded and float(round(recorded.best["residentKilobytesPerCall"]))
    goal("memory of a recorded call, 200 calls", 64, memory, " kB")
    setup = [row for document in data.of("call_setup") for row in measured(document)]
    plain = min((row["cpuMsPerCall"] for row in setup if row["case"] == "plain" and row["failed"] == 0), default=None)
    goal("call setup, plain, at its cheapest rate", 0.4, plain, " CPU-ms")
    clean = [row for row in setup if row["case"] == "plain" and row["failed"] + row["repeatedByServer"] == 0]
    rate = max((row["callsPerSecond"] for row in clean), default=None)
    goal("plain calls per second without a retransmission", 1000, rate, at_least=True)
    for kernels, limit in (("run time", 150), ("avx2", 150), ("sse2", 350)):
        mixing = [row for document in data.of("mixing") for row in document.get("costs", []) if row["parties"] <= 128]
        both = [row["bothNs"]["least"] for row in mixing if row.get("kernels") == kernels and "bothNs" in row]
        name = "kernels chosen at run time" if kernels == "run time" else kernels
        goal(f"mixer and recorder, {name}, dearest of 3 to 128 parties, per party and frame", limit, max(both, default=None), " ns")
    late = [row for document in data.of("mixing") for row in document.get("lateness", []) if row.get("part") == 0.999]
    above = next((row["aboveUsAtMost"] for row in late if row.get("aboveUsAtMost") is not None), None)
    goal("p99.9 of a mixer's lateness above a bare timer's, 200 members", 2000, above, " µs")
    recorded_conference = data.case("conference-recorded")
    party = recorded_conference.median / 3 if recorded_conference else None
    goal("recorded conference of three over sockets, per party-second", 1.0, party, " CPU-ms")
    two, one = data.case("two-workers"), data.case("relay", beside="two-workers")
    carried = 2 * one.median / two.median if one and two and one.calls == two.calls else None
    goal("two media workers to one", 1.9, carried, at_least=True)
    return rows


def anchored(document):
    """The table of a run, what its threads took, and how it stands to other programs."""
    found = cases(document)
    parts = [table(CASE_TITLES, [case.cells() for case in found])]
    threads = [
        f"- {case.name}, {number(case.calls)} calls: "
        + ", ".join(f"{name} {ms:.3f}" for name, ms in sorted(case.threads.items(), key=lambda item: -item[1]))
        for case in found
        if len(case.threads) > 1 and not case.name.startswith(tuple(peers.CASES))
    ]
    if threads:
        parts.append("By thread (the round of the median, CPU-ms per call-second):\n\n" + "\n".join(threads))
    parts += peers.beside(found)
    return parts


def flat(value):
    """A cell of a table of any rows."""
    if isinstance(value, dict):
        if set(value) == {"least", "median"}:
            return f"{number(value['least'])} / {number(value['median'])}"
        return ", ".join(f"{words(name)} {number(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(number(part) for part in value)
    return number(value)


def plain(rows):
    """Tables of rows of any kind, one for each set of columns."""
    kinds = {}
    for row in rows:
        kinds.setdefault(tuple(row), []).append(row)
    tables = []
    for names, of_kind in kinds.items():
        names = [name for name in names if any(row[name] is not None for row in of_kind)]
        tables.append(table([words(name) for name in names], [[flat(row[name]) for name in names] for row in of_kind]))
    return tables


def section(data, bench):
    parts = [f"## {BENCHES.get(bench, bench)}"]
    parts += [NOTES[bench]] if bench in NOTES else []
    for document in data.of(bench):
        parts.append(f"`{document['command']}`")
        if bench == "anchored_calls":
            parts += anchored(document)
            continue
        alone = {name: value for name, value in document.items() if name not in ENVELOPE and not isinstance(value, list)}
        if alone:
            parts.append("; ".join(f"{words(name)}: {flat(value)}" for name, value in alone.items()).capitalize() + ".")
        lists = {name: rows for name, rows in document.items() if isinstance(rows, list)}
        for name, rows in lists.items():
            parts += [f"{words(name).capitalize()}:"] if name != "rows" else []
            parts += plain(rows)
    return parts


# The threads of the subject: the bench itself, its loader and perf are on that core only before and after.
SUBJECT = re.compile(r"^(media-|mixer-|recorder-|writer-|publisher|disk-|signaller|tokio-rt|anchored_calls)")


def read_profile(text):
    """Rows of `perf report --sort comm,dso,symbol`, of the subject's threads only; shares of these."""
    rows = []
    for line in text.splitlines():
        found = re.match(r"^\s+([0-9.]+)%\s+(.+?)\s{2,}(\S+)\s+\[(.)\]\s+(.+?)(\s{2,}-\s+-)?\s*$", line)
        if found and SUBJECT.match(found[2]):
            place = re.sub(r"-[0-9a-f]{16}$", "", found[3])
            function = re.sub(r"::h[0-9a-f]{16}$", "", found[5]).replace("|", "/")
            rows.append({"share": float(found[1]), "thread": found[2], "in": place, "function": function[:100]})
    whole = sum(row["share"] for row in rows) or 1.0
    for row in rows:
        row["share"] = round(100 * row["share"] / whole, 2)
    return rows


def limits(data):
    """What limits it: the profile, and what follows for a bigger machine."""
    parts = ["## What limits it"]
    if data.profile:
        rows = data.profile
        kernel = sum(row["share"] for row in rows if row["in"].startswith("[kernel") or row["in"] == "[unknown]")
        by_thread = {}
        for row in rows:
            by_thread[row["thread"]] = by_thread.get(row["thread"], 0) + row["share"]
        named = ", ".join(f"{name} {share:.0f} %" for name, share in sorted(by_thread.items(), key=lambda item: -item[1])[:5])
        parts.append(
            f"A profile by function of the subject's core with recorded calls (`benches/all.sh profile`: perf, samples by the CPU "
            f"clock): {kernel:.0f} % in the kernel, {100 - kernel:.0f} % in the program. By thread: {named}. Idle time is not in it; "
            "functions below 1 % are left out."
        )
        shown = [row for row in rows if row["share"] >= 1.0][:25]
        parts.append(
            table(["share", "thread", "in", "function"], [[f"{row['share']:.1f} %", row["thread"], row["in"], f"`{row['function']}`"] for row in shown])
        )
    else:
        parts.append("No profile was taken in this run: `benches/all.sh profile`, where `perf` is installed.")
    naive, shared = data.case("reflector", 1000), data.case("reflector-shared", 1000)
    recorded = data.case("recorded", 1000, "reflector")
    if naive and shared and recorded:
        parts.append(
            f"At 1,000 calls a bare reflector that has one socket for all legs takes {shared.median / naive.median:.2f} of what the "
            f"one with a socket a leg takes, and recorded calls {recorded.ratio:.2f}, of which recorder, writer and disk are "
            f"{recorded.of_threads(RECORDING) / naive.median:.2f}. A socket shared by a trunk's calls would therefore save "
            f"{1 - shared.median / naive.median:.2f} at most, and not reach the goal of 0.85 by itself. It would tell calls apart by "
            "the address that packets come from, which a leg does not know before its peer's description is here, nor behind NAT; "
            "and its calls could not move between media threads."
        )
    return parts + bigger(data)


def bigger(data):
    """What a bigger machine should give, from the cost per thread."""
    parts = ["## A bigger machine"]
    recorded = data.case("recorded", 200, "reflector") or data.case("recorded")
    if not recorded:
        return parts + ["No recorded case was measured, so nothing can be derived."]
    media, recording = recorded.of_threads("media-"), recorded.of_threads(RECORDING)
    used = 0.8
    by_media = used * 1000 / media
    together = used * 1000 / recorded.median
    per_recorder = used * 1000 / recording if recording else None
    parts.append(
        f"From {number(recorded.calls)} recorded calls (stereo) of this run, derived and not measured. A call-second costs "
        f"{media:.3f} CPU-ms in its media thread and {recording:.3f} in the recorder, its writer and the publisher. A core "
        f"that is to stay {100 - 100 * used:.0f} % idle, so that packets find it awake, therefore carries about "
        f"{number(round(together, -1))} recorded calls with all their threads on it. Where recorders have cores of their own, a "
        f"media core carries {number(round(by_media, -1))}"
        + (f", and a core of recorders serves {number(round(per_recorder, -1))} calls." if per_recorder else ".")
    )
    bytes_per_second = 2 * 2 * 8000
    parts.append(
        "With n cores that is n times as much until something shared is full. Media threads share nothing on the way of a packet: "
        "each owns its sockets, ports, legs and rings, and a call's legs are in one of them; so do recorders with their calls and "
        "files. Shared are: signalling (one task: see call setup for the calls per second that it carries), the publisher and the "
        "folder's file system (one directory entry, hash and rename per recording), the kernel's UDP and network stack, which is "
        "most of a packet's cost, and memory bandwidth, which at "
        f"{bytes_per_second // 1000} kB of samples a second and call is no limit before ten thousands of calls. The disk takes "
        f"{bytes_per_second / 1000:.0f} kB/s per stereo call, so 1,000 calls write {bytes_per_second / 1000:.0f} MB/s; the network "
        "carries 100 packets of 214 bytes a second and direction per call: 1,000 calls are 171 Mbit/s each way, 100,000 packets. "
        "On loopback the sender is charged for what the receiver's kernel does; over a network card that part is in interrupts on "
        "other cores, so a core carries rather more calls than here and the card's queues want cores too. That two media threads "
        "carry 1.9 times as much as one is measured only where three cores are free; see the table of goals."
    )
    return parts


SOAK = """## Soak

`cargo test --test soak` (in every run of `./test.sh`) puts half the load on a server that `tests/sipp_load.rs` carries, for 90 s:
30 long calls with media and 25 short ones a second, 50 at any moment. After a warm-up of 50 s resident memory may not grow by more
than 2 % and 1 MiB, descriptors by no more than thirty; no copy may be dropped and every recording must verify. Longer:

```console
$ STICKYTAPE_SOAK_SECONDS=600 cargo test --test soak                                      # ten minutes
$ STICKYTAPE_SOAK_SECONDS=3900 STICKYTAPE_SOAK_RATE=50 cargo test --release --test soak   # an hour of 50 calls a second, 12 GB
```

An hour of 50 calls a second (2026-11-22, AMD EPYC, two cores, the second shared with builds and tests at a lower priority):
195,030 calls in 65 minutes, resident memory 40,376 kB after the warm-up of five minutes and 41,256 kB at the end, by tenths of
the hour 40,744, 40,896, 40,840, 40,836, 40,824, 40,588, 40,720, 40,856, 40,508 and 41,092; descriptors 799 and 790, nothing
dropped, every recording verified. On another machine (Intel Xeon, two cores, both taken by builds) an hour judged from its
50th second on failed with 41,736 and 46,136 kB: resident memory rises for some minutes. Whether what ran beside it adds to
that was not measured.

With the C library's allocator resident memory grew by 8 % in seven minutes of 40 calls a second, and with jemalloc beside it by 2 %. In another run with the C library, 50 calls a second beside benches, `malloc_info` told that what was in use
stayed the same within nine minutes (23 to 25 MB) while what the allocator held free grew from 8 to 11 MB to 12 to 14 MB: it
fragments, because one thread frees what another has allocated."""


def page(data):
    """docs/performance.md."""
    parts = [
        "# What it costs",
        "<!-- Written by benches/report.py from performance.json; do not edit. -->",
        "Measured by `benches/all.sh` and written by `benches/report.py`; `tests/performance_page.rs` holds this page to "
        "`performance.json`. Ratios hold between machines, absolute figures do not: read the ratios.",
    ]
    boxes = dict.fromkeys(f"{document['date']}: {machine(document)}" for document in data.documents)
    parts.append("\n".join(f"- {box}" for box in boxes) or "Nothing was measured.")
    parts += ["## Goals", table(["what", "goal", "measured", "met"], goals(data))]
    gaps = list(dict.fromkeys(data.missing()))
    if gaps:
        parts.append("Not in this page:\n\n" + "\n".join(f"- {gap}" for gap in gaps))
    others = [document["bench"] for document in data.documents if document["bench"] not in BENCHES]
    for bench in [*BENCHES, *dict.fromkeys(others)]:
        if data.of(bench):
            parts += section(data, bench)
    compared = [row for document in data.of("anchored_calls") for row in peers.compared(cases(document))]
    parts += [peers.TEXT, *([peers.TABLE, table(peers.TITLES, compared)] if compared else []), *limits(data), SOAK]
    return "\n\n".join(parts) + "\n"


def readme_section(data):
    """What stands between the markers of the README."""
    run = next((document for document in data.of("anchored_calls") if any(case.name == "recorded" for case in cases(document))), None)
    if not run:
        return "`anchored_calls` was not run."
    shown = [case for case in cases(run) if case.calls == 200] or cases(run)
    rows = [
        [case.name, f"{case.median:.3f}", f"{case.cpu[0]:.3f}–{case.cpu[-1]:.3f}", f"{case.ratio:.2f}" if case.ratio else "–",
         case.latency("p99"), number(round(case.best["residentKilobytesPerCall"]))]
        for case in shown
    ]
    head = table([f"{number(shown[0].calls)} calls", "CPU-ms per call-second", "least–most", "ratio", "p99 ms", "kB a call"], rows)
    setup = [row for document in data.of("call_setup") for row in measured(document) if row["case"] == "plain" and not row["failed"]]
    parts = [head, f"({run['date']}: {machine(run)}. `{run['command']}`; `recorded` writes stereo.)"]
    if setup:
        cheap = min(setup, key=lambda row: row["cpuMsPerCall"])
        parts.append(
            f"Setting a call up and tearing it down costs {number(cheap['cpuMsPerCall'])} CPU-ms at "
            f"{number(cheap['callsPerSecond'])} calls a second."
        )
    return "\n\n".join(parts)


def in_readme(text, data):
    """The README with its section renewed."""
    if BEGIN not in text or END not in text:
        sys.exit(f"the README has no {BEGIN} … {END}")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}\n{readme_section(data)}\n{END}{after}"


def collect(folder):
    """All that lies there as one object."""
    documents = []
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text())
        if not isinstance(document, dict) or "bench" not in document:
            sys.exit(f"{path}: not written by a bench of this repository")
        documents.append(document)
    # The run with rtpengine first: it is what the README shows.
    named = {id(document): {row.get("case") for row in document.get("rows", [])} for document in documents}
    documents.sort(key=lambda document: ("rtpengine" not in named[id(document)], -len(named[id(document)])))
    profile = folder / "profile.txt"
    rows = read_profile(profile.read_text()) if profile.exists() else None
    return {"documents": documents, "profile": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, help="where the benches wrote their JSON")
    parser.add_argument("--data", type=Path, default=ROOT / "docs/performance.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/performance.md")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    if given.folder:
        given.data.write_text(json.dumps(collect(given.folder), indent=1, ensure_ascii=False) + "\n")
    data = Data(json.loads(given.data.read_text()))
    wanted = {given.page: page(data), given.readme: in_readme(given.readme.read_text(), data)}
    if given.check:
        wrong = [str(path) for path, text in wanted.items() if not path.exists() or path.read_text() != text]
        sys.exit(f"not what {given.data} says: {', '.join(wrong)}; run python3 benches/report.py" if wrong else 0)
    for path, text in wanted.items():
        path.write_text(text)
    for gap in dict.fromkeys(data.missing()):
        print(f"missing: {gap}")


if __name__ == "__main__":
    main()
