"""Each diagnosis, provoked by a gateway or machine that is like that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from aioigd.cli.doctor import collect
from aioigd.cli.doctor.collect import kind_of
from aioigd.cli.doctor.rules import Findings
from aioigd.testing import EmulatedGateway, quirks

from ..conftest import Outcome, Run, patient

pytestmark = pytest.mark.waits


@pytest.mark.parametrize(
    ("name", "address", "kind"),
    [
        ("eth0", "192.168.1.2", "lan"),
        ("wlp3s0", "192.168.1.2", "lan"),
        ("en0", "192.168.1.2", "lan"),
        ("lo", "127.0.0.1", "loopback"),
        ("tun0", "10.8.0.2", "vpn"),
        ("wg0", "10.8.0.2", "vpn"),
        ("utun4", "10.8.0.2", "vpn"),
        ("tailscale0", "100.100.1.1", "vpn"),
        ("docker0", "172.17.0.1", "virtual"),
        ("br-0a1b2c3d4e5f", "172.18.0.1", "virtual"),
        ("br-lan", "192.168.1.1", "lan"),
        ("veth1234", "10.0.0.1", "virtual"),
        ("vEthernet (WSL)", "172.30.0.1", "virtual"),
    ],
)
def test_interfaces_are_told_apart_by_their_names(name: str, address: str, kind: str) -> None:
    assert kind_of(name, address) == kind


Ask = Callable[..., Awaitable[Outcome]]


@pytest.fixture
def ask(run: Run) -> Ask:
    """Ask the doctor about a gateway, for programs."""

    async def ask(gateway: EmulatedGateway, *options: object) -> Outcome:
        return await run("doctor", "--source-address", gateway.address, "--timeout", patient(0.5), "--json", *options)

    return ask


def advised(outcome: Outcome) -> list[str]:
    return [each["code"] for each in outcome.document["advice"]]


class TestProvoked:
    async def test_all_is_well(self, ask: Ask, gateway: EmulatedGateway) -> None:
        gateway.external_address = "93.184.216.34"
        outcome = await ask(gateway)
        assert (outcome.code, advised(outcome)) == (0, [])
        assert gateway.mappings == []
        assert gateway.count("AddPortMapping") == 1

    async def test_no_trial_opens_no_port(self, ask: Ask, gateway: EmulatedGateway) -> None:
        outcome = await ask(gateway, "--no-trial")
        assert outcome.document["findings"]["trial"] is None
        assert gateway.count("AddPortMapping") == 0

    async def test_the_document_has_its_documented_shape(self, ask: Ask, gateway: EmulatedGateway) -> None:
        gateway.external_address = "10.0.0.2"
        document = (await ask(gateway)).document
        assert document.keys() == {"advice", "findings"}
        assert document["advice"][0].keys() == {"code", "severity", "title", "why", "to_do"}
        assert document["findings"].keys() == set(Findings.__dataclass_fields__)

    async def test_people_get_it_in_words(self, run: Run, gateway: EmulatedGateway) -> None:
        gateway.external_address = "192.168.2.17"
        outcome = await run("doctor", "--source-address", gateway.address, "--timeout", 0.5)
        assert outcome.code == 4
        assert "behind another router (double NAT)" in outcome.out
        assert "192.168.2.17" in outcome.out

    async def test_upnp_off(self, run: Run, address: str) -> None:
        outcome = await run("doctor", "--source-address", address, "--timeout", 0.3, "--json")
        assert (outcome.code, advised(outcome)) == (4, ["upnp-off"])

    async def test_no_gateway(self, run: Run, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        async def nobody(host: str, seconds: float) -> bool:
            return False

        monkeypatch.setattr(collect, "_is_host_up", nobody)
        outcome = await run("doctor", "--source-address", address, "--timeout", 0.3, "--json")
        assert (outcome.code, advised(outcome)) == (4, ["no-gateway"])

    async def test_no_network(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(collect, "all_interfaces", lambda **_: [])
        assert advised(await run("doctor", "--json")) == ["no-network"]

    @pytest.mark.parametrize(
        ("quirk", "expected"),
        [
            (quirks.access_point_mode, ["no-wan"]),
            (quirks.refuses_everything(606), ["refused"]),
            (quirks.refuses_everything(501), ["refused"]),
            (quirks.false_success, ["false-success"]),
            (quirks.refuses_leases, ["no-leases"]),
            (quirks.refuses_descriptions, ["descriptions"]),
            (quirks.external_address_shared, ["cgnat"]),
            (quirks.external_address_private, ["double-nat"]),
            (quirks.external_address_empty, ["no-address"]),
            (quirks.no_external_address, ["no-address"]),
            (quirks.multicast_ignored, ["multicast-dropped"]),
            (quirks.silent, ["description-unreadable"]),
        ],
        ids=str,
    )
    async def test_a_gateway_that_is_like_that(self, ask: Ask, quirk: object, expected: list[str]) -> None:
        async with EmulatedGateway(quirk, address=None, external_address="93.184.216.34") as gateway:  # type: ignore[arg-type]
            assert advised(await ask(gateway)) == expected

    async def test_a_full_table(self, ask: Ask) -> None:
        async with EmulatedGateway(address=None, external_address="93.184.216.34", table_size=1) as gateway:
            gateway.add_mapping(8000)
            assert advised(await ask(gateway)) == ["table-full"]

    async def test_a_full_table_that_is_refused_without_a_reason(self, ask: Ask) -> None:
        full = EmulatedGateway(quirks.table_full_is_invalid_args, address=None, external_address="93.184.216.34")
        async with full as gateway:
            for port in range(32):
                gateway.add_mapping(8000 + port)
            assert advised(await ask(gateway)) == ["table-full"]

    async def test_a_full_table_that_is_not_told_of(self, ask: Ask) -> None:
        full = EmulatedGateway(quirks.table_full_says_nothing, address=None, external_address="93.184.216.34")
        async with full as gateway:
            for port in range(32):
                gateway.add_mapping(8000 + port)
            assert advised(await ask(gateway)) == ["table-full"]

    async def test_several_gateways(self, ask: Ask, gateway: EmulatedGateway) -> None:
        gateway.external_address = "93.184.216.34"
        async with EmulatedGateway(address=gateway.address, external_address="93.184.216.35"):
            assert advised(await ask(gateway)) == ["several-gateways"]

    async def test_offline(self, ask: Ask, gateway: EmulatedGateway) -> None:
        gateway.connected = False
        assert advised(await ask(gateway)) == ["offline"]

    async def test_a_router_that_hangs_is_told_of_in_time(self, run: Run, gateway: EmulatedGateway) -> None:
        gateway.hang()
        outcome = await run("doctor", "--source-address", gateway.address, "--timeout", 0.3, "--json")
        assert advised(outcome) == ["upnp-off"]
        gateway.resume()
