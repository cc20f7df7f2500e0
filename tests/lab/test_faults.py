"""A router that hangs, breaks connections or has no internet; and callers who lose patience."""

from __future__ import annotations

import asyncio
import os
import time
from ipaddress import ip_address

import pytest

from aioigd import DeadlineError, IGDError, UPnPResult

from .network import EXTERNAL_ADDRESS, LAN_ADDRESS, Lab, UpnpMapper
from .router import Mapping, Router

MARGIN = 0.5
"""Seconds that a call may take longer than its deadline."""


class TestHanging:
    async def test_a_router_that_hangs_is_a_timeout_in_time(self, router: Router, inside_lan: None) -> None:
        async with UpnpMapper(timeout=1.0) as mapper:
            await mapper.get_gateway()
            router.pause()
            before = time.monotonic()
            with pytest.raises(TimeoutError) as caught:
                await mapper.add_port_mapping(8080, proto="TCP")
            assert time.monotonic() - before < 1.0 + MARGIN
            assert isinstance(caught.value, DeadlineError)
            assert caught.value.result is UPnPResult.HTTP_ERROR
            assert {attempt.action for attempt in caught.value.attempts} == {"AddPortMapping"}

            router.resume()
            router.wait_for_answer()
            await mapper.add_port_mapping(8081, proto="TCP")
        assert Mapping("TCP", 8081, LAN_ADDRESS, 8081) in router.mappings()

    async def test_a_hundred_calls_to_a_router_that_hangs_all_end_in_time(
        self, router: Router, inside_lan: None
    ) -> None:
        async with UpnpMapper(timeout=1.0) as mapper:
            await mapper.get_gateway()
            router.pause()
            before = time.monotonic()
            async with asyncio.timeout(1.0 + MARGIN):
                calls = [mapper.query_external_address() for _ in range(100)]
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - before < 1.0 + MARGIN
            assert all(isinstance(outcome, DeadlineError) for outcome in outcomes)

    async def test_a_router_that_hangs_from_the_start_is_not_found(self, router: Router, inside_lan: None) -> None:
        router.pause()
        async with UpnpMapper(timeout=2.0, discovery_timeout=0.7) as mapper:
            before = time.monotonic()
            with pytest.raises(IGDError) as caught:
                await mapper.add_port_mapping(8080, proto="TCP")
            assert time.monotonic() - before < 0.7 + MARGIN
        assert caught.value.result is UPnPResult.NO_DEVICES

    async def test_a_description_that_never_comes_is_a_timeout(self, router: Router, inside_lan: None) -> None:
        router.pause()
        async with UpnpMapper(location=router.location, timeout=0.7) as mapper:
            before = time.monotonic()
            with pytest.raises(TimeoutError):
                await mapper.get_gateway()
            assert time.monotonic() - before < 0.7 + MARGIN

    async def test_a_caller_may_set_a_harder_bound(self, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            await mapper.get_gateway()
            router.pause()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await mapper.query_external_address()
            router.resume()
            router.wait_for_answer()
            assert await mapper.query_external_address() == ip_address(EXTERNAL_ADDRESS)


class TestConnections:
    async def test_a_reset_after_the_reply_is_no_harm(self, lab: Lab, router: Router, inside_lan: None) -> None:
        lab.reset_after_reply()
        async with UpnpMapper() as mapper:
            await asyncio.gather(*(mapper.add_port_mapping(port, proto="TCP") for port in range(8080, 8100)))
            assert await mapper.query_external_address() == ip_address(EXTERNAL_ADDRESS)
        assert len(router.mappings()) == 20


class TestExternalAddress:
    async def test_a_new_one_is_told_at_once(self, lab: Lab, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            assert await mapper.query_external_address() == ip_address(EXTERNAL_ADDRESS)
            lab.set_external_address("44.0.0.9")
            assert await mapper.query_external_address() == ip_address("44.0.0.9")

    @pytest.mark.parametrize("address", [None, "10.1.2.3", "100.64.3.4"])
    async def test_an_empty_one_is_an_invalid_response(
        self, lab: Lab, router: Router, inside_lan: None, address: str | None
    ) -> None:
        # This router tells nobody of an address that is not public.
        lab.set_external_address(address)
        async with UpnpMapper() as mapper:
            with pytest.raises(IGDError) as caught:
                await mapper.query_external_address()
        assert caught.value.result is UPnPResult.INVALID_RESPONSE

    async def test_a_router_behind_another_nat_refuses_to_map(self, lab: Lab, router: Router, inside_lan: None) -> None:
        lab.set_external_address("10.1.2.3")
        async with UpnpMapper() as mapper:
            with pytest.raises(IGDError) as caught:
                await mapper.add_port_mapping(8080, proto="TCP")
        assert (caught.value.result, caught.value.error_code) == (UPnPResult.ACTION_FAILED, 501)
        assert router.mappings() == []


class TestCancellation:
    async def test_an_add_cancelled_at_any_moment_leaves_nothing(self, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            await mapper.query_external_address()
            descriptors = set(os.listdir("/proc/self/fd"))
            for step in range(100):
                call = asyncio.ensure_future(mapper.add_port_mapping(8080 + step, proto="TCP"))
                done, _ = await asyncio.wait([call], timeout=step * 0.0015)
                if done:
                    await mapper.delete_port_mapping(8080 + step, "TCP")
                    break
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
        assert router.asked("AddPortMapping") > 1
        assert router.mappings() == []
        assert set(os.listdir("/proc/self/fd")) <= descriptors

    async def test_a_search_cancelled_at_any_moment_leaves_nothing(self, router: Router, inside_lan: None) -> None:
        descriptors = set(os.listdir("/proc/self/fd"))
        for step in range(20):
            async with UpnpMapper() as mapper:
                call = asyncio.ensure_future(mapper.get_gateway())
                await asyncio.wait([call], timeout=step * 0.005)
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
        assert set(os.listdir("/proc/self/fd")) <= descriptors
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_the_mapping_of_the_caller_who_stays_is_kept(self, router: Router, inside_lan: None) -> None:
        async with UpnpMapper() as mapper:
            await mapper.get_gateway()
            calls = [asyncio.ensure_future(mapper.add_port_mapping(8080, proto="TCP")) for _ in range(10)]
            await router.until_asked("AddPortMapping")
            for call in calls[:-1]:
                call.cancel()
            await calls[-1]
        assert router.mappings() == [Mapping("TCP", 8080, LAN_ADDRESS, 8080)]

    async def test_closing_under_an_add_settles_it_first(self, router: Router, inside_lan: None) -> None:
        mapper = UpnpMapper()
        await mapper.get_gateway()
        call = asyncio.ensure_future(mapper.add_port_mapping(8080, proto="TCP"))
        await router.until_asked("AddPortMapping")
        await mapper.close()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert router.mappings() == []
