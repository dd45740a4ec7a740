"""Small studies whose journals hold what a test needs."""

import json
from itertools import starmap

import pytest

from evalkit.answers import journal
from evalkit.answers.dataset import read_examples
from evalkit.records import Answer


def write_journal(path, model, test_set, texts):
    """A journal of one model's answers, in the order of the test set."""
    parameters = {"temperature": 0.0}
    head = journal.Header(
        model=model, endpoint="local", parameters=parameters, test_set=test_set.fingerprint
    ).record()
    with journal.Writer(path, head) as writer:
        for example, text in zip(test_set.examples, texts, strict=True):
            key = journal.call_key(model, "local", parameters, example.messages, 0)
            answer = Answer(
                text=text, outcome="ok", finish_reason="stop", completion_tokens=9, latency_ms=100.0
            )
            writer.append(key, example.example_id, 0, answer)


@pytest.fixture
def new_study():
    """Makes a study from rows of (question, expected, base's answer, fine-tuned's answer, kind)."""

    def made(folder, rows):
        (folder / "journals").mkdir(parents=True)
        (folder / "study.yaml").write_text(f"study: {folder.name}\n")
        (folder / "test.jsonl").write_text("".join(starmap(_row, enumerate(rows))))
        test_set = read_examples(folder / "test.jsonl")
        write_journal(folder / "journals/base.jsonl", "base", test_set, [row[2] for row in rows])
        write_journal(
            folder / "journals/fine_tuned.jsonl", "fine-tuned", test_set, [row[3] for row in rows]
        )
        return folder

    return made


def _row(number, row):
    question, expected, _, _, kind = row
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": expected}]
    return (
        json.dumps({"id": f"case-{number}", "messages": messages, "metadata": {"kind": kind}})
        + "\n"
    )
