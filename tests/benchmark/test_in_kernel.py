"""In a real Jupyter kernel: a loop is running already, a bar for people, plain lines for logs, and Stop stops."""

import queue
import time
from contextlib import contextmanager

import pytest
from faulty_server import FaultyServer
from jupyter_client.manager import KernelManager

from evalkit.answers.journal import read_journal

pytestmark = pytest.mark.slow
ROW = '{"messages": [{"role": "user", "content": "question %d"}, {"role": "assistant", "content": "y"}]}\n'


@contextmanager
def kernel():
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def until_idle(client, message_id, timeout_s=60):
    """The outputs of one cell, as (kind, content)."""
    seen, deadline = [], time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            message = client.get_iopub_msg(timeout=0.1)
        except queue.Empty:
            continue
        if message["parent_header"].get("msg_id") != message_id:
            continue
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return seen
        seen.append((message["msg_type"], message["content"]))
    raise TimeoutError(seen)


def cell(server, path, journal):
    return (
        "from evalkit import run_automated_eval\n"
        f"results = run_automated_eval('m', {str(path)!r}, base_url={server.url!r}, journal={str(journal)!r}, concurrency=4)\n"
        "len(results)"
    )


def test_a_cell_shows_a_bar_to_people_and_lines_to_logs_and_can_be_stopped(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(ROW % n for n in range(30)))
    with kernel() as (manager, client), FaultyServer() as server:
        headless = until_idle(
            client, client.execute(cell(server, path, tmp_path / "a.jsonl"), allow_stdin=False)
        )
        watched = until_idle(
            client, client.execute(cell(server, path, tmp_path / "b.jsonl"), allow_stdin=True)
        )
        server.behave = lambda hit: "ok" if hit.number <= 70 else "slow"
        stopping = client.execute(cell(server, path, tmp_path / "c.jsonl"))
        while len(server.hits) < 74:  # 70 answered, 4 hang
            time.sleep(0.05)
        time.sleep(0.3)
        manager.interrupt_kernel()
        stopped = until_idle(client, stopping)
        alive = until_idle(client, client.execute("1 + 1"))

    lines = "".join(
        content["text"]
        for kind, content in headless
        if kind == "stream" and content["name"] == "stdout"
    )
    assert "m: 30 of 30 calls done: 30 ok" in lines
    assert not [content for kind, content in headless if kind == "display_data"]
    assert [
        content["data"]["text/plain"] for kind, content in headless if kind == "execute_result"
    ] == ["30"]

    assert [
        content
        for kind, content in watched
        if "application/vnd.jupyter.widget-view+json" in content.get("data", {})
    ]

    assert [content["ename"] for kind, content in stopped if kind == "error"] == [
        "KeyboardInterrupt"
    ]
    assert len(read_journal(tmp_path / "c.jsonl").entries) == 10  # 70 - 30 - 30 were finished
    assert [
        content["data"]["text/plain"] for kind, content in alive if kind == "execute_result"
    ] == ["2"]
