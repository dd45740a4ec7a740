"""What asking costs: evalkit beside the article's sequential loop and the plain AsyncOpenAI client, in one run.

A loopback server in a process of its own answers at once (for CPU) or after a delay (for throughput). Each client runs
in a fresh process; CPU seconds are the client's own. Shares and ratios are what to compare: the machine may be shared.

    python benchmarks/asking.py            # all of it, about two minutes
    python benchmarks/asking.py --quick    # small numbers, to see that it runs
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SERVER = """
import asyncio, json, random, sys
DELAY, LIMITED = float(sys.argv[2]), float(sys.argv[3])
SLOW_DOWN = b"HTTP/1.1 429 Too Many Requests\\r\\nRetry-After: 1\\r\\nContent-Length: 0\\r\\n\\r\\n"
BODY = json.dumps({"model": "m", "choices": [{"message": {"role": "assistant", "content": "R07.0: Pain in throat"},
    "finish_reason": "stop"}], "usage": {"prompt_tokens": 20, "completion_tokens": 8}}).encode()
REPLY = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(BODY), BODY)

class Answering(asyncio.Protocol):
    buffer = b""
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        self.buffer += data
        while (head := self.buffer.find(b"\\r\\n\\r\\n")) >= 0:
            lines = self.buffer[:head].lower().split(b"\\r\\n")
            length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
            if len(self.buffer) < head + 4 + length: return
            self.buffer = self.buffer[head + 4 + length:]
            reply = SLOW_DOWN if random.random() < LIMITED else REPLY
            if DELAY: loop.call_later(DELAY, self.transport.write, reply)
            else: self.transport.write(reply)

async def main():
    global loop
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
import uvloop; uvloop.run(main())
"""

PROMPT = """Note: Pharyngalgia since Tuesday, no fever.
Candidates:
R07.0: Pain in throat
J02.9: Acute pharyngitis
K22.2: Oesophageal stricture"""


def article(path: Path, _: int) -> int:
    """As the article does it: one call after another, through the SDK's models and retries."""
    from openai import OpenAI

    client, done = OpenAI(), 0
    with path.open() as file:
        for line in file:
            messages = json.loads(line)["messages"]
            reply = client.chat.completions.create(
                model="m", messages=messages[:-1], temperature=0.0, max_tokens=1024
            )
            done += reply.choices[0].message.content.strip() == messages[-1]["content"]
    return done


def plain(path: Path, concurrency: int) -> int:
    """The SDK's async client as its manual shows it, behind a semaphore."""
    import asyncio

    from openai import AsyncOpenAI

    async def main() -> int:
        client, gate = AsyncOpenAI(), asyncio.Semaphore(concurrency)

        async def one(line: str) -> bool:
            messages = json.loads(line)["messages"]
            async with gate:
                reply = await client.chat.completions.create(
                    model="m", messages=messages[:-1], temperature=0.0, max_tokens=1024
                )
            return (reply.choices[0].message.content or "").strip() == messages[-1]["content"]

        with path.open() as file:
            return sum(await asyncio.gather(*[one(line) for line in file]))

    return asyncio.run(main())


def evalkit(path: Path, concurrency: int) -> int:
    """The whole thing: test set, journal, scoring."""
    from evalkit import run_automated_eval

    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "m.jsonl"
        results = run_automated_eval(
            "m", path, journal=journal, concurrency=concurrency, progress=False
        )
    return sum(result.exact_match for result in results)


def stream(path: Path, concurrency: int) -> int:
    """The same as an iterator that holds no rows and no results."""
    import asyncio

    from evalkit.answers.evaluation import Evaluation
    from evalkit.answers.runner import stream_eval

    async def main() -> int:
        journal = path.with_suffix(".journal")
        evaluation = Evaluation(
            model="m",
            test_file=path,
            concurrency=concurrency,
            keep=False,
            journal=journal,
            progress=False,
        )
        right = 0
        async for result in stream_eval(evaluation):
            right += result.exact_match
        return right

    return asyncio.run(main())


CLIENTS = {"article": article, "plain": plain, "evalkit": evalkit, "stream": stream}


def warm() -> None:
    """Imports count as start-up, not as asking."""
    importlib.import_module("openai.resources.chat")
    importlib.import_module("evalkit.answers.endpoint")
    importlib.import_module("evalkit.answers.runner")
    importlib.import_module("evalkit.answers.scoring").similarity("a", "b")


def child(name: str, path: Path, concurrency: int) -> None:
    warm()
    before, began = time.process_time(), time.perf_counter()
    start_mb = peak_mb()
    right = CLIENTS[name](path, concurrency)
    spent, took = time.process_time() - before, time.perf_counter() - began
    print(
        json.dumps(
            {"cpu_s": spent, "wall_s": took, "right": right, "memory_mb": peak_mb() - start_mb}
        )
    )


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Server:
    def __init__(self, delay_s: float, limited: float = 0.0) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(self.port), str(delay_s), str(limited)]
        )
        for _ in range(100):
            time.sleep(0.05)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def measure(self, name: str, path: Path, concurrency: int) -> dict[str, float]:
        env = {
            **os.environ,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.port}/v1",
            "OPENAI_API_KEY": "none-needed",
        }
        command = [sys.executable, __file__, "--child", name, str(path), str(concurrency)]
        return json.loads(
            subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
        )


def test_set(folder: Path, n: int) -> Path:
    path = folder / f"{n}.jsonl"
    with path.open("w") as file:
        for i in range(n):
            turns = [
                {"role": "user", "content": f"{PROMPT} ({i})"},
                {"role": "assistant", "content": "R07.0: Pain in throat"},
            ]
            file.write(json.dumps({"id": f"q{i}", "messages": turns}) + "\n")
    return path


def cpu(folder: Path, n: int, rounds: int) -> None:
    print(
        f"\nCPU ms per example, {n} examples, 64 at a time (evalkit: with scoring and journal), median of {rounds}"
    )
    found: dict[str, list[float]] = {name: [] for name in ("article", "plain", "evalkit")}
    with Server(0) as server:
        for _ in range(rounds):  # interleaved: a busy neighbour hits all of them
            for name, values in found.items():
                result = server.measure(name, test_set(folder, n), 64)
                assert result["right"] == n
                values.append(result["cpu_s"] / n * 1000)
    base = statistics.median(found["plain"])
    for name, values in found.items():
        print(
            f"  {name:10} {statistics.median(values):6.2f} ms   {statistics.median(values) / base:5.2f} of the plain client"
        )


def throughput(folder: Path, n: int) -> None:
    print(f"\nshare of the possible throughput (concurrency / latency), {n} examples")
    for delay_ms in (50, 200):
        with Server(delay_ms / 1000) as server:
            for name, concurrency in (("article", 1), ("plain", 64), ("evalkit", 64)):
                m = min(n, 3000 // delay_ms) if name == "article" else n
                result = server.measure(name, test_set(folder, m), concurrency)
                rate = m / result["wall_s"]
                possible = 64 / delay_ms * 1000
                print(
                    f"  {delay_ms:3} ms  {name:10} {rate:7.0f} examples/s   {rate / possible:6.1%}"
                )


def limited(folder: Path, n: int) -> None:
    """What refusals for the rate cost beside the time that no client can save: 5% of calls, a second each."""
    print(f"\n{n} examples, 50 ms, 32 at a time, one call in twenty is told 429 with Retry-After 1")
    took = {}
    for share in (0.0, 0.05):
        with Server(0.05, share) as server:
            result = server.measure("evalkit", test_set(folder, n), 32)
        assert result["right"] == n
        took[share] = result["wall_s"]
    print(f"  {took[0.05]:.1f} s, {took[0.05] / took[0.0]:.1f} of the time without refusals")


def memory(folder: Path, n: int) -> None:
    print(f"\nmemory above the imports, {n} examples streamed through 64 workers, with journal")
    with Server(0) as server:
        result = server.measure("stream", test_set(folder, n), 64)
    assert result["right"] == n
    print(
        f"  {result['memory_mb']:.0f} MB, {result['cpu_s'] / n * 1000:.2f} ms CPU per example, {result['wall_s']:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["cpu", "throughput", "limited", "memory"])
    parser.add_argument("--child", nargs=3)
    options = parser.parse_args()
    if options.child:
        name, path, concurrency = options.child
        child(name, Path(path), int(concurrency))
        return
    small = options.quick
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only in {None, "cpu"}:
            cpu(folder, 300 if small else 2000, 1 if small else 3)
        if options.only in {None, "throughput"}:
            throughput(folder, 500 if small else 3000)
        if options.only in {None, "limited"}:
            limited(folder, 500 if small else 2000)
        if options.only in {None, "memory"}:
            memory(folder, 2000 if small else 100_000)


if __name__ == "__main__":
    main()
