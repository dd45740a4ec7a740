"""No journal mixes the answers of two functions: what has no name of its own is refused, what shares one is told apart."""

import functools
import json
from collections import Counter

import pytest

from evalkit.answers.functions import identity
from evalkit.answers.journal import read_header
from evalkit.answers.runner import results_from_journal, run_automated_eval
from evalkit.errors import DataError, DesignError, EvalkitError


def answer(messages, text="a"):
    return text


@functools.cache
def cached(text):
    return text


def loud(function):
    @functools.wraps(function)
    def wrapped(messages):
        return function(messages).upper()

    return wrapped


@loud
def decorated(messages):
    return "d"


class Model:
    def __init__(self, text):
        self.text = text

    def __call__(self, messages):
        return self.text

    ask = __call__

    def say(self, messages):
        return self.text

    @classmethod
    def of_the_class(cls, messages):
        return "c"

    @staticmethod
    def static(messages):
        return "s"


def made(text):
    def model(messages):
        return text

    return model


def made_by_default(text):
    def model(messages, said=text):
        return said

    return model


def made_around(value):
    def model(messages):
        return str(value)

    return model


@pytest.fixture
def ask(tmp_path):
    path = tmp_path / "test.jsonl"
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    path.write_text(json.dumps({"messages": turns}) + "\n")

    def run(model, journal="m.jsonl", **options):
        kept = tmp_path / journal if journal else None
        return run_automated_eval(model, path, journal=kept, progress=False, **options)[0].predicted

    return run


PAIRS = {
    "partial": (functools.partial(answer, text="1"), functools.partial(answer, text="2")),
    "object": (Model("1"), Model("2")),
    "bound method": (Model("1").say, Model("2").say),
    "lambda": (lambda _: "1", lambda _: "2"),
    "closure": (made("1"), made("2")),
    "default": (made_by_default("1"), made_by_default("2")),
    "closure over a list": (made_around(["1"]), made_around(["2"])),
    "closure over a mapping": (made_around({"t": 1}), made_around({"t": 2})),
    "closure over a closure": (loud(made("1")), loud(made("2"))),
    "closure over an object": (made_around(Model("1")), made_around(Model("2"))),
    "closure over a partial": (
        made_around(functools.partial(answer, text="1")), made_around(functools.partial(answer, text="2")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PAIRS)
def test_two_functions_with_one_journal_are_never_mixed(ask, kind):
    first, second = PAIRS[kind]
    with pytest.raises(EvalkitError, match="name="):
        assert ask(first) != ask(second)


@pytest.mark.parametrize("kind", PAIRS)
def test_each_has_a_journal_of_its_own_under_a_name_that_is_given(ask, kind, tmp_path):
    first, second = PAIRS[kind]
    answers = [ask(model, f"{n}.jsonl", name=f"m{n}") for n, model in enumerate((first, second))]
    assert answers == [ask(first, journal=None), ask(second, journal=None)]
    assert read_header(tmp_path / "1.jsonl")["model"] == "m1"
    with pytest.raises(DataError, match="holds answers for model 'm0', now asked: 'm1'"):
        ask(second, "0.jsonl", name="m1")
    assert results_from_journal(tmp_path / "1.jsonl", tmp_path / "test.jsonl")


@pytest.mark.parametrize(
    "kind", ["partial", "object", "bound method", "lambda", "closure over an object"]
)
def test_what_has_no_name_is_refused_before_it_is_asked(ask, kind, tmp_path):
    with pytest.raises(DesignError, match="has no name of its own"):
        ask(PAIRS[kind][0])
    assert not (tmp_path / "m.jsonl").exists()


@pytest.mark.parametrize(
    "model", [answer, decorated, cached, Model.of_the_class, Model.static, str, len]
)
def test_what_a_module_knows_by_its_name_has_it(model):
    assert identity(model)["made_with"] == ""


def test_the_same_function_made_again_goes_on_with_its_journal(ask):
    assert ask(made("1")) == ask(made("1")) == "1"
    calls, n_calls = Counter(), 0

    def counting(messages):
        nonlocal n_calls
        n_calls += 1
        calls["all"] += 1
        return str(n_calls)

    assert [ask(counting, "c.jsonl"), ask(counting, "c.jsonl"), n_calls] == ["1", "1", 1]


def test_functions_of_one_name_in_two_modules_are_two(ask):
    def other(messages):
        return "2"

    other.__qualname__, other.__module__ = "answer", "another_module"
    ask(answer)
    with pytest.raises(DataError, match=r"holds answers for function .*another_module"):
        ask(other)
    other.__module__ = "__main__"


def test_a_name_is_for_functions(ask):
    with pytest.raises(DesignError, match="a function of the messages, which may be given one"):
        ask("gpt", name="mine")
