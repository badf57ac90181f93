"""Each of TGI's launcher flags, by flag and by variable: its effect, its notice or its refusal."""

import functools
import subprocess
import sys

import pytest
from backplane_core.backend import Device
from backplane_launcher import cli
from backplane_launcher.adapter_names import parse_adapters
from backplane_launcher.catalogue import Catalogue
from backplane_launcher.launch_documents import engine_settings
from backplane_launcher.settings import LaunchSettings
from backplane_launcher.sharding import num_shard
from backplane_launcher.usage import UsageError

from .documents import server_told
from .tgi_flags import TABLE, TGI_FLAGS, Row

TWO = (Device(name="one"), Device(name="two"))
EFFECTS = [row for row in TABLE if row.engine or row.server or row.launcher]
NOTICES = [row for row in TABLE if row.notice]
REFUSALS = [row for row in TABLE if row.refusal]

each = pytest.mark.parametrize


@pytest.fixture(autouse=True)
def catalogue(monkeypatch):
    monkeypatch.setattr(
        Catalogue, "load", classmethod(lambda cls, pythons: cls(facts=(), pythons=pythons))
    )


def name(row: Row) -> str:
    return row.flag


def parsed(argv, environ):
    return _parsed(tuple(argv), tuple(environ.items()))


@functools.cache
def _parsed(argv, environ):
    command = cli.parse(argv, dict(environ))
    assert isinstance(command, cli.ServeCommand)
    return command


def lines_of(command) -> list[str]:
    return [*command.warnings, *command.notices]


def documents(settings: LaunchSettings):
    shards = num_shard(settings, {}, found=TWO, spans_devices=True)
    engine = engine_settings(settings, num_shard=shards)
    return engine, server_told(settings)


def changes(changed, plain) -> dict:
    names = getattr(plain, "__struct_fields__", None) or plain.__dataclass_fields__
    pairs = ((name, getattr(changed, name), getattr(plain, name)) for name in names)
    return {name: value for name, value, before in pairs if value != before}


def test_the_table_covers_tgis_list_and_nothing_else():
    assert len(TGI_FLAGS) == 54
    assert [row.flag for row in TABLE] == TGI_FLAGS


def test_each_flag_has_an_outcome_and_is_refused_or_taken():
    for row in TABLE:
        assert bool(row.refusal) != bool(row.notice or row in EFFECTS), row.flag


@each("row", [row for row in TABLE if not row.refusal], ids=name)
def test_flag_and_variable_say_the_same_and_more_than_nothing(row):
    by_flag, by_variable = parsed(row.argv, {}), parsed([], row.variables)
    assert by_flag.settings == by_variable.settings
    told = [sentence.replace(row.flag, row.variable) for sentence in lines_of(by_flag)]
    assert told == lines_of(by_variable)
    assert by_flag.settings != LaunchSettings()
    prefixed = {f"BACKPLANE_{row.variable.removeprefix('BACKPLANE_')}": row.text or "1"}
    assert parsed([], prefixed).settings == by_flag.settings


@each("row", EFFECTS, ids=name)
def test_an_effect_changes_what_children_are_told_and_nothing_besides(row):
    engine, server = documents(parsed(row.argv, {}).settings)
    plain_engine, plain_server = documents(LaunchSettings())
    assert changes(engine, plain_engine) == row.engine
    assert changes(server, plain_server) == row.server


@each("row", [row for row in EFFECTS if row.launcher], ids=name)
def test_an_effect_on_the_launcher_itself(row):
    assert changes(parsed(row.argv, {}).settings, LaunchSettings()) == row.launcher


@each("row", TABLE, ids=name)
def test_a_replaced_flag_says_what_replaces_it_in_one_line(row):
    if row.refusal:
        return
    for command, given in (
        (parsed(row.argv, {}), row.flag),
        (parsed([], row.variables), row.variable),
    ):
        if row.notice is None:
            assert lines_of(command) == []
            continue
        (sentence,) = lines_of(command)
        assert sentence.startswith(f"{given} has no effect: ")
        assert row.notice in sentence
        assert "\n" not in sentence
        assert bool(command.warnings) == row.flag.startswith("--otlp-")


def test_what_has_its_effect_under_tgi_strict_is_not_told_to_have_none():
    assert lines_of(parsed(["--enable-prefill-logprobs", "--tgi-strict"], {})) == []


@each("row", NOTICES, ids=name)
def test_a_replaced_flag_changes_no_document_of_its_own_accord(row):
    assert documents(parsed(row.argv, {}).settings)[0] == documents(LaunchSettings())[0]
    if row.flag != "--enable-prefill-logprobs":
        assert documents(parsed(row.argv, {}).settings) == documents(LaunchSettings())


@each("row", REFUSALS, ids=name)
def test_a_refusal_says_what_to_do_instead(row):
    for argv, environ in ((row.argv, {}), ([], row.variables)):
        with pytest.raises(UsageError) as caught:
            cli.parse(argv, environ)
        assert row.refusal in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_refusal_ends_with_status_2():
    done = subprocess.run(
        [sys.executable, "-m", "backplane_launcher", "--ngrok-edge", "e"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert NGROK_LINE in done.stderr.splitlines()


NGROK_LINE = (
    "error: --ngrok-edge is not here: Backplane opens no tunnels; run `ngrok http PORT` beside "
    "it, and set --api-key"
)


@each("variable", ["NGROK_AUTHTOKEN", "NGROK_EDGE"])
def test_what_ngroks_own_program_reads_asks_for_nothing_by_itself(variable):
    for environ in ({variable: "t"}, {variable: "t", "NGROK": "false"}):
        command = parsed([], environ)
        assert command.settings == LaunchSettings()
        assert command.warnings == (f"{variable} is ignored: there is no --ngrok here",)


@each("word", ["1", "true", "TRUE", "True"])
@each("flag", [row.flag for row in TABLE if row.text is None and not row.refusal])
def test_booleans_take_words_on_the_command_line_too(flag, word):
    assert parsed([f"{flag}={word}"], {}).settings == parsed([flag], {}).settings


@each("word", ["0", "false", "FALSE"])
@each("flag", [row.flag for row in TABLE if row.text is None])
def test_booleans_can_be_false(flag, word):
    command = parsed([f"{flag}={word}"], {})
    assert (command.settings, command.notices) == (LaunchSettings(), ())


@each(
    ("argv", "environ"),
    [
        (["--sharded", "1"], {"SHARDED": "True"}),
        (["--sharded=true"], {"SHARDED": "1"}),
    ],
)
def test_sharded_takes_the_same_words(argv, environ):
    assert parsed(argv, {}).settings.sharded == parsed([], environ).settings.sharded == "true"


def test_max_image_fetch_size_of_the_router_is_taken_too():
    for command, given in (
        (parsed(["--max-image-fetch-size", "5"], {}), "--max-image-fetch-size"),
        (parsed([], {"MAX_IMAGE_FETCH_SIZE": "5"}), "MAX_IMAGE_FETCH_SIZE"),
    ):
        assert command.notices == (f"{given} has no effect: no images are fetched",)


@each(
    ("argv", "graphs"),
    [
        ("--cuda-graphs 0", ()),
        ("--cuda-graphs 8", (8,)),
        ("--cuda-graphs 1,2 --cuda-graphs 4", (1, 2, 4)),
        ("", None),
    ],
)
def test_cuda_graphs(argv, graphs):
    assert documents(parsed(argv.split(), {}).settings)[0].cuda_graphs == graphs


@each(
    ("argv", "sentence"),
    [
        ("--sharded maybe", "neither true nor false"),
        ("--sharded", "requires an argument"),
        ("--sharded true --num-shard 1", "contradict each other"),
        ("--num-shard 0", ">= 1"),
        ("--cuda-graphs 1,x", "x is no whole number"),
        ("--cuda-graphs ,", "nothing is no whole number"),
        ("--cuda-graphs -1", "-1 is no whole number"),
        ("--cuda-memory-fraction 0", "> 0"),
        ("--cuda-memory-fraction 1.5", "<= 1"),
        ("--rope-scaling yarn", "linear"),
        ("--rope-factor 0", "> 0"),
        ("--watermark-gamma 1", "< 1"),
        ("--usage-stats maybe", "no-stack"),
        ("--prometheus-port 70000", "65535"),
        ("--waiting-served-ratio x", "unable to convert"),
        ("--waiting-served-ratio -1", ">= 0"),
        ("--validation-workers 0", ">= 1"),
        ("--max-batch-size 0", ">= 1"),
        ("--quantize", "requires an argument"),
        ("--dtype float16 --quantize gptq", "both decide the number format"),
        ("--max-input-tokens 5 --max-input-length 5", "are one setting (give one)"),
        ("--max-input-tokens 9 --max-total-tokens 9", "no room for an answer"),
        ("--max-total-tokens 9 --max-batch-total-tokens 8", "would never fit"),
        ("--max-batch-prefill-tokens 9 --max-batch-total-tokens 8", "could ever be so large"),
        ("--lora-adapters a=b=c", "is none of ID"),
        ("--lora-adapters a@", "is none of ID"),
        ("--lora-adapters =a", "is none of ID"),
        ("--lora-adapters a/b,a/b@main", "names a/b twice"),
    ],
)
def test_refused_values(argv, sentence):
    with pytest.raises(UsageError) as caught:
        cli.parse(argv.split(), {})
    assert sentence in str(caught.value)


@each(
    "environ",
    [
        {"MAX_INPUT_TOKENS": "5", "MAX_INPUT_LENGTH": "5"},
        {"MAX_INPUT_TOKENS": "5", "MAX_INPUT_LENGTH": "6"},
    ],
)
def test_both_names_of_the_longest_prompt_are_an_error_though_they_agree(environ):
    with pytest.raises(UsageError, match="contradict each other"):
        cli.parse([], environ)
    with pytest.raises(UsageError, match="--max-input-tokens and MAX_INPUT_LENGTH name one limit"):
        cli.parse(["--max-input-tokens", "5"], {"MAX_INPUT_LENGTH": environ["MAX_INPUT_LENGTH"]})
    overridden = parsed(["--max-input-tokens", "5"], {"MAX_INPUT_TOKENS": "9"})
    assert overridden.settings.max_input_tokens == 5


def test_a_prompt_longer_than_a_step_is_no_contradiction():
    argv = ["--max-input-tokens", "99", "--max-batch-prefill-tokens", "9"]
    settings = parsed(argv, {}).settings
    assert (settings.max_input_tokens, settings.max_batch_prefill_tokens) == (99, 9)


@each(
    ("text", "adapters"),
    [
        ("owner/a", [("owner/a", "owner/a", None)]),
        ("owner/a@v1", [("owner/a", "owner/a", "v1")]),
        ("mine=/some/where", [("mine", "/some/where", None)]),
        ("mine=owner/a@v1", [("mine", "owner/a", "v1")]),
        (" a/b , c=./d ", [("a/b", "a/b", None), ("c", "./d", None)]),
        ("mine=owner/a:Q8_0@v1", [("mine", "owner/a:Q8_0", "v1")]),
        ("mine=/data/x@2024/a", [("mine", "/data/x@2024/a", None)]),
        ("/data/x@2024", [("/data/x@2024", "/data/x@2024", None)]),
        ("mine=./x@1/a@2", [("mine", "./x@1/a@2", None)]),
        ("mine=~/x@1", [("mine", "~/x@1", None)]),
        ("", []),
    ],
)
def test_adapter_names(text, adapters):
    found = parse_adapters(parsed(["--lora-adapters", text], {}).settings.lora_adapters)
    assert [(one.name, one.origin, one.revision) for one in found] == adapters
