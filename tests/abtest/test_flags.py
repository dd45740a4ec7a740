"""Somebody else assigns: the OpenFeature client and its in-memory provider, a plain function, and both when they fail."""

import asyncio
import uuid
from contextlib import closing

import pytest
from openfeature import api
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from evalkit.abtest.analysis import fetched
from evalkit.abtest.assignment import (
    ABTestConfig,
    assign_variant,
    assign_variants,
    openfeature_assigner,
)
from evalkit.abtest.log import EventLog
from evalkit.abtest.routing import run_ab_request, run_ab_request_async
from evalkit.abtest.source import open_log
from evalkit.errors import DataError, DesignError

MESSAGES = [{"role": "user", "content": "hello"}]
CONFIG = ABTestConfig("exp", "base", "tuned", 0.5, hash="external")
ANN_IS_TREATED = InMemoryFlag(
    "off",
    {"on": True, "off": False},
    context_evaluator=lambda flag, context: FlagResolutionDetails(context.targeting_key == "ann"),
)


@pytest.fixture
def client():
    """`client({"flag": InMemoryFlag(...)})`: an OpenFeature client with a provider of its own; without flags, no provider."""
    domains = []

    def make(flags=None):
        domains.append(uuid.uuid4().hex)
        if flags is not None:
            api.set_provider(InMemoryProvider(flags), domains[-1])
        return api.get_client(domains[-1])

    yield make
    api.shutdown()


@pytest.fixture
def log(tmp_path):
    with closing(EventLog(tmp_path / "events.sqlite")) as log:
        yield log


def test_a_flag_of_true_and_false_assigns(client, log, fake_client):
    assign = openfeature_assigner(client({"new": ANN_IS_TREATED}), "new")
    answered = [
        run_ab_request(user, MESSAGES, CONFIG, fake_client(), log=log, assign=assign)
        for user in ("ann", "bob")
    ]
    assert [(one.model, one.variant, one.error) for one in answered] == [
        ("tuned", "treatment", None),
        ("base", "control", None),
    ]
    assert {row["user_id"]: row["variant"] for row in log.rows()} == {
        "ann": "treatment",
        "bob": "control",
    }


def test_a_flag_of_texts_assigns_by_the_values_named(client):
    flag = InMemoryFlag("b", {"a": "gpt-a", "b": "gpt-b"})
    values = {"treatment": "gpt-b", "control": "gpt-a"}
    assert openfeature_assigner(client({"model": flag}), "model", **values)("ann") == "treatment"
    other = {"treatment": "gpt-c", "control": "gpt-a"}
    with pytest.raises(DataError, match="gave 'gpt-b'; need 'gpt-c' or 'gpt-a'"):
        openfeature_assigner(client({"model": flag}), "model", **other)("ann")


def off(value):
    """A flag that is switched off: providers then give the value of some variant all the same."""
    details = FlagResolutionDetails(value, reason=Reason.DISABLED)
    return InMemoryFlag("value", {"value": value}, context_evaluator=lambda flag, context: details)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (None, "nobody decided"),  # no provider was ever set
        ({}, "FLAG_NOT_FOUND"),
        ("off", "reason DISABLED"),
        ({"a": InMemoryFlag("value", {"value": 1.5})}, "TYPE_MISMATCH"),
    ],
)
@pytest.mark.parametrize("values", [{}, {"treatment": "b", "control": "a"}])
def test_an_undecided_flag_is_no_assignment_to_control(
    flags, message, values, client, log, fake_client
):
    flags = {"a": off("a" if values else False)} if flags == "off" else flags
    assign = openfeature_assigner(client(flags), "a", **values)
    found = run_ab_request("ann", MESSAGES, CONFIG, fake_client(), log=log, assign=assign)
    assert (found.model, found.variant, found.response) == ("base", None, "fine")
    assert found.error.startswith("assignment: DataError: flag 'a'")
    assert message in found.error
    assert log.count() == 0


def raising(user):
    raise TimeoutError("no answer from the flag server")


@pytest.mark.parametrize(
    ("assign", "error"),
    [
        (raising, "assignment: TimeoutError: no answer from the flag server"),
        (lambda user: "blue", "assignment: gave 'blue'; need 'control', 'treatment' or None"),
        (lambda user: True, "assignment: gave True; need 'control', 'treatment' or None"),
        (lambda user: ["treatment"], "assignment: gave ['treatment']; need"),
        (lambda user: None, None),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_who_is_not_assigned_gets_the_control_model_and_counts_nowhere(
    assign, error, is_async, log, fake_client, fake_async_client
):
    asked = {"log": log, "assign": assign, "fallback": True}
    if is_async:
        found = asyncio.run(
            run_ab_request_async("ann", MESSAGES, CONFIG, fake_async_client(), **asked)
        )
    else:
        found = run_ab_request("ann", MESSAGES, CONFIG, fake_client(), **asked)
    assert (found.model, found.variant, found.response, found.fallback) == (
        "base",
        None,
        "fine",
        False,
    )
    assert (found.error or "").startswith(error or "")
    assert bool(found.error) == bool(error)
    assert log.count() == 0


def test_a_user_outside_an_experiments_coverage_counts_nowhere(log, fake_client):
    config = ABTestConfig("exp", "base", "tuned", 0.5, hash="growthbook", coverage=0.0)
    found = run_ab_request("ann", MESSAGES, config, fake_client(), log=log)
    assert (found.model, found.variant, found.error, log.count()) == ("base", None, None, 0)


def test_what_was_said_at_the_first_exposure_counts(log, fake_client):
    said = iter(["treatment", "control", "control"])
    models = [
        run_ab_request(
            "ann", MESSAGES, CONFIG, fake_client(), log=log, assign=lambda user: next(said), now=at
        ).model
        for at in (10.0, 20.0, 30.0)
    ]
    assert models == ["tuned", "base", "base"]  # the router serves what is said now
    with closing(open_log(log.url.removeprefix("sqlite:///"))) as opened:
        (user,) = fetched(opened.users("exp").table).to_dict("records")
    assert (user["treated"], user["n_rows"], user["mixed"]) == (1, 3, 1)


def test_a_split_that_somebody_else_makes_cannot_be_computed(fake_client):
    for assigned in (assign_variant, lambda user, config: assign_variants([user], config)):
        with pytest.raises(DesignError, match=r"hash is 'external'.*assign=\.\.\."):
            assigned("ann", CONFIG)
    with pytest.raises(DesignError, match="somebody else assigns"):
        run_ab_request("ann", MESSAGES, CONFIG, fake_client())


def test_an_empty_user_is_asked_of_nobody(fake_client):
    with pytest.raises(DesignError, match="user_id is empty"):
        run_ab_request(" ", MESSAGES, CONFIG, fake_client(), assign=raising)


@pytest.mark.parametrize("values", [(True, True), ("a", "a"), (True, "a")])
def test_values_that_cannot_tell_two_variants_apart_are_refused(values, client):
    with pytest.raises(DesignError, match="need True and False, or two different texts"):
        openfeature_assigner(client({}), "new", treatment=values[0], control=values[1])
