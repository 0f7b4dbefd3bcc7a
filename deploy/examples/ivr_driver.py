#!/usr/bin/env python3
"""An IVR driver for stickytape: connects, waits for a call to an IVR port, and runs one flow on it.

    [ivr]                              [[dn]]
    listen = "127.0.0.1:8090"          number = "2002"
                                       contact = "sip:2002@127.0.0.1:5070"
                                       ivr = true

    ivr_driver.py --server 127.0.0.1:8090 --flow consult-transfer --to 2003

Every message is printed, "->" what the driver sends and "<-" what it is told. The exit code is 0 when the flow went as
its table says, 1 when something else came, 2 when the connection ended or nothing came in time. Needs Python 3.8 and
nothing else.
"""

import argparse
import socket
import struct
import sys
import time
import xml.etree.ElementTree as ElementTree
from xml.sax.saxutils import escape, quoteattr

KEEP_ALIVE_REQUEST, KEEP_ALIVE_ANSWER, ERROR, XML = range(4)
HEADER = struct.Struct(">BBHBB")  # 00, type, length of the body, 02, 00

# What the driver sends ("->") and what it must be told ("<-"), in order. "TO" stands for the number to call. Where a
# party has to hang up for the flow to go on, somebody must do it at that party's phone.
FLOWS = {
    "one-step-conference": [
        ("->", "OneStepConf", "TO"),
        ("<-", "Held"),
        ("<-", "Dialing"),
        ("<-", "Retrieved"),
        ("<-", "ConfPartyAdd"),
        ("<-", "ConfPartyDel"),  # the third party hangs up
        ("->", "EndCall"),
        ("<-", "Released"),
    ],
    "one-step-conference-2": [
        ("->", "OneStepConf", "TO"),
        ("<-", "Held"),
        ("<-", "Dialing"),
        ("<-", "Retrieved"),
        ("<-", "ConfPartyAdd"),
        ("<-", "Released"),  # the caller hangs up
        ("<-", "Established"),  # the third party goes on
        ("->", "EndCall"),
        ("<-", "Released"),
    ],
    "consult-conference": [
        ("->", "InitConf", "TO"),
        ("<-", "Held"),
        ("<-", "Dialing"),
        ("<-", "Established"),
        ("->", "CompleteConf"),
        ("<-", "Retrieved"),
        ("<-", "ConfPartyAdd"),
        ("<-", "ConfPartyDel"),  # the third party hangs up
        ("->", "EndCall"),
        ("<-", "Released"),
    ],
    "consult-retrieve": [
        ("->", "InitConf", "TO"),
        ("<-", "Held"),
        ("<-", "Dialing"),
        ("<-", "Established"),
        ("->", "RetrieveCall"),
        ("<-", "Retrieved"),
        ("->", "EndCall"),
        ("<-", "Released"),
    ],
    "consult-busy": [
        ("->", "InitConf", "TO"),
        ("<-", "Held"),
        ("<-", "Dialing"),
        ("<-", "Busy"),  # no error: the caller is held until it is retrieved
        ("->", "RetrieveCall"),
        ("<-", "Retrieved"),
        ("->", "EndCall"),
        ("<-", "Released"),
    ],
    "consult-failed": [
        ("->", "InitConf", "TO"),
        ("<-", "Held"),
        ("<-", "Dialing"),
        ("<-", "CallError InitConf"),
        ("<-", "Retrieved"),  # by itself
        ("->", "RetrieveCall"),
        ("<-", "CallError RetrieveCall"),  # nobody is held any more
        ("->", "EndCall"),
        ("<-", "Released"),
    ],
    "consult-transfer": [
        ("->", "InitXfer", "TO"),
        ("<-", "Held"),
        ("<-", "Dialing"),
        ("<-", "Established"),
        ("->", "CompleteXfer"),
        ("<-", "XferComplete"),
        ("<-", "Released"),
    ],
    "one-step-transfer": [
        ("->", "OneStepXfer", "TO"),
        ("<-", "Held"),
        ("<-", "Dialing"),
        ("<-", "XferComplete"),
        ("<-", "Released"),
    ],
}


class Driver:
    """One connection: frames in, frames out."""

    def __init__(self, server, patience):
        host, _, port = server.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=patience)
        self.patience = patience
        self.requests = 0

    def send_frame(self, kind, body=b""):
        self.socket.sendall(HEADER.pack(0, kind, len(body), 2, 0) + body)

    def read(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("the server has closed the connection")
            data += more
        return data

    def send(self, call, message, dest=None):
        """Sends one message; a ReqId of its own makes an error recognisable."""
        self.requests += 1
        attributes = f" DestDN={quoteattr(dest)}" if dest is not None else ""
        xml = f'<GctiMsg><CallId>{escape(call)}</CallId><{message}{attributes} ReqId="{self.requests}"/></GctiMsg>'
        print(f"-> {message}", flush=True)
        self.send_frame(XML, xml.encode())

    def told(self):
        """The next message: CallId and what is said. Keep-alives are answered on the way."""
        latest = time.monotonic() + self.patience
        while time.monotonic() < latest:
            zero, kind, length, two, end = HEADER.unpack(self.read(HEADER.size))
            if (zero, two, end) != (0, 2, 0):
                raise ConnectionError("this is no frame")
            body = self.read(length)
            if kind == KEEP_ALIVE_REQUEST:
                self.send_frame(KEEP_ALIVE_ANSWER)
            elif kind == ERROR:
                return None, "error frame: " + body.decode(errors="replace")
            elif kind == XML:
                return self.message(body)
        raise TimeoutError("nothing was said in time")

    def message(self, body):
        root = ElementTree.fromstring(body)
        call = root.findtext("CallId", "")
        status, error = root.find("CallStatus"), root.find("CallError")
        if status is not None:
            return call, status.get("Event")
        if error is not None:
            return call, "CallError " + error.get("FailedReq", "Unknown")
        return call, "?"


def wait_for_call(driver):
    """The CallId of the next call that is answered."""
    while True:
        call, said = driver.told()
        if said == "Established":
            return call


def run(driver, call, flow, to):
    """Runs the flow on a call; the first difference, or None."""
    for direction, what, *dest in flow:
        if direction == "->":
            driver.send(call, what, to if dest else None)
            continue
        while True:
            of, said = driver.told()
            if of in (call, None):
                break
        print(f"<- {said}", flush=True)
        if said != what:
            return f"{what} was expected, {said} came"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="127.0.0.1:8090", help="ADDRESS:PORT of [ivr] listen")
    parser.add_argument("--flow", choices=sorted(FLOWS), required=True)
    parser.add_argument("--to", required=True, help="the number that the flow calls")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for each message")
    arguments = parser.parse_args()
    try:
        driver = Driver(arguments.server, arguments.patience)
        print("connected", flush=True)
        call = wait_for_call(driver)
        print("a call is up", flush=True)
        wrong = run(driver, call, FLOWS[arguments.flow], arguments.to)
    except (OSError, ConnectionError) as failure:
        print(f"the connection failed: {failure}", file=sys.stderr)
        return 2
    if wrong:
        print(wrong, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
