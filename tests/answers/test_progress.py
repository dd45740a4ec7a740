"""What a run says of itself: before it starts, on the way, and where somebody watches."""

import os
import pty
import subprocess
import sys
import termios
import time

import pytest
from faulty_server import FaultyServer

from evalkit.answers.endpoint import Access
from evalkit.answers.evaluation import Estimate, Evaluation, Prices, prices_of
from evalkit.answers.runner import Progress, Tally, run_automated_eval
from evalkit.errors import DataError
from evalkit.records import Answer

ROW = '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "y"}]}\n'


@pytest.fixture
def test_file(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(
        "".join(ROW % f"question {n:03}" for n in range(100))
    )  # 12 characters, about 4 tokens each
    return path


def answered(n, **fields):
    tally = Tally(n_calls=100)
    for _ in range(n):
        tally.asked(Answer(text="y", outcome="ok", **fields))
    return tally


def test_before_anything_is_asked_the_money_is_an_upper_bound(test_file):
    prices = {"m": {"prompt_per_million": 10, "completion_per_million": 20}}
    estimate = Evaluation(
        model="m", test_file=test_file, max_tokens=50, prices=prices, samples=2
    ).estimate()
    # 200 calls x (12 characters / 3 x 10 + 50 x 20) / 1e6 = 200 x 1040 / 1e6 = 0.208
    assert estimate.money == pytest.approx(0.208)
    assert str(estimate) == "200 of 200 calls to make, at most 0.21 USD"


def test_after_the_first_answer_time_and_money_follow_from_it():
    price = Prices(prompt_per_million=10, completion_per_million=20, currency="EUR")
    estimate = Estimate(n_calls=100, n_to_ask=80, concurrency=10, price=price)
    later = estimate.after(
        answered(1, latency_ms=2000.0, prompt_tokens=1000, completion_tokens=500)
    )
    # 79 left x 2 s / 10 at a time = 15.8 s; 79 x (1000 x 10 + 500 x 20) / 1e6 = 1.58
    assert later.seconds == pytest.approx(15.8)
    assert later.money == pytest.approx(1.58)
    assert str(later) == "79 of 100 calls to make, about 16 s at 10 at a time, about 1.58 EUR"


def test_without_prices_no_money_is_mentioned_and_when_nothing_is_left_no_time():
    done = Estimate(n_calls=100, n_to_ask=1, concurrency=10).after(answered(1, latency_ms=10.0))
    assert (done.money, done.seconds) == (None, 0)
    assert str(done) == "0 of 100 calls to make"


def test_prices_come_from_a_mapping_or_a_file_and_an_unlisted_model_has_none(tmp_path):
    (tmp_path / "prices.yaml").write_text(
        "m: {prompt_per_million: 1, completion_per_million: 2.5, currency: EUR}\n"
    )
    price = prices_of(tmp_path / "prices.yaml", "m")
    assert price == Prices(prompt_per_million=1.0, completion_per_million=2.5, currency="EUR")
    assert price.cost(1_000_000, 2_000_000) == pytest.approx(6.0)
    assert prices_of({}, "m") is None
    assert prices_of(None, "m") is None


@pytest.mark.parametrize(
    "text",
    [
        "m: 3",
        "m: {prompt_per_million: cheap, completion_per_million: 2}",
        "- m",
        "m: {price: 1}",
        "{",
    ],
)
def test_prices_of_another_form_are_refused(tmp_path, text):
    (tmp_path / "prices.yaml").write_text(text)
    with pytest.raises(DataError, match="prices"):
        prices_of(tmp_path / "prices.yaml", "m")


def test_a_tally_tells_what_came_of_it():
    tally = answered(2, attempts=3)
    tally.known(Answer(text="", outcome="refused"))
    tally.started = time.monotonic() - 100
    assert str(tally) == "3 of 100 calls done: 2 ok and 1 refused, 4 retries, 2 min"


def test_a_log_gets_plain_lines(test_file, capfd):
    with FaultyServer(delay_s=0.15) as server:  # longer than the pause between two looks
        run_automated_eval("m", test_file, base_url=server.url)
    shown = capfd.readouterr()
    assert shown.out == ""
    first, sent, second, *_, last = shown.err.splitlines()
    assert first == "m: 100 of 100 calls to make"
    assert sent == "m: sends temperature 0.0 and max_tokens 1024; thoughts are not scored"
    assert second.startswith("m: the first answer took 0.")
    assert " of 100 calls to make, about " in second
    assert last.startswith("m: 100 of 100 calls done: 100 ok, ")


def test_switched_off_it_says_nothing(test_file, capfd):
    with FaultyServer() as server:
        run_automated_eval("m", test_file, base_url=server.url, progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(test_file):
    with FaultyServer() as server:
        mine, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        script = f"from evalkit import run_automated_eval; run_automated_eval('m', {str(test_file)!r}, base_url={server.url!r})"
        subprocess.run([sys.executable, "-c", script], stderr=theirs, check=True)
        os.close(theirs)
        shown = b""
        while (chunk := _read(mine)) != b"":
            shown += chunk
        os.close(mine)
    assert "100%|" in shown.decode()
    assert "100/100" in shown.decode()


def _read(fd):
    try:
        return os.read(fd, 65536)
    except OSError:  # the other end is closed
        return b""


def test_while_the_server_is_away_that_is_said_and_afterwards_how_long_it_was(capfd):
    tally = Tally(n_calls=1500, n_known=522)
    tally.access = Access(16, patience_s=600)
    drawn = Progress(
        tally, Estimate(n_calls=1500, n_to_ask=978, concurrency=16), name="m", every_s=0
    )
    tally.access.unanswered("no connection", time.monotonic() - 40, None)
    drawn.draw()
    tally.access.replied(is_answer=True)
    drawn.draw()
    drawn.close()
    _, waiting, going_on, last = capfd.readouterr().err.splitlines()
    assert waiting == "m: no connection for 40 s, waiting; 522 of 1,500 done"
    assert going_on.startswith("m: 522 of 1,500 calls done: ")
    assert last.endswith(", 40 s of it waiting for the server")


def test_while_every_call_fails_nothing_is_promised(test_file, capfd):
    with FaultyServer(lambda hit: "400 too long", delay_s=0.15) as server:
        run_automated_eval("m", test_file, base_url=server.url, limit=10, concurrency=2)
    assert "the first answer" not in capfd.readouterr().err
