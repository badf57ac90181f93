"""Workers' last words, whoever asks, in whatever order the answers come."""

import subprocess
import sys
from itertools import pairwise

from backplane_core import telemetry
from backplane_core.messages import RunnerStats
from backplane_server.metrics.exposition import expose
from backplane_server.metrics.worker_records import WorkerRecords
from backplane_server.metrics.worker_series import name_of_life, worker_series
from hypothesis import given
from hypothesis import strategies as st

COUNTERS = ("num_steps", "num_prompt_tokens", "num_generated_tokens", "num_failed")


def grown(steps):
    """What a worker says one time after the other: counters that never fall, gauges that do."""
    total = RunnerStats()
    said = []
    for step in steps:
        counts = {
            name: getattr(total, name) + more for name, more in zip(COUNTERS, step, strict=True)
        }
        total = RunnerStats(**counts, running=step[0])
        said.append(total)
    return said


LIVES = st.lists(
    st.lists(st.tuples(*[st.integers(0, 3)] * len(COUNTERS)), min_size=1, max_size=5),
    min_size=1,
    max_size=4,
).map(lambda lives: {f"worker-0/{number}.sock": grown(steps) for number, steps in enumerate(lives)})


@given(lives=LIVES, data=st.data())
def test_sums_never_fall_and_count_each_life_once(tmp_path_factory, lives, data):
    folder = tmp_path_factory.mktemp("records") if data.draw(st.booleans()) else None
    # Two servers share a folder; without one there is one server.
    servers = [WorkerRecords(folder), WorkerRecords(folder)] if folder else [WorkerRecords(None)]
    heard = [(life, index) for life, said in lives.items() for index in range(len(said))]
    order = data.draw(st.permutations(heard))  # answers overtake each other
    sums = []
    for life, index in order:
        server = data.draw(st.sampled_from(servers))
        records = server.update({life: lives[life][index]})
        sums.append([sum(getattr(each, name) for each in records.values()) for name in COUNTERS])
    for earlier, later in pairwise(sums):
        assert all(before <= now for before, now in zip(earlier, later, strict=True))
    last = {life: said[-1] for life, said in lives.items()}
    for server in servers:
        records = server.update({})
        for name in COUNTERS:
            assert sum(getattr(each, name) for each in records.values()) == sum(
                getattr(each, name) for each in last.values()
            )


def test_a_life_that_began_is_known_before_it_counts():
    records = WorkerRecords(None)
    records.update({"worker-0/a": RunnerStats(num_steps=5)})
    assert records.update({"worker-0/a": RunnerStats()})["worker-0/a"].num_steps == 5
    records.update({"worker-0/b": RunnerStats(), "worker-1/c": RunnerStats()})
    text = expose(worker_series(records.update({}), [], capacity=0, num_ready=0)).decode()
    assert "backplane_worker_restarts 1.0\n" in text
    assert "backplane_engine_steps 5.0\n" in text


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    program = (
        "import sys; from pathlib import Path; "
        "from backplane_core.messages import RunnerStats; "
        "from backplane_server.metrics.worker_records import WorkerRecords; "
        "records = WorkerRecords(Path(sys.argv[1])); "
        "[records.update({f'w/{sys.argv[2]}-{n}': RunnerStats(num_steps=1)}) for n in range(50)]"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(number)])
        for number in range(3)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(WorkerRecords(tmp_path).update({})) == 150
    assert {path.name for path in tmp_path.iterdir()} == {"workers.lock", "workers.msgpack"}


def test_without_its_folder_a_server_tells_what_it_heard(tmp_path, caplog):
    records = WorkerRecords(tmp_path / "gone")
    assert records.update({"w/a": RunnerStats(num_steps=2)})["w/a"].num_steps == 2
    assert records.update({"w/b": RunnerStats(num_steps=1)}).keys() == {"w/a", "w/b"}
    assert "not shared" in caplog.text


def test_histograms_of_all_lives_are_added():
    counted = telemetry.BatchTelemetry()
    counted.produced(1)
    counted.produced(3)
    counted.admitted(2)
    stats = RunnerStats(histograms=counted.histograms)
    text = expose(worker_series({"a/1": stats, "b/1": stats}, [], capacity=7, num_ready=1)).decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines["tgi_request_skipped_tokens_count"] == "4.0"
    assert lines["tgi_request_skipped_tokens_sum"] == "4.0"
    assert lines['tgi_request_skipped_tokens_bucket{le="0.0"}'] == "2.0"
    assert lines['tgi_request_skipped_tokens_bucket{le="1.0"}'] == "2.0"
    assert lines['tgi_request_skipped_tokens_bucket{le="2.0"}'] == "4.0"
    assert lines['tgi_batch_next_size_bucket{le="+Inf"}'] == "2.0"
    assert lines["tgi_batch_max_total_tokens"] == "7.0"


def test_a_worker_of_other_bounds_spoils_nothing():
    odd = RunnerStats(histograms={telemetry.NEXT_SIZE: telemetry.Histogram(counts=(1, 2), sum=3.0)})
    text = expose(worker_series({"a/1": odd}, [], capacity=0, num_ready=0)).decode()
    assert "tgi_batch_next_size_count 0.0\n" in text
    assert "tgi_batch_next_size_sum 0.0\n" in text


def test_a_life_s_name_says_whose_it_is():
    assert name_of_life("worker-0", "/some/where/worker-0-3.sock") == "worker-0/worker-0-3.sock"
