#!/usr/bin/env python3
"""An agent's desktop for stickytape: registers an agent, prints every event, and sends what is typed.

    agent_desktop.py --server 127.0.0.1:8080 --agent anna --dn 2001
    agent_desktop.py --server 127.0.0.1:8080 --agent ben --dn 2002 --accept

Each line of the standard input is one request:

    invite INTERACTION AGENT    RequestConference (INTERACTION is the CallUUID of `GET /v1/calls`)
    accept TICKET               RequestAccept, which --accept sends by itself
    reject TICKET               RequestReject
    leave INTERACTION           RequestLeaveInteraction

"->" is what the desktop sends and "<-" what it is told. A token is read from the environment variable STICKYTAPE_TOKEN. At
the end of the input the desktop leaves. Needs Python 3.8 and nothing else.
"""

import argparse
import base64
import json
import os
import secrets
import socket
import struct
import sys
import threading
import urllib.parse

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
REQUESTS = {
    "invite": ("RequestConference", "InteractionID", "AgentID"),
    "accept": ("RequestAccept", "TicketID"),
    "reject": ("RequestReject", "TicketID"),
    "leave": ("RequestLeaveInteraction", "InteractionID"),
}


class Desktop:
    """One WebSocket (RFC 6455), as far as a desktop needs it."""

    def __init__(self, server, agent, dn):
        host, _, port = server.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.stream = self.socket.makefile("rb")
        self.sending = threading.Lock()
        self.left = False
        path = f"/v1/agents/{urllib.parse.quote(agent, safe='')}/ws?dn={urllib.parse.quote(dn, safe='')}"
        head = [
            f"GET {path} HTTP/1.1",
            f"Host: {server}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(secrets.token_bytes(16)).decode()}",
        ]
        if "STICKYTAPE_TOKEN" in os.environ:
            head.append(f"Authorization: Bearer {os.environ['STICKYTAPE_TOKEN']}")
        self.socket.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
        status = self.stream.readline().decode().split(" ", 2)
        length = 0
        while (line := self.stream.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if status[1:2] != ["101"]:
            raise ConnectionError(f"refused: {self.stream.read(length).decode()}")

    def send(self, opcode, payload):
        """What a client sends is masked (RFC 6455 section 5.3)."""
        mask = secrets.token_bytes(4)
        size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        with self.sending:
            self.socket.sendall(bytes([0x80 | opcode]) + size + mask + masked)

    def request(self, words):
        request = REQUESTS.get(words[0])
        if request is None or len(words) != len(request):
            print(f"not sent: {' '.join(words)}", flush=True)
            return
        message = {"request": request[0], **dict(zip(request[1:], words[1:]))}
        print(f"-> {json.dumps(message)}", flush=True)
        self.send(TEXT, json.dumps(message).encode())

    def exactly(self, count):
        data = self.stream.read(count)
        if len(data) < count:
            raise ConnectionError("the connection has ended")
        return data

    def events(self):
        """Every event, until the server says that it is over."""
        while True:
            first, size = self.exactly(2)
            if size == 126:
                (size,) = struct.unpack(">H", self.exactly(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self.exactly(8))
            payload = self.exactly(size)
            if first & 0x0F == TEXT:
                yield json.loads(payload)
            elif first & 0x0F == PING:
                self.send(PONG, payload)
            elif first & 0x0F == CLOSE:
                code = struct.unpack(">H", payload[:2])[0] if payload else None
                raise ConnectionError(f"closed: {code} {payload[2:].decode()}")

    def close(self):
        self.left = True
        self.send(CLOSE, struct.pack(">H", 1000))
        self.socket.shutdown(socket.SHUT_WR)


def type_requests(desktop):
    for line in sys.stdin:
        if line.split():
            desktop.request(line.split())
    desktop.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:8080", metavar="HOST:PORT")
    parser.add_argument("--agent", required=True)
    parser.add_argument("--dn", required=True)
    parser.add_argument("--accept", action="store_true", help="accept every invitation")
    options = parser.parse_args()
    desktop = None
    try:
        desktop = Desktop(options.server, options.agent, options.dn)
        print("registered", flush=True)
        threading.Thread(target=type_requests, args=(desktop,), daemon=True).start()
        for event in desktop.events():
            print(f"<- {json.dumps(event)}", flush=True)
            if options.accept and event["event"] == "EventInvite":
                desktop.request(["accept", event["TicketID"]])
    except OSError as error:
        if desktop is None or not desktop.left:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
