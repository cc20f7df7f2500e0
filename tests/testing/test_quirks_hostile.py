"""What the attacks send."""

from __future__ import annotations

import zlib

import pytest

from aioigd.errors import InvalidResponseError
from aioigd.testing import EmulatedGateway, Quirk, quirks
from aioigd.testing.device_tree import Site
from aioigd.testing.quirks.hostile import CANARY
from aioigd.upnp.wire import xml

from .client import IGD_1, get, post, search, send
from .proofs import Proofs

proof = Proofs()


@pytest.mark.parametrize("name", proof)
async def test_quirk(name: str) -> None:
    await proof.check(name)


async def attack_in(gateway: EmulatedGateway) -> bytes:
    return (await send(gateway, get(), patience=0.2)).body


@proof()
async def endless_body(gateway: EmulatedGateway) -> None:
    assert (await send(gateway, get())).end == "endless"


@proof()
async def endless_head(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, get())
    assert reply.end == "endless"
    assert b"\r\n\r\n" not in reply.received


@proof(quirks.drips(pause=0.0))
async def drips(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, get(), patience=0.5)
    assert reply.status == 200
    assert reply.end == "closed"


@proof()
async def silent(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, get(), patience=0.05)
    assert (reply.received, reply.end) == (b"", "open")


@proof(quirks.gzip_bomb(megabytes=2))
async def gzip_bomb(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, get())
    assert b"Content-Encoding: gzip" in reply.head
    assert len(zlib.decompress(reply.body, 31)) == 2 * 1024 * 1024 > 100 * len(reply.body)


DOCTYPES = ("entity_bomb", "external_entity", "doctype")


@pytest.mark.parametrize("name", DOCTYPES)
async def test_there_is_a_doctype(name: str) -> None:
    async with EmulatedGateway(name, address=None) as gateway:
        body = await attack_in(gateway)
    assert b"?><!DOCTYPE " in body
    with pytest.raises(InvalidResponseError, match="document type"):
        xml.parse(body)


def test_an_entity_bomb_would_be_a_large_one() -> None:
    change = quirks.entity_bomb.hooks().description
    assert change is not None
    document = change('<?xml version="1.0"?><friendlyName>x</friendlyName>', Site("127.0.0.1", 1))
    assert document.count("<!ENTITY") == 9
    assert "<friendlyName>&a;</friendlyName>" in document
    assert '<!ENTITY a "&b;&b;' in document
    assert '<!ENTITY h "&i;&i;' in document


@proof()
async def utf_7(gateway: EmulatedGateway) -> None:
    body = await attack_in(gateway)
    assert b"<!DOCTYPE" not in body
    assert "<!DOCTYPE" in body.decode("utf-7")


@proof(quirks.million_elements(count=1000))
async def million_elements(gateway: EmulatedGateway) -> None:
    assert (await attack_in(gateway)).count(b"<a/>") == 1000


@proof()
async def deep_tree(gateway: EmulatedGateway) -> None:
    assert b"<a>" * 20_000 + b"</a>" in await attack_in(gateway)


@proof(quirks.many_attributes(count=1000))
async def many_attributes(gateway: EmulatedGateway) -> None:
    assert (await attack_in(gateway)).count(b'=""') == 1000


@proof()
async def redirects(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, get())
    assert reply.status == 302
    assert f"Location: {CANARY}/".encode() in reply.head


@proof()
async def foreign_control_url(gateway: EmulatedGateway) -> None:
    assert f"<controlURL>{CANARY}/ctl/WANIPConn1<".encode() in await attack_in(gateway)


@proof()
async def file_control_url(gateway: EmulatedGateway) -> None:
    assert b"<controlURL>file:///etc/passwd<" in await attack_in(gateway)


@proof()
async def foreign_location(gateway: EmulatedGateway) -> None:
    (reply,) = await search(gateway.address, IGD_1)
    assert reply.headers["LOCATION"] == f"{CANARY}/rootDesc.xml"


@proof()
async def file_location(gateway: EmulatedGateway) -> None:
    (reply,) = await search(gateway.address, IGD_1)
    assert reply.headers["LOCATION"] == "file:///etc/passwd"


@proof(quirks.thousands_of_services(count=200))
async def thousands_of_services(gateway: EmulatedGateway) -> None:
    assert (await attack_in(gateway)).count(b"<service>") == 203


@proof()
async def header_injection(gateway: EmulatedGateway) -> None:
    assert b'WANIPConnection:1"\r\nX-Injected: yes\r\n</serviceType>' in await attack_in(gateway)


@proof(quirks.flood(count=50))
async def flood(gateway: EmulatedGateway) -> None:
    locations = [reply.headers["LOCATION"] for reply in await search(gateway.address, IGD_1)]
    assert len(set(locations)) == 51
    assert locations.index(gateway.location) == 20


@proof(quirks.long_descriptions(count=3, size=20_000))
async def long_descriptions(gateway: EmulatedGateway) -> None:
    locations = {reply.headers["LOCATION"] for reply in await search(gateway.address, IGD_1)}
    assert len(locations) == 3
    assert gateway.location not in locations
    for location in locations:
        body = (await send(gateway, get("/" + location.rpartition("/")[2]))).body
        assert 19_900 < len(body) <= 20_000
        assert sum(1 for _ in xml.parse(body).iter()) > 1000


@proof()
async def impossible_external_address(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, post("GetExternalIPAddress"))
    assert b"<NewExternalIPAddress>127.0.0.1</NewExternalIPAddress>" in reply.body


@pytest.mark.parametrize(
    "quirk",
    [
        quirks.entity_bomb("control"),
        quirks.external_entity("control"),
        quirks.doctype("control"),
        quirks.utf_7("control"),
        quirks.redirects("control"),
        quirks.deep_tree("control", depth=10),
        quirks.gzip_bomb("control", megabytes=1),
    ],
    ids=repr,
)
async def test_an_attack_may_be_in_the_reply_to_an_action(quirk: Quirk[...]) -> None:
    async with EmulatedGateway(address=None) as gateway:
        plain = await send(gateway, post("GetExternalIPAddress"))
    async with EmulatedGateway(quirk, address=None) as gateway:
        description = await send(gateway, get())
        assert b"<controlURL>/ctl/WANIPConn1</controlURL>" in description.body
        assert (await send(gateway, post("GetExternalIPAddress"))).body != plain.body
