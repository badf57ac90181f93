"""The cache of the compiled bindings: what names a wheel, what a failing build says, and locks."""

import io
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(script):
    return script("llama_cpp_wheel")


@pytest.fixture
def source(wheel):
    return wheel.Source("0.3.36", "ab" * 32)


def test_the_lock_fixes_version_and_hash(wheel):
    source = wheel.locked_source(ROOT / "uv.lock")
    assert source.version.startswith("0.3.")
    assert len(bytes.fromhex(source.sha256)) == 32


def test_a_lock_without_the_package_names_the_remedy(wheel, tmp_path):
    lock = tmp_path / "uv.lock"
    lock.write_text('[[package]]\nname = "other"\n')
    with pytest.raises(wheel.WheelError, match="make lock"):
        wheel.locked_source(lock)


def test_the_key_follows_version_flags_and_processor(wheel, source):
    base = wheel.cache_key(source, ("-DA=ON",), "avx2 fma")
    others = {
        wheel.cache_key(wheel.Source("0.3.37", source.sha256), ("-DA=ON",), "avx2 fma"),
        wheel.cache_key(wheel.Source("0.3.36", "cd" * 32), ("-DA=ON",), "avx2 fma"),
        wheel.cache_key(source, ("-DA=OFF",), "avx2 fma"),
        wheel.cache_key(source, ("-DA=ON",), "avx2 avx512f fma"),
    }
    assert len(others | {base}) == 5
    assert base == wheel.cache_key(source, ("-DA=ON",), "avx2 fma")


@pytest.mark.parametrize("name", ["flags", "Features"])
def test_processor_features_are_sorted(wheel, tmp_path, name):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"model name\t: X\n{name}\t\t: sse2 avx fma\n{name}\t: other core\n")
    assert wheel.cpu_features(cpuinfo) == "avx fma sse2"


def test_the_cache_can_be_moved(wheel, tmp_path):
    assert wheel.cache_root({"BACKPLANE_CACHE": str(tmp_path)}) == tmp_path / "wheels"
    assert wheel.cache_root({}) == Path.home() / ".cache" / "backplane" / "wheels"


def test_progress_counts_steps_and_estimates_the_rest(wheel):
    progress = wheel.Progress()
    progress.feed("  [1/4] g++ a.cpp\n", now=10.0)
    progress.feed("  [2/4] g++ b.cpp\n", now=30.0)
    line = progress.render(started=0.0, now=30.0)
    assert "[2/4]" in line
    assert "0:30 so far" in line
    assert "0:20 left" in line


def test_a_build_shows_life_and_keeps_its_log(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(wheel, "SECONDS_BETWEEN_LINES", 0.05)
    program = (
        "import time\nfor i in range(1, 4):\n print(f'[{i}/3] cc', flush=True)\n time.sleep(.2)"
    )
    out = io.StringIO()
    wheel.watch([sys.executable, "-c", program], {}, tmp_path / "log", out)
    shown = out.getvalue()
    assert "[1/3]" in shown
    assert "[3/3]" in shown
    assert (tmp_path / "log").read_text().count("cc") == 3


def test_a_failing_build_shows_the_tail_and_the_log(wheel, tmp_path):
    program = "import sys\nfor i in range(99): print('line', i)\nprint('fatal: x.cpp'); sys.exit(3)"
    log = tmp_path / "log"
    with pytest.raises(wheel.WheelError) as caught:
        wheel.watch([sys.executable, "-c", program], {}, log, io.StringIO())
    message = str(caught.value)
    assert "fatal: x.cpp" in message
    assert "line 98" in message
    assert "line 2\n" not in message
    assert str(log) in message
    assert "exit 3" in message


OPS = "vendor/llama.cpp/ops.cpp"
PATCH = f"""Why it is made.

--- a/{OPS}
+++ b/{OPS}
@@ -1,3 +1,3 @@
 first
-second
+2nd
 third
"""


@pytest.fixture
def archives(tmp_path):
    """A folder with a small source distribution, as pip downloads it."""
    folder = tmp_path / "llama_cpp_python-0.3.36"
    (folder / OPS).parent.mkdir(parents=True)
    (folder / OPS).write_text("first\nsecond\nthird\n")
    target = tmp_path / "archives"
    target.mkdir()
    with tarfile.open(target / f"{folder.name}.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    shutil.rmtree(folder)
    return target


@pytest.fixture
def patches(tmp_path):
    path = tmp_path / "llama-cpp-second.patch"
    path.write_text(PATCH)
    return (path,)


def test_the_key_follows_the_patches(wheel, source, patches):
    base = wheel.cache_key(source, (), "avx2", patches)
    assert base != wheel.cache_key(source, (), "avx2")
    patches[0].write_text(PATCH.replace("2nd", "zweite"))
    assert base != wheel.cache_key(source, (), "avx2", patches)


def test_patches_change_the_unpacked_source(wheel, archives, patches, tmp_path):
    folder = wheel.unpack(archives, tmp_path / "source")
    wheel.apply_patches(folder, patches)
    assert (folder / OPS).read_text() == "first\n2nd\nthird\n"


def test_a_patch_that_does_not_fit_stops_the_build(wheel, archives, patches, tmp_path):
    folder = wheel.unpack(archives, tmp_path / "source")
    (folder / OPS).write_text("first\nanother\nthird\n")
    with pytest.raises(wheel.WheelError, match=r"llama-cpp-second.patch does not fit"):
        wheel.apply_patches(folder, patches)


def test_every_patch_says_why_before_it_begins(wheel):
    assert wheel.PATCHES
    for patch in wheel.PATCHES:
        reason, _, change = patch.read_text().partition("\n--- a/vendor/llama.cpp/")
        assert change
        assert len(reason.split()) > 20


def test_a_download_without_a_source_distribution_is_told(wheel, tmp_path):
    with pytest.raises(wheel.WheelError, match="no source distribution"):
        wheel.unpack(tmp_path, tmp_path / "source")


def test_a_failing_build_leaves_nothing_in_the_cache(wheel, source, tmp_path, monkeypatch):
    monkeypatch.setattr(
        wheel, "download_command", lambda *_: [sys.executable, "-c", "raise SystemExit(1)"]
    )
    with pytest.raises(wheel.WheelError):
        wheel.build(source, tmp_path / "key", tmp_path / "log", io.StringIO())
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_finished_build_appears_whole(  # noqa: PLR0917 -- pytest names its fixtures
    wheel, source, archives, patches, tmp_path, monkeypatch
):
    program = (
        "import os, pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir();"
        f"assert '2nd' in pathlib.Path(sys.argv[2], {OPS!r}).read_text();"
        "assert 'GGML_NATIVE=ON' in os.environ['CMAKE_ARGS'];"
        "assert int(os.environ['CMAKE_BUILD_PARALLEL_LEVEL']) >= 1;"
        "(p / 'llama_cpp_python-0.3.36-py3-none-any.whl').write_text('x')"
    )
    fetch = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2])"
    monkeypatch.setattr(wheel, "PATCHES", patches)
    monkeypatch.setattr(
        wheel,
        "download_command",
        lambda *a: [sys.executable, "-c", fetch, str(archives), str(a[-1])],
    )
    monkeypatch.setattr(
        wheel,
        "pip_command",
        lambda folder, wheels: [sys.executable, "-c", program, str(wheels), str(folder)],
    )
    cache = tmp_path / "cache"
    built = wheel.build(source, cache / "key", tmp_path / "log", io.StringIO())
    assert built == wheel.cached(cache / "key")
    assert built.read_text() == "x"
    assert [path.name for path in cache.iterdir()] == ["key"]


def test_a_second_build_waits_for_the_first(wheel, tmp_path):
    lock = tmp_path / "key.lock"
    program = (
        "import fcntl, sys, time; h = open(sys.argv[1], 'w'); fcntl.flock(h, fcntl.LOCK_EX);"
        "print('held', flush=True); time.sleep(0.6)"
    )
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            program,
            str(lock),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    out = io.StringIO()
    started = time.monotonic()
    with wheel.locked(lock, out):
        waited = time.monotonic() - started
        assert holder.wait(5) == 0
    assert waited > 0.3
    assert "another build is running" in out.getvalue()
