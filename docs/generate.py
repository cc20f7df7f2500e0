"""The tables of the documentation that are made from the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aioigd.models import MappingKey, MappingRequest, Terms
from aioigd.pcp.results import RESULT_OF_NAT_PMP, RESULT_OF_PCP
from aioigd.pcp.wire import nat_pmp, pcp
from aioigd.upnp.fallback import Failure, TermsPolicy, next_terms

__all__ = ["fallback_table", "pcp_results_table", "write_all"]

_WEEK = 604_800
_REQUESTS = {
    '`duration=3600`, `desc="Ünser Spiel!"`': Terms("Ünser Spiel!", 3600),
    '`duration=0`, `desc="my server"`': Terms("my server", 0),
    "nothing but the port": Terms("", 0),
}
_ANSWERS = {
    "725 OnlyPermanentLeasesSupported": 725,
    "402 Invalid Args, 501 Action Failed, a code of its own, or no code": 402,
    "718 ConflictInMappingEntry, and overwriting did not help": 718,
    "606, 724, 728, 729, …": 728,
}


def write_all(folder: Path) -> None:
    """Write every table into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "fallback.md").write_text(fallback_table(), "utf-8")
    (folder / "pcp_results.md").write_text(pcp_results_table(), "utf-8")


def fallback_table() -> str:
    """Return the table of what is tried after which refusal."""
    lines = ["| asked for | the router answers | tried after that, in this order |", "|---|---|---|"]
    for asked, terms in _REQUESTS.items():
        request = MappingRequest(MappingKey(8080, "TCP"), 8080, "", terms)
        for answer, code in _ANSWERS.items():
            tries = "; ".join(_told(tried, terms) for tried in _tries(request, code)) or "nothing"
            lines.append(f"| {asked} | {answer} | {tries} |")
    return "\n".join(lines) + "\n"


def pcp_results_table() -> str:
    """Return the table of what the result codes of PCP and NAT-PMP become."""
    lines = ["| protocol | code | `result` |", "|---|---|---|"]
    for name, codes, results in (
        ("PCP", pcp.ResultCode, RESULT_OF_PCP),
        ("NAT-PMP", nat_pmp.ResultCode, RESULT_OF_NAT_PMP),
    ):
        lines += [f"| {name} | {int(code)} {code.name} | `{results[code].name}` |" for code in codes if code]
    return "\n".join(lines) + "\n"


def _tries(request: MappingRequest, code: int) -> Iterator[Terms]:
    failures = [Failure(request.terms, code)]
    while step := next_terms(request, failures, TermsPolicy()):
        _, terms = step
        yield terms
        failures.append(Failure(terms, code))


def _told(terms: Terms, asked: Terms) -> str:
    """Return how terms differ from what was asked."""
    parts = []
    if terms.duration != asked.duration:
        parts.append(
            "no limit" if terms.duration == 0 else "a week" if terms.duration == _WEEK else f"{terms.duration} s"
        )
    if terms.desc != asked.desc:
        parts.append(f"`{terms.desc!r}`" if terms.desc else "no description")
    return " and ".join(parts)
