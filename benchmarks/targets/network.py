"""From nothing to the first mapping, among other devices and among enemies; and where there is no gateway.

An attacked peer gets a new process for each attempt, a time limit and a limit of memory. Who reaches a limit is not
tried again.
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from math import nan
from typing import Final

from aioigd.testing import quirks

from .. import peers
from ..bench import Bench
from ..gateway_server import gateway_process
from ..peers import ASYNC_UPNP, BARE, BARE_KEEP_ALIVE, FLOOR, MINI, OURS, OURS_FAST, OURS_NAT_PMP, OURS_PCP, UPNP_CLIENT
from ..process import OutOfTimeError, ProcessError, run_process
from ..workload import cold_start

REAL: Final = "miniupnpd"
EMULATED: Final = "emulated gateway"
NEVER_SEARCH: Final = (BARE, BARE_KEEP_ALIVE)
ATTACKS: Final = {
    "endless body": quirks.endless_body,
    "gzip bomb, 512 MiB": quirks.gzip_bomb(megabytes=512),
    "a million elements": quirks.million_elements,
    "100,000 attributes": quirks.many_attributes,
    "entity bomb": quirks.entity_bomb,
    "5,000 services": quirks.thousands_of_services,
    "a byte a second": quirks.drips,
    "silence": quirks.silent,
}
WAITING: Final = ("a byte a second", "silence")
"""Attacks on the time of those who wait, not on the machine: all peers suffer them at the same time."""
MEMORY: Final = 3072
"""MiB of address space."""


def cold(bench: Bench, gateway: str = EMULATED) -> None:
    """Start cold on a gateway that answers at once, or on miniupnpd where there is a lab."""
    if gateway == REAL and bench.lab is None:
        return
    with ExitStack() as stack:
        if gateway == REAL and bench.lab:
            stack.callback(bench.lab.reset)
            bench.lab.start_router()
        else:
            stack.enter_context(bench.gateway())
        for name in (OURS, FLOOR):
            # What a process does once is done before: the first thread, the router's first rule. The others take so
            # long that it makes no difference.
            bench.ask(name, "start", port=next(bench.ports))
        for name in bench.turns(without=NEVER_SEARCH):
            if done := bench.ask(name, "start", port=next(bench.ports)):
                bench.add("cold start", name, "s", done["seconds"], gateway=gateway)


def datagrams(bench: Bench, gateway: str = EMULATED) -> None:
    """Map the first port by each protocol, beside one blocking datagram; with UPnP silent; and what it costs the CPU.

    "over" is what it takes beyond that datagram, as a share of what it may: half as much again or 0.7 ms, and 2 ms in
    the fast order.
    """
    if gateway == REAL and bench.lab is None:
        return
    floors = {OURS_PCP: peers.PCP_FLOOR, OURS_NAT_PMP: peers.NAT_PMP_FLOOR, OURS_FAST: peers.PCP_FLOOR}
    swift = tuple({**floors, **dict.fromkeys(floors.values())})
    slow = (OURS, MINI, peers.PY_NATPMP, peers.NATPMPC, peers.LIBTORRENT)

    def start(name: str, figure: str = "first mapping") -> float:
        done = bench.ask(name, "start", port=next(bench.ports)) or {"seconds": nan}
        bench.add(figure, name, "s", done["seconds"], gateway=gateway)
        return float(done["seconds"])

    with ExitStack() as stack:
        if gateway == REAL and bench.lab:
            stack.callback(bench.lab.reset)
        else:
            stack.enter_context(bench.gateway(pcp=True))
        for run in range(bench.plan.datagrams):
            if gateway == REAL and bench.lab:  # a new one: each rule that it has makes the next one slower
                bench.lab.reset()
                bench.lab.start_router(console=False)
            for name in swift if run == 0 else (peers.PCP_FLOOR,):
                bench.ask(name, "start", port=next(bench.ports))
            names = (*swift, *(slow if run < bench.plan.runs else ()))
            took = {name: start(name) for name in bench.turns(*(names if run % 2 else names[::-1]), runs=1)}
            for name, floor in floors.items():
                allowed = 0.002 if name == OURS_FAST else max(took[floor] / 2, 0.0007)
                bench.add("over", name, "", (took[name] - took[floor]) / allowed, gateway=gateway)
    if gateway == EMULATED:
        with bench.gateway(pcp=True, upnp=False):
            for _ in range(bench.plan.runs):
                start(OURS, "UPnP silent")
        with bench.gateway(pcp=True) as running:
            for way in (peers.ONE_BY_ONE, peers.AT_ONCE):
                for name in bench.turns(OURS, OURS_PCP, OURS_NAT_PMP, runs=bench.plan.cpu_runs):
                    done = bench.ask(name, "batch", location=running.location, count=bench.plan.cpu, way=way)
                    seconds = done["cpu"] / done["made"] if done else nan
                    bench.add("cpu: protocols", name, "us", seconds * 1e6, way=way)


def nobody(bench: Bench) -> None:
    """Search a network without a gateway. All search at the same time: they do nothing but wait."""
    for _ in range(bench.plan.runs):
        names = list(bench.turns(without=(*NEVER_SEARCH, FLOOR), runs=1))
        for name in names:
            bench.worker(name)
        with ThreadPoolExecutor(len(names)) as pool:
            for name, done in zip(names, pool.map(lambda one: bench.ask(one, "start", port=0), names), strict=True):
                if done and not done["found"]:
                    bench.add("nobody", name, "s", done["seconds"])


def devices(bench: Bench) -> None:
    """Look for the one gateway among ever more devices."""
    for count in bench.plan.devices:
        with gateway_process(devices=count) as gateway:
            for _ in range(bench.plan.runs):
                before = time.process_time()
                seconds = asyncio.run(cold_start(gateway.address, 0))
                cpu = time.process_time() - before
                bench.add("growth: devices", OURS, "ms", seconds * 1e3, devices=count)
                bench.add("growth: devices, cpu", OURS, "ms", cpu * 1e3, devices=count)


def hostile(bench: Bench) -> None:
    """Attack each peer in turn."""
    for attack, quirk in ATTACKS.items():
        left = list(bench.turns(OURS, ASYNC_UPNP, MINI, UPNP_CLIENT, runs=1))
        with bench.gateway(quirk) as gateway, ThreadPoolExecutor(len(left) if attack in WAITING else 1) as pool:
            for _ in range(bench.plan.runs):
                attempts = [(name, pool.submit(_attack, bench, name, attack, gateway.location)) for name in left]
                left = [name for name, attempt in attempts if not attempt.result()]
        bench.say(f"  {attack}")


def _attack(bench: Bench, name: str, attack: str, location: str) -> bool:
    """Return whether the peer reached a limit, or came near that of memory."""
    seconds, stall, note = bench.plan.hostile_limit, None, ""
    inside = bench.inside("lan")
    with inside, run_process("benchmarks.peers", name, "127.0.0.1", memory=MEMORY << 20, quiet=True) as running:
        before = running.most_memory()
        try:
            done = running.ask(do="swallow", limit=bench.plan.hostile_limit, location=location)
            seconds, stall = done["seconds"], done["stall"]
        except OutOfTimeError:
            note = "stopped by the time limit"
        except ProcessError as error:
            print(f"  {attack}: {error}", file=sys.stderr)
            note = "ended by an error of its own"
        growth = running.most_memory() - before
    if growth > MEMORY / 2 and not note:
        note = "took over half of the memory it may have"
    bench.add("hostile: time", name, "s", seconds, note=note, attack=attack)
    bench.add("hostile: memory", name, "MiB", growth, note=note, attack=attack)
    if stall is not None:
        bench.add("hostile: stall", name, "ms", stall * 1e3, note=note, attack=attack)
    return bool(note)
