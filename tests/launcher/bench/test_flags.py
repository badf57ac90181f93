"""Which variables the flags of `backplane bench` read: almost none."""

import pytest
from backplane_launcher import cli
from backplane_launcher.catalogue import Catalogue
from backplane_launcher.commands import BenchCommand, BenchEngineCommand
from backplane_launcher.environment import variables_of
from backplane_launcher.settings import flags_of
from backplane_launcher.settings.bench import BenchSettings
from backplane_launcher.settings.bench_engine import BenchEngineSettings


@pytest.fixture(autouse=True)
def catalogue(monkeypatch):
    monkeypatch.setattr(
        Catalogue, "load", classmethod(lambda cls, pythons: cls(facts=(), pythons=pythons))
    )


@pytest.mark.parametrize("settings", [BenchSettings, BenchEngineSettings])
def test_no_variable_but_the_key_sets_a_flag(settings):
    read = {name for flag in flags_of(settings).values() for name in variables_of(flag.name or ())}
    assert read <= {"BACKPLANE_API_KEY", "API_KEY"}


def test_the_command_with_its_lists():
    argv = "bench --concurrency 1,4 --compare a=http://x b=http://y --start c=z{port} --json -"
    command = cli.parse(argv.split(), {"API_KEY": "k"})
    assert isinstance(command, BenchCommand)
    settings = command.settings
    assert settings.concurrency == (1, 4)
    assert settings.compare == ("a=http://x", "b=http://y")
    assert settings.start == ("c=z{port}",)
    assert (settings.json, settings.api_key, settings.rate) == ("-", "k", ())


def test_the_engines_command_by_tgis_names():
    argv = "bench engine -b 1,4 -s 157 -d 96 -r 3 -w 0 --model-id echo: --max-batch-size 8"
    command = cli.parse(argv.split(), {"BATCH_SIZE": "7"})
    assert isinstance(command, BenchEngineCommand)
    bench = command.bench
    assert (bench.batch_size, bench.sequence_length, bench.decode_length) == ((1, 4), 157, 96)
    assert (bench.runs, bench.warmups) == (3, 0)
    assert (command.settings.model_id, command.settings.max_batch_size) == ("echo:", 8)


@pytest.mark.parametrize("command", ["bench", "bench engine"])
def test_the_help_pages(command, capsys):
    assert cli.parse([*command.split(), "--help"], {}) is None
    page = capsys.readouterr().out
    assert page.startswith(f"Usage: backplane {command} [OPTIONS]")
    assert "--output-length" in page or "--decode-length" in page
