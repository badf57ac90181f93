import re
import subprocess
import sys
from pathlib import Path

import pytest
from backplane_core.backend import BackendFacts, SettingField
from backplane_launcher import cli
from backplane_launcher.catalogue import Catalogue, interpreters
from backplane_launcher.environment import EnvironmentFlags
from backplane_launcher.parser import flags_of_settings
from backplane_launcher.settings import LaunchSettings, flags_of
from backplane_launcher.usage import UsageError

ROOT = Path(__file__).parents[2]
FACTS = (
    BackendFacts(
        name="alpha",
        settings=(
            SettingField(name="ctx_size", type="int", help="context", flags=("--cells",)),
            SettingField(name="mmap", type="bool", help="map files", default=True),
            SettingField(name="mode", type="str", help="mode", choices=("fast", "small")),
            SettingField(name="numa", type="str", help="numa", flags=("--numa",)),
            SettingField(name="graphs", type="str", help="graphs", flags=("--graphs",)),
            SettingField(name="door", type="int", help="door", flags=("--port",)),
            SettingField(name="length", type="int", help="length", flags=("--ctx-size",)),
            SettingField(name="share", type="float", help="share", flags=("--share",)),
        ),
    ),
    BackendFacts(
        name="beta",
        settings=(
            SettingField(name="numa", type="str", help="numa", flags=("--numa",)),
            SettingField(name="length", type="int", help="length", flags=("--ctx-size",)),
        ),
    ),
    BackendFacts(name="broken", error="ImportError: no"),
    BackendFacts(
        name="trial",
        priority=-1,
        settings=(SettingField(name="crash", type="bool", help="crash at once", default=False),),
    ),
)


@pytest.fixture(autouse=True)
def catalogue(monkeypatch):
    monkeypatch.setattr(
        Catalogue, "load", classmethod(lambda cls, pythons: cls(facts=FACTS, pythons=pythons))
    )


def settings_of(argv="", environ=None):
    command = cli.parse(argv.split(), environ or {})
    assert isinstance(command, cli.ServeCommand)
    return command.settings


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        ("--model-id a/b", "model_id", "a/b"),
        ("--model-id=a/b:Q4", "model_id", "a/b:Q4"),
        ("-p 8080", "port", 8080),
        ("--port 0", "port", 0),
        ("--trust-remote-code", "trust_remote_code", True),
        ("--trust-remote-code=false", "trust_remote_code", False),
        ("--json-output", "json_output", True),
        ("--api-key a --api-key b", "api_key", ("a", "b")),
        ("--cors-allow-origin http://a", "cors_allow_origin", ("http://a",)),
        ("--allowed-host a --allowed-host b", "allowed_host", ("a", "b")),
        ("--max-input-length 7", "max_input_tokens", 7),
        ("--max-input-tokens 7", "max_input_tokens", 7),
        ("--max-model-len 9", "max_total_tokens", 9),
        ("-g 3", "graceful_termination_timeout", 3.0),
        ("--quantize bitsandbytes-nf4", "quantize", "bitsandbytes-nf4"),
        ("--backend-python x=/p --backend-python y=/q", "backend_python", ("x=/p", "y=/q")),
        ("", "model_id", None),
        ("", "port", 3000),
        ("", "hostname", "0.0.0.0"),
        ("", "max_concurrent_requests", 128),
        ("", "max_best_of", 2),
        ("", "max_stop_sequences", 4),
        ("", "max_top_n_tokens", 5),
        ("", "max_client_batch_size", 4),
        ("", "payload_limit", 2_000_000),
        ("", "validation_workers", 2),
        ("", "graceful_termination_timeout", 90.0),
    ],
)
def test_flags(argv, name, value):
    assert getattr(settings_of(argv), name) == value


@pytest.mark.parametrize(
    ("environ", "name", "value"),
    [
        ({"MODEL_ID": "a/b"}, "model_id", "a/b"),
        ({"BACKPLANE_MODEL_ID": "a/b"}, "model_id", "a/b"),
        ({"BACKPLANE_MODEL_ID": "a/b", "MODEL_ID": "c/d"}, "model_id", "a/b"),
        ({"MODEL_ID": ""}, "model_id", None),
        ({"PORT": "81"}, "port", 81),
        ({"PORT": "tcp://10.0.0.1:80"}, "port", 3000),
        ({"BACKPLANE_PORT": "tcp://10.0.0.1:80", "PORT": "81"}, "port", 81),
        ({"TRUST_REMOTE_CODE": "1"}, "trust_remote_code", True),
        ({"TRUST_REMOTE_CODE": "true"}, "trust_remote_code", True),
        ({"TRUST_REMOTE_CODE": "True"}, "trust_remote_code", True),
        ({"TRUST_REMOTE_CODE": "0"}, "trust_remote_code", False),
        ({"TRUST_REMOTE_CODE": "false"}, "trust_remote_code", False),
        ({"JSON_OUTPUT": "1"}, "json_output", True),
        ({"API_KEY": "with space, and comma"}, "api_key", ("with space, and comma",)),
        (
            {"CORS_ALLOW_ORIGIN": "http://a, http://b"},
            "cors_allow_origin",
            ("http://a", "http://b"),
        ),
        ({"ALLOWED_HOST": "a.example, b"}, "allowed_host", ("a.example", "b")),
        ({"MAX_INPUT_LENGTH": "5"}, "max_input_tokens", 5),
        ({"BACKEND": "alpha"}, "backend", "auto"),
        ({"BACKPLANE_BACKEND": "alpha"}, "backend", "alpha"),
        ({"DTYPE": "float16"}, "dtype", "float16"),
        ({"MAX_BATCH_SIZE": "8"}, "max_batch_size", 8),
        ({"GRACEFUL_TERMINATION_TIMEOUT": "5"}, "graceful_termination_timeout", 5.0),
    ],
)
def test_environment(environ, name, value):
    assert getattr(settings_of("", environ), name) == value


def test_every_flag_reads_its_variable():
    samples = {int: "7", float: "0.5", bool: "1", str: "x"}
    chosen = {"lora_adapters": "a/b", "backend_python": "x=/p", "max_total_tokens": "9"}
    refused = {"ngrok", "ngrok_authtoken", "ngrok_edge"}
    for name, parameter in flags_of(LaunchSettings).items():
        hint = str(LaunchSettings.__dataclass_fields__[name].type)
        kind = next((each for each in samples if repr(each)[8:-2] in hint), str)
        literal = re.search(r"Literal\['([^']+)'", hint)
        text = chosen.get(name, literal[1] if literal else samples[kind])
        if name in refused:
            with pytest.raises(UsageError, match=parameter.name[0]):
                settings_of("", {f"BACKPLANE_{name.upper()}": text})
            continue
        together = {"BACKPLANE_TLS_CERT_FILE": "x", "BACKPLANE_TLS_KEY_FILE": "x"}
        pair = together if name.startswith("tls_") else {}
        value = getattr(settings_of("", {f"BACKPLANE_{name.upper()}": text, **pair}), name)
        assert str(value if not isinstance(value, tuple) else value[0]) in (text, "True"), name


def test_the_command_line_beats_the_environment():
    environ = {"PORT": "1", "BACKPLANE_MODEL_ID": "a/b", "API_KEY": "env", "TRUST_REMOTE_CODE": "1"}
    settings = settings_of(
        "--port 2 --model-id c/d --api-key line --trust-remote-code=false", environ
    )
    assert (settings.port, settings.model_id, settings.api_key) == (2, "c/d", ("line",))
    assert settings.trust_remote_code is False


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("--port 70000", "65535"),
        ("--port x", "unable to convert"),
        ("--port", "requires an argument"),
        ("--port 1 --port 2", "--port is there twice (give it once)"),
        ("-p 1 --port=2", "--port and -p are one setting (give one)"),
        ("--ctx-size 9 --max-model-len 8", "--ctx-size and --max-model-len are one setting"),
        ("print-schema x", "print-schema takes nothing, so x is too much"),
        ("download-weights a/b c/d", "takes one model, so c/d is too much"),
        ("--json-output False", "write --json-output=false"),
        ("--max-batch-size 0", ">= 1"),
        ("--validation-workers 0", ">= 1"),
        ("--dtype float8", "float16"),
        ("--quantize gguf", "awq"),
        ("--nope", "--nope"),
        (
            "--max-input-tokens 1 --max-input-length 2",
            "--max-input-length and --max-input-tokens are one setting (give one)",
        ),
        ("--max-input-tokens 9 --max-total-tokens 9", "no room for an answer"),
        ("something", "write --model-id something"),
        ("serve", "serve stands alone"),
        ("--port 1 serve", "write --model-id serve"),
        ("backend", "did you mean backends?"),
        ("--modle-id x", "Did you mean --model-id?"),
        ("--max-batch-sise 3", "Did you mean --max-batch-size?"),
        ("--backend-python vllm", "NAME=PATH"),
        ("--api-key=", "--api-key is empty"),
        ("--worker-stall-timeout 0", "> 0"),
    ],
)
def test_refusals(argv, sentence):
    with pytest.raises(UsageError) as caught:
        cli.parse(argv.split(), {})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


FLOAT_FLAGS = [
    parameter.name[0]
    for name, parameter in flags_of(LaunchSettings).items()
    if "float" in re.findall(r"\w+", str(LaunchSettings.__dataclass_fields__[name].type))
]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999", "Infinity"])
@pytest.mark.parametrize("flag", [*FLOAT_FLAGS, "--alpha.share", "--share"])
def test_what_no_launch_document_could_hold_is_refused(flag, value):
    assert {"--watermark-delta", "--write-timeout", "--rope-factor"} <= set(FLOAT_FLAGS)
    with pytest.raises(UsageError, match=flag):
        cli.parse([f"{flag}={value}"], {})
    variable = flag.removeprefix("--").replace("-", "_").replace(".", "_").upper()
    with pytest.raises(UsageError, match=f"{variable}|{flag}"):
        cli.parse([], {f"BACKPLANE_{variable}": value})


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"PORT": "x"}, "PORT"),
        ({"TRUST_REMOTE_CODE": "maybe"}, "TRUST_REMOTE_CODE=maybe is not a boolean"),
        ({"MAX_INPUT_TOKENS": "5", "MAX_INPUT_LENGTH": "6"}, "contradict"),
        ({"BACKPLANE_PORT": "tcp"}, "BACKPLANE_PORT"),
    ],
)
def test_environment_refusals(environ, sentence):
    with pytest.raises(UsageError, match=sentence):
        cli.parse([], environ)


def test_backend_settings_by_long_and_short_flag_and_variable():
    argv = "--alpha.mode fast --cells 5 --alpha.no-mmap --graphs 1,2"
    command = cli.parse(argv.split(), {"BACKPLANE_ALPHA_NUMA": "isolate"})
    assert command.backend_settings == {
        "alpha": {"mode": "fast", "ctx_size": 5, "mmap": False, "numa": "isolate", "graphs": "1,2"}
    }
    assert cli.parse([], {"CELLS": "6"}).backend_settings == {"alpha": {"ctx_size": 6}}
    assert cli.parse(["--share=-1.5"], {}).backend_settings == {"alpha": {"share": -1.5}}
    assert cli.parse([], {"BACKPLANE_ALPHA_MMAP": "0"}).backend_settings == {
        "alpha": {"mmap": False}
    }


def test_a_flag_of_two_backends_asks_which():
    with pytest.raises(UsageError, match=r"write --alpha\.numa or --beta\.numa"):
        cli.parse(["--numa", "isolate"], {})


def test_a_backend_cannot_take_a_flag_of_the_launcher():
    command = cli.parse(["--port", "5", "--alpha.door", "6"], {})
    assert command.settings.port == 5
    assert command.backend_settings == {"alpha": {"door": 6}}
    command = cli.parse(["--ctx-size", "5", "--beta.length", "6"], {})
    assert command.settings.max_total_tokens == 5
    assert command.backend_settings == {"beta": {"length": 6}}


@pytest.mark.parametrize("value", ["box-7", "no-such-name.invalid"])
def test_a_leaked_hostname_is_no_choice(value):
    source = EnvironmentFlags({"HOSTNAME": value}, host_name="box-7")
    assert source._find(("--hostname",), str) is None
    assert f"HOSTNAME={value}" in source.warnings[0]


def test_a_chosen_hostname():
    source = EnvironmentFlags({"HOSTNAME": "127.0.0.1"}, host_name="box-7")
    assert source._find(("--hostname",), str) == ("HOSTNAME", ["127.0.0.1"])
    source = EnvironmentFlags({"BACKPLANE_HOSTNAME": "box-7"}, host_name="box-7")
    assert source._find(("--hostname",), str) == ("BACKPLANE_HOSTNAME", ["box-7"])
    assert source.warnings == []


def test_interpreters_from_the_line_or_the_environment():
    environ = {"BACKPLANE_BACKEND_PYTHON": "a=/x,b=/y"}
    assert interpreters([], environ) == {"a": "/x", "b": "/y"}
    assert interpreters(["--backend-python", "c=/z"], environ) == {"c": "/z"}


def test_the_backends_command():
    command = cli.parse(["backends", "--json"], {})
    assert isinstance(command, cli.BackendsCommand)
    assert command.as_json
    assert command.catalogue.names() == ["alpha", "beta", "broken", "trial"]


def test_help_names_every_flag(capsys):
    assert cli.parse(["--help"], {}) is None
    page = capsys.readouterr().out
    for flag in flags_of_settings() - {"--help", "-h", "--version", "-V"}:
        assert flag in page
    for wanted in (
        "Backend alpha:",
        "--alpha.ctx-size, --cells N",
        "--alpha.no-mmap",
        "--alpha.mode fast|small",
        "--dtype float16|bfloat16|float32",
        "[default: 3000]",
    ):
        assert wanted in page


def help_page(capsys, *argv, environ=None):
    assert cli.parse([*argv, "--help"], environ or {}) is None
    return capsys.readouterr().out


def test_only_what_is_on_by_default_can_be_negated():
    command = cli.parse(["--alpha.no-mmap"], {})
    assert command.backend_settings == {"alpha": {"mmap": False}}
    with pytest.raises(UsageError, match="Unknown option"):
        cli.parse(["--trial.no-crash"], {})
    assert cli.parse(["--trial.crash=false"], {}).backend_settings == {"trial": {"crash": False}}


def test_help_says_every_name_once(capsys):
    for line in help_page(capsys, "--backend", "trial").splitlines():
        names = line.strip().split(", ")
        assert len(names) == len(set(names)), line


def test_help_leaves_out_backends_for_tests_unless_they_are_named(capsys):
    assert "--trial.crash" not in help_page(capsys)
    assert "--trial.crash" in help_page(capsys, "--backend", "trial")
    assert "--trial.crash" in help_page(capsys, "--backend=trial")
    assert "--trial.crash" in help_page(capsys, environ={"BACKPLANE_BACKEND": "trial"})


def test_version(capsys):
    assert cli.parse(["--version"], {}) is None
    assert capsys.readouterr().out.startswith("backplane 0.")


@pytest.mark.parametrize(
    ("argv", "code", "sentence"),
    [
        (["--help"], 0, ""),
        (["--version"], 0, ""),
        (["--nope"], 2, "error: Unknown option"),
        (["--ngrok"], 2, "error: --ngrok is not here: Backplane opens no tunnels"),
        (["--backend", "no_such_backend"], 1, "no backend is called no_such_backend"),
        (
            ["--backend-python", "x=/no/python", "backends"],
            1,
            "--backend-python x=/no/python: cannot start",
        ),
    ],
)
def test_exit_codes(argv, code, sentence):
    done = subprocess.run(
        [sys.executable, "-m", "backplane_launcher", *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_help_loads_nothing_heavy():
    script = (
        "import sys; from backplane_launcher.cli import parse; parse(['--help'], {});"
        "heavy = {'huggingface_hub', 'httpx', 'asyncio', 'rich', 'torch', 'numpy', 'llama_cpp',"
        " 'concurrent.futures'};"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "HEAVY []" in done.stdout


def test_the_page_of_the_command_line_is_the_parsers():
    done = subprocess.run(
        [sys.executable, "scripts/command_line_page.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (ROOT / "docs" / "command-line.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `-")]
    documented = {flag for row in rows for flag in re.findall(r"`(-[^`]*)`", row)}
    assert flags_of_settings() - {"--help", "-h", "--version", "-V"} <= documented


def test_the_guide_names_only_flags_that_there_are():
    guide = (ROOT / "docs" / "launcher.md").read_text()
    named = set(re.findall(r"(?<![\w.-])(--[a-z][a-z-]+)(?![\w.-]*\.)", guide))
    of_commands = {"--json", "--type", "--url", "--tokens", "--gamma", "--check", "--concurrency"}
    assert named - flags_of_settings() <= of_commands
