"""`AdapterShelf`: the adapters that are loaded, by the names requests use. Files in, keys out.

A key is an adapter's name and how manieth of that name it is: what was cached under an adapter
is then never taken for another's that came later under the same name.
"""

from collections.abc import Callable, Container
from pathlib import Path

from backplane_core.errors import AdapterError

from backplane_llamacpp.native.adapter import NativeAdapter

_PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


class AdapterShelf:
    """Loads, finds and frees adapters. `load_native` is given a name and a file."""

    def __init__(self, load_native: Callable[[str, Path], NativeAdapter]) -> None:
        self._load_native = load_native
        self._keys: dict[str, str] = {}
        self._adapters: dict[str, NativeAdapter] = {}
        self._num_loaded = 0

    def __getitem__(self, key: str) -> NativeAdapter:
        """The adapter of a key that `key_of` gave out and that `free` has not been told of."""
        return self._adapters[key]

    def key_of(self, name: str) -> str:
        """The key of the adapter that now has this name.

        Raises:
            AdapterError: none has.
        """
        if name not in self._keys:
            raise AdapterError(
                f"no adapter {name} is loaded", remedy="load it, or ask without an adapter"
            )
        return self._keys[name]

    def load(self, name: str, path: Path) -> None:
        """Read an adapter.

        Raises:
            AdapterError: the name is taken, or there is no adapter for this model at `path`.
        """
        if name in self._keys:
            raise AdapterError(f"adapter {name} is loaded already", remedy="unload it first")
        adapter = self._load_native(name, gguf_file(name, path))
        self._num_loaded += 1
        key = f"{name}#{self._num_loaded}"
        self._keys[name] = key
        self._adapters[key] = adapter

    def unload(self, name: str) -> None:
        """Take a name away; its key is good until `free`.

        Raises:
            AdapterError: no adapter has this name.
        """
        self.key_of(name)
        del self._keys[name]

    @property
    def has_unloaded(self) -> bool:
        """Whether any adapter waits to be freed."""
        return len(self._adapters) > len(self._keys)

    def unused(self, used_keys: Container[str | None]) -> list[str]:
        """Keys of adapters that are unloaded and not in use: they may be freed."""
        kept = set(self._keys.values())
        return [key for key in self._adapters if key not in kept and key not in used_keys]

    def free(self, key: str) -> None:
        """Free an adapter that no context computes with."""
        self._adapters.pop(key).close()

    def close(self) -> None:
        """Free all."""
        self._keys.clear()
        for key in self.unused(()):
            self.free(key)


def gguf_file(name: str, path: Path) -> Path:
    """The GGUF file that `path` is or holds.

    Raises:
        AdapterError: there is none, or several, or an adapter of another kind.
    """
    if path.is_dir():
        files = sorted(entry for entry in path.iterdir() if entry.suffix == ".gguf")
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise AdapterError(f"adapter {name}: its folder holds several GGUF files: {names}")
        if not files:
            raise _no_gguf(name, [entry.name for entry in path.iterdir()])
        return files[0]
    if not path.is_file():
        raise AdapterError(f"adapter {name}: there is no file or folder at its path")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise _no_gguf(name, [path.name])
    return path


def _no_gguf(name: str, files: list[str]) -> AdapterError:
    if any(file.endswith(".safetensors") or file in _PEFT_FILES for file in files):
        return AdapterError(
            f"adapter {name} is in PEFT's form, and llama.cpp reads adapters in GGUF form",
            remedy="convert it with llama.cpp's convert_lora_to_gguf.py and name the .gguf file",
        )
    return AdapterError(f"adapter {name}: there is no GGUF file at its path")
