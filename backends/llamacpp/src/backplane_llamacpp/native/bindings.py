"""Imports `llama_cpp.llama_cpp`, the ctypes declarations, without the package's API around them."""

import importlib
import importlib.util
import sys
from typing import Any, Final

_PACKAGE: Final = "llama_cpp"


def import_declarations() -> None:
    """Import the declarations alone, once, so that `from llama_cpp import llama_cpp` is quick.

    The package imports its own model class, chat formats and template engine first, which no part
    of ours uses: 150 ms and 20 MB in each process. Whoever asks the package for any of these
    gets them: they are loaded then.
    """
    if _PACKAGE in sys.modules or (spec := importlib.util.find_spec(_PACKAGE)) is None:
        return  # loaded by someone else, or not installed, which the import that follows tells
    package = importlib.util.module_from_spec(spec)
    loader = spec.loader

    def rest(name: str) -> Any:
        if loader is None or "__getattr__" not in vars(package):
            raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")
        del package.__getattr__
        loader.exec_module(package)
        return getattr(package, name)

    package.__getattr__ = rest
    sys.modules[_PACKAGE] = package
    try:
        importlib.import_module(f"{_PACKAGE}.{_PACKAGE}")
    except BaseException:
        del sys.modules[_PACKAGE]
        raise
