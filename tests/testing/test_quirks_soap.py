"""What the quirks of the actions refuse, do, and say."""

from __future__ import annotations

import asyncio

import pytest

from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.upnp.wire.soap import Answer, Fault

from .client import call, get, key, listing, mapping, outcome, post, send, values
from .proofs import Proofs

proof = Proofs()


@pytest.mark.parametrize("name", proof)
@pytest.mark.waits
async def test_quirk(name: str) -> None:
    await proof.check(name)


READ_ONE = ("GetSpecificPortMappingEntry", key())
READ_FIRST = ("GetGenericPortMappingEntry", {"NewPortMappingIndex": "0"})


async def add(gateway: EmulatedGateway, port: int = 8080, proto: str = "TCP", **terms: object) -> int | None:
    """Ask for a mapping, without a description unless there is one, and return the error code, 0 for success."""
    arguments = mapping(port, proto, **{"desc": "", "client": gateway.address, **terms})  # type: ignore[arg-type]
    return await outcome(gateway, "AddPortMapping", arguments)


REFUSALS: dict[str, tuple[dict[str, object], int | None]] = {
    "any_remote_host_only": ({"remote_host": "198.51.100.7"}, 726),
    "descriptions_break_it": ({"desc": "x"}, None),
    "leases_are_invalid_args": ({"lease": 60}, 402),
    "leases_break_it": ({"lease": 60}, None),
    "leases_fail": ({"lease": 60}, 501),
    "own_address_only": ({"client": "192.168.1.2"}, 606),
    "plain_descriptions_only": ({"desc": "my-server"}, 402),
    "ports_taken": ({"port": 443}, 729),
    "refuses_descriptions": ({"desc": "x"}, 501),
    "refuses_leases": ({"lease": 60}, 725),
    "refuses_leases_and_descriptions": ({"lease": 60}, 501),
    "same_ports_only": ({"internal_port": 80}, 724),
    "short_descriptions_only": ({"desc": "x" * 32}, 402),
}
"""Mappings that are refused, and the error code; None is HTTP 500 without a fault. A plain mapping is made."""


@pytest.mark.parametrize("name", REFUSALS)
async def test_one_thing_is_refused_and_the_rest_is_done(name: str) -> None:
    terms, code = REFUSALS[name]
    async with EmulatedGateway(name, address=None) as gateway:
        assert await add(gateway, **terms) == code  # type: ignore[arg-type]
        assert gateway.mappings == []
        assert await add(gateway) == 0
        assert len(gateway.mappings) == 1


@pytest.mark.parametrize(
    ("quirk", "terms"),
    [
        (quirks.refuses_leases_and_descriptions, {"desc": "x"}),
        (quirks.requires_lease, {"lease": 0}),
        (quirks.requires_lease, {"lease": 604_801}),
        (quirks.refuses_empty_descriptions, {"desc": ""}),
    ],
)
async def test_other_things_are_refused(quirk: Quirk[...], terms: dict[str, object]) -> None:
    async with EmulatedGateway(quirk, address=None) as gateway:
        assert await add(gateway, **terms) != 0  # type: ignore[arg-type]
        assert gateway.mappings == []


@proof()
async def requires_lease(gateway: EmulatedGateway) -> None:
    assert await add(gateway, lease=604_800) == 0
    assert await add(gateway, lease=0) == 402


@proof()
async def refuses_empty_descriptions(gateway: EmulatedGateway) -> None:
    assert await add(gateway, desc="") == -911
    assert await add(gateway, desc="x") == 0


@proof()
async def refuses_everything(gateway: EmulatedGateway) -> None:
    assert await add(gateway) == 501


@proof()
async def lease_cut_to_week(gateway: EmulatedGateway) -> None:
    for port, lease in enumerate((0, 60, 1_000_000), 1):
        await add(gateway, port, lease=lease)
    assert [each.duration for each in gateway.mappings] == [604_800, 60, 604_800]


@proof()
async def lease_always_a_day(gateway: EmulatedGateway) -> None:
    for port, lease in enumerate((0, 60, 1_000_000), 1):
        await add(gateway, port, lease=lease)
    assert [each.duration for each in gateway.mappings] == [86_400] * 3


@proof()
async def lease_reported_as_0(gateway: EmulatedGateway) -> None:
    await add(gateway, lease=60)
    assert (await values(gateway, "GetSpecificPortMappingEntry", key()))["newleaseduration"] == "0"
    assert [each.duration for each in gateway.mappings] == [60]


async def test_quirk_forgets_early() -> None:
    now = [0.0]
    async with EmulatedGateway(quirks.forgets_early(4), address=None, clock=lambda: now[0]) as gateway:
        await add(gateway, lease=3600)
        assert (await values(gateway, "GetSpecificPortMappingEntry", key()))["newleaseduration"] == "3600"
        now[0] = 4.0
        assert gateway.mappings == []


async def test_quirk_renewals_keep_end() -> None:
    now = [0.0]
    async with EmulatedGateway(quirks.renewals_keep_end, address=None, clock=lambda: now[0]) as gateway:
        assert await add(gateway, lease=60) == 0
        now[0] = 30.0
        assert await add(gateway, lease=60) == 0
        assert (await values(gateway, "GetSpecificPortMappingEntry", key()))["newleaseduration"] == "30"
        now[0] = 60.0
        assert gateway.mappings == []
        assert await add(gateway, lease=60) == 0
        assert [each.duration for each in gateway.mappings] == [60]


async def test_quirk_refuses_renewals() -> None:
    now = [0.0]
    async with EmulatedGateway(quirks.refuses_renewals, address=None, clock=lambda: now[0]) as gateway:
        assert await add(gateway, lease=60) == 0
        assert await add(gateway, lease=60) == 501
        now[0] = 60.0
        assert await add(gateway, lease=60) == 0


@proof()
async def descriptions_are_unique(gateway: EmulatedGateway) -> None:
    assert await add(gateway, proto="TCP", desc="x") == 0
    assert await add(gateway, proto="UDP", desc="x") == 718
    assert await add(gateway, proto="UDP", desc="y") == 0
    assert await add(gateway, proto="TCP", desc="x") == 0, "the same once more"


@proof()
async def never_overwrites(gateway: EmulatedGateway) -> None:
    assert [await add(gateway), await add(gateway)] == [0, 718]
    await outcome(gateway, "DeletePortMapping", key())
    assert await add(gateway) == 0


@proof(quirks.map_e(606, 1))
async def map_e(gateway: EmulatedGateway) -> None:
    assert [await add(gateway, port) for port in (16, 4112, 4127, 4128, 61456)] == [606, 0, 0, 606, 0]


@proof(quirks.table_full(2))
async def table_full(gateway: EmulatedGateway) -> None:
    assert [await add(gateway, port) for port in (1, 2, 3, 1)] == [0, 0, 728, 0]


@proof(quirks.table_full_is_invalid_args(2))
async def table_full_is_invalid_args(gateway: EmulatedGateway) -> None:
    assert [await add(gateway, port) for port in (1, 2, 3)] == [0, 0, 402]


@proof(quirks.table_full_says_nothing(2))
async def table_full_says_nothing(gateway: EmulatedGateway) -> None:
    assert [await add(gateway, port) for port in (1, 2, 3)] == [0, 0, 0]
    assert [each.external_port for each in gateway.mappings] == [1, 2]


@proof()
async def entries_disabled(gateway: EmulatedGateway) -> None:
    assert await add(gateway) == 0
    assert (await values(gateway, "GetSpecificPortMappingEntry", key()))["newenabled"] == "0"


@proof()
async def false_success(gateway: EmulatedGateway) -> None:
    assert await add(gateway) == 0
    assert gateway.mappings == []


@proof()
async def no_specific_entry(gateway: EmulatedGateway) -> None:
    await add(gateway)
    assert await outcome(gateway, "GetSpecificPortMappingEntry", key()) == 401


@proof()
async def bad_request_for_unknown(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, post("GetSpecificPortMappingEntry", key()))
    assert (reply.status, reply.body) == (400, b"")


@proof()
async def no_generic_entry(gateway: EmulatedGateway) -> None:
    await add(gateway)
    assert await listing(gateway) == [401]


@proof()
async def no_external_address(gateway: EmulatedGateway) -> None:
    assert await outcome(gateway, "GetExternalIPAddress") == 501


@proof(quirks.slow_delete(0.1))
async def slow_delete(gateway: EmulatedGateway) -> None:
    assert (await send(gateway, post("DeletePortMapping", key()), patience=0.02)).end == "open"
    assert await outcome(gateway, "DeletePortMapping", key()) == 714
    assert (await send(gateway, get(), patience=0.05)).status == 200


@proof(quirks.slow_add(0.1))
async def slow_add(gateway: EmulatedGateway) -> None:
    assert (await send(gateway, post("AddPortMapping", mapping()), patience=0.02)).end == "open"
    assert len(gateway.mappings) == 1
    assert await add(gateway, client="127.0.0.1") == 0


@proof(quirks.slow_actions(0.1))
async def slow_actions(gateway: EmulatedGateway) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await outcome(gateway, "GetExternalIPAddress", {}) == 0
    assert loop.time() - began >= 0.09


@proof(quirks.slow_rows(0.1))
async def slow_rows(gateway: EmulatedGateway) -> None:
    loop = asyncio.get_running_loop()
    await add(gateway)
    assert await outcome(gateway, "GetSpecificPortMappingEntry", key()) == 401
    began = loop.time()
    assert await outcome(gateway, "GetGenericPortMappingEntry", {"NewPortMappingIndex": "0"}) == 0
    assert loop.time() - began >= 0.09


@proof()
async def internal_ports_shown_as_0(gateway: EmulatedGateway) -> None:
    await add(gateway)
    for action, arguments in (READ_ONE, READ_FIRST):
        assert (await values(gateway, action, arguments))["newinternalport"] == "0"
    assert [each.internal_port for each in gateway.mappings] == [8080]


@proof()
async def clients_shown_by_name(gateway: EmulatedGateway) -> None:
    await add(gateway)
    for action, arguments in (READ_ONE, READ_FIRST):
        assert (await values(gateway, action, arguments))["newinternalclient"] == "desktop.lan"


@proof()
async def addresses_spelt_oddly(gateway: EmulatedGateway) -> None:
    await add(gateway, client="192.168.1.2")
    row = await values(gateway, *READ_FIRST)
    assert (row["newinternalclient"], row["newremotehost"]) == ("192.168.001.002", "0.0.0.0")
    assert await outcome(gateway, "DeletePortMapping", {**key(), "NewRemoteHost": "0.0.0.0"}) == 0
    assert gateway.mappings == []


@proof(quirks.late_table(0.2))
async def late_table(gateway: EmulatedGateway) -> None:
    assert await add(gateway) == 0
    assert await outcome(gateway, *READ_ONE) == 714
    assert await outcome(gateway, *READ_FIRST) == 713
    await asyncio.sleep(0.25)
    assert await outcome(gateway, *READ_ONE) == 0
    assert await outcome(gateway, *READ_FIRST) == 0


@proof()
async def one_entry_per_client(gateway: EmulatedGateway) -> None:
    assert await add(gateway, client="192.168.1.2") == 0
    assert await add(gateway, client="192.168.1.3") == 0
    assert [each.internal_client for each in gateway.mappings] == ["192.168.1.2"]
    assert await outcome(gateway, "DeletePortMapping", key()) == 0
    assert [each.internal_client for each in gateway.mappings] == ["192.168.1.3"]


async def test_quirk_refuses_ranges() -> None:
    wanted = {"NewStartPort": "1", "NewEndPort": "9999", "NewProtocol": "TCP", "NewManage": "1"}
    async with EmulatedGateway(quirks.refuses_ranges, address=None, version=2) as gateway:
        await add(gateway)
        assert await outcome(gateway, "DeletePortMappingRange", wanted) == 402
        assert len(gateway.mappings) == 1


@proof()
async def list_ends_with(gateway: EmulatedGateway) -> None:
    gateway.add_mapping(1)
    assert [isinstance(each, dict) or each for each in await listing(gateway)] == [True, 402]


@proof()
async def list_repeats_last(gateway: EmulatedGateway) -> None:
    assert await listing(gateway) == [713]
    gateway.add_mapping(1)
    gateway.add_mapping(2)
    ports = [each["newexternalport"] for each in await listing(gateway, 5) if isinstance(each, dict)]
    assert ports == ["1", "2", "2", "2", "2"]


@proof()
async def blank_entries(gateway: EmulatedGateway) -> None:
    gateway.add_mapping(1)
    gateway.add_mapping(2)
    ports = [each["newexternalport"] if isinstance(each, dict) else each for each in await listing(gateway)]
    assert ports == ["", "1", "", "2", "", 713]


@proof()
async def absent_delete_is(gateway: EmulatedGateway) -> None:
    assert await outcome(gateway, "DeletePortMapping", key()) == 402
    assert await outcome(gateway, "GetSpecificPortMappingEntry", key()) == 714


@proof()
async def absent_delete_succeeds(gateway: EmulatedGateway) -> None:
    assert await outcome(gateway, "DeletePortMapping", key()) == 0


ADDRESSES = {
    "external_address_empty": "",
    "external_address_ipv6": "2001:db8::1",
    "external_address_private": "192.168.100.2",
    "external_address_shared": "100.64.7.8",
    "external_address_unspecified": "0.0.0.0",
}


@pytest.mark.parametrize("name", ADDRESSES)
async def test_the_external_address_is_of_no_use(name: str) -> None:
    async with EmulatedGateway(name, address=None) as gateway:
        assert await values(gateway, "GetExternalIPAddress") == {"newexternalipaddress": ADDRESSES[name]}


@proof()
async def external_address_with_port(gateway: EmulatedGateway) -> None:
    assert await values(gateway, "GetExternalIPAddress") == {"newexternalipaddress": f"{gateway.external_address}:0"}


@proof()
async def external_address_with_zeros(gateway: EmulatedGateway) -> None:
    gateway.external_address = "44.0.0.1"
    assert await values(gateway, "GetExternalIPAddress") == {"newexternalipaddress": "044.000.000.001"}


FAULTS = {
    "bare_faults": b'<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>714</errorCode></UPnPError>',
    "faultcode_for_errorcode": b"<faultCode>714</faultCode>",
    "faults_in_words": b"<errorDescription>NoSuchEntryInArray</errorDescription>",
    "foreign_fault_namespace": b"<UPnPError><errorCode>",
    "padded_error_codes": b"<errorCode>\r\n\t714 \n</errorCode>",
    "signed_error_codes": b"<errorCode>+714</errorCode>",
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_spelled_oddly_and_means_the_same(name: str) -> None:
    async with EmulatedGateway(name, address=None) as gateway:
        reply = await send(gateway, post("DeletePortMapping", key()))
        assert reply.status == 500
        assert FAULTS[name] in reply.body
        if name == "faults_in_words":
            assert b"errorCode" not in reply.body
        fault = await call(gateway, "DeletePortMapping", key())
        assert isinstance(fault, Fault)
        assert fault.code == 714


@proof()
async def empty_answers(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, post("AddPortMapping", mapping()))
    assert (reply.status, reply.body) == (200, b"")
    assert len(gateway.mappings) == 1
    assert await outcome(gateway, "GetSpecificPortMappingEntry", key()) == 0


@proof()
async def empty_answers_for_nothing(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, post("AddPortMapping", mapping()))
    assert (reply.status, reply.body) == (200, b"")
    assert gateway.mappings == []


ANSWERS = {
    "answers_without_namespaces": b"<Envelope><Body><GetExternalIPAddressResponse><NewExternalIPAddress>",
    "lower_case_answers": b"<newexternalipaddress>11.22.33.44</newexternalipaddress>",
    "padded_answers": b"<NewExternalIPAddress>\r\n  11.22.33.44\t\n</NewExternalIPAddress>",
    "trailing_nul_in_answers": b"\r\n\0\0",
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_is_written_oddly_and_means_the_same(name: str) -> None:
    async with EmulatedGateway(name, address=None) as gateway:
        reply = await send(gateway, post("GetExternalIPAddress"))
        assert ANSWERS[name] in reply.body
        answer = await call(gateway, "GetExternalIPAddress")
        assert isinstance(answer, Answer)
        assert answer.values["newexternalipaddress"] == "11.22.33.44"


async def test_refusals_are_seen_in_the_order_of_the_quirks() -> None:
    async with EmulatedGateway(quirks.refuses_leases(725), quirks.refuses_descriptions(501), address=None) as gateway:
        assert await add(gateway, lease=60, desc="x") == 725
        assert await add(gateway, desc="x") == 501
        assert await add(gateway) == 0
    async with EmulatedGateway(quirks.refuses_descriptions(501), quirks.refuses_leases(725), address=None) as gateway:
        assert await add(gateway, lease=60, desc="x") == 501


async def test_quirks_that_look_into_the_table_take_it_as_others_leave_it() -> None:
    async with EmulatedGateway("descriptions_are_unique", "list_repeats_last", address=None) as gateway:
        assert await add(gateway, desc="x") == 0
        assert await add(gateway, 8081, desc="y") == 0
        assert await add(gateway, 8082, desc="x") == 718
    async with EmulatedGateway("never_overwrites", "bad_request_for_unknown", address=None) as gateway:
        assert await add(gateway) == 0
