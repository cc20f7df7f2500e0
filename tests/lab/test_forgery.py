"""A device that forges replies in the router's name, and plays the gateway: the router is the choice all the same."""

from __future__ import annotations

import socket
import struct

import pytest

from .decoy import Decoy
from .network import LAN_ADDRESS, NEIGHBOUR_ADDRESS, ROUTER_ADDRESS, Lab, UpnpMapper
from .router import Router

RUNS = 6
TARGETS = ("urn:schemas-upnp-org:device:InternetGatewayDevice:1", "upnp:rootdevice")


class Forger(Decoy):
    """Answers each search in the router's name, with ``paths`` that it does not have, before it does in its own."""

    def __init__(self, lab: Lab, router: Router, paths: list[str]) -> None:
        super().__init__(lab, "neighbour", NEIGHBOUR_ADDRESS)
        with lab.inside("neighbour"):
            self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._forged = [f"http://{ROUTER_ADDRESS}:{router.port}{path}" for path in paths]
        self._answered: set[tuple[str, int]] = set()

    def _answer_searches(self) -> None:
        while not self._over.is_set():
            try:
                _, searcher = self._ssdp.recvfrom(65536)
            except OSError:
                continue
            if searcher is None or searcher[0] != LAN_ADDRESS or searcher in self._answered:
                continue
            self._answered.add(searcher)
            for target in TARGETS:
                for location in self._forged:
                    self._raw.sendto(_datagram(ROUTER_ADDRESS, searcher, _reply(target, location)), (LAN_ADDRESS, 0))
                self._sender.sendto(_reply(target, self.location), searcher)

    def __exit__(self, *details: object) -> None:
        super().__exit__(None, None, None)
        self._raw.close()


def _reply(target: str, location: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nEXT:\r\nST: {target}\r\nUSN: uuid:x::{target}\r\nLOCATION: {location}\r\n\r\n".encode()


def _datagram(sender: str, to: tuple[str, int], payload: bytes) -> bytes:
    """Return an IPv4 packet; the kernel fills in its length and checksum, and UDP needs none."""
    addresses = socket.inet_aton(sender) + socket.inet_aton(to[0])
    head = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    return head + struct.pack("!HHHH", 1900, to[1], 8 + len(payload), 0) + payload


@pytest.mark.parametrize("run", range(RUNS))
async def test_forged_replies_do_not_keep_the_router_from_being_chosen(
    lab: Lab, router: Router, inside_lan: None, run: int
) -> None:
    with Forger(lab, router, [f"/gone{number}" for number in range(4)]) as rogue:
        async with UpnpMapper() as mapper:
            assert (await mapper.get_gateway()).device.description_url == router.location
        assert {*rogue.requests} <= {"GET /d.xml HTTP/1.1"}
    assert sum(router.asked(f"/gone{number}") for number in range(4)) <= 4


async def test_no_query_and_no_more_than_four_paths_are_asked_of_the_router(
    lab: Lab, router: Router, inside_lan: None
) -> None:
    paths = ["/userRpm/SysRebootRpm.htm?Reboot=Reboot", *(f"/gone{number}" for number in range(40))]
    with Forger(lab, router, paths):
        async with UpnpMapper() as mapper:
            await mapper.discover(2.0)
    assert 1 <= sum(router.asked(path) for path in paths[1:]) <= 4
    assert "SysReboot" not in router.log
