"""Cables between network namespaces: forwards Ethernet frames between pairs of TAP devices, with delay and loss.

Arguments: pairs of device names, each pair one cable. Both devices are made here; either may be moved to another namespace
afterwards, for the open descriptor goes on working. "ready" on stdout once all exist. Then one JSON object a line on stdin:
{"cable": index, "delay_ms": 0.5, "loss": 0.1, "seed": 7}. The end of stdin ends the program, and the devices with it.

What it models: a fixed delay each way and independent random loss of frames. What it does not: bandwidth, jitter,
reordering, queues that fill.
"""

import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES_MAX = 65536


def open_tap(name):
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def main():
    names = sys.argv[1:]
    taps = [open_tap(name) for name in names]
    cables = [{"delay_ms": 0.0, "loss": 0.0, "random": random.Random(0)} for _ in names[::2]]
    print("ready", flush=True)
    pending, order, commands = [], 0, b""
    index_of = {descriptor: index for index, descriptor in enumerate(taps)}

    def deliver(target, frame):
        try:
            os.write(target, frame)
        except OSError:
            pass  # The device is down, or its queue is full: the frame is lost, as on a real cable.

    while True:
        # Not poll(): its milliseconds would round a delay of half of one up to twice as much.
        wait_seconds = max(0.0, pending[0][0] - time.monotonic()) if pending else None
        for descriptor in select.select([0, *taps], [], [], wait_seconds)[0]:
            if descriptor == 0:
                data = os.read(0, FRAME_BYTES_MAX)
                if not data:
                    return
                *lines, commands = (commands + data).split(b"\n")
                for line in lines:
                    change = json.loads(line)
                    cable = cables[change["cable"]]
                    cable["delay_ms"], cable["loss"] = change["delay_ms"], change["loss"]
                    cable["random"] = random.Random(change["seed"])
                continue
            index = index_of[descriptor]
            cable, target = cables[index // 2], taps[index ^ 1]
            try:
                frame = os.read(descriptor, FRAME_BYTES_MAX)
            except OSError:
                continue  # Down, and polled all the same.
            if cable["loss"] > 0 and cable["random"].random() < cable["loss"]:
                continue
            if cable["delay_ms"] == 0:
                deliver(target, frame)
                continue
            order += 1
            heapq.heappush(pending, (time.monotonic() + cable["delay_ms"] / 1000, order, target, frame))
        while pending and pending[0][0] <= time.monotonic():
            _, _, target, frame = heapq.heappop(pending)
            deliver(target, frame)


main()
