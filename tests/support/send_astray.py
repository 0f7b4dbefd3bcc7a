"""Repeats packets of RTP that leave by an interface (its name is the argument) as no packets for who is at its other end: in
a virtual LAN that is not there, and to the hardware of somebody else. Forty of them, then it ends."""
import socket
import sys

OUTGOING = 4

wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
wire.bind((sys.argv[1], 0x0003))
wire.settimeout(5)
sent = 0
while sent < 40:
    frame, (_, protocol, direction, *_) = wire.recvfrom(65535)
    # A packet of PCMU with 20 ms, of IPv4 and UDP. What is sent here is a frame like others, but without those fields.
    if direction != OUTGOING or protocol != 0x0800 or len(frame) != 214 or frame[23] != 17 or frame[42] != 0x80:
        continue
    if frame[:1] == b"\x02":
        continue
    wire.send(frame[:12] + b"\x81\x00\x00\x07" + frame[12:])
    wire.send(b"\x02stick" + frame[6:])
    sent += 2
