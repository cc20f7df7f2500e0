"""The table in the docstring of aioigd.upnp.fallback, row by row, and what must hold for any gateway."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioigd.models import MAX_DURATION, MappingKey, MappingRequest, Proto, Terms
from aioigd.upnp.fallback import (
    HOUR,
    MAX_PLAIN,
    WEEK,
    DescriptionPolicy,
    Failure,
    LeasePolicy,
    TermsPolicy,
    candidate_terms,
    learn,
    next_terms,
    to_plain_ascii,
)

NO_POLICY = TermsPolicy()
MONTH = 30 * 86400
FINAL_CODES = [401, 403, 602, 606, 713, 714, 715, 716, 724, 726, 727, 728, 729, 730, 732, 733]
VAGUE = [402, 501, 600, 601, 605, 700, 799, 899, 0, -911, 12345, None]

Gateway = Callable[[Terms], int | bool | None]
"""What a gateway says to terms: True for yes, or an error code, None for a fault without one."""


def request(desc: str = "my server", duration: int = 3600, *, port: int = 8080, proto: Proto = "TCP") -> MappingRequest:
    return MappingRequest(MappingKey(port, proto), port, "", Terms(desc, duration))


def negotiate(
    asked: MappingRequest, gateway: Gateway, policy: TermsPolicy = NO_POLICY, *, most: int | None = None
) -> tuple[list[Terms], Terms | None, TermsPolicy]:
    """Return all terms that were tried, the terms that were granted, and the policy then."""
    failures: list[Failure] = []
    while step := next_terms(asked, failures, policy, most=most):
        assert len(failures) < 20, "it does not end"
        granted, terms = step
        verdict = gateway(terms)
        if verdict is True:
            return [*(failure.terms for failure in failures), terms], terms, learn(policy, granted, asked)
        failures.append(Failure(terms, verdict))
    return [failure.terms for failure in failures], None, policy


def never(code: int | None) -> Gateway:
    return lambda _: code


def only(good: Callable[[Terms], bool], code: int | None = 402) -> Gateway:
    return lambda terms: good(terms) or code


def test_what_was_asked_for_is_tried_first() -> None:
    tried, granted, policy = negotiate(request(), never(True))
    assert tried == [granted] == [Terms("my server", 3600)]
    assert policy == TermsPolicy()


# The rows of the table


def test_725_leads_to_no_lease() -> None:
    tried, granted, policy = negotiate(request(), only(lambda terms: terms.duration == 0, 725))
    assert tried == [Terms("my server", 3600), Terms("my server", 0)]
    assert granted == Terms("my server", 0)
    assert policy == TermsPolicy(lease=LeasePolicy.NONE)


def test_after_725_no_lease_is_ever_tried_again() -> None:
    answers = iter([725])
    tried, _, _ = negotiate(request("Ä server", MONTH), lambda _: next(answers, 402))
    assert [terms.duration for terms in tried] == [MONTH, 0, 0, 0]
    assert [terms.desc for terms in tried] == ["Ä server", "Ä server", "A server", ""]


@pytest.mark.parametrize("code", VAGUE)
def test_a_vague_refusal_leads_to_every_sacrifice_once_the_least_first(code: int | None) -> None:
    tried, granted, policy = negotiate(request("Ä server", MONTH), never(code))
    assert granted is None
    assert policy == TermsPolicy()
    assert tried == [
        Terms("Ä server", MONTH),
        Terms("Ä server", 0),
        Terms("Ä server", WEEK),
        Terms("A server", MONTH),
        Terms("", MONTH),
        Terms("Ä server", HOUR),
        Terms("A server", 0),
        Terms("", 0),
        Terms("A server", WEEK),
        Terms("", WEEK),
        Terms("A server", HOUR),
        Terms("", HOUR),
    ]


@pytest.mark.parametrize("code", VAGUE)
def test_where_no_lease_was_asked_for_a_week_is_tried(code: int | None) -> None:
    tried, granted, policy = negotiate(request(duration=0), only(lambda terms: terms.duration > 0, code))
    assert tried == [Terms("my server", 0), Terms("my server", WEEK)]
    assert granted == Terms("my server", WEEK)
    assert policy == TermsPolicy(lease=LeasePolicy.WEEK)


@pytest.mark.parametrize("code", VAGUE)
def test_an_empty_description_is_replaced_by_a_plain_one(code: int | None) -> None:
    tried, granted, policy = negotiate(request("", 0), only(lambda terms: terms.desc != "", code))
    assert granted == Terms("aioigd", 0)
    assert tried == [Terms("", 0), Terms("", WEEK), Terms("aioigd", 0)]
    assert policy == TermsPolicy(desc=DescriptionPolicy.PLAIN)


@pytest.mark.parametrize("code", VAGUE)
def test_lease_and_description_may_both_have_to_go(code: int | None) -> None:
    _, granted, policy = negotiate(request(), only(lambda terms: terms == ("", 0), code))
    assert granted == Terms("", 0)
    assert policy == TermsPolicy(LeasePolicy.NONE, DescriptionPolicy.NONE)


def test_a_lease_over_a_week_is_cut_to_a_week_where_shorter_ones_are_taken() -> None:
    _, granted, policy = negotiate(request(duration=MONTH), only(lambda terms: 0 < terms.duration <= WEEK))
    assert granted == Terms("my server", WEEK)
    assert policy == TermsPolicy(lease=LeasePolicy.WEEK)


def test_718_leads_to_one_description_that_names_the_port_and_no_further() -> None:
    tried, granted, _ = negotiate(request(duration=MONTH), never(718))
    assert granted is None
    assert tried == [Terms("my server", MONTH), Terms("my server TCP 8080", MONTH)]


def test_a_gateway_that_compares_descriptions_only_gets_different_ones() -> None:
    def gateway(terms: Terms) -> int | bool:
        return 718 if terms.desc == "my server" else True

    _, granted, policy = negotiate(request(), gateway)
    assert granted == Terms("my server TCP 8080", 3600)
    assert policy == TermsPolicy(desc=DescriptionPolicy.UNIQUE)
    tried, granted, _ = negotiate(request(proto="UDP"), gateway, policy)
    assert tried == [granted] == [Terms("my server UDP 8080", 3600)]


def test_718_and_725_are_both_served() -> None:
    def gateway(terms: Terms) -> int | bool:
        return 725 if terms.duration else 718 if terms.desc == "my server" else True

    _, granted, _ = negotiate(request(), gateway)
    assert granted == Terms("my server TCP 8080", 0)


def test_718_after_a_description_of_its_own_is_the_end() -> None:
    tried, _, _ = negotiate(request(), never(718), TermsPolicy(desc=DescriptionPolicy.UNIQUE))
    assert tried == [Terms("my server TCP 8080", 3600)]


@pytest.mark.parametrize("code", FINAL_CODES)
def test_after_a_code_that_no_other_terms_could_help_nothing_is_tried(code: int) -> None:
    tried, granted, _ = negotiate(request("Ä", MONTH), never(code))
    assert (tried, granted) == ([Terms("Ä", MONTH)], None)


@pytest.mark.parametrize("code", FINAL_CODES)
def test_a_hopeless_code_ends_a_negotiation_that_has_begun(code: int) -> None:
    answers: list[int | None] = [402, None, code]
    tried, _, _ = negotiate(request("Ä", MONTH), lambda terms: answers.pop(0))
    assert len(tried) == 3


def test_a_bad_request_leads_to_the_plainest_terms_once() -> None:
    asked = request("Ä", MONTH)
    failures = [Failure(Terms("Ä", MONTH), None, is_bad_request=True)]
    assert next_terms(asked, failures, NO_POLICY) == (
        TermsPolicy(LeasePolicy.NONE, DescriptionPolicy.NONE),
        Terms("", 0),
    )
    failures.append(Failure(Terms("", 0), None, is_bad_request=True))
    assert next_terms(asked, failures, NO_POLICY) is None
    assert next_terms(request("", 0), [Failure(Terms("", 0), None, is_bad_request=True)], NO_POLICY) is None


def wordless(asked: MappingRequest) -> list[Terms]:
    """The terms on which a gateway is asked that leaves every request without a reply."""
    failures: list[Failure] = []
    while step := next_terms(asked, failures, NO_POLICY):
        failures.append(Failure(step[1], None, is_wordless=True))
    return [failure.terms for failure in failures]


def test_after_no_words_something_is_given_up_and_nothing_added() -> None:
    assert wordless(request("Ä server", MONTH)) == [
        Terms("Ä server", MONTH),
        Terms("Ä server", 0),
        Terms("A server", MONTH),
        Terms("", MONTH),
        Terms("A server", 0),
        Terms("", 0),
    ]
    assert wordless(request("", 3600)) == [Terms("", 3600), Terms("", 0)]
    assert wordless(request("my server", 0)) == [Terms("my server", 0), Terms("", 0)]
    assert wordless(request("", 0)) == [Terms("", 0)]


WORDLESS: dict[str, Callable[[Terms], bool]] = {
    "leases": lambda terms: terms.duration > 0,
    "long leases": lambda terms: terms.duration > 86_400,
    "descriptions": lambda terms: terms.desc != "",
    "odd descriptions": lambda terms: not terms.desc.isascii(),
    "either": lambda terms: terms != ("", 0),
    "nothing": lambda _: False,
}
"""What a gateway says nothing to."""
IN_WORDS: dict[str, Callable[[Terms], bool]] = {
    "no lease": lambda terms: not terms.duration,
    "leases": lambda terms: terms.duration > 0,
    "no description": lambda terms: not terms.desc,
    "descriptions": lambda terms: terms.desc != "",
    "odd descriptions": lambda terms: not terms.desc.isascii(),
    "no lease, and no description": lambda terms: not terms.duration or not terms.desc,
}
"""What it refuses in words."""


@pytest.mark.parametrize("silent", WORDLESS)
@pytest.mark.parametrize("spoken", IN_WORDS)
@pytest.mark.parametrize("duration", [0, 3600, MONTH])
@pytest.mark.parametrize("desc", ["", "my server", "Ä server"])
def test_what_is_refused_without_words_and_in_words_is_found_where_there_is_anything_else(
    silent: str, spoken: str, desc: str, duration: int
) -> None:
    asked = request(desc, duration)
    failures: list[Failure] = []
    granted: Terms | None = None
    while granted is None and (step := next_terms(asked, failures, NO_POLICY)):
        if WORDLESS[silent](step[1]):
            failures.append(Failure(step[1], None, is_wordless=True))
        elif IN_WORDS[spoken](step[1]):
            failures.append(Failure(step[1], -911))
        else:
            granted = step[1]
    offered = [terms for _, terms in candidate_terms(asked) if "TCP" not in terms.desc]
    takes_any = any(not WORDLESS[silent](terms) and not IN_WORDS[spoken](terms) for terms in offered)
    assert (granted is not None) is takes_any
    assert len(set(failures)) == len(failures) <= 12


def test_after_no_words_and_words_what_was_silent_is_not_asked_for_again() -> None:
    asked = request("", 0)
    failures = [Failure(Terms("", 0), -911), Failure(Terms("", WEEK), None, is_wordless=True)]
    assert next_terms(asked, failures, NO_POLICY) == (TermsPolicy(desc=DescriptionPolicy.PLAIN), Terms("aioigd", 0))
    failures.append(Failure(Terms("aioigd", 0), None, is_wordless=True))
    step = next_terms(asked, failures, NO_POLICY)
    assert step is not None
    assert step[1] == Terms("", HOUR), "neither a lease of a week nor that description"
    assert next_terms(asked, [*failures, Failure(step[1], None, is_wordless=True)], NO_POLICY) is None


# Trials: ports after the first of many


@pytest.mark.parametrize("code", VAGUE)
def test_a_trial_has_what_was_asked_for_and_the_plainest(code: int | None) -> None:
    tried, _, _ = negotiate(request("Ä server", MONTH), never(code), most=2)
    assert tried == [Terms("Ä server", MONTH), Terms("", 0)]
    tried, _, _ = negotiate(request("", 0), never(code), most=2)
    assert tried == [Terms("", 0)]


@pytest.mark.parametrize(
    ("code", "second"),
    [(725, Terms("my server", 0)), (718, Terms("my server TCP 8080", 3600)), *((code, None) for code in FINAL_CODES)],
)
def test_a_trial_heeds_a_code_that_says_more(code: int, second: Terms | None) -> None:
    tried, _, _ = negotiate(request(), never(code), most=2)
    assert tried[1:] == ([] if second is None else [second])


# What is remembered


@pytest.mark.parametrize(
    ("gateway", "first"),
    [
        pytest.param(only(lambda terms: terms.duration == 0, 725), Terms("other", 0), id="no leases"),
        pytest.param(only(lambda terms: 0 < terms.duration <= WEEK), Terms("other", WEEK), id="leases of a week"),
        pytest.param(only(lambda terms: 0 < terms.duration <= 86_400), Terms("other", HOUR), id="leases of a day"),
        pytest.param(only(lambda terms: terms.desc == "", 501), Terms("", MONTH), id="no description"),
        pytest.param(only(lambda terms: terms == ("", 0), None), Terms("", 0), id="neither"),
    ],
)
def test_the_next_request_begins_with_what_was_learned(gateway: Gateway, first: Terms) -> None:
    _, granted, policy = negotiate(request("my server", MONTH), gateway)
    assert granted is not None
    tried, _, later = negotiate(request("other", MONTH, port=8081), gateway, policy)
    assert tried == [first]
    assert later == policy


@pytest.mark.parametrize(
    "habit",
    [
        TermsPolicy(lease=LeasePolicy.NONE),
        TermsPolicy(lease=LeasePolicy.WEEK),
        TermsPolicy(desc=DescriptionPolicy.PLAIN),
    ],
)
def test_a_habit_survives_a_success_that_says_nothing_about_it(habit: TermsPolicy) -> None:
    asked = request("plain", 0 if habit.lease is LeasePolicy.NONE else WEEK)
    tried, granted, policy = negotiate(asked, never(True), habit)
    assert tried == [granted] == [asked.terms]
    assert policy == habit


def test_a_habit_that_was_a_coincidence_is_given_up() -> None:
    tried, granted, policy = negotiate(
        request(), only(lambda terms: terms.duration == 3600), TermsPolicy(lease=LeasePolicy.NONE)
    )
    assert tried == [Terms("my server", 0), Terms("my server", 3600)]
    assert granted == Terms("my server", 3600)
    assert policy == TermsPolicy()


def test_giving_up_one_habit_leaves_the_other() -> None:
    both = TermsPolicy(LeasePolicy.NONE, DescriptionPolicy.NONE)
    _, granted, policy = negotiate(request(), only(lambda terms: terms.duration == 0 and terms.desc != ""), both)
    assert granted == Terms("my server", 0)
    assert policy == TermsPolicy(lease=LeasePolicy.NONE)


# Descriptions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my server", "my server"),
        ("Crème brûlée", "Creme brulee"),
        ("a-b_c.d/e", "a b c d e"),
        ("日本語", "aioigd"),
        ("", "aioigd"),
        ("  &<>  ", "aioigd"),
        ("x" * 100, "x" * MAX_PLAIN),
        ("x" * 30 + " yyy", "x" * 30),
    ],
)
def test_a_plain_description_has_only_what_every_router_takes(text: str, expected: str) -> None:
    assert to_plain_ascii(text) == expected


@given(st.text(max_size=200))
def test_any_text_has_a_plain_description(text: str) -> None:
    short = to_plain_ascii(text)
    assert 0 < len(short) <= MAX_PLAIN
    assert all(character.isascii() and (character.isalnum() or character == " ") for character in short)
    assert short == short.strip()
    assert to_plain_ascii(short) == short


# For any request and any gateway

requests = st.builds(
    request,
    st.one_of(st.just(""), st.just("to_plain_ascii"), st.text(max_size=40)),
    st.one_of(st.sampled_from([0, 1, WEEK - 1, WEEK, WEEK + 1, MAX_DURATION]), st.integers(0, MAX_DURATION)),
    port=st.integers(1, 65535),
    proto=st.sampled_from(["TCP", "UDP"]),
)
all_habits = st.builds(TermsPolicy, st.sampled_from(LeasePolicy), st.sampled_from(DescriptionPolicy))
codes = st.one_of(st.none(), st.sampled_from([*FINAL_CODES, 402, 501, 718, 725]), st.integers(-2000, 2000))


@given(requests, all_habits, st.lists(codes, min_size=30, max_size=30))
def test_whatever_a_gateway_says_it_ends_and_repeats_nothing(
    asked: MappingRequest, policy: TermsPolicy, said: list[int | None]
) -> None:
    answers = iter(said)
    tried, _, _ = negotiate(asked, lambda _: next(answers), policy)
    assert 1 <= len(tried) <= 16
    assert len(set(tried)) == len(tried)
    assert all(code not in FINAL_CODES for code in said[: len(tried) - 1])
    assert all(0 <= terms.duration <= max(asked.terms.duration, WEEK) for terms in tried)


@given(
    requests,
    all_habits,
    st.sampled_from(LeasePolicy),
    st.sampled_from(DescriptionPolicy),
    st.sampled_from([402, 501, None, -911]),
)
def test_whatever_a_gateway_insists_on_is_found_and_then_takes_one_request(
    asked: MappingRequest, policy: TermsPolicy, lease: LeasePolicy, desc: DescriptionPolicy, code: int | None
) -> None:
    # Descriptions with the port in them are only for those that compare descriptions, and say so with 718.
    choice = TermsPolicy(lease, DescriptionPolicy.NONE if desc is DescriptionPolicy.UNIQUE else desc)
    wanted = next(candidate_terms(asked, choice))[1]
    _, granted, learned = negotiate(asked, lambda terms: terms == wanted or code, policy)
    assert granted == wanted
    assert next_terms(asked, (), learned) == (learned, wanted)


@given(requests, all_habits)
def test_a_gateway_that_grants_everything_teaches_nothing(asked: MappingRequest, policy: TermsPolicy) -> None:
    tried, _, learned = negotiate(asked, never(True), policy)
    assert len(tried) == 1
    assert learned == policy


@given(requests, all_habits)
def test_the_variants_of_a_request_are_all_different(asked: MappingRequest, policy: TermsPolicy) -> None:
    offered = [terms for _, terms in candidate_terms(asked, policy)]
    assert len(offered) == len(set(offered))
    assert asked.terms in offered
