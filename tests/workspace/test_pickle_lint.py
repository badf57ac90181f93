"""Each construct the pickle lint bans is planted; its innocent lookalikes pass."""

import subprocess
from pathlib import Path

import pytest

BANNED = [
    "import pickle",
    "import cPickle",
    "import _pickle as fast",
    "import cloudpickle",
    "import dill",
    "import marshal",
    "import shelve",
    "import joblib",
    "from pickle import loads",
    "from joblib.externals import loky",
    "from multiprocessing import Queue",
    "from multiprocessing import Queue as Channel",
    "from multiprocessing.queues import SimpleQueue",
    "from torch.multiprocessing import Queue",
    "from concurrent.futures import ProcessPoolExecutor",
    "import multiprocessing\nmultiprocessing.Queue()",
    "import multiprocessing as mp\nmp.Pipe()",
    "import multiprocessing as mp\nmp.Manager()",
    "import multiprocessing.managers",
    "import multiprocessing as mp\nmp.get_context('spawn').Queue()",
    "import multiprocessing as mp\ncontext = mp.get_context('spawn')\ncontext.SimpleQueue()",
    "from multiprocessing import get_context\nqueue = get_context('fork').Queue()",
    "import torch\nspawn = torch.multiprocessing.Process",
    "from torch import multiprocessing as mp\nmp.Pool()",
    "import concurrent.futures as futures\nfutures.ProcessPoolExecutor()",
    "import torch\ntorch.load('x')",
    "import torch as t\nt.load('x')",
    "import torch\ntorch.load('x', weights_only=False)",
    "import torch\ntorch.load('x', weights_only=allowed)",
    "import torch\ntorch.load(eval('x'), weights_only=True)",
    "from torch import load",
    "socket.recv_pyobj()",
    "dist.broadcast_object_list([1])",
    "dist.all_gather_object([], 1)",
    "import numpy\nnumpy.load('x', allow_pickle=True)",
    "import importlib\nimportlib.import_module('pickle')",
    "__import__('dill')",
    "eval('1')",
    "exec('x = 1')",
    "compile('1', 'x', 'eval')",
    "run = eval",
    "import builtins\nbuiltins.exec('x')",
    "def deep():\n    class Inner:\n        def method(self):\n            import pickle",
]

ALLOWED = [
    "import queue\nqueue.Queue()",
    "import asyncio\nasyncio.Queue()",
    "import multiprocessing\nmultiprocessing.cpu_count()",
    "import re\nre.compile('x')",
    "model.eval()",
    "import torch\ntorch.compile(model)",
    "import torch\ntorch.load('x', weights_only=True, mmap=True)",
    "find_model(source, allow_pickle=settings.allow_pickle)",
    "import json\njson.load(handle)",
    "import numpy\nnumpy.load('x', allow_pickle=False)",
    "from concurrent.futures import ThreadPoolExecutor",
    "import ast\nast.literal_eval('1')",
    "import os\nos.execv('x', ['x'])",
    "'import pickle'",
]


@pytest.fixture(scope="module")
def lint(script):
    return script("lint_pickle").lint_source


@pytest.mark.parametrize("source", BANNED)
def test_banned(lint, source):
    findings = lint(source, Path("planted.py"))
    assert findings
    assert all(finding.path == Path("planted.py") and finding.line for finding in findings)


@pytest.mark.parametrize("source", ALLOWED)
def test_allowed(lint, source):
    assert lint(source, Path("innocent.py")) == []


def test_the_line_is_the_violations_own(lint):
    findings = lint("x = 1\n\nimport pickle\n", Path("planted.py"))
    assert [finding.line for finding in findings] == [3]


def test_main_fails_on_a_planted_file_and_passes_without(script, tmp_path, capsys):
    main = script("lint_pickle").main
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "clean.py").write_text("x = 1\n")
    assert main(tmp_path) == 0
    (tmp_path / "bad.py").write_text("import pickle\n")
    assert main(tmp_path) == 1
    assert "bad.py:1:" in capsys.readouterr().out
