"""``aioigd pinhole``: add, list, check and delete pinholes in the router's IPv6 firewall. Options, requests, output."""

from __future__ import annotations

import re
from dataclasses import asdict
from ipaddress import IPv6Address
from typing import Any, Final, NamedTuple

import click
from rich.text import Text

from .. import Gateway, IGDError, Pinhole, Proto
from .format import OK_MARK, WARNING_MARK, device_name, endpoint, error_text
from .format import duration as format_duration
from .options import DURATION, PORTS, Command, Group, Ports, Settings, common_options, protocol_options
from .output import device_json, error_json
from .runner import Exit, outcomes, result_or_error, run

__all__ = ["pinhole"]

_NO_SUCH_ENTRY: Final = 704
_NO_TRAFFIC_RECEIVED: Final = 709

_ADD = """\
\b
JSON, one document:
  {"gateway": {as in discover},
   "pinholes": [{"unique_id", "internal_client", "internal_port", "proto",
                 "remote_host", "remote_port", "duration", "protocol"}],
   "failures": [{"proto", "internal_port", "error"}]}
"""
_LIST = """\
\b
JSON, one document; null for what the router does not tell:
  {"gateway": {as in discover},
   "firewall": {"enabled", "pinholes_allowed"},
   "pinholes": [{"unique_id", "is_open", "packets"}]}
"""
_CHECK = """\
\b
JSON, one document:
  {"gateway": {as in discover}, "unique_id",
   "is_working" (null: nothing has come yet), "packets"}
"""
_DELETE = """\
\b
JSON, one document:
  {"gateway": {as in discover}, "deleted": [unique_id or "PORT/tcp", ...]}
"""


class PinholeName(NamedTuple):
    """How a pinhole is named: by its number, or by its port where the protocol has no numbers."""

    number: int = 0
    port: int = 0
    proto: Proto = "TCP"

    def __str__(self) -> str:
        return f"{self.port}/{self.proto.lower()}" if self.port else str(self.number)


class PinholeNameType(click.ParamType):  # type: ignore[type-arg] # generic in some versions of click only
    """A number, or a port with its protocol: 7, 8080/tcp."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PinholeName:
        """Return what a text names."""
        found = re.fullmatch(r"(\d{1,10})(?:/(tcp|udp))?", value.strip(), re.ASCII | re.IGNORECASE)
        number = int(found[1]) if found else 0
        if found is None or (found[2] and not 1 <= number <= 65535):
            self.fail(f"{value!r} is no number of a pinhole, and no port with its protocol (7, 8080/tcp)", param, ctx)
        return (
            PinholeName(0, number, "UDP" if found[2].lower() == "udp" else "TCP") if found[2] else PinholeName(number)
        )


_IDS = click.argument("names", metavar="ID...", type=PinholeNameType(), nargs=-1, required=True)
_FOR_HOST = click.option(
    "--internal",
    "client",
    default="",
    metavar="ADDR",
    help="The IPv6 address it is for, if not this machine's.",
)


@click.group(cls=Group, short_help="Let packets in through the IPv6 firewall.")
def pinhole() -> None:
    """Let packets in over IPv6, where nothing is translated and the router's firewall decides.

    UPnP gives each pinhole a number, and has no way to list them: keep the number that add shows. PCP has no numbers:
    there a pinhole is named by its port, as 8080/tcp.
    """


@pinhole.command(cls=Command, epilog=_ADD)
@click.argument("ports", metavar="PORT[-PORT]", type=PORTS)
@protocol_options
@_FOR_HOST
@click.option("--for", "duration", type=DURATION, default="1h", show_default=True, help="How long, at most a day.")
@click.option("--remote", "remote_host", default="", metavar="ADDR", help="Let only this IPv6 address in.")
@click.option("--remote-port", default=0, type=click.IntRange(0, 65535), help="Let only this remote port in.")
@common_options
def add(
    settings: Settings,
    ports: Ports,
    protos: tuple[Proto, ...],
    client: str,
    duration: int,
    remote_host: str,
    remote_port: int,
) -> None:
    """Open pinholes to a port, or to a range of ports."""
    if duration > 86_400:
        raise click.UsageError("A pinhole lasts a day at most.")
    limit = settings.limit

    async def work() -> Exit:
        wanted = [(port, proto) for port in ports for proto in protos]
        async with settings.mapper() as mapper:
            async with limit.whole_step():
                gateway = await mapper.get_gateway()
            results = await outcomes(
                limit,
                lambda each: gateway.add_pinhole(
                    client or None,
                    *each,
                    remote_host=remote_host,
                    remote_port=remote_port,
                    duration=duration,
                ),
                wanted,
            )
        opened = [each for each in results.values() if isinstance(each, Pinhole)]
        failures = [
            (*each, result) for each in wanted if isinstance(result := results.get(each, limit.error), IGDError)
        ]
        if not opened:
            raise failures[0][2]
        _show_added(settings, gateway, opened, failures)
        return Exit.TIME_IS_UP if limit.is_over else Exit.FAILED if failures else Exit.OK

    run(work, settings.output)


@pinhole.command("list", cls=Command, epilog=_LIST)
@click.argument("ids", metavar="[ID...]", type=click.IntRange(0), nargs=-1)
@_FOR_HOST
@common_options
def list_pinholes(settings: Settings, ids: tuple[int, ...], client: str) -> None:
    """Show what the firewall allows, and what came through the pinholes with these numbers."""

    async def work() -> Exit:
        limit = settings.limit
        async with settings.mapper() as mapper:
            async with limit.whole_step():
                gateway = await mapper.get_gateway()
                firewall = await gateway.query_firewall_status()
            packets = await outcomes(limit, lambda each: gateway.query_pinhole_packets(_pinhole(each, client)), ids)
        rows = [_row(number, each) for number, each in packets.items()]
        output = settings.output
        output.json_document({"gateway": device_json(gateway.device), "firewall": asdict(firewall), "pinholes": rows})
        state = "on" if firewall.enabled else "off"
        allows = "lets programs open pinholes" if firewall.pinholes_allowed else "lets nobody open pinholes"
        output.show(
            Text.assemble("The IPv6 firewall of ", (device_name(gateway.device), "bold"), f" is {state}, and {allows}.")
        )
        for row in rows:
            count = (
                "open, packets not counted"
                if row["packets"] is None
                else f"open, {row['packets']} packets came through"
            )
            output.show(f"  pinhole {row['unique_id']}: {count if row['is_open'] else 'not there'}")
        if not ids:
            output.show(Text("  The standard has no list of pinholes; name their numbers to see them.", style="dim"))
        if limit.is_over:
            output.warn(f"Not all was told: {limit.error.message}")
            return Exit.TIME_IS_UP
        return Exit.OK if all(row["is_open"] for row in rows) else Exit.FAILED

    run(work, settings.output)


@pinhole.command(cls=Command, epilog=_CHECK)
@click.argument("unique_id", metavar="ID", type=click.IntRange(0))
@_FOR_HOST
@common_options
def check(settings: Settings, unique_id: int, client: str) -> None:
    """See whether packets have come through a pinhole.

    Exits with 0 if they have, with 1 if not, or if none has come yet.
    """

    async def work() -> Exit:
        hole = _pinhole(unique_id, client)
        async with settings.mapper() as mapper, settings.limit.whole_step():
            gateway = await mapper.get_gateway()
            try:
                works: bool | None = await gateway.query_pinhole_working(hole)
            except IGDError as error:
                if error.error_code != _NO_TRAFFIC_RECEIVED:
                    raise
                works = None
            packets = await result_or_error(gateway.query_pinhole_packets(hole))
        count = packets if isinstance(packets, int) else None
        settings.output.json_document(
            {"gateway": device_json(gateway.device), "unique_id": unique_id, "is_working": works, "packets": count}
        )
        says = {
            True: "packets come through",
            False: "packets came, and none got through",
            None: "no packet has come yet",
        }
        mark = OK_MARK if works else WARNING_MARK
        came = f" ({count})" if count else ""
        settings.output.show(Text.assemble(mark, f"Pinhole {unique_id}: {says[works]}{came}"))
        return Exit.OK if works else Exit.FAILED

    run(work, settings.output)


@pinhole.command(cls=Command, epilog=_DELETE)
@_IDS
@_FOR_HOST
@common_options
def delete(settings: Settings, names: tuple[PinholeName, ...], client: str) -> None:
    """Close pinholes, by their numbers, or by their ports (8080/tcp) where they were opened by PCP."""

    async def work() -> Exit:
        limit = settings.limit
        async with settings.mapper() as mapper:
            async with limit.whole_step():
                gateway = await mapper.get_gateway()
            ours = gateway.device.igd_our_addr if gateway.protocol == "pcp" else ""
            results = await outcomes(
                limit, lambda each: gateway.delete_pinhole(_named_pinhole(each, client, ours)), names
            )
        failures = [(each, result) for each in names if isinstance(result := results.get(each, limit.error), IGDError)]
        gone = [name for name in names if name not in {each for each, _ in failures}]
        if not gone:
            raise failures[0][1]
        deleted = [str(each) if each.port else each.number for each in gone]
        settings.output.json_document({"gateway": device_json(gateway.device), "deleted": deleted})
        for name in gone:
            settings.output.show(Text.assemble(OK_MARK, f"Pinhole {name} is closed"))
        for name, error in failures:
            settings.output.warn(f"Pinhole {name}: {error_text(error)}")
        return Exit.TIME_IS_UP if limit.is_over else Exit.FAILED if failures else Exit.OK

    run(work, settings.output)


def _pinhole(unique_id: int, client: str) -> Pinhole:
    """Return a pinhole of which only the number is known; the gateway is asked from the address ``client``."""
    if client:
        try:
            address = IPv6Address(client)
        except ValueError:
            address = IPv6Address(0)  # refused below, like all that no host on the internet has
        if address.ipv4_mapped or address.is_unspecified or address.is_multicast or address.is_link_local:
            raise click.UsageError(
                f"--internal must be the IPv6 address of a host on the internet, not {client!r:.80}."
            )
        client = str(address)
    return Pinhole(unique_id, client, 0, "TCP")


def _named_pinhole(name: PinholeName, client: str, ours: str) -> Pinhole:
    """Return a pinhole by how it was named; ``ours`` is the host that it is for by PCP, if no other one was named."""
    hole = _pinhole(name.number, client)
    if not name.port:
        return hole
    return Pinhole(0, hole.internal_client or ours, name.port, name.proto, protocol="pcp")


def _row(unique_id: int, packets: object) -> dict[str, Any]:
    # Any other error means that the router does not count packets, not that the pinhole is not there.
    absent = isinstance(packets, IGDError) and packets.error_code == _NO_SUCH_ENTRY
    return {
        "unique_id": unique_id,
        "is_open": not absent,
        "packets": packets if isinstance(packets, int) else None,
    }


def _name_of(pinhole: Pinhole) -> PinholeName:
    if pinhole.protocol == "upnp":
        return PinholeName(pinhole.unique_id)
    return PinholeName(0, pinhole.internal_port, pinhole.proto)


def _show_added(
    settings: Settings, gateway: Gateway, opened: list[Pinhole], failures: list[tuple[int, Proto, IGDError]]
) -> None:
    output = settings.output
    output.json_document(
        {
            "gateway": device_json(gateway.device),
            "pinholes": [asdict(each) for each in opened],
            "failures": [
                {"proto": proto, "internal_port": port, "error": error_json(error)} for port, proto, error in failures
            ],
        }
    )
    for each in opened:
        output.show(
            Text.assemble(
                OK_MARK,
                f"{each.proto} ",
                (endpoint(each.internal_client, each.internal_port), "cyan"),
                f" is open for {format_duration(each.duration)}: pinhole ",
                (str(_name_of(each)), "bold"),
            )
        )
    for port, proto, error in failures:
        output.warn(f"{proto} {port}: {error_text(error)}")
