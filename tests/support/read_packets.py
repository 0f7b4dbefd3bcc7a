"""Tells every IPv4 UDP packet that arrives at any interface of this network, as a line of JSON each.

A checksum is "right", "partial" (the sum of the pseudo header, which a device is left to complete), "none" or "wrong".
"""
import json
import socket
import struct

OUTGOING = 4


def folded(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(ip, udp):
    said = struct.unpack("!H", udp[6:8])[0]
    pseudo = ip[12:20] + struct.pack("!BBH", 0, 17, len(udp))
    if said == 0:
        return "none"
    if folded(pseudo + udp) == 0xFFFF:
        return "right"
    return "partial" if said == folded(pseudo) else "wrong"


def packet(frame, interface):
    ip = frame[14:]
    length = (ip[0] & 15) * 4
    if ip[0] >> 4 != 4 or ip[9] != 17 or struct.unpack("!H", ip[6:8])[0] & 0x3FFF:
        return None
    udp = ip[length : struct.unpack("!H", ip[2:4])[0]]
    ports = struct.unpack("!HH", udp[:4])
    told = {
        "interface": interface,
        "hardware": [frame[6:12].hex(":"), frame[:6].hex(":")],
        "from": f"{socket.inet_ntoa(ip[12:16])}:{ports[0]}",
        "to": f"{socket.inet_ntoa(ip[16:20])}:{ports[1]}",
        "ttl": ip[8],
        "ip": "right" if folded(ip[:length]) == 0xFFFF else "wrong",
        "udp": checksum(ip, udp) if struct.unpack("!H", udp[4:6])[0] == len(udp) else "wrong",
    }
    payload = udp[8:]
    if payload[:1].isalpha():
        told["sip"] = payload.decode(errors="replace")
    elif len(payload) > 12 and payload[0] == 0x80 and not 72 <= payload[1] & 0x7F <= 76:
        kind, sequence, timestamp, ssrc = struct.unpack("!BHII", payload[1:12])
        told["rtp"] = {"kind": kind & 0x7F, "sequence": sequence, "timestamp": timestamp, "ssrc": ssrc}
    return told


everything = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
everything.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
print("{}", flush=True)
while True:
    frame, (interface, protocol, direction, *_) = everything.recvfrom(65535)
    if direction != OUTGOING and protocol == 0x0800:
        told = packet(frame, interface)
        if told:
            print(json.dumps(told), flush=True)
