"""Work that is shared: joining and leaving it, its end, and the order in which different work is done."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from types import FrameType
from typing import Any

import pytest

from aioigd import IGDError, RefusedError, UPnPResult
from aioigd.core import calls
from aioigd.core.calls import CallQueue, Operation, Phase, SharedCall
from aioigd.core.limiter import FIRST_WINDOW, Limiter
from aioigd.upnp.wire.error_codes import refused

from ..support import settled_loop

pytestmark = pytest.mark.usefixtures("nothing_is_left")

Work = Callable[[Operation], Awaitable[str]]


class Job:
    """Work that ends when it is told to, and remembers what happened to it."""

    def __init__(self, name: str = "job", log: list[str] | None = None) -> None:
        self.name = name
        self.log: list[str] = [] if log is None else log
        self.may_end = asyncio.Event()
        self.failure: BaseException | None = None

    async def __call__(self, op: Operation) -> str:
        self.log.append(f"{self.name} begins")
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.log.append(f"{self.name} is cancelled")
            raise
        if self.failure is not None:
            raise self.failure
        self.log.append(f"{self.name} ends")
        return self.name


class Settling(Job):
    """Work that has sent something: what it does when it may end is up to whether anybody waits for it."""

    async def __call__(self, op: Operation) -> str:
        op.sent(self._undo)
        name = await super().__call__(op)
        op.settled(None if self.had_before else self._undo)
        return name

    had_before = False

    async def _undo(self, op: Operation) -> None:
        self.log.append(f"{self.name} is undone")


class SlowToUndo(Settling):
    """Work whose undo takes a while."""

    undos = 0

    async def _undo(self, op: Operation) -> None:
        self.undos += 1
        await asyncio.sleep(0.1)
        await super()._undo(op)


def enter(queue: CallQueue, key: str, work: Work, *, lane: str = "lane") -> asyncio.Task[str]:
    """Come as a caller does: enter, and wait for the result."""

    async def caller() -> str:
        return await queue.submit(lane, key, work, 10).wait()

    return asyncio.create_task(caller())


async def enter_all(queue: CallQueue, *jobs: Job) -> list[asyncio.Task[str]]:
    """One caller for each job, in this order."""
    tasks = [enter(queue, job.name, job) for job in jobs]
    await settled_loop()
    return tasks


async def leave(*tasks: asyncio.Task[str]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


# Sharing


async def test_identical_calls_share_one_piece_of_work() -> None:
    queue, job = CallQueue(), Job()
    tasks = [enter(queue, "same", job) for _ in range(5)]
    await settled_loop()
    assert len(queue) == 1
    job.may_end.set()
    assert await asyncio.gather(*tasks) == ["job"] * 5
    assert job.log == ["job begins", "job ends"]
    assert len(queue) == 0


async def test_who_comes_after_the_end_begins_anew() -> None:
    queue, job = CallQueue(), Job()
    job.may_end.set()
    await enter(queue, "same", job)
    await enter(queue, "same", job)
    assert job.log == ["job begins", "job ends"] * 2


async def test_a_failure_reaches_everyone_as_an_error_of_its_own_and_is_not_kept() -> None:
    queue, job = CallQueue(), Job()
    job.failure = refused("no", 718)
    job.may_end.set()
    tasks = [enter(queue, "same", job) for _ in range(3)]
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert len({id(error) for error in errors}) == 3
    for error in errors:
        assert isinstance(error, RefusedError)
        assert (str(error), error.result, error.error_code) == (
            "no [CONFLICT_WITH_OTHER_MAPPING, UPnP error 718]",
            UPnPResult.CONFLICT_WITH_OTHER_MAPPING,
            718,
        )
        assert error is not job.failure
        assert "caller" in [frame.f_code.co_name for frame in frames(error)]
    job.failure = None
    assert await enter(queue, "same", job) == "job"


def frames(error: BaseException) -> list[FrameType]:
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


async def test_each_copy_of_an_error_has_its_own_traceback() -> None:
    queue, job = CallQueue(), Job()
    job.failure = refused("no", 718)
    job.may_end.set()
    tasks = [enter(queue, "same", job) for _ in range(50)]
    errors = [error for error in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(error, Exception)]
    assert len(errors) == 50
    assert {len(frames(error)) for error in errors} == {len(frames(errors[0]))}


async def test_a_foreign_exception_becomes_an_error_of_the_package() -> None:
    queue, job = CallQueue(), Job()
    job.failure = ZeroDivisionError("oops")
    job.may_end.set()
    with pytest.raises(IGDError, match="unexpected ZeroDivisionError: oops") as caught:
        await enter(queue, "same", job)
    assert caught.value.result is UPnPResult.UNKNOWN_ERROR
    assert caught.value.__cause__ is job.failure


# Leaving


async def test_who_leaves_disturbs_nobody() -> None:
    queue, job = CallQueue(), Job()
    tasks = [enter(queue, "same", job) for _ in range(4)]
    await settled_loop()
    await leave(tasks[0], tasks[2])
    job.may_end.set()
    assert list(await asyncio.gather(tasks[1], tasks[3])) == ["job", "job"]


async def test_the_last_one_to_leave_cancels_the_work() -> None:
    queue, job = CallQueue(), Job()
    tasks = [enter(queue, "same", job) for _ in range(3)]
    await settled_loop()
    await leave(*tasks)
    await settled_loop()
    assert job.log == ["job begins", "job is cancelled"]
    assert len(queue) == 0


async def test_work_that_is_being_cancelled_is_not_joined() -> None:
    queue, job, other = CallQueue(), Job("old"), Job("new")
    (first,) = await enter_all(queue, job)
    first.cancel()
    await asyncio.sleep(0)
    other.may_end.set()
    assert await enter(queue, "old", other) == "new"


async def test_work_that_has_sent_something_is_given_time_to_settle_it() -> None:
    queue, job = CallQueue(), Settling()
    (only,) = await enter_all(queue, job)
    await leave(only)
    await settled_loop()
    assert job.log == ["job begins"]
    job.may_end.set()
    await queue.drain()
    assert job.log == ["job begins", "job ends", "job is undone"]


async def test_the_time_to_settle_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "ROLLBACK_TIMEOUT", 0.05)
    queue, job = CallQueue(), Settling()
    (only,) = await enter_all(queue, job)
    await leave(only)
    await asyncio.wait_for(queue.drain(), 2)
    assert job.log == ["job begins", "job is cancelled", "job is undone"]


async def test_who_comes_while_it_is_being_settled_takes_it_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "ROLLBACK_TIMEOUT", 0.05)
    queue, job = CallQueue(), Settling()
    (first,) = await enter_all(queue, job)
    await leave(first)
    second = enter(queue, "job", Job("another"))
    await asyncio.sleep(0.1)  # longer than it would have had
    job.may_end.set()
    assert await second == "job"
    assert job.log == ["job begins", "job ends"]


async def test_who_comes_while_it_is_being_undone_begins_anew() -> None:
    queue, job, other = CallQueue(), Settling("old"), Job("new")
    (first,) = await enter_all(queue, job)
    call = queue.submit("lane", "old", job, 10)
    await leave(first)
    assert call._op is not None
    call._op.phase = Phase.ROLLING_BACK
    second = enter(queue, "old", other)
    other.may_end.set()
    await settled_loop()
    assert not second.done()  # it waits until the undoing is over
    job.may_end.set()
    assert await second == "new"


async def test_a_caller_that_is_cancelled_twice_leaves_once() -> None:
    queue, job = CallQueue(), Settling()
    (only,) = await enter_all(queue, job)
    only.cancel()
    only.cancel()
    await asyncio.wait({only})
    job.may_end.set()
    await queue.drain()
    assert job.log == ["job begins", "job ends", "job is undone"]


# A result that reaches nobody


async def undone(tasks_that_stay: int, tasks_that_leave: int, failure: BaseException | None = None) -> list[str]:
    """What happens to work that is done when so many of its callers leave before they have had the result."""
    queue, job = CallQueue(), Settling()
    job.failure = failure

    def cancel_the_rest() -> None:  # results are given out, and nobody has had his yet
        for task in tasks[tasks_that_stay:]:
            task.cancel()

    async def work(op: Operation) -> str:
        try:
            return await job(op)
        finally:
            asyncio.get_running_loop().call_soon(cancel_the_rest)

    tasks = [enter(queue, "same", work) for _ in range(tasks_that_stay + tasks_that_leave)]
    await settled_loop()
    job.may_end.set()
    await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [False] * tasks_that_stay + [True] * tasks_that_leave
    await queue.drain()
    return job.log[1:]


async def test_a_result_whose_callers_were_cancelled_at_the_last_moment_is_undone_once() -> None:
    assert await undone(0, 3) == ["job ends", "job is undone"]


async def test_a_result_that_reached_anybody_is_not_undone() -> None:
    assert await undone(1, 3) == ["job ends"]


async def test_a_failure_that_reaches_nobody_warns_of_nothing() -> None:
    queue, job = CallQueue(), Job()
    job.failure = refused("no", 718)
    tasks = [enter(queue, "same", job) for _ in range(2)]
    await settled_loop()
    job.may_end.set()
    await settled_loop(1)
    await leave(*tasks)
    await queue.drain()
    assert job.log == ["job begins"]


async def test_a_failed_call_is_undone_behind_its_error_and_before_the_next_one() -> None:
    queue, job, following = CallQueue(), SlowToUndo(), Job("following")
    following.log = job.log
    job.failure = refused("no", 501)
    first, second = await enter_all(queue, job, following)
    job.may_end.set()
    following.may_end.set()
    with pytest.raises(RefusedError):
        await first
    assert job.log == ["job begins"]  # the error has not waited for it
    again = enter(queue, "job", Job("another", job.log))
    await second
    assert job.log[:4] == ["job begins", "job is undone", "following begins", "following ends"]
    await leave(again)


async def test_a_failed_call_that_the_gateway_has_refused_has_nothing_to_undo() -> None:
    class Refused(Settling):
        async def __call__(self, op: Operation) -> str:
            op.sent(self._undo)
            op.rejected()
            raise refused("no", 501)

    queue, job = CallQueue(), Refused()
    with pytest.raises(RefusedError):
        await enter(queue, "same", job)
    await queue.drain()
    assert job.log == []


async def test_the_end_of_everything_waits_for_the_undo_of_a_failed_call() -> None:
    queue, job = CallQueue(), SlowToUndo()
    job.failure = refused("no", 501)
    job.may_end.set()
    with pytest.raises(RefusedError):
        await enter(queue, "same", job)
    assert queue.is_undoing
    await queue.drain()
    assert job.log[-1] == "job is undone"
    assert not queue.is_undoing


@pytest.mark.parametrize(("needed", "limit"), [(0.0, 2.0), (0.9, 2.0), (6.0, 12.0), (15.0, 20.0)])
async def test_an_undo_has_twice_the_time_that_the_gateway_needs(needed: float, limit: float) -> None:
    op = Operation(10)
    op.seconds_needed = needed
    assert op.undo_limit == limit


async def test_the_time_of_an_undo_grows_with_what_the_gateway_is_seen_to_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "ROLLBACK_TIMEOUT", 0.05)
    steps: list[str] = []

    async def undo(op: Operation) -> None:
        op.seconds_needed = 0.2  # a reply has come that took so long
        await asyncio.sleep(0.2)
        assert not op.expired
        steps.append("done")

    op = Operation(10)
    op.sent(undo)
    await op.roll_back()
    assert steps == ["done"]


async def test_a_gateway_that_is_known_to_be_slow_is_waited_for_longer_than_half_the_call() -> None:
    op = Operation(10)
    now = asyncio.get_running_loop().time()
    assert op.attempt_deadline - now == pytest.approx(5, abs=0.5)
    op.seconds_needed = 6.0
    assert op.attempt_deadline - now == pytest.approx(9, abs=0.5)
    with op.short_attempts():
        op.seconds_needed = 0.0
        assert op.attempt_deadline - now == pytest.approx(3, abs=0.5)
    assert op.attempt_deadline - now == pytest.approx(5, abs=0.5)


# Order


async def test_different_work_is_done_one_after_another_in_the_order_of_the_calls() -> None:
    queue, log = CallQueue(), list[str]()
    jobs = [Job(name, log) for name in "abc"]
    tasks = await enter_all(queue, *jobs)
    assert log == ["a begins"]
    for job in reversed(jobs):
        job.may_end.set()
    await asyncio.gather(*tasks)
    assert log == ["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]


async def test_lanes_do_not_wait_for_each_other() -> None:
    queue, slow, fast = CallQueue(), Job("slow"), Job("fast")
    fast.may_end.set()
    waiting = enter(queue, "slow", slow, lane="one")
    assert await enter(queue, "fast", fast, lane="two") == "fast"
    slow.may_end.set()
    await waiting


async def test_only_the_last_call_of_a_lane_is_joined() -> None:
    queue, log = CallQueue(), list[str]()
    jobs = [Job(name, log) for name in ("add", "delete", "add")]
    tasks = [*await enter_all(queue, *jobs), enter(queue, "add", Job("nobody", log))]
    for job in jobs:
        job.may_end.set()
    await asyncio.gather(*tasks)
    assert log == ["add begins", "add ends", "delete begins", "delete ends", "add begins", "add ends"]


async def test_a_failure_lets_the_next_one_begin() -> None:
    queue, bad, good = CallQueue(), Job("bad"), Job("good")
    bad.failure = refused("no", 718)
    bad.may_end.set()
    good.may_end.set()
    first, second = await enter_all(queue, bad, good)
    assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], RefusedError)
    assert await second == "good"


async def test_order_is_kept_where_one_in_the_middle_is_cancelled() -> None:
    queue, log = CallQueue(), list[str]()
    jobs = [Job(name, log) for name in "abc"]
    first, second, third = await enter_all(queue, *jobs)
    await leave(second)
    await settled_loop()
    assert log == ["a begins"]  # c must not take the turn of b while a is at work
    jobs[0].may_end.set()
    jobs[2].may_end.set()
    await asyncio.gather(first, third)
    assert log == ["a begins", "a ends", "c begins", "c ends"]


async def test_order_is_kept_where_the_last_one_was_cancelled_before_its_turn() -> None:
    queue, log = CallQueue(), list[str]()
    jobs = [Job(name, log) for name in "abc"]
    first, second = await enter_all(queue, *jobs[:2])
    await leave(second)
    await settled_loop()
    (third,) = await enter_all(queue, jobs[2])
    assert log == ["a begins"]
    jobs[0].may_end.set()
    jobs[2].may_end.set()
    await asyncio.gather(first, third)
    assert log == ["a begins", "a ends", "c begins", "c ends"]


async def test_after_a_cancelled_call_the_one_before_it_is_joined_again() -> None:
    queue, log = CallQueue(), list[str]()
    jobs = [Job(name, log) for name in "ab"]
    first, second = await enter_all(queue, *jobs)
    await leave(second)
    await settled_loop()
    again = enter(queue, "a", Job("nobody", log))
    jobs[0].may_end.set()
    assert list(await asyncio.gather(first, again)) == ["a", "a"]
    assert log == ["a begins", "a ends"]


async def test_a_whole_queue_that_is_cancelled_leaves_nothing() -> None:
    queue, log = CallQueue(), list[str]()
    tasks = await enter_all(queue, *(Job(str(number), log) for number in range(20)))
    await leave(*tasks)
    await settled_loop()
    assert log == ["0 begins", "0 is cancelled"]
    assert len(queue) == 0
    last = Job("last", log)
    last.may_end.set()
    assert await enter(queue, "last", last) == "last"


# The end of everything


async def test_settling_ends_everything_and_its_callers_are_cancelled() -> None:
    queue = CallQueue()
    tasks = await enter_all(queue, Job("a"), Job("b"), Settling("c"))
    await queue.drain()
    await settled_loop()
    assert [task.cancelled() for task in tasks] == [True] * 3
    assert len(queue) == 0


async def test_a_drain_that_is_cancelled_shortens_nothing() -> None:
    queue, job = CallQueue(), Settling()
    (task,) = await enter_all(queue, job)
    draining = asyncio.create_task(queue.drain())
    await settled_loop()
    draining.cancel()
    await asyncio.wait({draining})
    job.may_end.set()
    await asyncio.wait({task})
    await queue.drain()
    assert job.log == ["job begins", "job ends", "job is undone"]


async def test_an_undo_that_is_cancelled_itself_is_taken_up_again() -> None:
    queue, job = CallQueue(), SlowToUndo()
    (task,) = await enter_all(queue, job)
    task.cancel()
    job.may_end.set()
    for _ in range(5):
        await asyncio.sleep(0.01)
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
    await queue.drain()
    assert job.log[-1] == "job is undone"
    assert job.undos > 1


async def test_what_is_taken_over_while_everything_is_being_settled_is_not_dropped() -> None:
    queue, job = CallQueue(), Settling()
    (first,) = await enter_all(queue, job)
    settling = asyncio.create_task(queue.drain())
    await settled_loop()
    await leave(first)
    second = enter(queue, "job", Job("another"))
    await settled_loop()
    job.may_end.set()
    await settling
    assert await second == "job"


async def test_several_may_wait_for_the_end_and_cancelling_one_disturbs_nobody() -> None:
    queue, job = CallQueue(), Job()
    (task,) = await enter_all(queue, job)
    call: SharedCall[str] = queue.submit("lane", "job", job, 10)
    waiting = [asyncio.create_task(call.ended()) for _ in range(3)]
    await settled_loop()
    waiting[0].cancel()
    job.may_end.set()
    await asyncio.wait(waiting)
    assert [each.cancelled() for each in waiting] == [True, False, False]
    assert await task == "job"
    await call.ended()  # over already


# The price


async def seconds_to_come_and_go(callers: int, *, cancelled: bool) -> float:
    queue, job = CallQueue(), Job()

    async def caller() -> str:
        return await queue.submit("lane", "same", job, 10).wait()

    tasks = [asyncio.create_task(caller()) for _ in range(callers)]
    gc.collect()
    gc.disable()
    began = time.process_time()
    await asyncio.sleep(0)
    if cancelled:
        for task in tasks:
            task.cancel()
    else:
        job.may_end.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    spent = time.process_time() - began
    gc.enable()
    return spent


@pytest.mark.parametrize("cancelled", [False, True], ids=["served", "cancelled"])
async def test_ten_times_the_callers_take_about_ten_times_as_long(cancelled: bool) -> None:
    asyncio.get_running_loop().set_debug(False)
    few = min([await seconds_to_come_and_go(1_000, cancelled=cancelled) for _ in range(5)])
    for _ in range(2):
        if await seconds_to_come_and_go(10_000, cancelled=cancelled) < 40 * few:  # quadratic would be a hundred times
            return
    pytest.fail("it took more than forty times as long")


# Loops whose tasks are eager


class Eager(asyncio.tasks._PyTask):  # type: ignore[name-defined, misc]
    """A task that takes its first step at once, as asyncio.eager_task_factory makes them from Python 3.12 on."""

    def __init__(self, work: Coroutine[Any, Any, Any], *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(work, loop=_Unscheduled(loop), **options)
        self._loop = loop
        current = asyncio.current_task(loop)
        if current is not None:
            asyncio.tasks._leave_task(loop, current)
        try:
            self._context.run(self._Task__step)
        finally:
            if current is not None:
                asyncio.tasks._enter_task(loop, current)


class _Unscheduled:
    """A loop that schedules nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_soon(self, *_: object, **__: object) -> None:
        """Do nothing."""


def make_eager(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> Any:
    options.pop("eager_start", None)  # uvloop passes it, and the factory of Python 3.13.0 does not take it
    if sys.version_info >= (3, 12):
        return asyncio.eager_task_factory(loop, work, **options)
    return Eager(work, loop=loop, **options)


@contextmanager
def eager_tasks() -> Iterator[None]:
    loop: Any = asyncio.get_running_loop()
    loop.set_task_factory(make_eager)
    try:
        yield
    finally:
        loop.set_task_factory(None)


@pytest.mark.parametrize("failure", [None, refused("no", 718), ZeroDivisionError()], ids=["done", "refused", "defect"])
async def test_work_that_ends_at_once_reaches_its_callers_where_tasks_are_eager(failure: Exception | None) -> None:
    queue, begun = CallQueue(), list[str]()

    async def work(_: Operation) -> str:
        begun.append("begun")
        if failure is not None:
            raise failure
        return "done"

    with eager_tasks():
        call = queue.submit("lane", "same", work, 10)
        assert begun == []
        assert queue.submit("lane", "same", work, 10) is call
        outcomes = await asyncio.gather(call.wait(), call.wait(), return_exceptions=True)
    if failure is None:
        assert list(outcomes) == ["done", "done"]
    else:
        assert all(isinstance(outcome, IGDError) for outcome in outcomes)
    assert begun == ["begun"]
    assert len(queue) == 0
    await queue.drain()


async def test_calls_keep_their_order_and_can_be_left_where_tasks_are_eager() -> None:
    queue, log = CallQueue(), list[str]()
    jobs = [Job(name, log) for name in ("first", "second", "third")]
    with eager_tasks():
        first, second, third = [enter(queue, job.name, job) for job in jobs]
        await leave(second)
        for job in jobs:
            job.may_end.set()
        await asyncio.wait([first, second, third])
    assert (first.result(), second.cancelled(), third.result()) == ("first", True, "third")
    assert log == ["first begins", "first ends", "third begins", "third ends"]


# Calls that wait for their turn


async def enter_with(limiter: Limiter, queue: CallQueue, *jobs: Job) -> list[asyncio.Task[str]]:
    """One caller for each job, each for a lane of its own."""

    async def call(job: Job) -> str:
        return await queue.submit(job.name, job.name, job, 10, limiter).wait()

    tasks = [asyncio.create_task(call(job)) for job in jobs]
    await settled_loop()
    return tasks


async def test_a_call_that_waits_for_its_turn_is_no_task_and_ends_where_its_caller_leaves() -> None:
    queue, limiter, log = CallQueue(), Limiter(), list[str]()
    before = len(asyncio.all_tasks())
    jobs = [Job(str(number), log) for number in range(FIRST_WINDOW + 3)]
    tasks = await enter_with(limiter, queue, *jobs)
    assert len(asyncio.all_tasks()) == before + len(tasks) + FIRST_WINDOW
    assert len(queue) == len(jobs)
    assert limiter.waiting == 3
    await leave(tasks[FIRST_WINDOW])
    assert limiter.waiting == 2
    assert len(queue) == len(jobs) - 1
    for job in jobs:
        job.may_end.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [each for each in ended if isinstance(each, str)] == [
        job.name for job in jobs if job is not jobs[FIRST_WINDOW]
    ]
    assert f"{FIRST_WINDOW} begins" not in log
    assert limiter.waiting == len(queue) == 0


async def test_draining_ends_calls_that_have_not_begun() -> None:
    queue, limiter, log = CallQueue(), Limiter(), list[str]()
    tasks = await enter_with(limiter, queue, *[Job(str(number), log) for number in range(20)])
    await queue.drain()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert [line for line in log if line.endswith("begins")] == [f"{number} begins" for number in range(FIRST_WINDOW)]
    assert len(queue) == 0


async def test_a_call_begins_in_the_context_of_its_first_caller() -> None:
    name = ContextVar("name", default="")
    queue, limiter, seen = CallQueue(), Limiter(), list[tuple[str, str]]()

    async def work(lane: str, op: Operation) -> None:
        await asyncio.sleep(0)
        seen.append((lane, name.get()))

    async def call(lane: str, number: int) -> None:
        name.set(f"{lane} {number}")
        await queue.submit(lane, number, partial(work, f"{lane} {number}"), 10, limiter).wait()

    await asyncio.gather(*(call(lane, number) for number in range(3) for lane in "abcdefgh"))
    assert len(seen) == 24
    assert all(asked == had for asked, had in seen)


@pytest.mark.parametrize("order", list(itertools.permutations(range(1, 4))))
async def test_who_waits_behind_calls_that_are_cancelled_before_their_turn_waits_for_the_first(
    order: tuple[int, ...],
) -> None:
    queue, limiter, log = CallQueue(), Limiter(), list[str]()
    jobs = [Job(str(number), log) for number in range(5)]

    async def call(job: Job) -> str:
        return await queue.submit("lane", job.name, job, 10, limiter).wait()

    tasks = [asyncio.create_task(call(job)) for job in jobs]
    await settled_loop()
    for number in order:
        await leave(tasks[number])
    assert log == ["0 begins"]
    jobs[4].may_end.set()
    jobs[0].may_end.set()
    assert [await tasks[0], await tasks[4]] == ["0", "4"]
    assert log == ["0 begins", "0 ends", "4 begins", "4 ends"]
    assert limiter.waiting == 0


def test_calls_of_two_loops_may_end_at_the_same_moment() -> None:
    """Each in a thread of its own; a context that both used would be entered twice."""
    both_end = threading.Barrier(2)
    left = list[int]()

    class Slow(CallQueue):
        def leave(self, call: SharedCall[Any]) -> None:
            both_end.wait(timeout=10)
            super().leave(call)

    async def main() -> None:
        queue = Slow()
        (caller,) = await enter_all(queue, Job())
        await leave(caller)
        await settled_loop()
        left.append(len(queue))

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left == [0, 0]


@pytest.mark.parametrize("is_eager", [False, True], ids=["tasks", "eager"])
@pytest.mark.parametrize("seed", range(20))
async def test_order_and_turns_are_kept_whoever_joins_fails_and_leaves(seed: int, is_eager: bool) -> None:
    chance, queue, limiters = random.Random(seed), CallQueue(), (Limiter(), Limiter())
    begun, running = list[tuple[int, int]](), set[int]()

    async def request(op: Operation, limiter: Limiter) -> None:
        permit = await limiter.acquire(first=op.goes_first)
        op.request_started(op.last_sent)
        try:
            op.sent(partial(request, limiter=limiter))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        finally:
            op.request_finished()
            limiter.release(permit)

    async def work(lane: int, number: int, op: Operation) -> None:
        assert lane not in running
        running.add(lane)
        begun.append((lane, number))
        try:
            if chance.random() < 0.2:
                op.leave_turn()  # as one that searches first
                await asyncio.sleep(0)
            for _ in range(chance.randrange(3)):
                await request(op, chance.choice(limiters))  # maybe that of another protocol
                if chance.random() < 0.2:
                    op.rejected()
                    raise refused("no", 718)
        finally:
            running.remove(lane)

    async def call(lane: int, number: int) -> None:
        shared = chance.choice([number, "same"])
        await queue.submit(lane, shared, partial(work, lane, number), 10, chance.choice(limiters)).wait()

    callers = list[asyncio.Task[None]]()
    with eager_tasks() if is_eager else nullcontext():
        for number in range(150):
            callers.append(asyncio.create_task(call(chance.randrange(1 + number % 20), number)))
            if chance.random() < 0.4:
                chance.choice(callers).cancel()
            await settled_loop(chance.randrange(2))
            assert all(limiter._beginning >= 0 for limiter in limiters)
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        await queue.drain()
        await settled_loop()
    assert all(outcome is None or isinstance(outcome, (RefusedError, asyncio.CancelledError)) for outcome in outcomes)
    assert sorted(begun, key=lambda each: each[0]) == sorted(begun)  # in each lane as they were submitted
    assert len(queue) == 0
    assert [(limiter.waiting, limiter._beginning, len(limiter._out)) for limiter in limiters] == [(0, 0, 0)] * 2
