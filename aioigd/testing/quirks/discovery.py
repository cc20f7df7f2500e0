"""Quirks of discovery: which searches are answered, when, from which address, and with which contents."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from uuid import NAMESPACE_URL, uuid5

from ..device_tree import Device, Service, Site, describe_device, gateway_device
from ..errors import UPnPError
from ..hooks import Exchange, Hooks, quirk
from ..http import End, Response, Transmission
from ..soap import build_answer, build_fault, parse_soap_action
from ..ssdp import Datagram, Message, Search

__all__ = [
    "access_point_first",
    "answers_only",
    "bare_lf_replies",
    "dead_devices_first",
    "dead_gateway_first",
    "duplicate_headers",
    "first_searches_lost",
    "hanging_device_first",
    "host_must_be_group",
    "junk_before_replies",
    "late_replies",
    "location_on_another_host",
    "location_on_ipv6_loopback",
    "location_on_link_local",
    "location_on_localhost",
    "location_without_host",
    "lossy",
    "lower_case_headers",
    "media_server_first",
    "multicast_ignored",
    "never_announces",
    "no_boot_id",
    "padded_headers",
    "repeated_replies",
    "replies_from_other_port",
    "root_devices_first",
    "slow_searches",
    "tr064_twin_first",
    "two_versions",
    "unicast_ignored",
]

_WAN_IP_1 = "urn:schemas-upnp-org:service:WANIPConnection:1"
FOREIGN_HOST = "127.66.66.66"
"""A loopback address that no gateway uses: no request may be sent there."""


@quirk(
    "discovery",
    reason="Each target in use is the only one that some router answers, so a search must try several.",
    source="tailscale#3557, rust-igd#29, openhab-core#3933",
)
def answers_only(target: str = _WAN_IP_1) -> Hooks:
    """Answers searches for one target and is silent about all others, ``ssdp:all`` included."""
    return Hooks(hears=lambda search: search.target == target)


@quirk(
    "discovery",
    reason="Replies may come after MX is over; who has gone by then sees no gateway.",
    source="ZyXEL VMG8825: OpenRA#15923",
)
def late_replies(seconds: float = 1.5) -> Hooks:
    """Answers each search after a while, whatever its MX says."""
    return Hooks(datagrams=lambda search, sent, site: [replace(each, delay=each.delay + seconds) for each in sent])


@quirk(
    "discovery",
    reason="A radio or switch port that sleeps loses what comes first; a single M-SEARCH is not enough.",
    source="ZyXEL VMG8825: OpenRA#15923",
)
def first_searches_lost(count: int = 2) -> Hooks:
    """Does not receive the first searches for each target."""
    heard: dict[str, int] = {}

    def hears(search: Search) -> bool:
        heard[search.target] = heard.get(search.target, 0) + 1
        return heard[search.target] > count

    return Hooks(hears=hears)


@quirk(
    "discovery",
    reason="Multicast over Wi-Fi is not repeated by the radio, so real networks lose a good part of it.",
    source="measured: at 30 % one search finds the gateway in half of all cases, four in 19 of 20",
)
def lossy(loss: float = 0.3, seed: int = 0) -> Hooks:
    """Loses this share of searches and of replies, at random but always in the same way."""
    dice = random.Random(seed)  # noqa: S311 (it has to be repeatable, not secret)

    def datagrams(search: Search, sent: Sequence[Datagram], site: Site) -> Iterable[Datagram]:
        return [each for each in sent if dice.random() >= loss]

    return Hooks(hears=lambda search: dice.random() >= loss, datagrams=datagrams)


@quirk(
    "discovery",
    reason="A connected socket, or a check of the source port, drops such replies.",
    source="ER605, Huawei: tailscale#7377",
)
def replies_from_other_port() -> Hooks:
    """Sends its replies from another UDP port than 1900."""
    return Hooks(datagrams=lambda search, sent, site: [replace(each, other_port=True) for each in sent])


@quirk("discovery", reason="A parser that splits at CR LF sees one long line.", source="async_upnp_client#74")
def bare_lf_replies() -> Hooks:
    """Ends the lines of its replies with LF alone."""
    return Hooks(datagrams=_payloads(lambda payload: payload.replace(b"\r\n", b"\n")))


@quirk("discovery", reason="Header names are case-insensitive (RFC 9110 section 5.1).", source="UniFi: HA#148739")
def lower_case_headers() -> Hooks:
    """Writes the names of SSDP headers in lower case."""
    return Hooks(replies=_headers(lambda name, value: [(name.lower(), value)]))


@quirk("discovery", reason="Some parsers join repeated headers, and get no URL.", source="async_upnp_client#272")
def duplicate_headers() -> Hooks:
    """Sends every header of a reply twice."""
    return Hooks(replies=_headers(lambda name, value: [(name, value)] * 2))


@quirk("discovery", reason="Padding belongs to no value, but a URL with a blank behind it is none.", source="unnamed")
def padded_headers() -> Hooks:
    """Puts blanks and tabs around the values of SSDP headers."""
    return Hooks(replies=_headers(lambda name, value: [(name, f" \t{value} \t")]))


@quirk("discovery", reason="UDA 1.0 devices have no BOOTID; one must not be needed.", source="UDA 1.0")
def no_boot_id() -> Hooks:
    """Leaves BOOTID and CONFIGID out of all SSDP messages."""

    def without(messages: Sequence[Message]) -> list[Message]:
        return [
            replace(each, headers=tuple(pair for pair in each.headers if not pair[0].upper().endswith("ID.UPNP.ORG")))
            for each in messages
        ]

    return Hooks(replies=lambda search, messages, site: without(messages), notices=without)


@quirk(
    "discovery",
    reason="Other programs send to port 1900 too; nothing that arrives may end a search.",
    source="async_upnp_client#74: the first binary datagram ended it",
)
def junk_before_replies() -> Hooks:
    """Sends empty, binary, truncated and endless datagrams ahead of its replies."""
    junk = [
        b"",
        b"\0",
        bytes(range(256)),
        b"\xff" * 9000,
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nLOCATION: http://127.66.66.66/\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nLOCATION: \xff\xfe\r\nST: \0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nLOCATION: http://[:::]:99999/\r\nST: upnp:rootdevice\r\nUSN: x\r\n\r\n",
        b"NOTIFY * HTTP/1.1\r\nNTS: ssdp:byebye\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    ]
    return Hooks(datagrams=lambda search, sent, site: [*(Datagram(each) for each in junk), *sent])


@quirk("discovery", reason="Replies are repeated against loss; each must not cost a request.", source="common")
def repeated_replies(times: int = 3) -> Hooks:
    """Sends every reply several times."""
    return Hooks(datagrams=lambda search, sent, site: [each for each in sent for _ in range(times)])


@quirk(
    "discovery",
    reason="The host in LOCATION is wrong, and the address that answered is right.",
    source="TP-Link (MiniUPnPd/1.8): HA#57052",
)
def location_on_localhost() -> Hooks:
    """Names ``localhost`` as the host of its description."""
    return _location_at("localhost")


@quirk(
    "discovery",
    reason="The host in LOCATION is wrong, and the address that answered is right.",
    source="TP-Link (MiniUPnPd/1.8): HA#57052",
)
def location_on_ipv6_loopback() -> Hooks:
    """Names ``[::1]`` as the host of its description, in a reply over IPv4."""
    return _location_at("[::1]")


@quirk(
    "discovery",
    reason="A bridge without a lease has such an address, and nobody can reach it.",
    source="HA#86898",
)
def location_on_link_local() -> Hooks:
    """Names an address of 169.254.0.0/16 as the host of its description."""
    return _location_at("169.254.1.1")


@quirk("discovery", reason="Port and path are right, and the address that answered is known.", source="sloppy firmware")
def location_without_host(host: str = "") -> Hooks:
    """Names no host as the place of its description, or a placeholder: ``http://:49152/rootDesc.xml``."""
    return _location_at(host)


@quirk(
    "discovery",
    reason="A LOCATION must not lead to other hosts: sloppy here, an attack elsewhere.",
    source="a router that names its WAN address: common",
)
def location_on_another_host(host: str = FOREIGN_HOST) -> Hooks:
    """Names another host, with its own port, as the place of its description."""
    return _location_at(host)


@quirk(
    "discovery",
    reason="A device that has gone without a byebye is announced by a proxy, or still answers with an old port.",
    source="syncthing#1542",
)
def dead_devices_first(count: int = 3) -> Hooks:
    """Is announced after other gateways, which do not accept connections any more."""

    def replies(search: Search, messages: Sequence[Message], site: Site) -> Iterable[Message]:
        # Port 1 of its own address: nothing listens there, and the refusal is immediate.
        dead = [replace(site, port=1 + number).location for number in range(count)]
        return [*(_as_another(each, url) for url in dead for each in messages[:1]), *messages]

    return Hooks(replies=replies)


@quirk(
    "discovery",
    reason="A device that hangs must not hold up the others.",
    source="syncthing#1542",
)
def hanging_device_first() -> Hooks:
    """Is announced after another gateway, which accepts connections and never answers."""

    def transmission(exchange: Exchange, transmission: Transmission) -> Transmission:
        return Transmission((), End.HANG) if exchange.request.target == "/hanging.xml" else transmission

    return Hooks(
        replies=_announced_first("/hanging.xml"),
        pages={"/hanging.xml": lambda site: Response()},
        transmission=transmission,
    )


@quirk("discovery", reason="Not everything that answers is a gateway.", source="syncthing#1542")
def media_server_first() -> Hooks:
    """Is announced after a media server, which answers everything that a gateway answers."""
    return Hooks(
        replies=_announced_first("/media.xml"),
        pages={"/media.xml": _document(_another_device("MediaServer", "ContentDirectory", "Films"))},
    )


@quirk("discovery", reason="It says it is a gateway, and there is a better one.", source="Orbi in AP mode: HA#72050")
def access_point_first() -> Hooks:
    """Is announced after an InternetGatewayDevice that has no WAN connection."""
    return Hooks(
        replies=_announced_first("/ap.xml"),
        pages={"/ap.xml": _document(_another_device("InternetGatewayDevice", "Layer3Forwarding", "Access point"))},
    )


@quirk(
    "discovery",
    reason="What one sender may have read must not be used up before the gateway is.",
    source="FRITZ!Box has nine, ASUS three for WPS: HA#57243, #43014, #46822",
)
def root_devices_first(count: int = 8) -> Hooks:
    """Is announced after other root devices at its address: media servers, WPS, and the like."""
    paths = [f"/device{number}.xml" for number in range(count)]
    device = _another_device("MediaServer", "ContentDirectory", "Films")

    def replies(search: Search, messages: Sequence[Message], site: Site) -> Iterable[Message]:
        if search.target not in ("upnp:rootdevice", "ssdp:all"):
            return messages
        return [*(_as_another(each, site.base + path) for path in paths for each in messages[:1]), *messages]

    pages = {path: _document(replace(device, udn=f"uuid:{uuid5(NAMESPACE_URL, path)}")) for path in paths}
    return Hooks(replies=replies, pages=pages)


@quirk(
    "discovery",
    reason="It looks like a gateway, and wants a password for everything; the real one is beside it.",
    source="FRITZ!Box tr64desc.xml, Huawei tr064dev.xml: fritzconnection, awidegreen/tr064#5",
)
def tr064_twin_first(status: int = 401) -> Hooks:
    """Is announced after a description for TR-064, whose WAN services refuse every request with an HTTP status."""

    def of_dsl_forum(service: Service) -> Service:
        service_type = service.service_type.replace("schemas-upnp-org", "dslforum-org")
        return replace(service, service_type=service_type, control_url=f"/tr064{service.control_url}")

    def refuse(exchange: Exchange) -> Response | None:
        if not exchange.request.target.startswith("/tr064/"):
            return None
        headers = (("WWW-Authenticate", 'Digest realm="x", nonce="0"'), ("Content-Type", "text/html"))
        return Response(status, headers, b"<HTML><BODY><H1>401 Unauthorized</H1></BODY></HTML>")

    twin = gateway_device(1, "tr064", "TR-064").with_each_service(of_dsl_forum)
    return Hooks(
        replies=_announced_first("/tr064.xml"),
        pages={"/tr064.xml": _document(twin)},
        intercept=refuse,
    )


@quirk(
    "discovery",
    reason="Which of the two answers first is chance; what the router can do must not be.",
    source="igd2-for-linux, FRITZ!Box 6490",
)
def two_versions() -> Hooks:
    """Is an IGD of version 2, and describes itself as one of version 1 under the same UDN, too, and that first."""
    udn: list[str] = []

    def newer(device: Device, site: Site) -> Device:
        udn[:] = [device.udn]
        return device.with_each_service(
            lambda service: (
                replace(service, version=2, service_type=f"{service.service_type.rpartition(':')[0]}:2")
                if service.name == "WANIPConnection"
                else service
            )
        )

    def page(site: Site) -> Response:
        older = gateway_device(1, "older", "Version 1")
        return _document(replace(older, udn=udn[0] if udn else older.udn))(site)

    def replies(search: Search, messages: Sequence[Message], site: Site) -> Iterable[Message]:
        return [*(each.having("LOCATION", f"{site.base}/v1.xml") for each in messages[:1]), *messages]

    return Hooks(device=newer, replies=replies, pages={"/v1.xml": page})


@quirk(
    "discovery",
    reason="An access point that plays the gateway often answers first, and leads nowhere.",
    source="common: HA#43014, FAForever#342, godot#25008",
)
def dead_gateway_first() -> Hooks:
    """Is announced after another gateway, which is disconnected and maps nothing."""

    def elsewhere(service: Service) -> Service:
        return replace(service, control_url=f"/dead{service.control_url}")

    def answer(exchange: Exchange) -> Response | None:
        if not exchange.request.target.startswith("/dead/"):
            return None
        headers = (("Content-Type", 'text/xml; charset="utf-8"'),)
        service_type, action = parse_soap_action(exchange.request.header("SOAPAction") or "") or ("", "")
        outputs = {
            "GetStatusInfo": {"NewConnectionStatus": "Disconnected", "NewLastConnectionError": "ERROR_UNKNOWN"},
            "GetExternalIPAddress": {"NewExternalIPAddress": "0.0.0.0"},  # noqa: S104 - nothing is bound
        }
        if action in outputs:
            return Response(200, headers, build_answer(service_type, action, outputs[action]).encode())
        return Response(500, headers, build_fault(UPnPError(501)).encode())

    dead = gateway_device(1, "dead", "Access point").with_each_service(elsewhere)
    return Hooks(replies=_announced_first("/dead.xml"), pages={"/dead.xml": _document(dead)}, intercept=answer)


@quirk("discovery", reason="A search sent straight to the gateway is no substitute.", source="tailscale#3197")
def unicast_ignored() -> Hooks:
    """Does not receive searches that are sent to its own address."""
    return Hooks(hears=lambda search: not search.unicast)


@quirk(
    "discovery",
    reason="Switches and access points that filter multicast leave only a search sent straight to the gateway.",
    source="tailscale#3197",
)
def multicast_ignored() -> Hooks:
    """Receives only searches that are sent to its own address."""
    return Hooks(hears=lambda search: search.unicast)


@quirk(
    "discovery",
    reason="The standard has the address of the device in HOST of a unicast search, and libupnp takes that for none.",
    source="libupnp (pupnp 1.6, 1.14): igd2-for-linux, linux-igd",
)
def host_must_be_group() -> Hooks:
    """Receives only searches that have the multicast group in HOST, and a number of seconds in MX, by unicast, too."""

    def hears(search: Search) -> bool:
        hosts = [line[5:].strip().lower() for line in search.raw.split(b"\r\n") if line[:5].upper() == b"HOST:"]
        return bool(search.mx) and hosts in ([b"239.255.255.250:1900"], [b"[ff02::c]:1900"])

    return Hooks(hears=hears)


@quirk(
    "discovery",
    reason="Whoever sends more searches than the router has time for makes it deaf, to other programs, too.",
    source="slow daemons: 13 to 27 ms for each M-SEARCH",
)
def slow_searches(seconds: float = 0.027, room: int = 256) -> Hooks:
    """Processes one search after another, so many seconds each; what comes while its queue is full is lost."""
    busy_until = 0.0

    def hears(search: Search) -> bool:
        nonlocal busy_until
        now = asyncio.get_running_loop().time()
        if busy_until - now > seconds * room:
            return False
        busy_until = max(now, busy_until) + seconds
        return True

    def datagrams(search: Search, sent: Sequence[Datagram], site: Site) -> Iterable[Datagram]:
        wait = max(0.0, busy_until - asyncio.get_running_loop().time())
        return [replace(each, delay=each.delay + wait) for each in sent]

    return Hooks(hears=hears, datagrams=datagrams)


@quirk("discovery", reason="A restart has to be noticed without being told.", source="common")
def never_announces() -> Hooks:
    """Sends no notifications: neither alive nor byebye."""
    return Hooks(notices=lambda messages: ())


def _payloads(change: Callable[[bytes], bytes]) -> Callable[[Search, Sequence[Datagram], Site], Iterable[Datagram]]:
    return lambda search, sent, site: [replace(each, payload=change(each.payload)) for each in sent]


def _headers(
    change: Callable[[str, str], Iterable[tuple[str, str]]],
) -> Callable[[Search, Sequence[Message], Site], Iterable[Message]]:
    def replies(search: Search, messages: Sequence[Message], site: Site) -> Iterable[Message]:
        return [
            replace(each, headers=tuple(new for name, value in each.headers for new in change(name, value)))
            for each in messages
        ]

    return replies


def _location_at(host: str) -> Hooks:
    def replies(search: Search, messages: Sequence[Message], site: Site) -> Iterable[Message]:
        return [each.having("LOCATION", f"http://{host}:{site.port}/rootDesc.xml") for each in messages]

    return Hooks(replies=replies)


def _announced_first(path: str) -> Callable[[Search, Sequence[Message], Site], Iterable[Message]]:
    """Put another device, described at this path, in front of every answer."""

    def replies(search: Search, messages: Sequence[Message], site: Site) -> Iterable[Message]:
        return [*(_as_another(each, site.base + path) for each in messages[:1]), *messages]

    return replies


def _as_another(message: Message, location: str) -> Message:
    """Return the same reply as another device would send it."""
    udn = f"uuid:{uuid5(NAMESPACE_URL, location)}"
    target = message.value("ST")
    return message.having("LOCATION", location).having("USN", udn if target == udn else f"{udn}::{target}")


def _document(device: Device) -> Callable[[Site], Response]:
    def page(site: Site) -> Response:
        body = describe_device(device, site, config_id=1).encode()
        return Response(headers=(("Content-Type", 'text/xml; charset="utf-8"'),), body=body)

    return page


def _another_device(kind: str, service: str, friendly_name: str) -> Device:
    return Device(
        device_type=f"urn:schemas-upnp-org:device:{kind}:1",
        udn=f"uuid:{uuid5(NAMESPACE_URL, kind + service)}",
        friendly_name=friendly_name,
        services=(Service.standard(service, 1, service),),
    )
