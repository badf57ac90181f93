"""The parts of supervision that are arithmetic over time, and those that touch the machine once."""

import fcntl
import io
import os
import socket
import stat
from pathlib import Path

import pytest
from backplane_core.backend import AdapterSource
from backplane_core.control import WorkerUp
from backplane_core.errors import SetupError
from backplane_launcher.backoff import Backoff
from backplane_launcher.console_progress import ConsoleProgress
from backplane_launcher.download_progress import DownloadProgress
from backplane_launcher.launch_documents import engine_settings
from backplane_launcher.listener import address_of, is_open_to_others, listen, url_of
from backplane_launcher.run_directory import RunDirectory
from backplane_launcher.settings import LaunchSettings
from backplane_launcher.stall_watch import StallWatch

from .documents import SERVER_ARGUMENTS, server_told


def test_back_off_doubles_to_a_bound_and_forgets_after_health():
    backoff = Backoff()
    assert [backoff.after_failure(0.0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.after_failure(59.0) == 30
    assert backoff.after_failure(60.0) == 0.5


def test_a_worker_without_heartbeats_is_hung():
    watch = StallWatch(10.0, now=0.0)
    watch.beat(0, busy=False, now=1.0)
    assert watch.verdict(11.0) is None
    assert watch.verdict(11.1) == "hung: no heartbeat for 10 s"


def test_a_busy_worker_that_completes_no_step_is_hung():
    watch = StallWatch(10.0, now=0.0)
    for second in range(12):
        watch.beat(7, busy=True, now=float(second))
    assert watch.verdict(10.0) is None
    assert watch.verdict(10.1) == "hung: busy for 10 s without completing a step"


def test_steps_or_idleness_are_signs_of_health():
    stepping, idle = StallWatch(10.0, now=0.0), StallWatch(10.0, now=0.0)
    for second in range(100):
        stepping.beat(second // 9, busy=True, now=float(second))
        idle.beat(7, busy=False, now=float(second))
        assert stepping.verdict(second + 0.5) is None
        assert idle.verdict(second + 0.5) is None


def test_what_a_suspended_watcher_missed_is_no_sign():
    watch = StallWatch(10.0, now=0.0)
    watch.forgive(1000.0)
    assert watch.verdict(1009.0) is None
    assert watch.verdict(1011.0) is not None


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_listening_on_an_address_or_a_name(name):
    with listen(name, 0) as listening:
        assert address_of(listening)[0] == "127.0.0.1"
        assert not is_open_to_others(listening)
        with socket.create_connection(address_of(listening)):
            pass


def test_listening_on_all_interfaces():
    with listen("0.0.0.0", 0) as listening:
        assert is_open_to_others(listening)
        assert url_of(listening).startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("hostname", "sentence"),
    [
        ("no-such-host.invalid", "--hostname no-such-host.invalid does not resolve"),
        ("192.0.2.1", "--hostname 192.0.2.1 is no address of this machine"),
    ],
)
def test_where_one_cannot_listen(hostname, sentence):
    with pytest.raises(SetupError, match=sentence) as caught:
        listen(hostname, 0)
    assert "such as 0.0.0.0" in caught.value.remedy


def test_the_run_directory_is_private_and_removed(tmp_path):
    with RunDirectory(str(tmp_path)) as run:
        document = run.write_document("worker-0", WorkerUp(worker_id="w", socket_path="s"))
        assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
        assert stat.S_IMODE(document.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []


def test_leavings_are_swept_but_not_a_living_launchers_folder(tmp_path):
    dead, alive = tmp_path / "backplane-dead", tmp_path / "backplane-alive"
    foreign = tmp_path / "backplane-notes"
    for folder in (dead, alive, foreign):
        folder.mkdir(mode=0o700)
    (dead / "backplane-launcher.lock").touch()
    held = os.open(alive / "backplane-launcher.lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with RunDirectory(str(tmp_path)):
        assert not dead.exists()
        assert alive.exists()
        assert foreign.exists(), "a folder without our lock is none of ours"
    os.close(held)


def test_a_runtime_folder_too_deep_for_a_socket_is_passed_over(tmp_path):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with RunDirectory(str(deep)) as run:
        assert deep not in run.path.parents


def test_download_progress_over_several_files():
    heard = []
    now = [0.0]
    meter = DownloadProgress(
        lambda stage, fraction, detail: heard.append((stage, fraction, detail)),
        300,
        2,
        clock=lambda: now[0],
    )
    meter.start_file("a")
    now[0] = 1.0
    meter.bar_class()(total=100).update(100)
    meter.add(1)  # too soon after the last report to be one
    meter.add(-1)
    now[0] = 2.0
    meter.start_file("b")
    now[0] = 3.0
    meter.add(50)
    meter.restart_file()
    now[0] = 4.0
    meter.add(200)
    meter.finish()
    assert [fraction for _, fraction, _ in heard] == [0.0, 1 / 3, 1 / 3, 0.5, 1.0, 1.0]
    assert heard[1][2] == "a (1/2), 100 B of 300 B, 100 B/s"
    assert heard[-1] == ("download", 1.0, "2 files, 300 B")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal():
    terminal = Terminal()
    show = ConsoleProgress(terminal, as_json=False)
    show("download", 0.5, "a")
    show("download", 1.0, "done")
    drawn = terminal.getvalue()
    assert f"[{'#' * 15}{' ' * 15}]  50% a" in drawn
    assert drawn.endswith("100% done\n")
    assert drawn.count("\r") == 2


def test_lines_now_and_then_elsewhere(caplog):
    now = [0.0]
    show = ConsoleProgress(io.StringIO(), as_json=False, clock=lambda: now[0])
    with caplog.at_level("INFO"):
        for second in range(25):
            now[0] = float(second)
            show("download", second / 100, "")
        show("download", 1.0, "done")
    shown = [record.getMessage() for record in caplog.records]
    assert shown == ["download 0%", "download 10%", "download 20%", "download 100% done"]


def test_every_setting_reaches_the_engine_or_the_server():
    settings = LaunchSettings(
        max_concurrent_requests=1,
        max_input_tokens=2,
        max_total_tokens=3,
        max_batch_prefill_tokens=4,
        max_batch_total_tokens=5,
        max_batch_size=6,
        dtype="float16",
        quantize="gptq",
        kv_cache_dtype="fp8_e5m2",
        trust_remote_code=True,
        rope_scaling="dynamic",
        rope_factor=8.0,
        speculate=9,
        cuda_graphs=(10,),
    )
    adapters = (AdapterSource(name="a", path="p"),)
    engine = engine_settings(settings, num_shard=7, adapters=adapters)
    for name in engine.__struct_fields__:
        if name not in ("num_shard", "adapters", "memory_fraction"):
            assert getattr(engine, name) == getattr(settings, name), name
    assert (engine.num_shard, engine.adapters) == (7, adapters)
    fraction = engine_settings(LaunchSettings(cuda_memory_fraction=0.5))
    assert fraction.memory_fraction == 0.5
    changed = LaunchSettings(
        served_model_name="n", api_key=("k",), max_concurrent_requests=11,
        max_best_of=12, max_stop_sequences=13, max_top_n_tokens=14, max_client_batch_size=15,
        validation_workers=16, payload_limit=17, cors_allow_origin=("o",),
        allowed_host=("h",),
        tokenizer_config_path="t", chat_template="c", write_timeout=18.0,
        graceful_termination_timeout=19.0, log_level="debug", json_output=True,
        hostname="127.0.0.1", request_timeout=20.0, tls_cert_file="cert", tls_key_file="key",
        open_routes=("info",), tgi_strict=True, strict_model_name=True, tool_call_parser="hermes",
        reasoning_parser="think", disable_grammar_support=True, enable_prefill_logprobs=True,
        watermark_gamma=0.25, watermark_delta=21.0, compute_type="gpu", docker_label="l",
    )  # fmt: skip
    told = server_told(changed)
    plain = server_told(LaunchSettings())
    same = [name for name in told.__struct_fields__ if getattr(told, name) == getattr(plain, name)]
    # What is left over comes from the arguments, or no flag sets it.
    assert set(same) == {*SERVER_ARGUMENTS}
    assert told.tls_cert_file == str(Path("cert").absolute())
