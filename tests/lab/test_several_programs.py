"""A rolling restart on a real router: the port stays open to the internet, and the last program closes it."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest

from .network import EXTERNAL_ADDRESS, LAN_ADDRESS, Lab
from .router import Mapping, Router

PATIENCE = 60.0
"""Seconds: programs start and end within a few, unless the machine is very busy."""
PORT = 20000
OURS = Mapping("TCP", PORT, LAN_ADDRESS, PORT)

SERVER = """
import asyncio, signal, sys
import aioigd

async def main():
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with aioigd.PortMapper() as mapper, mapper.lease(int(sys.argv[1]), desc=sys.argv[2], proto="TCP"):
        print("active", flush=True)
        await told.wait()

asyncio.run(main())
"""


def start(lab: Lab, stack: ExitStack, desc: str = "a server") -> subprocess.Popen[str]:
    """Start a program on the LAN host, and wait until it has its port."""
    with lab.inside("lan"):
        words = [sys.executable, "-c", SERVER, str(PORT), desc]
        program = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
    stack.callback(program.kill)
    assert program.stdout is not None
    assert program.stdout.readline() == "active\n"
    return program


def stop(program: subprocess.Popen[str]) -> None:
    program.send_signal(signal.SIGTERM)
    assert program.wait(PATIENCE) == 0


@pytest.mark.parametrize("desc", ["a server", "the next version"])
def test_in_a_rolling_restart_the_port_is_open_all_the_while(lab: Lab, router: Router, desc: str) -> None:
    with lab.listen("lan", "TCP", PORT), ExitStack() as stack:
        program = start(lab, stack)
        for _ in range(3):
            successor = start(lab, stack, desc)
            stop(program)
            assert router.mappings() == [OURS]
            assert lab.send_tcp("wan", EXTERNAL_ADDRESS, PORT, b"hello") == b"lan: hello"
            program = successor
        assert router.asked("DeletePortMapping") == 0
        stop(program)
    assert router.mappings() == []


def test_a_second_instance_leaves_the_port_and_a_killed_first_one_does_not_keep_it(lab: Lab, router: Router) -> None:
    with ExitStack() as stack:
        first = start(lab, stack)
        stop(start(lab, stack, "started by mistake"))
        assert router.mappings() == [OURS]
        second = start(lab, stack)
        first.kill()
        first.wait(PATIENCE)
        assert router.mappings() == [OURS]
        stop(second)
    assert router.mappings() == []
