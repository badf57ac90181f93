"""Who is measured: Backplane as it comes, and its peers at the flags that were fastest for them."""

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import llama, transformers_serve, vllm

OURS: Final = "backplane"
NUM_CORES: Final = len(os.sched_getaffinity(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Server:
    """A server to start. `{port}` stands for its port; `fields` go into each of its requests."""

    name: str
    command: tuple[str, ...]
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])


def backplane(model: Path, *flags: str, name: str = OURS, **fields: Any) -> Server:
    """Ours: the model and nothing else said."""
    program = str(Path(sys.executable).with_name("backplane"))
    command = (program, "--hostname", "127.0.0.1", "--port", "{port}", "--model-id", str(model))
    return Server(name=name, command=(*command, *flags), fields=fields)


def llama_server(
    model: Path, *flags: str, slots: int = 32, context: int = 32_768, **fields: Any
) -> Server:
    """llama.cpp's: one pool of cells for all slots; no copies of prompts kept aside in memory."""
    command = (
        *(str(llama.program("llama-server")), "--host", "127.0.0.1", "--port", "{port}"),
        *("-m", str(model), "-np", str(slots), "-c", str(context), "-kvu"),
        *("-t", str(NUM_CORES), "--cache-ram", "0"),
    )
    return Server(name="llama-server", command=(*command, *flags), fields=fields)


def vllm_serve(model: Path, *flags: str, **fields: Any) -> Server:
    """vLLM's: the same shape in bfloat16."""
    environment = tuple(f"{name}={value}" for name, value in vllm.ENVIRONMENT.items())
    command = ("serve", str(model), "--host", "127.0.0.1", "--port", "{port}")
    program = (f"PATH={vllm.folder() / 'bin'}:{os.environ['PATH']}", str(vllm.program()))
    return Server(
        name="vLLM", command=("env", *environment, *program, *command, *flags), fields=fields
    )


def transformers_serving(model: Path, *flags: str, **fields: Any) -> Server:
    """transformers' own: continuous batching, in the model's dtype, by its fastest attention.

    Eager attention gave 0.86 of its tokens at 16 streams, float32 0.68.
    """
    environment = (f"{name}={value}" for name, value in transformers_serve.environment().items())
    command = (
        *("env", *environment, str(transformers_serve.program()), "serve", str(model)),
        *("--host", "127.0.0.1", "--port", "{port}", "--device", "cpu", "--dtype", "bfloat16"),
        *("--continuous-batching", "--attn-implementation", "sdpa"),
        # As it comes, the cache and a mask of the size of batch by cache are of 0.6 of all memory.
        *("--cb-num-blocks", "64", "--cb-max-batch-tokens", "512"),
    )
    return Server(name="transformers serve", command=(*command, *flags), fields=fields)


def example_server(model: Path, **fields: Any) -> Server:
    """The single-file server among llama-cpp-python's examples."""
    command = (sys.executable, "-m", "benchmarks.peers.example_server", str(model), "{port}")
    return Server(name="example server", command=command, fields=fields)


def offer_patched(parser: argparse.ArgumentParser) -> None:
    """An option for `Ceiling.patched`."""
    parser.add_argument(
        "--patched-ceiling",
        action="store_true",
        help="the ceiling is that of llama.cpp with our patches",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The engine alone: llama-batched-bench, which samples nothing and speaks to nobody.

    Args:
        model: the file.
        streams: sequences at a time.
        prompt: tokens of each prompt, computed before the first is decoded.
        new: tokens decoded for each.
        own: if set, `prompt` is common to all, and each has so many further tokens of its own.
        cached: the common tokens are computed for nobody; otherwise once.
        patched: of llama.cpp with our `scripts/patches`, as in our wheel; else of the published.
    """

    model: Path
    streams: int
    prompt: int
    new: int
    own: int | None = None
    cached: bool = True
    patched: bool = False

    @property
    def name(self) -> str:
        """How rows call it."""
        return "patched ceiling" if self.patched else "ceiling"

    async def measure(self) -> dict[str, float]:
        """Run it once."""
        if self.own is None:
            prompt_s, new_s = await self._times(self.prompt)
        else:
            prompt_s, _ = await self._times(self.own)
            _, new_s = await self._times(self.prompt + self.own, "-pps")
            if not self.cached:
                common_s, _ = await self._times(self.prompt, streams=1)
                prompt_s += common_s
        return {"output tok/s": self.streams * self.new / (prompt_s + new_s)}

    async def _times(
        self, prompt: int, *flags: str, streams: int | None = None
    ) -> tuple[float, float]:
        """Seconds for prompts and for new tokens."""
        streams = streams or self.streams
        cells = streams * (prompt + self.new)
        process = await asyncio.create_subprocess_exec(
            str(llama.program("llama-batched-bench", patched=self.patched)),
            *("-m", str(self.model)),
            *("-c", str(max(4096, cells)), "-b", "2048", "-ub", "512", "-t", str(NUM_CORES)),
            *("-npp", str(prompt), "-ntg", str(self.new), "-npl", str(streams)),
            *("-kvu", "--output-format", "jsonl", *flags),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for who waits for it
        )
        try:
            printed, _ = await process.communicate()
        finally:
            if process.returncode is None:  # told to end
                process.kill()
                await process.wait()
        if process.returncode:
            raise SystemExit(f"llama-batched-bench ended with status {process.returncode}")
        (line,) = [text for text in printed.splitlines() if text.startswith(b"{")]
        measured = json.loads(line)
        return measured["t_pp"], measured["t_tg"]
