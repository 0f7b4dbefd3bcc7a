"""What benches/report.py says of the other programs that anchored_calls measures."""

TEXT = """## Asterisk and FreeSWITCH

They are cases of `anchored_calls` like rtpengine, beside ours, where they are installed: `asterisk` and `freeswitch` bridge a
call, `asterisk-recorded` (MixMonitor) and `freeswitch-recorded` (record_session, stereo) record it too. The bench finds the
programs on PATH, or where `STICKYTAPE_ASTERISK` and `STICKYTAPE_FREESWITCH` say, starts them with the dial-plans of
`deploy/peers`, sets the calls up over SIP and has the same phones send the same packets. A case whose program is missing is told
so. `benches/all.sh peers` runs them; `deploy/peers/README.md` has the versions that were tried, what each does with a call, and
the same comparison by hand with SIPp, without the bench."""

TABLE = "Every program that was measured beside ours, by the medians of the same run:"
TITLES = ["theirs", "ours", "calls", "theirs, CPU-ms per call-second", "ours", "theirs to ours", "theirs lost"]

# Other programs by the begin of their cases' names: what each is called, how it runs, and case of ours, of theirs, and what theirs
# is to ours.
CASES = {
    "rtpengine": (
        "rtpengine",
        "userspace, one thread, the same core and priority",
        ("relay", "rtpengine", "forwarding"),
        ("recorded", "rtpengine-pcap", "recording: ours decoded, aligned and written as stereo WAV, theirs packets as they came"),
    ),
    "asterisk": (
        "Asterisk",
        "all its threads on the same core, real-time priority",
        ("relay", "asterisk", "forwarding: theirs a bridge that never leaves its RTP engine (native_rtp)"),
        ("recorded", "asterisk-recorded", "recording: ours stereo, theirs both parties mixed by MixMonitor"),
        ("recorded-mixed", "asterisk-recorded", "recording: both mixed, theirs by MixMonitor"),
    ),
    "freeswitch": (
        "FreeSWITCH",
        "all its threads on the same core, real-time priority",
        ("relay", "freeswitch", "forwarding: theirs a bridge through its core"),
        ("recorded", "freeswitch-recorded", "recording: both stereo, theirs by record_session"),
    ),
}


def pairs(found, key):
    """Cases of ours and of this program at the same number of calls, with what theirs is to ours."""
    for ours, theirs, what in CASES[key][2:]:
        for mine in (case for case in found if case.name == ours):
            for peer in (case for case in found if case.name == theirs and case.calls == mine.calls):
                yield mine, peer, what


def beside(found):
    """Each other program that was measured beside ours in a run."""
    parts = []
    for key, (name, how, *_) in CASES.items():
        lines, versions = [], {}
        for mine, peer, what in pairs(found, key):
            versions |= dict.fromkeys(peer.versions)
            lines.append(
                f"- {mine.calls:,} calls, {what}: {mine.median:.3f} CPU-ms per call-second against {name}'s {peer.median:.3f}, "
                f"that is {mine.median / peer.median:.2f} of it"
            )
        if lines:
            parts.append(f"Beside {name} ({'; '.join([how, *versions])}):\n\n" + "\n".join(lines))
    return parts


def compared(found):
    """Rows of all programs beside ours in a run: calls, ours, theirs, their medians and ours to theirs, what they lost."""
    rows = []
    for key in CASES:
        for mine, peer, _ in pairs(found, key):
            medians = [f"{case.median:.3f}" for case in (mine, peer)]
            times = f"{peer.median / mine.median:.1f}"
            rows.append([peer.name, mine.name, f"{mine.calls:,}", *reversed(medians), times, peer.share_lost()])
    return rows
