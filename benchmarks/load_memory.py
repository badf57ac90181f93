"""What loading a checkpoint takes of host memory at its peak, beside what stays: ours and others'.

`python -m benchmarks.load_memory`, MiB above a process that has everything imported. Checkpoints
are made on the spot, in a folder that goes away. The bound is weights + 1.2x the largest file.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import torch
from backplane_core.backend import ModelSource
from backplane_torch.engine.checkpoint.config import read_config
from backplane_torch.engine.checkpoint.loading import find_model, load_model

_transformers: Final[Any] = import_module("transformers")  # typed in part

_MIB: Final = 2**20
_BOUND: Final = 1.2
_LOADERS: Final = ("backplane", "transformers")
_SIZES: Final[dict[str, dict[str, int]]] = {
    "llama": {"intermediate_size": 2816, "num_hidden_layers": 16},
    "mixtral": {"intermediate_size": 1408, "num_hidden_layers": 8},
}
_WIDTHS: Final = {"vocab_size": 32_000, "hidden_size": 1024, "num_attention_heads": 16}
_TINY: Final = {"vocab_size": 64, "hidden_size": 16, "num_attention_heads": 2}
_TINY_SIZES: Final = {"intermediate_size": 16, "num_hidden_layers": 1}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A checkpoint and what it is loaded as."""

    model: str
    stored: str
    wanted: str
    shards: str = "9GB"
    pickled: bool = False

    @property
    def title(self) -> str:
        """For the table."""
        files = "one file" if self.shards == "9GB" else f"{self.shards} files"
        kind = ".bin" if self.pickled else "safetensors"
        return f"{self.model} {self.stored} as {self.wanted}, {files}, {kind}"


_CASES: Final = {
    "same": Case(model="llama", stored="bfloat16", wanted="bfloat16"),
    "sharded": Case(model="llama", stored="bfloat16", wanted="bfloat16", shards="100MB"),
    "wider": Case(model="llama", stored="bfloat16", wanted="float32", shards="100MB"),
    "narrower": Case(model="llama", stored="float32", wanted="bfloat16", shards="100MB"),
    "experts": Case(model="mixtral", stored="bfloat16", wanted="bfloat16"),
    "sharded-experts": Case(model="mixtral", stored="bfloat16", wanted="bfloat16", shards="100MB"),
    "wider-experts": Case(model="mixtral", stored="bfloat16", wanted="float32", shards="100MB"),
    "pickled": Case(model="llama", stored="bfloat16", wanted="bfloat16", pickled=True),
}


def make(case: Case, folder: Path, sizes: dict[str, int]) -> None:
    """Write a checkpoint with random weights."""
    torch.set_default_dtype(getattr(torch, case.stored))
    config = _transformers.AutoConfig.for_model(
        case.model, **sizes, num_key_value_heads=2, bos_token_id=1, eos_token_id=2
    )
    model = _transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder, max_shard_size=case.shards)
    if case.pickled:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    torch.set_default_dtype(torch.float32)


def measure(case: Case, folder: Path, loader: str) -> None:
    """Load it once; in a process of its own, whose peak is its own."""
    with tempfile.TemporaryDirectory() as tiny:  # so that all that is imported late has been
        make(case, Path(tiny), _TINY | _TINY_SIZES)
        _load(Path(tiny), loader, torch.float32)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    started = time.perf_counter()
    model = _load(folder, loader, getattr(torch, case.wanted))
    duration_s = time.perf_counter() - started
    result = {
        "weights": sum(tensor.nbytes for tensor in model.parameters()) / _MIB,
        "peak": _status("VmHWM") - before,
        "after": _status("VmRSS") - before,
        "seconds": duration_s,
    }
    print(json.dumps(result))


def _load(folder: Path, loader: str, dtype: torch.dtype) -> torch.nn.Module:
    if loader == "transformers":
        _transformers.utils.logging.disable_progress_bar()
        return _transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    source = ModelSource(model_id="benchmark", path=str(folder))
    config = read_config(folder, trust_remote_code=False)
    found = find_model(source, config, trust_remote_code=False, allow_pickle=True)
    cpu = torch.device("cpu")
    return load_model(found, dtype=dtype, device=cpu, report=lambda fraction, name: None).model


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def _in_a_process(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.load_memory", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(_CASES))
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--loader", choices=_LOADERS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    names: list[str] = asked.cases or [*_CASES]
    if asked.make:
        case = _CASES[names[0]]
        make(case, asked.make, _WIDTHS | _SIZES[case.model])
        return
    if asked.measure:
        measure(_CASES[names[0]], asked.measure, asked.loader)
        return
    for name in names:
        print(_CASES[name].title)
        with tempfile.TemporaryDirectory() as folder:
            _in_a_process(name, "--make", folder)
            files = [
                *Path(folder).glob("*.safetensors"),
                *Path(folder).glob("*.bin"),
            ]
            largest = max(file.stat().st_size for file in files) / _MIB
            for loader in _LOADERS:
                found = json.loads(_in_a_process(name, "--measure", folder, "--loader", loader))
                share = (found["peak"] - found["weights"]) / largest
                print(
                    f"  {loader:12} weights {found['weights']:5.0f}, largest file {largest:4.0f}, "
                    f"peak {found['peak']:5.0f}: weights + {share:.2f}x the file"
                    f"{'' if share < _BOUND else ' (over)'}; "
                    f"after {found['after']:5.0f}; {found['seconds']:.1f} s"
                )


if __name__ == "__main__":
    main()
