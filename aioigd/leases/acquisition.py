"""How the mappings of a claim come to be, on the ports it names or on one that it may have, and how they go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from ..errors import ConflictError, IGDError, InvalidResponseError, NotFoundError, RefusedError
from ..models import PortMapping
from ..results import UPnPResult
from .keepable import Keepable, is_away
from .lease import Lease
from .leased_mapping import Holding
from .ports import PortsInUse
from .request import Claim

__all__ = ["AT_ONCE", "forget", "is_conflict", "let_go", "make", "take_each", "take_one_of"]

AT_ONCE: Final = 8
"""Mappings of one mapper that are worked on at the same time; the gateway gets fewer requests than that anyway."""


async def make(router: Keepable, holding: Holding) -> PortMapping:
    """Make the mapping of a holding as the policy of its claim has it; another port may be the outcome.

    Raises the IGDError of the gateway's refusal where the policy knows no way around it.
    """
    claim = holding.claim
    try:
        return await router.add(holding.request, overwrite=claim.on_conflict == "take_over", verify=False)
    except IGDError as error:
        if not is_conflict(error):
            raise
        refusal = error
    if await _is_our_stale_one(router, holding):
        return await router.add(holding.request, overwrite=True, verify=False)
    for request in claim.alternatives(holding.request):
        if request.key in holding.ports:
            continue
        try:
            mapping = await router.add(request, overwrite=False, verify=False)
        except IGDError as error:
            if not is_conflict(error):
                raise
        else:
            holding.move(request)
            return mapping
    raise refusal


async def take_each(router: Keepable, holdings: Sequence[Holding], *, required: bool) -> list[IGDError | None]:
    """Make the mappings of holdings for the first time, and return what became of each.

    Where the gateway is not there, or one that is ``required`` fails, the rest is not tried and has failed, too.
    """
    outcomes: list[IGDError | None] = []
    for start in range(0, len(holdings), AT_ONCE):
        some = holdings[start : start + AT_ONCE]
        outcomes += await asyncio.gather(*(_outcome(router, holding) for holding in some))
        final = next((error for error in outcomes if error is not None and (required or is_away(error))), None)
        if final is not None:
            return outcomes + [final] * (len(holdings) - len(outcomes))
    return outcomes


async def take_one_of(
    router: Keepable, lease: Lease, claim: Claim, ports: PortsInUse, holdings: list[Holding]
) -> IGDError | None:
    """Make the mappings of a claim on the first of its choices that is free, and return why there is none.

    ``holdings`` is filled with what was made or tried last, also where this is cancelled in the middle of it.
    """
    choices = [port for port in claim.choices if not any(one.key in ports for one in claim.requests(port))]
    failure: IGDError | None = ConflictError("all ports that may be tried are taken by this program")
    for port in choices or claim.choices[:1]:
        await forget(router, holdings)
        holdings[:] = [Holding(lease, number, claim, one, ports) for number, one in enumerate(claim.requests(port))]
        if not choices:
            break
        if port == choices[0] and len(holdings) == 1 and await _take_any(router, holdings[0]):
            return None
        failure = next(filter(None, await take_each(router, holdings, required=True)), None)
        if failure is None or not is_conflict(failure):
            break
    return failure


async def forget(router: Keepable, holdings: Sequence[Holding]) -> None:
    """Let go of holdings that are not to be kept after all, and of what they have made."""
    made = [holding for holding in holdings if holding.mapping is not None]
    await asyncio.gather(*(let_go(router, holding) for holding in made))
    for holding in holdings:
        holding.end()


async def let_go(router: Keepable, holding: Holding) -> bool:
    """Delete a mapping, unless it belongs to somebody else by now, and tell whether the gateway was fine with it.

    Never fails: what is left will expire.
    """
    with suppress(IGDError):
        try:
            held = await router.find(holding.key)
        except (RefusedError, InvalidResponseError):
            held = holding.mapping  # the gateway cannot tell
        if held is not None and holding.is_same(held):
            await router.delete(holding.key)
        return True
    return False


def is_conflict(error: IGDError) -> bool:
    """Tell whether an error means that the port is somebody else's."""
    return error.result is UPnPResult.CONFLICT_WITH_OTHER_MAPPING


async def _take(router: Keepable, holding: Holding) -> None:
    """Make a mapping for the first time, and read back how long it will last.

    Raises IGDError, with PORT_MAPPING_NOT_FOUND where the gateway says yes and does nothing.
    """
    mapping = holding.mapping = await make(router, holding)
    try:
        held = await router.find(mapping.key)
    except IGDError:
        held = mapping  # it cannot tell; the check before the half will try again
    if held is None:
        raise NotFoundError(
            f"the gateway says that it mapped {mapping.key}, and does not hold it", UPnPResult.PORT_MAPPING_NOT_FOUND
        )
    if not holding.is_same(held):
        raise ConflictError(f"the gateway says that it mapped {mapping.key}, and has it for {held.internal_client}")
    holding.made(mapping, asyncio.get_running_loop().time(), held=held.duration)


async def _take_any(router: Keepable, holding: Holding) -> bool:
    """Let the gateway choose the port, if it can; where it cannot, for whatever reason, the ordinary way will tell."""
    with suppress(IGDError):
        mapping = await router.add_any(holding.request)
        if mapping is None:
            return False
        holding.mapping = mapping
        holding.move(holding.claim.request(mapping.key))
        if mapping.internal_port != holding.request.internal_port:
            # Another port than the one asked for, and the internal one is to be the same.
            mapping = await router.add(holding.request, overwrite=True, verify=False)
        holding.made(mapping, asyncio.get_running_loop().time())
        return True
    return False


async def _is_our_stale_one(router: Keepable, holding: Holding) -> bool:
    """Whether what is in the way is this lease's own, from before this machine changed its address."""
    if holding.mapping is None or holding.taken:
        return False
    with suppress(IGDError):
        held = await router.find(holding.key)
        return held is not None and holding.is_same(held)
    return False


async def _outcome(router: Keepable, holding: Holding) -> IGDError | None:
    try:
        await _take(router, holding)
    except IGDError as error:
        return error
    return None
