#!/usr/bin/env python3
"""Refuses code that could run what it reads: pickle and its kin, eval, exec.

Everything between our processes is msgpack of typed structs; one convenient queue would undo that.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from source_files import ROOT, Finding, listed, report

PICKLING_MODULES = frozenset(
    {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
)
# They pickle whatever crosses them. `Process` does too under spawn, with nothing to say so.
PICKLING_NAMES = {
    "multiprocessing": frozenset(
        {"Queue", "SimpleQueue", "JoinableQueue", "Pipe", "Manager", "Pool", "Process"}
        | {"connection", "managers", "pool", "queues"}
    ),
    "torch": frozenset({"load"}),
    "concurrent.futures": frozenset({"ProcessPoolExecutor"}),
}
PICKLING_METHODS = frozenset(
    {"recv_pyobj", "send_pyobj", "broadcast_object_list", "scatter_object_list"}
    | {"all_gather_object", "gather_object", "send_object_list", "recv_object_list"}
)
# Ours, whose `allow_pickle` lets `torch.load(..., weights_only=True)` read a file.
TENSOR_LOADERS = frozenset({"find_model", "open_checkpoint", "TorchSettings"})
CODE_RUNNERS = frozenset({"eval", "exec", "compile"})


def _family(module: str) -> str | None:
    """The key of PICKLING_NAMES that `module` belongs to: torch.multiprocessing is one of them."""
    parts = module.split(".")
    if "multiprocessing" in parts[:2]:
        return "multiprocessing"
    return module if module in PICKLING_NAMES else None


class PickleVisitor(ast.NodeVisitor):
    """Collects the violations of one module; knows which local names stand for what."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self._families: dict[str, str] = {}

    def _refuse(self, node: ast.AST, message: str) -> None:
        self.findings.append(Finding(self.path, getattr(node, "lineno", 0), message))

    def _check_module(self, node: ast.AST, module: str) -> None:
        if module.split(".", maxsplit=1)[0] in PICKLING_MODULES:
            self._refuse(node, f"{module} runs what it reads; send msgspec structs")
        parent, _, name = module.rpartition(".")
        family = _family(parent) if parent else None
        if family and name in PICKLING_NAMES[family]:
            self._refuse(node, f"{module} pickles; use a socket and backplane_core.wire")

    def visit_Import(self, node: ast.Import) -> None:
        """`import pickle`, `import multiprocessing as mp`."""
        for alias in node.names:
            self._check_module(node, alias.name)
            bound = alias.name if alias.asname else alias.name.split(".")[0]
            family = _family(bound)
            if family:
                self._families[alias.asname or bound] = family

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """`from pickle import loads`, `from multiprocessing import Queue as Channel`."""
        if node.level or not node.module:
            return
        self._check_module(node, node.module)
        for alias in node.names:
            self._check_module(node, f"{node.module}.{alias.name}")
            family = _family(f"{node.module}.{alias.name}")
            if family:
                self._families[alias.asname or alias.name] = family

    def _family_of(self, node: ast.expr) -> str | None:
        """The family an expression belongs to: a module alias, or `get_context(...)` of one."""
        match node:
            case ast.Name(id=name):
                return self._families.get(name)
            case ast.Attribute(value=value, attr=attr):
                family = self._family_of(value)
                return "multiprocessing" if family and attr == "multiprocessing" else None
            case ast.Call(func=ast.Attribute(value=value, attr="get_context")):
                return self._family_of(value)
            case ast.Call(func=ast.Name(id="get_context")):
                return "multiprocessing"
            case _:
                return None

    def visit_Assign(self, node: ast.Assign) -> None:
        """`context = multiprocessing.get_context("spawn")` makes `context` one of the family."""
        family = self._family_of(node.value)
        for target in node.targets:
            if family and isinstance(target, ast.Name):
                self._families[target.id] = family
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """`multiprocessing.Queue`, `socket.recv_pyobj`, `builtins.eval`."""
        family = self._family_of(node.value)
        if family and node.attr in PICKLING_NAMES[family]:
            self._refuse(
                node, f"{family}.{node.attr} pickles; use a socket and backplane_core.wire"
            )
        if node.attr in PICKLING_METHODS:
            self._refuse(node, f"{node.attr} pickles; send msgpack and tensors")
        is_builtin = isinstance(node.value, ast.Name) and node.value.id in {
            "builtins",
            "__builtins__",
        }
        if is_builtin and node.attr in CODE_RUNNERS:
            self._refuse(node, f"{node.attr} runs data as code")
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        """`eval` by its own name, called or handed on."""
        if isinstance(node.ctx, ast.Load) and node.id in CODE_RUNNERS:
            self._refuse(node, f"{node.id} runs data as code")

    def visit_Call(self, node: ast.Call) -> None:
        """`import_module("pickle")`, `numpy.load(..., allow_pickle=True)`, `torch.load(...)`."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else None
        name = node.func.id if isinstance(node.func, ast.Name) else name
        if name in {"import_module", "__import__"} and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                self._check_module(node, first.value)
        for keyword in node.keywords:
            refused = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg == "allow_pickle" and not refused and name not in TENSOR_LOADERS:
                self._refuse(node, "allow_pickle lets an array file run code")
        if self._loads_only_tensors(node):
            for child in (*node.args, *node.keywords):
                self.visit(child)
        else:
            self.generic_visit(node)

    def _loads_only_tensors(self, node: ast.Call) -> bool:
        """Whether it is `torch.load(..., weights_only=True)`, which makes nothing but tensors."""
        return (
            isinstance(node.func, ast.Attribute)
            and node.func.attr == "load"
            and self._family_of(node.func.value) == "torch"
            and any(
                keyword.arg == "weights_only"
                and isinstance(keyword.value, ast.Constant)
                and keyword.value.value is True
                for keyword in node.keywords
            )
        )


def lint_source(source: str, path: Path) -> list[Finding]:
    """The violations in one module's source text.

    Raises:
        SyntaxError: the text is not Python.
    """
    visitor = PickleVisitor(path)
    visitor.visit(ast.parse(source, filename=str(path)))
    return visitor.findings


def main(root: Path = ROOT) -> int:
    """Lints every Python file of the checkout."""
    findings: list[Finding] = []
    for path in listed(root):
        if path.suffix == ".py":
            findings += lint_source((root / path).read_text(), path)
    return report(findings, "pickle lint")


if __name__ == "__main__":
    sys.exit(main())
