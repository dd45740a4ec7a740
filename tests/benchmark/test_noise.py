import json
from dataclasses import replace

import pytest

from evalkit.benchmark import noise
from evalkit.benchmark.benchmark import Benchmark
from evalkit.benchmark.comparison import compare_models
from evalkit.study import Study


@pytest.fixture
def recorded(cells):
    """1 both right, 1 fixed, 3 regressed (e2, e3, e4), 1 both wrong."""
    return compare_models(*cells(1, 1, 3, 1))


def passes(answers, first, second, **more):
    return answers(first, **more), answers(second, **more)


def test_flips_stable_and_not_re_asked_by_hand(recorded, answers):
    base = passes(answers, [1, 0, 1, 1, 1, 0], [1, 0, 1, 0, 1, 0])  # e3 flips
    tuned = passes(answers, [1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0])
    base = tuple([one for one in two if one.example_id != "e4"] for two in base)
    found = noise.noise_floor(
        recorded, {"base": base, "fine-tuned": tuned}, [f"e{i}" for i in range(6)]
    )
    assert found.marks == {"e2": "stable", "e3": "flips", "e4": "not re-asked"}
    assert found.by_model["base"].n == 5
    assert found.by_model["base"].n_changed == 1
    assert found.by_model["base"].flip_rate.estimate == 0.2
    assert found.by_model["fine-tuned"].flip_rate.estimate == 0.0
    assert found.by_model["base"].recording_rate.estimate == 1.0


def test_chosen_examples_do_not_enter_the_rates(recorded, answers):
    base = passes(answers, [1, 0, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0])
    found = noise.noise_floor(recorded, {"base": base, "fine-tuned": base}, ["e0", "e1"])
    assert found.n == 2
    assert found.by_model["base"].n_changed == 0
    assert set(found.marks.values()) == {"flips"}


def test_a_regression_that_is_none_on_this_machine_is_counted(recorded, answers):
    right = passes(answers, [1] * 6, [1] * 6)
    found = noise.noise_floor(recorded, {"base": right, "fine-tuned": right}, [])
    assert set(found.marks.values()) == {"stable"}
    assert found.n_gone == 3


def test_a_failed_call_is_no_answer(recorded, answers):
    failed = passes(answers, [1] * 6, [1] * 6, outcome="error")
    found = noise.noise_floor(recorded, {"base": failed, "fine-tuned": failed}, ["e0"])
    assert set(found.marks.values()) == {"not re-asked"}
    assert found.n == 0
    assert "not measured" in str(found)


def test_marks_join_the_frame_of_examples_whatever_an_id_holds(cells):
    comparison = compare_models(
        *([replace(one, example_id="bad\udc80") for one in side] for side in cells(0, 0, 1, 0))
    )
    marks = noise.NoiseFloor(marks={"bad\udc80": "flips"}).asked_again()
    joined = comparison.to_frame(by="example").join(marks, on="example_id")
    assert list(joined["asked_again"]) == ["flips"]


def test_rows_to_ask_again_are_found_by_the_datasets_own_count_of_lines(tmp_path):
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"q{i}"},
                    {"role": "assistant", "content": "a"},
                ]
            }
        )
        for i in range(3)
    ]
    (tmp_path / "data" / "s").mkdir(parents=True)
    (tmp_path / "data" / "s" / "test.jsonl").write_bytes(
        "\r\r\n".join(lines).encode()
    )  # written twice in text mode
    (tmp_path / "data/s/study.yaml").write_text("study: s\n")
    benchmark = Benchmark(study=Study(name="s", root=tmp_path))
    wanted = benchmark.test_set.examples[1].example_id
    (row,) = (
        noise._write_rows(benchmark, {wanted}, tmp_path / "rows.jsonl").read_text().splitlines()
    )
    assert (json.loads(row)["messages"][0]["content"], json.loads(row)["id"]) == ("q1", wanted)


def test_marks_change_no_count(recorded, answers):
    flips = passes(answers, [1] * 6, [0] * 6)
    noise.noise_floor(recorded, {"base": flips, "fine-tuned": flips}, ["e0"])
    assert recorded.cells["regressed"] == 3


def test_the_draw_depends_on_the_seed_and_not_on_the_order(recorded):
    one = noise.draw(recorded.pairs, 4, seed=1)
    assert one == noise.draw(recorded.pairs[::-1], 4, seed=1)
    assert {tuple(noise.draw(recorded.pairs, 4, seed=s)) for s in range(9)} != {tuple(one)}
    assert len(noise.draw(recorded.pairs, 99)) == 6


@pytest.fixture
def study(tmp_path):
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"question {i}"},
                {"role": "assistant", "content": "yes"},
            ]
        }
        for i in range(6)
    ]
    folder = tmp_path / "data" / "small"
    folder.mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (folder / "study.yaml").write_text("study: small\n")
    (folder / "test.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    return Study.open("small", root=tmp_path)


@pytest.mark.parametrize(("n", "why"), [(0, "reask_n"), (3, "environment")])
def test_without_an_endpoint_nothing_is_asked_and_it_says_why(
    study, recorded, tmp_path, monkeypatch, n, why
):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    benchmark = Benchmark(study=study)
    found = noise.ask_twice(benchmark, recorded, tmp_path / "run", n=n)
    assert found.n == 0
    assert why in found.notes[0]
    assert set(found.marks.values()) == {"not re-asked"}
    assert not (tmp_path / "run").exists()


@pytest.fixture
def server(monkeypatch):
    """A loopback endpoint: `base` changes its answer to a question each time, `fine-tuned` always says yes."""
    from collections import Counter
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    asked = Counter()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = (body["model"], body["messages"][-1]["content"])
            asked[key] += 1
            text = "no" if body["model"] == "base" and asked[key] % 2 == 0 else "yes"
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
            reply = json.dumps({"model": body["model"], "choices": [choice], "usage": {}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = Thread(target=found.serve_forever)
        thread.start()
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{found.server_port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield asked
        found.shutdown()
        thread.join()


def test_two_live_passes_over_a_real_server(study, server, tmp_path):
    benchmark = Benchmark(study=replace(study, overrides={"concurrency": 2}))
    ids = [one.example_id for one in benchmark.test_set.examples]
    base, tuned = (
        [
            replace(one, example_id=ids[i])
            for i, one in enumerate(benchmark.ask(name, tmp_path / f"{name}.jsonl"))
        ]
        for name in ("base", "fine_tuned")
    )
    recorded = compare_models(base, tuned)
    run = tmp_path / "run"
    found = noise.ask_twice(benchmark, recorded, run, n=4, seed=1)
    # the second and third answers of base are no and yes: it flips on all four, the other model on none
    assert found.by_model["base"].n_changed == found.by_model["base"].n == 4
    assert found.by_model["fine-tuned"].n_changed == 0
    assert found.by_model["fine-tuned"].recording_rate.estimate == 1.0
    assert len(list(run.glob("noise-*/*-[12].jsonl"))) == 4
    assert sum(server.values()) == 2 * 6 + 4 * 4
    json.dumps(found.to_dict(), allow_nan=False)
    assert (
        len((tmp_path / "base.jsonl").read_text(encoding="utf-8").splitlines()) == 1 + 6
    )  # live answers never enter it
