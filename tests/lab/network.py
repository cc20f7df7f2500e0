"""A small internet: a LAN with two hosts, a home router with NAT, a host on the WAN; joined to nothing else.

    lan        192.168.77.2 ─┐
                             ├─ br-lan 192.168.77.1 [router] wan0 44.0.0.1 ── 44.0.0.2 wan
    neighbour  192.168.77.3 ─┘

The WAN side uses a public range because miniupnpd maps nothing on a private or documentation one. No
namespace has a link to the machine's own interfaces, so nothing sent here can leave.
"""

from __future__ import annotations

import atexit
import contextlib
import ipaddress
import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from aioigd import PortMapper

from . import faults, traffic
from .namespace import Namespace
from .router import Router

Place = Literal["lan", "neighbour", "router", "wan"]
Protocol = Literal["TCP", "UDP"]

LAN_ADDRESS = "192.168.77.2"
NEIGHBOUR_ADDRESS = "192.168.77.3"
BRIDGE_MAC = "02:00:00:00:77:01"
ROUTER_ADDRESS = "192.168.77.1"
EXTERNAL_ADDRESS = "44.0.0.1"
WAN_ADDRESS = "44.0.0.2"
SECOND_EXTERNAL_ADDRESS = "44.0.1.1"

LAN_ADDRESS6 = "2a01:77::2"
NEIGHBOUR_ADDRESS6 = "2a01:77::3"
ROUTER_ADDRESS6 = "2a01:77::1"
EXTERNAL_ADDRESS6 = "2a01:44::1"
WAN_ADDRESS6 = "2a01:44::2"

_PLACES: tuple[Place, ...] = ("router", "lan", "neighbour", "wan")
_HOSTS: tuple[tuple[Place, str, str], ...] = (
    ("lan", LAN_ADDRESS, LAN_ADDRESS6),
    ("neighbour", NEIGHBOUR_ADDRESS, NEIGHBOUR_ADDRESS6),
)

_CHAINS = """\
*nat
:MINIUPNPD - [0:0]
:MINIUPNPD-POSTROUTING - [0:0]
-A PREROUTING -i wan0 -j MINIUPNPD
-A POSTROUTING -o wan0 -j MINIUPNPD-POSTROUTING
-A POSTROUTING -o wan0 -j MASQUERADE
COMMIT
*filter
:MINIUPNPD - [0:0]
-A FORWARD -i wan0 ! -o wan0 -j MINIUPNPD
COMMIT
"""

_CHAINS6 = """\
*filter
:FORWARD DROP [0:0]
:MINIUPNPD - [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -i br-lan -j ACCEPT
-A FORWARD -i wan0 ! -o wan0 -j MINIUPNPD
COMMIT
"""


UpnpMapper = partial(PortMapper, protocols=("upnp",))
"""A mapper for tests of UPnP: on a loaded machine the daemon may answer a search much later than PCP and NAT-PMP, which
are used then."""


class Lab:
    """The namespaces and wires; a context manager that leaves nothing behind, also when something fails."""

    _numbers = itertools.count(1)

    def __init__(self, *, ipv6: bool = False) -> None:
        self.ipv6 = ipv6
        self.routers: list[Router] = []
        self._namespaces: dict[Place, Namespace] = {}
        self._undo = contextlib.ExitStack()
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Lab:
        # For an interpreter that ends without leaving the block.
        atexit.register(self.close)
        self._cleanup.callback(atexit.unregister, self.close)
        try:
            directory = tempfile.TemporaryDirectory(prefix="aioigd-lab-")
            self.directory = Path(self._cleanup.enter_context(directory))
            number = next(self._numbers)
            for place in _PLACES:
                namespace = Namespace(f"aioigd-{os.getpid()}-{number}-{place}")
                self._cleanup.callback(namespace.delete)
                self._namespaces[place] = namespace
            self._cleanup.callback(self._end_routers)
            self._wire()
            if self.ipv6:
                self._wire6()
            self._firewall()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._cleanup.close()

    def namespace(self, place: Place) -> Namespace:
        return self._namespaces[place]

    def inside(self, place: Place) -> contextlib.AbstractContextManager[None]:
        """Move the calling thread there for a `with` block; see namespace.py for what that means."""
        return self._namespaces[place].inside()

    def run(
        self, place: Place, command: Sequence[str], *, timeout: float = 20.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self._namespaces[place].run(command, timeout=timeout, check=check)

    # The router's daemon.

    def start_router(
        self,
        *,
        igd_v1: bool = False,
        secure: bool = True,
        ipv6: bool = False,
        options: Sequence[str] = (),
        console: bool = True,
    ) -> Router:
        """Start miniupnpd and wait until it answers; `options` are more lines for its configuration.

        Without `console` it is faster, where it would log to a slow one.
        """
        router = Router(
            self.namespace("router"),
            asker=self.namespace("lan"),
            directory=Path(tempfile.mkdtemp(prefix="router-", dir=self.directory)),
            address=ROUTER_ADDRESS,
            igd_v1=igd_v1,
            secure=secure,
            ipv6=ipv6,
            options=options,
            console=console,
        )
        self.routers.append(router)
        router.start()
        return router

    def start_second_router(self) -> Router:
        """Start another one on the neighbour, over which nobody has a route; its WAN side leads nowhere."""
        neighbour = self.namespace("neighbour")
        self._undo.callback(neighbour.run, ["iptables-legacy-restore"], stdin="*nat\nCOMMIT\n*filter\nCOMMIT\n")
        self._undo.callback(neighbour.run, ["ip", "link", "delete", "wan0"], check=False)
        _ip(
            neighbour,
            "link add wan0 type veth peer name wan1",
            f"address add {SECOND_EXTERNAL_ADDRESS}/24 dev wan0",
            "link set wan0 up",
            "link set wan1 up",
        )
        neighbour.run(["iptables-legacy-restore"], stdin=_CHAINS)
        router = Router(
            neighbour,
            asker=self.namespace("lan"),
            directory=Path(tempfile.mkdtemp(prefix="router-", dir=self.directory)),
            address=NEIGHBOUR_ADDRESS,
            igd_v1=False,
            secure=True,
            ipv6=False,
            options=(),
            lan_interface="lan0",
        )
        self.routers.append(router)
        router.start()
        return router

    def reset(self) -> None:
        """As new, but for the port numbers: what a test changed does not reach the next one."""
        self._end_routers()
        self.clear_faults()
        self._undo.close()
        self.set_external_address(EXTERNAL_ADDRESS)
        self._firewall()

    # Faults.

    def set_external_address(self, address: str | None) -> None:
        """Give the router another address on its WAN side, or (None) no address at all."""
        self.namespace("router").run(["ip", "-4", "address", "flush", "dev", "wan0"])
        if address is not None:
            self.namespace("router").run(["ip", "address", "add", f"{address}/24", "dev", "wan0"])
            # The host on the WAN has one address only, so it needs to be told that any other is on its wire.
            self.namespace("wan").run(["ip", "route", "replace", f"{address}/32", "dev", "wan0"])

    def set_lan_address(self, address: str) -> None:
        """Give the LAN host another IPv4 address in the same network, as a new DHCP lease may."""
        lan = self.namespace("lan")
        lan.run(["ip", "-4", "address", "flush", "dev", "lan0"])
        _ip(
            lan,
            f"address add {address}/24 dev lan0",
            f"route add default via {ROUTER_ADDRESS}",
            "route add 239.0.0.0/8 dev lan0",
        )
        if address != LAN_ADDRESS:
            self._undo.callback(self.set_lan_address, LAN_ADDRESS)

    def set_default_route(self, hop: str | None, *, ipv6: bool = False) -> None:
        """Send what the LAN host has for the internet over another next hop, or (None) nowhere."""
        usual, family = (ROUTER_ADDRESS6, "-6") if ipv6 else (ROUTER_ADDRESS, "-4")
        lan = self.namespace("lan")
        if hop is None:
            lan.run(["ip", family, "route", "delete", "default"])
        else:
            lan.run(["ip", family, "route", "replace", "default", "via", hop, "dev", "lan0"])
        if hop != usual:
            self._undo.callback(self.set_default_route, usual, ipv6=ipv6)

    def link_local_address(self, place: Place) -> str:
        """The IPv6 address of this host on the LAN that is valid there only, without a zone."""
        device = "br-lan" if place == "router" else "lan0"
        listing = self.run(place, ["ip", "-6", "-json", "address", "show", "dev", device, "scope", "link"]).stdout
        entries = (entry for link in json.loads(listing) for entry in link.get("addr_info", ()))
        (address,) = (entry["local"] for entry in entries if "local" in entry)
        return str(address)

    def reset_after_reply(self) -> None:
        """The router ends its connections (over IPv4) with a RST in the place of a FIN."""
        self.namespace("router").sysctl("net.netfilter.nf_conntrack_acct", 1)
        self._nft("router", "resets", faults.RESET_AFTER_REPLY)

    def drop_ssdp(self, percent: int) -> None:
        """Lose that share (1 to 100) of the searches and, independently, of the replies.

        Each is dropped where it arrives: a drop on the way out would be an error for the sender.
        """
        self._lose_ssdp(lambda port: faults.lost_datagrams(port, percent))

    def drop_some_ssdp(self) -> None:
        """The same for 31 % that are always the same ones."""
        self._lose_ssdp(faults.some_lost)

    def drop_some_pcp(self) -> None:
        """Lose 31 % of the requests of PCP and NAT-PMP, and of the replies, always the same ones."""
        self._nft("router", "pcp", faults.some_lost("dport 5351"))
        for place, _, _ in _HOSTS:
            self._nft(place, "pcp", faults.some_lost("sport 5351"))

    def _lose_ssdp(self, rules: Callable[[str], str]) -> None:
        self._nft("router", "ssdp", rules("dport 1900"))
        for place, _, _ in _HOSTS:
            self._nft(place, "ssdp", rules("sport 1900"))

    def one_connection_at_a_time(self) -> None:
        """The router resets a TCP connection (over IPv4) that comes while another one is open."""
        self._nft("router", "connections", faults.ONE_CONNECTION_AT_A_TIME)

    def clear_faults(self) -> None:
        for namespace in self._namespaces.values():
            namespace.run(["nft", "flush", "ruleset"])

    def _nft(self, place: Place, name: str, rules: str) -> None:
        """Put these rules in a table of their own, in place of what it held."""
        table = f"table inet aioigd-{name}"
        # Declared first, because only a table that exists can be deleted.
        script = f"{table}\ndelete {table}\n{table} {{\n{rules}}}\n"
        self.namespace(place).run(["nft", "-f", "-"], stdin=script)

    # Proof by traffic.

    def send_tcp(self, place: Place, host: str, port: int, payload: bytes, timeout: float = 2.0) -> bytes:
        """Connect from there, send, and return everything that comes back until the other side closes."""
        with self.inside(place):
            return traffic.send_tcp(host, port, payload, timeout)

    def send_udp(self, place: Place, host: str, port: int, payload: bytes, timeout: float = 2.0) -> bytes:
        with self.inside(place):
            return traffic.send_udp(host, port, payload, timeout)

    @contextlib.contextmanager
    def listen(self, place: Place, proto: Protocol, port: int = 0) -> Iterator[int]:
        """A server there that answers `place: payload`, so that a reply tells who gave it; gives its port."""
        with self.inside(place):
            server = traffic.Answering(proto, port, f"{place}: ".encode(), ipv6=self.ipv6)
        with server:
            yield server.port

    @contextlib.contextmanager
    def watch_tcp(self, place: Place, port: int) -> Iterator[list[str]]:
        """A port there on which nobody should call; gives the list of those who did."""
        with self.inside(place):
            canary = traffic.Canary(port)
        with canary:
            yield canary.callers

    # Building.

    def _wire(self) -> None:
        router = self.namespace("router")
        router.sysctl("net.ipv4.ip_forward", 1)
        for namespace in self._namespaces.values():
            # IPv6 addresses are usable at once instead of after a second of duplicate detection.
            namespace.sysctl("net.ipv6.conf.default.accept_dad", 0)
        # Snooping would keep multicast from a host until it joined, and the first search would be lost.
        # An address of its own: otherwise it has the lowest of its ports, which changes when one is added.
        bridge = [f"link add br-lan address {BRIDGE_MAC} type bridge mcast_snooping 0"]
        for place, _, _ in _HOSTS:
            host = self._namespaces[place]
            bridge += [
                f"link add {place} type veth peer name lan0 netns {host.name}",
                f"link set {place} master br-lan up",
            ]
        _ip(
            router,
            *bridge,
            f"address add {ROUTER_ADDRESS}/24 dev br-lan",
            "link set br-lan up",
            f"link add wan0 type veth peer name wan0 netns {self.namespace('wan').name}",
            f"address add {EXTERNAL_ADDRESS}/24 dev wan0",
            "link set wan0 up",
        )
        _ip(self.namespace("wan"), f"address add {WAN_ADDRESS}/24 dev wan0", "link set wan0 up")
        for place, address, _ in _HOSTS:
            _ip(
                self._namespaces[place],
                f"address add {address}/24 dev lan0",
                "link set lan0 up",
                f"route add default via {ROUTER_ADDRESS}",
                "route add 239.0.0.0/8 dev lan0",
            )

    def _wire6(self) -> None:
        router, wan = self.namespace("router"), self.namespace("wan")
        router.sysctl("net.ipv6.conf.all.forwarding", 1)
        _ip(
            router,
            f"address add {ROUTER_ADDRESS6}/64 dev br-lan",
            f"address add {EXTERNAL_ADDRESS6}/64 dev wan0",
        )
        lan = ipaddress.ip_interface(f"{LAN_ADDRESS6}/64").network
        _ip(wan, f"address add {WAN_ADDRESS6}/64 dev wan0", f"route add {lan} via {EXTERNAL_ADDRESS6}")
        for place, _, address in _HOSTS:
            _ip(
                self._namespaces[place],
                f"address add {address}/64 dev lan0",
                f"route add default via {ROUTER_ADDRESS6}",
            )

    def _firewall(self) -> None:
        """The tables as miniupnpd expects them at its start; whatever they held is gone."""
        self.namespace("router").run(["iptables-legacy-restore"], stdin=_CHAINS)
        if self.ipv6:
            self.namespace("router").run(["ip6tables-legacy-restore"], stdin=_CHAINS6)

    def _end_routers(self) -> None:
        while self.routers:
            self.routers.pop().end()


def _ip(namespace: Namespace, *lines: str) -> None:
    namespace.run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
