"""Quirks of HTTP: how replies are framed, and how connections are treated."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

from ..hooks import Exchange, Hooks, quirk
from ..http import Admission, End, Response, Transmission

__all__ = [
    "answers_with_status",
    "bare_lf_head",
    "broken_header_line",
    "bytes_behind_replies",
    "chunked",
    "continue_first",
    "denies_control",
    "duplicate_content_length",
    "exact_soapaction_only",
    "faults_with_status",
    "half_close_aborts",
    "hangs_at_first",
    "head_alone",
    "http_1_0",
    "keep_alive_announced",
    "keep_alive_broken",
    "keep_alive_ends_at_random",
    "keep_alive_ends_unasked",
    "keep_alive_http_1_0",
    "keep_alive_only_promised",
    "length_too_long",
    "length_too_long_no_close",
    "length_too_short",
    "no_content_length",
    "no_content_type",
    "no_length_no_close",
    "no_reason_phrase",
    "one_connection_or_close",
    "one_connection_or_reset",
    "one_connection_others_wait",
    "refuses_by_reset",
    "refuses_by_silence",
    "replies_twice",
    "reset_after_reply",
    "resets_after_doing",
    "resets_before_doing",
    "resets_now_and_then",
    "single_segment_only",
    "slow",
    "small_pieces",
    "wrong_content_type",
]

Part = Literal["lease", "description", "either"]
"""What of a mapping a gateway dislikes."""


_WITHOUT_OUTPUT = frozenset(
    {"AddPortMapping", "DeletePortMapping", "DeletePortMappingRange", "UpdatePinhole", "DeletePinhole"}
)
"""Actions without output arguments."""


@quirk("http", reason="The end of the connection is the end of the body (RFC 9112 section 6.3).", source="common")
def no_content_length() -> Hooks:
    """Sends no Content-Length, and closes the connection behind the body."""
    return _framed(lambda response: replace(response, length=_no_length, end=End.CLOSE))


@quirk("http", reason="Neither length nor close says where the body ends, but its own end tag does.", source="unnamed")
def no_length_no_close() -> Hooks:
    """Sends no Content-Length, and leaves the connection open behind the body."""
    return _framed(lambda response: replace(response, length=_no_length, end=End.HANG))


@quirk("http", reason="Nothing follows a head that says it all; who waits for more waits for ever.", source="unnamed")
def head_alone() -> Hooks:
    """Sends a head alone, without a length, where it tells everything, and leaves the connection open."""

    def response(exchange: Exchange, response: Response) -> Response:
        done = exchange.call is not None and exchange.error is None and exchange.action in _WITHOUT_OUTPUT
        if not done and exchange.purpose != "event":
            return response
        return replace(response.without("Transfer-Encoding"), body=b"", length=_no_length, end=End.HANG)

    return Hooks(response=response)


@quirk("http", reason="One line that is no header says nothing of the others.", source="unnamed")
def broken_header_line(line: str = "no header at all") -> Hooks:
    """Has a line in the head of each reply that is no header."""

    def transmission(exchange: Exchange, sent: Transmission) -> Transmission:
        def steps() -> Iterator[bytes | float]:
            is_head = True
            for step in sent.steps:
                if is_head and isinstance(step, bytes) and b"\n" in step:
                    status, end, rest = step.partition(b"\n")
                    step = status + end + line.encode("latin-1") + b"\r\n" + rest
                    is_head = False
                yield step

        return Transmission(steps(), sent.end)

    return Hooks(transmission=transmission)


@quirk("http", reason="Old servers know neither keep-alive nor chunks.", source="common")
def http_1_0() -> Hooks:
    """Answers with HTTP/1.0, and closes the connection."""
    return _framed(lambda response: replace(response, version="HTTP/1.0", end=End.CLOSE))


@quirk("http", reason="Every client of HTTP/1.1 must understand it (RFC 9112 section 7.1).", source="common")
def chunked(size: int = 100) -> Hooks:
    """Sends its bodies in chunks of so many bytes."""

    def change(response: Response) -> Response:
        pieces = [response.body[start : start + size] for start in range(0, len(response.body), size)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        return replace(response.having("Transfer-Encoding", "chunked"), body=body, length=_no_length)

    return _framed(change)


@quirk("http", reason="Old clients accepted it, so old servers did it.", source="common")
def bare_lf_head() -> Hooks:
    """Ends the lines of the head with LF alone."""
    return _framed(lambda response: replace(response, eol="\n"))


@quirk("http", reason="Only the body itself tells what it is.", source="common")
def wrong_content_type(content_type: str = "text/html") -> Hooks:
    """Sends XML under another Content-Type."""
    return _framed(lambda response: response.having("Content-Type", content_type))


@quirk("http", reason="Only the body itself tells what it is.", source="common")
def no_content_type() -> Hooks:
    """Sends XML without a Content-Type."""
    return _framed(lambda response: response.without("Content-Type"))


@quirk("http", reason="What arrived before the close is all there is, and may be whole.", source="common")
def length_too_long(by: int = 64) -> Hooks:
    """Promises more bytes than it sends, and closes the connection."""
    return _framed(lambda response: replace(response, length=_length_plus(by), end=End.CLOSE))


@quirk("http", reason="Who waits for the rest waits for ever; the document is whole.", source="unnamed")
def length_too_long_no_close(by: int = 64) -> Hooks:
    """Promises more bytes than it sends, and leaves the connection open."""
    return _framed(lambda response: replace(response, length=_length_plus(by), end=End.HANG))


@quirk(
    "http", reason="A length that was counted in characters is too short; the rest comes all the same.", source="common"
)
def length_too_short(by: int = 20) -> Hooks:
    """Promises fewer bytes than it sends, and closes the connection."""
    return _framed(lambda response: replace(response, length=_length_plus(-by), end=End.CLOSE))


@quirk("http", reason="What came before the reset is an answer all the same.", source="common")
def reset_after_reply(pause: float = 0.05) -> Hooks:
    """Cuts the connection off behind its reply, instead of closing it; ``pause`` seconds are left to read it."""

    def transmission(exchange: Exchange, sent: Transmission) -> Transmission:
        return Transmission((*sent.steps, pause), End.RESET)

    return Hooks(response=lambda exchange, response: replace(response, end=End.RESET), transmission=transmission)


@quirk("http", reason="TCP delivers a reply in as many pieces as it likes.", source="common")
def small_pieces(size: int = 100) -> Hooks:
    """Sends its replies in many small pieces."""

    def transmission(exchange: Exchange, sent: Transmission) -> Transmission:
        def steps() -> Iterator[bytes | float]:
            for step in sent.steps:
                if isinstance(step, bytes):
                    yield from (step[start : start + size] for start in range(0, len(step), size))
                else:
                    yield step

        return Transmission(steps(), sent.end)

    return Hooks(transmission=transmission)


@quirk("http", reason="Interim responses may come unasked (RFC 9110 section 15.2).", source="rare")
def continue_first() -> Hooks:
    """Sends ``100 Continue`` before every reply."""

    def transmission(exchange: Exchange, sent: Transmission) -> Transmission:
        return Transmission((b"HTTP/1.1 100 Continue\r\n\r\n", *sent.steps), sent.end)

    return Hooks(transmission=transmission)


@quirk("http", reason="The reason phrase means nothing, and may be missing.", source="common")
def no_reason_phrase() -> Hooks:
    """Ends its status line behind the number."""

    def transmission(exchange: Exchange, sent: Transmission) -> Transmission:
        steps = list(sent.steps)
        for number, step in enumerate(steps):
            if isinstance(step, bytes) and step.startswith(b"HTTP/"):
                line, end, rest = step.partition(b"\n")
                steps[number] = b" ".join(line.split()[:2]) + (b"\r" if line.endswith(b"\r") else b"") + end + rest
        return Transmission(steps, sent.end)

    return Hooks(transmission=transmission)


@quirk("http", reason="The same length twice is no contradiction.", source="common")
def duplicate_content_length() -> Hooks:
    """Sends its Content-Length twice."""

    def change(response: Response) -> Response:
        length = response.length(response.body)
        return response if length is None else response.having("Content-Length", str(length))

    return _framed(change)


@quirk("http", reason="The body tells a fault, whatever the status is.", source="common")
def faults_with_status(status: int = 200) -> Hooks:
    """Sends faults with another HTTP status than 500."""

    def response(exchange: Exchange, response: Response) -> Response:
        return replace(response, status=status) if exchange.error else response

    return Hooks(response=response)


@quirk("http", reason="The body tells that it was done, whatever the status is.", source="unnamed")
def answers_with_status(status: int = 500) -> Hooks:
    """Sends answers to actions that it has done with another HTTP status than 200."""

    def response(exchange: Exchange, response: Response) -> Response:
        return replace(response, status=status) if exchange.call and not exchange.error else response

    return Hooks(response=response)


@quirk("http", reason="No other terms give anybody the right to ask.", source="TR-064: fritzconnection", hopeless=True)
def denies_control(status: int = 401) -> Hooks:
    """Answers every action with HTTP 401 and a page of HTML."""

    def intercept(exchange: Exchange) -> Response | None:
        return Response(status, body=b"<html>Unauthorized</html>") if exchange.purpose == "control" else None

    return Hooks(intercept=intercept)


@quirk("http", reason="Requests have to be few at a time, and repeated where they were lost.", source="syncthing")
def one_connection_or_reset(most: int = 1) -> Hooks:
    """Serves so many connections at a time, and cuts off the others."""
    return Hooks(admit=lambda others: Admission.RESET if others >= most else Admission.SERVE)


@quirk("http", reason="Requests have to be few at a time, and repeated where they were lost.", source="go-libp2p#3138")
def one_connection_or_close(most: int = 1) -> Hooks:
    """Serves so many connections at a time, and closes the others without an answer."""
    return Hooks(admit=lambda others: Admission.CLOSE if others >= most else Admission.SERVE)


@quirk("http", reason="A deadline must not count from when the others were still being served.", source="common")
def one_connection_others_wait() -> Hooks:
    """Serves one connection at a time, and lets the others wait."""
    return Hooks(admit=lambda others: Admission.WAIT if others else Admission.SERVE)


@quirk("http", reason="Routers are slow; many requests are made in the time of one.", source="miniupnpd: 22 ms")
def slow(seconds: float = 0.02) -> Hooks:
    """Takes a while for every reply."""
    return Hooks(response=lambda exchange, response: response.delayed(seconds))


@quirk("http", reason="A late body is taken for a second request.", source="old Linksys, RomPager 4.07")
def single_segment_only() -> Hooks:
    """Does not understand a request whose head and body come in separate TCP segments."""

    def intercept(exchange: Exchange) -> Response | None:
        late = exchange.request.method == "POST" and exchange.request.segments > 1
        return Response(400, body=b"Bad Request") if late else None

    return Hooks(intercept=intercept)


@quirk("http", reason="A connection that is promised is not always kept.", source="common")
def keep_alive_broken() -> Hooks:
    """Promises to keep connections open, and answers nothing more on them."""

    def change(response: Response) -> Response:
        if response.end is not End.KEEP:
            return response
        return replace(response.having("Connection", "keep-alive"), end=End.HANG)

    return _framed(change)


@quirk("http", reason="Old servers keep connections, too, and say so.", source="common")
def keep_alive_http_1_0() -> Hooks:
    """Answers with HTTP/1.0 and ``Connection: keep-alive``, and keeps connections open."""

    def change(response: Response) -> Response:
        response = replace(response, version="HTTP/1.0")
        return response.having("Connection", "keep-alive") if response.end is End.KEEP else response

    return _framed(change)


@quirk("http", reason="What is said of a connection holds for it.", source="Apache, mini_httpd: common")
def keep_alive_announced(timeout: int = 1, most: int = 5) -> Hooks:
    """Says ``Keep-Alive: timeout=1, max=5``, and closes a connection behind so many replies."""
    served: Counter[int] = Counter()

    def response(exchange: Exchange, response: Response) -> Response:
        if response.end is not End.KEEP:
            return response
        return response.having("Keep-Alive", f"timeout={timeout}, max={most - served[exchange.request.connection]}")

    def transmission(exchange: Exchange, sent: Transmission) -> Transmission:
        served[exchange.request.connection] += 1
        is_last = sent.end is End.KEEP and served[exchange.request.connection] >= most
        return Transmission(sent.steps, End.CLOSE) if is_last else sent

    return Hooks(response=response, transmission=transmission)


@quirk("http", reason="A connection that is promised is not always kept.", source="common")
def keep_alive_only_promised(*, resets: bool = False) -> Hooks:
    """Promises to keep connections open, and closes each at its second request, without an answer."""
    return _cuts_kept(lambda served: served > 1, resets=resets)


@quirk("http", reason="A server that closes a connection may do so when a request is under way.", source="common")
def keep_alive_ends_at_random(share: float = 0.2, *, does: bool = True) -> Hooks:
    """Cuts off kept connections at random, though always in the same way, behind an action that it does, or not."""
    dice = random.Random(16)  # noqa: S311 (it has to be repeatable, not secret)
    return _cuts_kept(lambda served: served > 1 and dice.random() < share, does=does)


@quirk("http", reason="A server that closes idle connections does not wait for what is under way.", source="common")
def keep_alive_ends_unasked(seconds: float = 0.02) -> Hooks:
    """Closes each connection so many seconds after its first reply, whatever comes until then."""

    def transmission(exchange: Exchange, sent: Transmission) -> Transmission:
        return Transmission((*sent.steps, seconds), End.CLOSE) if sent.end is End.KEEP else sent

    return Hooks(transmission=transmission)


@quirk("http", reason="What comes behind a reply is not the reply to the next request.", source="unnamed")
def replies_twice(pause: float = 0.0) -> Hooks:
    """Sends each reply twice on a connection that stays open, the second time after ``pause`` seconds."""

    def transmission(exchange: Exchange, sent: Transmission) -> Transmission:
        steps = list(sent.steps)
        return Transmission((*steps, pause, *steps), sent.end) if sent.end is End.KEEP else sent

    return Hooks(transmission=transmission)


@quirk("http", reason="What comes behind a reply belongs to nothing.", source="common: CRLF behind a body")
def bytes_behind_replies(text: str = "\r\n") -> Hooks:
    """Sends something behind the body that its length does not count."""

    def transmission(exchange: Exchange, sent: Transmission) -> Transmission:
        return Transmission((*sent.steps, text.encode("latin-1")), sent.end)

    return Hooks(transmission=transmission)


@quirk("http", reason="Header names are case-insensitive, but not to everybody.", source="WRT120N, Technicolor")
def exact_soapaction_only() -> Hooks:
    """Knows the header SOAPAction in this spelling or in capitals only."""

    def intercept(exchange: Exchange) -> Response | None:
        names = {name for name, _ in exchange.request.headers}
        if exchange.purpose != "control" or names & {"SOAPAction", "SOAPACTION"}:
            return None
        return Response(500)

    return Hooks(intercept=intercept)


@quirk("http", reason="A half-closed connection looks like one whose client has gone.", source="DrayTek: miniupnp")
def half_close_aborts(patience: float = 0.02) -> Hooks:
    """Gives no answer to a client that closes its side of the connection within ``patience`` seconds."""

    def transmission(exchange: Exchange, sent: Transmission) -> Transmission:
        def steps() -> Iterator[bytes | float]:
            yield patience
            if not exchange.request.half_closed():
                yield from sent.steps

        return Transmission(steps(), sent.end)

    return Hooks(transmission=transmission)


@quirk("http", reason="The request came to nothing, and can be repeated.", source="common under load")
def resets_before_doing(action: str = "AddPortMapping", times: int = 1) -> Hooks:
    """Cuts the connection off instead of doing an action, the first times."""
    left = _Countdown(times)

    def intercept(exchange: Exchange) -> Transmission | None:
        return Transmission((), End.RESET) if exchange.action == action and left.take() else None

    return Hooks(intercept=intercept)


@quirk("http", reason="The request was done, and nobody was told; reading back tells.", source="common under load")
def resets_after_doing(action: str = "AddPortMapping", times: int = 1) -> Hooks:
    """Does an action, and cuts the connection off instead of saying so, the first times."""
    left = _Countdown(times)

    def transmission(exchange: Exchange, sent: Transmission) -> Transmission:
        return Transmission((), End.RESET) if exchange.action == action and left.take() else sent

    return Hooks(transmission=transmission)


@quirk("http", reason="Under load, a request now and then is lost; none may be forgotten.", source="common under load")
def resets_now_and_then(every: int = 4) -> Hooks:
    """Cuts off one connection in so many."""
    turn = itertools.count(1)
    return Hooks(admit=lambda others: Admission.SERVE if next(turn) % every else Admission.RESET)


@quirk("http", reason="What is cut off each time, alone, is refused.", source="unnamed")
def refuses_by_reset(part: Part = "lease", *, closes: bool = False) -> Hooks:
    """Resets the connection, or closes it, instead of making a mapping with a lease, a description, or either."""
    return _refuses_without_words(part, End.CLOSE if closes else End.RESET)


@quirk("http", reason="Who answers the next request is not away, but refuses.", source="unnamed")
def refuses_by_silence(part: Part = "lease") -> Hooks:
    """Says nothing to a mapping with a lease, a description, or either, and does not make it."""
    return _refuses_without_words(part, End.HANG)


@quirk("http", reason="A second request in place of the first may be answered.", source="common")
def hangs_at_first(action: str = "AddPortMapping", times: int = 1) -> Hooks:
    """Gives no answer to an action and does not do it, the first times."""
    left = _Countdown(times)

    def intercept(exchange: Exchange) -> Transmission | None:
        return Transmission((), End.HANG) if exchange.action == action and left.take() else None

    return Hooks(intercept=intercept)


def _refuses_without_words(part: Part, end: End) -> Hooks:
    def intercept(exchange: Exchange) -> Transmission | None:
        lease = exchange.arguments.get("NewLeaseDuration", "0") != "0"
        description = bool(exchange.arguments.get("NewPortMappingDescription"))
        is_refused = {"lease": lease, "description": description, "either": lease or description}[part]
        return Transmission((), end) if is_refused and exchange.action.startswith("Add") else None

    return Hooks(intercept=intercept)


def _cuts_kept(is_cut: Callable[[int], bool], *, does: bool = False, resets: bool = False) -> Hooks:
    """Cut connections off instead of an answer; ``is_cut``: whether to, at the n-th request on one of them."""
    served: Counter[int] = Counter()
    cut = Transmission((), End.RESET if resets else End.CLOSE)

    def is_over(exchange: Exchange) -> bool:
        served[exchange.request.connection] += 1
        return is_cut(served[exchange.request.connection])

    if does:
        return Hooks(transmission=lambda exchange, sent: cut if is_over(exchange) else sent)
    return Hooks(intercept=lambda exchange: cut if is_over(exchange) else None)


class _Countdown:
    """Counts down from a number of times."""

    def __init__(self, times: int) -> None:
        self._left = times

    def take(self) -> bool:
        self._left -= 1
        return self._left >= 0


def _framed(change: Callable[[Response], Response]) -> Hooks:
    return Hooks(response=lambda exchange, response: change(response))


def _no_length(body: bytes) -> None:
    return None


def _length_plus(difference: int) -> Callable[[bytes], int]:
    return lambda body: max(0, len(body) + difference)
