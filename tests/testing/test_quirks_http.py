"""What the quirks of HTTP do to replies and connections."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from aioigd.testing import EmulatedGateway, quirks
from aioigd.upnp.wire.soap import Answer, Fault, parse_reply

from .client import Reply, get, key, mapping, outcome, post, send
from .proofs import Proofs

proof = Proofs()
ADD = post("AddPortMapping", mapping())


@pytest.mark.parametrize("name", proof)
@pytest.mark.waits
async def test_quirk(name: str) -> None:
    await proof.check(name)


async def fetch(gateway: EmulatedGateway) -> Reply:
    return await send(gateway, get(), patience=0.05)


def stated_length(reply: Reply) -> int:
    return int(reply.head.partition(b"Content-Length: ")[2].split()[0])


async def at_once(gateway: EmulatedGateway, count: int = 4) -> list[str]:
    """Make connections at the same time, and return how they ended, with the status where there is one."""
    replies = await asyncio.gather(*(send(gateway, get(), patience=1) for _ in range(count)))
    return sorted(str(reply.status) if reply.received else reply.end for reply in replies)


@proof()
async def no_content_length(gateway: EmulatedGateway) -> None:
    reply = await fetch(gateway)
    assert b"Content-Length" not in reply.head
    assert reply.end == "closed"


@proof()
async def no_length_no_close(gateway: EmulatedGateway) -> None:
    reply = await fetch(gateway)
    assert b"Content-Length" not in reply.head
    assert reply.body.endswith(b"</root>\n")
    assert reply.end == "open"


@proof()
async def head_alone(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, ADD, patience=0.05)
    assert reply.status == 200
    assert b"Content-Length" not in reply.head
    assert (reply.body, reply.end) == (b"", "open")
    assert (await fetch(gateway)).body.endswith(b"</root>\n")


@proof()
async def broken_header_line(gateway: EmulatedGateway) -> None:
    reply = await fetch(gateway)
    assert reply.received.startswith(b"HTTP/1.1 200 OK\r\nno header at all\r\n")
    assert stated_length(reply) == len(reply.body)


@proof()
async def http_1_0(gateway: EmulatedGateway) -> None:
    assert (await fetch(gateway)).received.startswith(b"HTTP/1.0 200 OK\r\n")


@proof()
async def chunked(gateway: EmulatedGateway) -> None:
    reply = await fetch(gateway)
    assert b"Transfer-Encoding: chunked" in reply.head
    assert b"Content-Length" not in reply.head
    assert reply.body.startswith(b"64\r\n<?xml")
    assert reply.body.endswith(b"\r\n0\r\n\r\n")


@proof()
async def bare_lf_head(gateway: EmulatedGateway) -> None:
    head, blank, body = (await fetch(gateway)).received.partition(b"\n\n")
    assert b"\r" not in head
    assert blank
    assert body.startswith(b"<?xml")


@proof()
async def wrong_content_type(gateway: EmulatedGateway) -> None:
    assert b"Content-Type: text/html" in (await fetch(gateway)).head


@proof()
async def no_content_type(gateway: EmulatedGateway) -> None:
    assert b"Content-Type" not in (await fetch(gateway)).head


@proof()
async def length_too_long(gateway: EmulatedGateway) -> None:
    reply = await fetch(gateway)
    assert stated_length(reply) == len(reply.body) + 64
    assert reply.end == "closed"


@proof()
async def length_too_long_no_close(gateway: EmulatedGateway) -> None:
    reply = await fetch(gateway)
    assert stated_length(reply) == len(reply.body) + 64
    assert reply.end == "open"


@proof()
async def length_too_short(gateway: EmulatedGateway) -> None:
    reply = await fetch(gateway)
    assert stated_length(reply) == len(reply.body) - 20
    assert reply.end == "closed"


@proof()
async def reset_after_reply(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, get())
    assert reply.body.endswith(b"</root>\n")
    assert reply.end == "reset"
    assert gateway.tally.reset == 1


@proof()
async def small_pieces(gateway: EmulatedGateway) -> None:
    """That it is in pieces can only be seen before TCP joins them again; here, that nothing is lost."""
    reply = await fetch(gateway)
    assert stated_length(reply) == len(reply.body)


@proof()
async def continue_first(gateway: EmulatedGateway) -> None:
    assert (await fetch(gateway)).received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


@proof()
async def no_reason_phrase(gateway: EmulatedGateway) -> None:
    assert (await fetch(gateway)).received.startswith(b"HTTP/1.1 200\r\n")


@proof()
async def duplicate_content_length(gateway: EmulatedGateway) -> None:
    assert (await fetch(gateway)).head.count(b"Content-Length: ") == 2


@proof()
async def faults_with_status(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, post("DeletePortMapping", key()))
    assert reply.status == 200
    assert parse_reply(reply.body, "DeletePortMapping") == Fault(714, "NoSuchEntryInArray")


@proof()
async def answers_with_status(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, ADD)
    assert reply.status == 500
    assert isinstance(parse_reply(reply.body, "AddPortMapping"), Answer)
    assert len(gateway.mappings) == 1


@proof()
async def denies_control(gateway: EmulatedGateway) -> None:
    assert [(await send(gateway, request)).status for request in (get(), ADD)] == [200, 401]
    assert gateway.mappings == []


@proof(quirks.slow(0.1), quirks.one_connection_or_reset)
async def one_connection_or_reset(gateway: EmulatedGateway) -> None:
    assert await at_once(gateway) == ["200", "reset", "reset", "reset"]
    assert gateway.tally.reset == 3
    assert await at_once(gateway, 1) == ["200"]


@proof(quirks.slow(0.1), quirks.one_connection_or_close)
async def one_connection_or_close(gateway: EmulatedGateway) -> None:
    ends = await at_once(gateway)
    assert ends[0] == "200"
    assert set(ends[1:]) <= {"closed", "reset"}, "a reset where the request came after the close"
    assert await at_once(gateway, 1) == ["200"]


@proof(quirks.slow(0.02), quirks.one_connection_others_wait)
async def one_connection_others_wait(gateway: EmulatedGateway) -> None:
    ended = []

    async def note_the_end() -> None:
        assert (await send(gateway, get())).status == 200
        ended.append(asyncio.get_running_loop().time())

    await asyncio.gather(*(note_the_end() for _ in range(4)))
    assert all(later - earlier > 0.015 for earlier, later in pairwise(ended))


@proof(quirks.slow(0.1))
async def slow(gateway: EmulatedGateway) -> None:
    assert (await send(gateway, get(), patience=0.02)).end == "open"
    assert (await send(gateway, get(), patience=1)).status == 200


@proof()
async def single_segment_only(gateway: EmulatedGateway) -> None:
    head, blank, body = ADD.partition(b"\r\n\r\n")
    assert (await send(gateway, head + blank, body, pause=0.05)).status == 400
    assert gateway.mappings == []
    assert (await send(gateway, ADD)).status == 200


@proof()
async def keep_alive_broken(gateway: EmulatedGateway) -> None:
    request = b"GET /rootDesc.xml HTTP/1.1\r\nHost: x\r\n\r\n"
    reply = await send(gateway, request, request, pause=0.05, patience=0.05)
    assert b"Connection: keep-alive" in reply.head
    assert reply.received.count(b"HTTP/1.1 200 OK") == 1
    assert reply.end == "open"


GET_AND_KEEP = b"GET /rootDesc.xml HTTP/1.1\r\nHost: x\r\n\r\n"


async def get_thrice(gateway: EmulatedGateway) -> Reply:
    return await send(gateway, GET_AND_KEEP, GET_AND_KEEP, GET_AND_KEEP, pause=0.05, patience=0.2)


@proof()
async def keep_alive_http_1_0(gateway: EmulatedGateway) -> None:
    reply = await get_thrice(gateway)
    assert reply.received.count(b"HTTP/1.0 200 OK") == 3
    assert reply.received.count(b"Connection: keep-alive") == 3
    assert reply.end == "open"
    assert (await fetch(gateway)).end == "closed"


@proof(quirks.keep_alive_announced(7, 2))
async def keep_alive_announced(gateway: EmulatedGateway) -> None:
    reply = await get_thrice(gateway)
    assert reply.received.count(b"HTTP/1.1 200 OK") == 2
    assert b"Keep-Alive: timeout=7, max=2" in reply.head
    assert b"Keep-Alive: timeout=7, max=1" in reply.received
    assert reply.end in ("closed", "reset")


@proof()
async def keep_alive_only_promised(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, GET_AND_KEEP, GET_AND_KEEP, pause=0.05)
    assert b"Connection: close" not in reply.head
    assert reply.received.count(b"HTTP/1.1 200 OK") == 1
    assert reply.end == "closed"


@proof(quirks.keep_alive_ends_at_random(1.0))
async def keep_alive_ends_at_random(gateway: EmulatedGateway) -> None:
    add = ADD.replace(b"Connection: close\r\n", b"")
    reply = await send(gateway, add, add.replace(b"8080", b"8081"), pause=0.05)
    assert reply.received.count(b"HTTP/1.1 200 OK") == 1
    assert reply.end == "closed"
    assert len(gateway.mappings) == 2


@proof()
async def keep_alive_ends_unasked(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, GET_AND_KEEP)
    assert reply.received.count(b"HTTP/1.1 200 OK") == 1
    assert b"Connection: close" not in reply.head
    assert reply.end == "closed"


@proof()
async def replies_twice(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, GET_AND_KEEP, patience=0.1)
    assert reply.received.count(b"HTTP/1.1 200 OK") == 2
    assert (await fetch(gateway)).received.count(b"HTTP/1.1 200 OK") == 1


@proof()
async def bytes_behind_replies(gateway: EmulatedGateway) -> None:
    reply = await fetch(gateway)
    assert len(reply.body) == stated_length(reply) + 2
    assert reply.body.endswith(b"\r\n")


@proof()
async def exact_soapaction_only(gateway: EmulatedGateway) -> None:
    assert (await send(gateway, ADD.replace(b"SOAPAction", b"Soapaction"))).status == 500
    assert (await send(gateway, ADD.replace(b"SOAPAction", b"SOAPACTION"))).status == 200
    assert (await send(gateway, ADD)).status == 200


@proof()
async def half_close_aborts(gateway: EmulatedGateway) -> None:
    reader, writer = await asyncio.open_connection(gateway.address, gateway.port)
    writer.write(get())
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    assert (await fetch(gateway)).status == 200


@proof()
async def resets_before_doing(gateway: EmulatedGateway) -> None:
    assert (await send(gateway, ADD)).end == "reset"
    assert gateway.mappings == []
    assert await outcome(gateway, "AddPortMapping", mapping()) == 0


@proof()
async def resets_after_doing(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, ADD)
    assert (reply.received, reply.end) == (b"", "reset")
    assert len(gateway.mappings) == 1
    assert (await send(gateway, ADD)).status == 200


@proof()
async def resets_now_and_then(gateway: EmulatedGateway) -> None:
    ends = [(await send(gateway, get())).end for _ in range(8)]
    assert ends == ["closed", "closed", "closed", "reset"] * 2


@proof()
async def refuses_by_reset(gateway: EmulatedGateway) -> None:
    assert (await send(gateway, post("AddPortMapping", mapping(lease=60)))).end == "reset"
    assert gateway.mappings == []
    assert (await send(gateway, post("AddPortMapping", mapping(lease=0)))).status == 200


@proof(quirks.refuses_by_silence("description"))
async def refuses_by_silence(gateway: EmulatedGateway) -> None:
    assert (await send(gateway, post("AddPortMapping", mapping(desc="x")), patience=0.05)).end == "open"
    assert gateway.mappings == []
    assert (await send(gateway, post("AddPortMapping", mapping(desc="")), patience=1)).status == 200


@proof()
async def hangs_at_first(gateway: EmulatedGateway) -> None:
    assert (await send(gateway, ADD, patience=0.05)).end == "open"
    assert gateway.mappings == []
    assert (await send(gateway, ADD)).status == 200


async def test_quirks_of_http_combine() -> None:
    many = (quirks.http_1_0, quirks.chunked(50), quirks.bare_lf_head, quirks.no_content_type, quirks.small_pieces)
    async with EmulatedGateway(*many, address=None) as gateway:
        head, _, body = (await fetch(gateway)).received.partition(b"\n\n")
    assert head.startswith(b"HTTP/1.0 200 OK\n")
    assert b"Content-Type" not in head
    assert body.startswith(b"32\r\n<?xml")
