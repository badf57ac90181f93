"""The declarations come alone; what else the bindings' package has, whoever asks for it gets."""

import subprocess
import sys

import pytest


def run(program):
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def test_the_bindings_own_api_is_not_loaded():
    program = (
        "import sys; from backplane_llamacpp.native import devices, enums\n"
        "print('llama_cpp.llama_cpp' in sys.modules, 'llama_cpp.llama' in sys.modules)"
    )
    assert run(program) == ["True", "False"]


def test_who_asks_for_it_gets_it():
    program = (
        "from backplane_llamacpp.native import model\n"
        "import llama_cpp\n"
        "from llama_cpp import Llama\n"
        "print(Llama.__module__, llama_cpp.llama_cpp is model.cpp)"
    )
    assert run(program) == ["llama_cpp.llama", "True"]


def test_what_there_is_not_is_told_as_ever():
    program = (
        "import backplane_llamacpp.native, llama_cpp\n"
        "print(getattr(llama_cpp, 'nothing', 'missing'), llama_cpp.Llama.__name__)"
    )
    assert run(program) == ["missing", "Llama"]


@pytest.mark.parametrize("name", ["llama_cpp", "llama_cpp._ctypes_extensions"])
def test_bindings_that_do_not_load_say_so(name):
    program = (
        f"import sys; sys.modules[{name!r}] = None\n"
        "try:\n    from backplane_llamacpp.native import devices\n"
        "except ImportError as error:\n    print(error.name.partition('.')[0])\n"
    )
    assert run(program) == ["llama_cpp"]
