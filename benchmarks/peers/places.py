"""Where peers and models for benchmarks are kept, and what the builder of llama.cpp's wheel lends.

`scripts/llama_cpp_wheel.py` knows how to show a long build's progress and what names a processor.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


def wheel_builder() -> ModuleType:
    """`scripts/llama_cpp_wheel.py` as a module."""
    name = "llama_cpp_wheel"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
        if spec is None or spec.loader is None:
            raise SystemExit(f"scripts/{name}.py is not there")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def kept(*names: str) -> Path:
    """A place below $BACKPLANE_CACHE or ~/.cache/backplane; its folder exists."""
    wheels: Path = wheel_builder().cache_root(os.environ)
    path = wheels.with_name("benchmarks").joinpath(*names)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
