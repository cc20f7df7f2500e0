"""Several programs, or mappers, that keep the same ports: what one of them leaves to the others when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioigd import IGDError, Lease, LeaseState, PortMapper
from aioigd.leases.owner_lock import PATIENCE, OwnerLock
from aioigd.models import MappingKey
from aioigd.testing import EmulatedGateway
from aioigd.testing.hooks import Proceed
from aioigd.testing.wan_connection import ActionCall, Outputs
from aioigd.upnp.wire.error_codes import refused

from ..support import odd
from .model import THEM, US, US6, ModelManager, ModelRouter, lease_request, state_of
from .virtual import run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the locks and /proc are those of Linux")

KEY = MappingKey(8080, "TCP")
ROUTER = "192.168.1.1"

SERVER = """
import asyncio, sys
import aioigd

async def main():
    address, desc, *ports = sys.argv[1:]
    async with aioigd.PortMapper(source_address=address) as mapper:
        async with mapper.lease(list(map(int, ports)), proto="TCP", desc=desc):
            print("active", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""
"""A program that keeps ports until its input ends."""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime folder of a test."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def is_claimed(port: int = 8080, gateway: str = ROUTER) -> bool:
    with OwnerLock(gateway).take_if_last(MappingKey(port, "TCP")) as is_last:
        return not is_last


def open_locks(runtime: Path) -> int:
    descriptors = Path("/proc/self/fd").iterdir()
    return sum(one.is_symlink() and os.readlink(one).startswith(str(runtime)) for one in descriptors)


# With a model, in virtual time


def test_the_port_stays_while_there_is_another_mapper_and_goes_with_the_last() -> None:
    async def main() -> None:
        router = ModelRouter()
        old, new = ModelManager(router), ModelManager(router)
        await old.hold(lease_request())
        lease = await new.hold(lease_request())
        await old.close()
        assert router.owner(8080) == US
        assert router.asked["delete"] == 0
        await asyncio.sleep(3600.0)
        assert state_of(lease) is LeaseState.ACTIVE
        await new.close()
        assert router.table == {}

    run(main())


def test_what_a_program_keeps_when_it_ends_goes_with_a_later_last_one() -> None:
    async def main() -> None:
        router = ModelRouter()
        old, new = ModelManager(router), ModelManager(router)
        await (await old.hold(lease_request(ipv6=True))).release(keep=True)
        assert not is_claimed()
        await old.close()
        assert router.owner(8080) == US
        assert len(router.open_ports()) == 1
        await new.hold(lease_request(ipv6=True))
        await new.close()
        assert router.table == {}
        assert router.pinholes == {}

    run(main())


def test_a_router_that_has_it_for_another_after_all_is_not_claimed() -> None:
    async def main() -> None:
        router = ModelRouter()

        async def steal(what: str) -> None:
            if what == "find" and router.asked["add"] == 1:
                router.hold(8080, THEM)

        router.before_answer = steal
        manager = ModelManager(router)
        lease = await manager.hold(lease_request(required=False))
        await asyncio.sleep(3.0)
        assert state_of(lease) is LeaseState.LOST
        assert not is_claimed()
        await manager.close()
        assert router.owner(8080) == THEM

    run(main())


def test_two_that_end_at_once_leave_nothing() -> None:
    async def main() -> None:
        router = ModelRouter()
        managers = [ModelManager(router) for _ in range(8)]
        for manager in managers:
            await manager.hold(lease_request([8080, 8081], proto=["TCP", "UDP"]))
        await asyncio.gather(*(manager.close() for manager in managers))
        assert router.table == {}

    run(main())


def test_leases_of_one_mapper_are_counted_as_ever(runtime: Path) -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        one, two = await manager.hold(lease_request()), await manager.hold(lease_request())
        await one.release()
        assert router.owner(8080) == US
        assert is_claimed()
        await two.release()
        assert router.table == {}
        assert open_locks(runtime) == 0
        await manager.close()

    run(main())


def test_a_thousand_ports_take_one_descriptor(runtime: Path) -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        await manager.hold(lease_request(list(range(1000, 2000))))
        await manager.hold(lease_request())
        assert open_locks(runtime) == 1
        await manager.close()
        assert open_locks(runtime) == 0
        assert router.table == {}

    run(main(), debug=False)


def test_a_port_of_another_is_not_claimed_while_it_is_waited_for() -> None:
    async def main() -> None:
        router = ModelRouter()
        router.hold(8080, THEM)
        manager = ModelManager(router)
        lease = await manager.hold(lease_request(required=False))
        assert not is_claimed()
        router.table.clear()
        await asyncio.sleep(60.0)
        assert state_of(lease) is LeaseState.ACTIVE
        assert is_claimed()
        router.table.clear()
        router.hold(8080, THEM)
        await asyncio.sleep(3600.0)
        assert state_of(lease) is LeaseState.LOST
        assert not is_claimed()
        await manager.close()

    run(main())


def test_the_claim_goes_with_the_lease_to_another_port() -> None:
    async def main() -> None:
        router = ModelRouter()
        router.hold(8080, THEM)
        manager = ModelManager(router)
        lease = await manager.hold(lease_request(on_conflict="other_port"))
        assert lease.external_port != 8080
        assert is_claimed(lease.external_port)
        assert not is_claimed()
        await manager.close()
        assert not is_claimed(lease.external_port)

    run(main())


@pytest.mark.parametrize("is_free", [True, False])
def test_so_does_a_port_that_the_router_has_chosen(is_free: bool) -> None:
    async def main() -> None:
        router = ModelRouter(can_choose=True)
        (wanted, *_) = lease_request(0, internal_port=7000).choices
        if not is_free:
            router.hold(wanted, THEM)
        manager = ModelManager(router)
        lease = await manager.hold(lease_request(0, internal_port=7000))
        assert (lease.external_port == wanted) is is_free
        assert is_claimed(lease.external_port)
        assert is_claimed(wanted) is is_free
        await manager.close()

    run(main())


def test_a_chosen_port_that_was_just_being_deleted_is_added_once_more() -> None:
    async def main() -> None:
        router = ModelRouter(can_choose=True)
        (wanted, *_) = lease_request(0, internal_port=7000).choices
        router.hold(wanted, THEM)
        manager = ModelManager(router)
        with OwnerLock(ROUTER).take_if_last(MappingKey(wanted + 1, "TCP")):
            beginning = asyncio.ensure_future(manager.hold(lease_request(0, internal_port=7000)))
            await asyncio.sleep(1.0)
            del router.table[MappingKey(wanted + 1, "TCP")]
        lease = await beginning
        assert router.owner(lease.external_port) == US
        await manager.close()

    run(main())


@pytest.mark.parametrize("changes", [{}, {"on_conflict": "other_port"}])
def test_what_could_not_be_had_is_not_claimed(runtime: Path, changes: dict[str, object]) -> None:
    async def main() -> None:
        router = ModelRouter(is_away=True)
        manager = ModelManager(router)
        with pytest.raises(IGDError):
            await manager.hold(lease_request([8080, 8081], **changes))
        assert not is_claimed()
        assert open_locks(runtime) == 0
        await manager.close()

    run(main())


def test_who_comes_while_the_last_one_deletes_adds_it_after_that() -> None:
    async def main() -> None:
        router = ModelRouter()
        old, new = ModelManager(router), ModelManager(router)
        await old.hold(lease_request())
        gate = asyncio.Event()

        async def hang(what: str) -> None:
            if what == "delete":
                await gate.wait()

        router.before_answer = hang
        ending = asyncio.ensure_future(old.close())
        await asyncio.sleep(0.01)
        beginning = asyncio.ensure_future(new.hold(lease_request()))
        await asyncio.sleep(1.0)
        assert router.asked["add"] == 1
        gate.set()
        await asyncio.gather(ending, beginning)
        assert router.owner(8080) == US
        await new.close()
        assert router.table == {}

    run(main())


def test_a_stopped_program_that_deletes_is_waited_for_no_longer_than_five_seconds() -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        with OwnerLock(ROUTER).take_if_last(KEY):
            begun = asyncio.get_running_loop().time()
            lease = await manager.hold(lease_request(duration=120))
            assert PATIENCE <= asyncio.get_running_loop().time() - begun < PATIENCE + 1.0
            assert state_of(lease) is LeaseState.ACTIVE
            await asyncio.sleep(3600.0)
            assert state_of(lease) is LeaseState.ACTIVE
        await asyncio.sleep(120.0)
        assert is_claimed()
        await manager.close()
        assert router.table == {}

    run(main())


@pytest.mark.parametrize("pause", [0.0, 0.0005, 0.0015, 0.0025, 1.0])
def test_cancelled_while_it_begins_it_claims_nothing(runtime: Path, pause: float) -> None:
    async def main() -> None:
        router = ModelRouter()
        router.hold(8080, THEM)
        manager = ModelManager(router)
        with OwnerLock(ROUTER).take_if_last(MappingKey(8081, "TCP")):
            task = asyncio.ensure_future(manager.hold(lease_request([8080, 8081, 8082], on_conflict="other_port")))
            await asyncio.sleep(pause)
            task.cancel()
            await asyncio.wait([task])
        await manager.close()
        assert open_locks(runtime) == 0
        assert [row.client for row in router.table.values()] == [THEM]

    run(main())


def test_a_mapper_that_follows_the_gateway_to_another_address_is_still_counted(
    monkeypatch: pytest.MonkeyPatch, runtime: Path
) -> None:
    async def main() -> None:
        router = ModelRouter()
        old, new = ModelManager(router), ModelManager(router)
        for manager in (old, new):
            await manager.hold(lease_request(duration=600))
        with monkeypatch.context() as patch:
            patch.setattr("tests.leases.model.ModelBackend.address", "192.168.1.254")
            assert is_claimed()
            await asyncio.sleep(600.0)
            assert is_claimed(gateway="192.168.1.254")
            assert not is_claimed()
            await old.close()
            assert router.owner(8080) == US
            await new.close()
            assert router.table == {}
            assert open_locks(runtime) == 0

    run(main())


def test_a_new_lease_of_the_same_mapper_keeps_the_port_that_an_old_one_is_about_to_delete() -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        for rounds in range(12):
            old = await manager.hold(lease_request())
            ending = asyncio.ensure_future(old.release())
            for _ in range(rounds):
                await asyncio.sleep(0)
            new = await manager.hold(lease_request())
            await ending
            assert router.owner(8080) == US
            assert is_claimed()
            await new.release()
            assert router.table == {}
        await manager.close()

    run(main())


def test_pinholes_stay_while_there_is_another_mapper_and_go_with_the_last(runtime: Path) -> None:
    async def main() -> None:
        router = ModelRouter()
        old, new = ModelManager(router), ModelManager(router)
        for manager in (old, new):
            await manager.hold(lease_request(ipv6=True))
        await old.close()
        assert router.open_ports() == [(US6, 8080, "TCP")]
        await asyncio.sleep(3600.0)
        assert router.open_ports() == [(US6, 8080, "TCP")]
        await new.close()
        assert router.pinholes == {}
        assert open_locks(runtime) == 0

    run(main())


@pytest.mark.parametrize("is_open", [True, False])
def test_a_pinhole_that_is_refused_is_claimed_only_if_it_was_open(is_open: bool) -> None:
    async def main() -> None:
        router = ModelRouter()
        one, two = ModelManager(router), ModelManager(router)
        await one.hold(lease_request(ipv6=True))
        if is_open:
            await two.hold(lease_request(ipv6=True, required=False))
            await asyncio.sleep(1.0)
        router.pinhole_refusal = refused("no", 606)
        if not is_open:
            await two.hold(lease_request(ipv6=True, required=False))
        await asyncio.sleep(2000.0)
        await one.close()
        assert bool(router.pinholes) is is_open
        await two.close()
        assert router.pinholes == {}

    run(main())


def test_a_mapper_that_is_abandoned_claims_nothing(runtime: Path) -> None:
    async def main() -> None:
        router = ModelRouter()
        manager = ModelManager(router)
        await manager.hold(lease_request())
        assert is_claimed()
        manager.abandon()
        assert not is_claimed()
        assert open_locks(runtime) == 0
        await manager.close()

    run(main())


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.001, 0.002, 0.004, 1.0, 4000.0])), max_size=16),
    duration=st.sampled_from([0, 120, 3600]),
)
def test_whoever_comes_and_goes_the_port_is_there_for_who_has_it(steps: list[tuple[int, float]], duration: int) -> None:
    async def main() -> None:
        router = ModelRouter()
        managers = [ModelManager(router) for _ in range(4)]
        leases: dict[int, asyncio.Task[Lease]] = {}
        ending: list[asyncio.Task[None]] = []
        for program, pause in steps:
            if program in leases:
                lease = await leases.pop(program)
                ending.append(asyncio.ensure_future(lease.release()))
            else:
                request = lease_request([8080, 8081], duration=duration, desc=f"program {program}")
                leases[program] = asyncio.ensure_future(managers[program].hold(request))
            await asyncio.sleep(pause)
        await asyncio.sleep(5.0)
        assert len(router.table) == (2 if leases else 0)
        assert {state_of(lease.result()) for lease in leases.values()} <= {LeaseState.ACTIVE}
        await asyncio.gather(*ending, *(manager.close() for manager in managers))
        assert router.table == {}

    run(main(), debug=False)


# With the emulated gateway, and real programs


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SERVER, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@asynccontextmanager
async def keeping(
    gateway: EmulatedGateway, desc: str = "a server", ports: Sequence[int] = (8080,)
) -> AsyncIterator[subprocess.Popen[str]]:
    """A program that keeps ports, once it has them."""
    with start(str(gateway.address), desc, *map(str, ports)) as program:
        try:
            assert program.stdout is not None
            assert await asyncio.to_thread(program.stdout.readline) == "active\n"
            yield program
        finally:
            program.kill()


async def end(program: subprocess.Popen[str]) -> None:
    await asyncio.to_thread(program.communicate)
    assert program.returncode == 0


def held(gateway: EmulatedGateway) -> list[tuple[int, str]]:
    return sorted((one.external_port, one.desc) for one in gateway.mappings)


@pytest.mark.one_loop
async def test_a_rolling_restart_keeps_the_port(gateway: EmulatedGateway) -> None:
    async with keeping(gateway) as first, keeping(gateway) as second:
        await end(first)
        assert held(gateway) == [(8080, "a server")]
        async with keeping(gateway, "version 2") as third:
            await end(second)
            assert held(gateway) == [(8080, "version 2")]
            assert gateway.count("DeletePortMapping") == 0
            await end(third)
    assert held(gateway) == []


@pytest.mark.one_loop
@pytest.mark.parametrize("desc", ["a server", "the same server, called differently"])
async def test_a_second_instance_started_by_mistake_leaves_the_port_of_the_first(
    gateway: EmulatedGateway, desc: str
) -> None:
    async with keeping(gateway) as first:
        async with keeping(gateway, desc, [8080, 8081]) as second:
            await end(second)
        assert [port for port, _ in held(gateway)] == [8080]
        await end(first)
    assert held(gateway) == []


@pytest.mark.one_loop
async def test_what_a_killed_program_has_held_goes_with_the_next_last_one(gateway: EmulatedGateway) -> None:
    async with keeping(gateway) as first, keeping(gateway) as second:
        first.send_signal(signal.SIGKILL)
        await asyncio.to_thread(first.wait)
        assert held(gateway) == [(8080, "a server")]
        await end(second)
    assert held(gateway) == []


@pytest.mark.usefixtures("nothing_is_left")
async def test_two_mappers_of_one_program_are_two_programs(mapper: PortMapper, gateway: EmulatedGateway) -> None:
    async with mapper.lease(8080, proto="TCP"):
        async with PortMapper(source_address=gateway.address) as other, other.lease(8080, proto="TCP"):
            pass
        assert len(gateway.mappings) == 1
        assert is_claimed(gateway=str(gateway.address))
    assert gateway.mappings == []
    assert not is_claimed(gateway=str(gateway.address))


@pytest.mark.usefixtures("nothing_is_left")
async def test_without_a_folder_for_the_file_each_deletes_its_own(
    mapper: PortMapper, gateway: EmulatedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc")
    monkeypatch.setenv("TMPDIR", "/proc")
    async with mapper.lease(8080, proto="TCP"), mapper.lease(8080, proto="TCP", desc="another"):
        pass
    assert gateway.mappings == []


# Programs that share no lock file: the description tells


@pytest.mark.parametrize("desc", ["", "ours"])
@pytest.mark.usefixtures("nothing_is_left")
async def test_what_shows_another_description_was_made_again_by_somebody_else(
    mapper: PortMapper, gateway: EmulatedGateway, desc: str
) -> None:
    async with mapper.lease(8080, proto="TCP", desc=desc):
        theirs = gateway.add_mapping(8080, proto="TCP", desc="theirs", internal_client=str(gateway.address))
    assert gateway.mappings == [theirs]


@pytest.mark.usefixtures("nothing_is_left")
async def test_unless_the_gateway_never_shows_what_it_was_given() -> None:
    numbers = count()

    def number(call: ActionCall, proceed: Proceed) -> Outputs:
        outputs = dict(proceed(call))
        if "NewPortMappingDescription" in outputs:
            outputs["NewPortMappingDescription"] = f"number {next(numbers)}"
        return outputs

    async with (
        EmulatedGateway(odd(action=number), address=None) as gateway,
        PortMapper(source_address=gateway.address) as mapper,
    ):
        async with mapper.lease(8080, proto="TCP", desc="ours"):
            assert len(gateway.mappings) == 1
        assert gateway.mappings == []


def test_a_lease_that_began_as_lost_learns_from_a_check_what_the_gateway_shows() -> None:
    async def main() -> None:
        router = ModelRouter(is_away=True)
        manager = ModelManager(router)
        await manager.hold(lease_request(required=False, duration=600))
        router.is_away = False
        await asyncio.sleep(900.0)
        assert router.owner(8080) == US
        assert OwnerLock(ROUTER).is_marked(KEY, "")
        await manager.close()
        assert router.table == {}

    run(main())
