"""`make install-torch`: what it says before it downloads, what it has pip do, and what it keeps."""

import base64
import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import sysconfig
import threading
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def install_torch(script):
    return script("install_torch")


def files_of(module, *rows):
    return [module.Download(name, version, "https://h/x.whl", size) for name, version, size in rows]


# ── what it says ─────────────────────────────────────────────────────────────────────────


def report(*rows):
    return {
        "install": [
            {"metadata": {"name": name, "version": version}, "download_info": {"url": url}}
            for name, version, url in rows
        ]
    }


def test_torch_and_transformers_come_first(install_torch):
    rows = [("Jinja2", "3.1", "a"), ("transformers", "5.23.0", "b"), ("torch", "2.13.0", "c")]
    files = install_torch.read_report(report(*rows))
    assert [file.name for file in files] == ["torch", "transformers", "jinja2"]
    assert files[0] == install_torch.Download("torch", "2.13.0", "c")


@pytest.mark.parametrize(
    ("version", "others", "words"),
    [
        ("2.13.0+cpu", [], "for the CPU alone"),
        ("2.13.0+cu130", [], "NVIDIA GPUs (cu130)"),
        ("2.13.0", [("nvidia-cublas", "13", 1)], "NVIDIA GPUs"),
        ("2.13.0+rocm7.1", [], "AMD GPUs (rocm7.1)"),
        ("2.13.0+xpu", [], "Intel GPUs"),
        ("2.13.0", [], "published for this system"),
    ],
)
def test_the_kind_of_build_is_named(install_torch, version, others, words):
    files = files_of(install_torch, ("torch", version, 1), *others)
    assert words in install_torch.kind_of_build(files)


def test_a_cuda_build_is_told_with_its_parts_and_the_way_out(install_torch):
    files = files_of(
        install_torch,
        ("torch", "2.13.0", 540_000_000),
        ("transformers", "5.23.0", 11_000_000),
        ("nvidia-cublas", "13.4", 600_000_000),
        ("triton", "3.9.0", 286_000_000),
        ("sympy", "1.14.0", 6_000_000),
    )
    text = install_torch.describe(files)
    first, torch, transformers, parts, rest, *remedy = text.splitlines()
    assert first == "pip is going to install 5 packages, 1.4 GB:"
    build = "the build for NVIDIA GPUs, which runs on the CPU too"
    assert torch.strip() == f"torch 2.13.0, {build}: 540.0 MB"
    assert transformers.strip() == "transformers 5.23.0: 11.0 MB"
    assert parts.strip() == "2 parts of CUDA, 886.0 MB: nvidia-cublas 13.4, triton 3.9.0"
    assert rest.strip() == "what they need, 6.0 MB: sympy 1.14.0"
    assert "make install-torch ARGS=" in "\n".join(remedy)


def test_no_other_build_is_offered_where_torch_stays(install_torch):
    text = install_torch.describe(files_of(install_torch, ("transformers", "5.23.0", 1_000_000)))
    assert text.splitlines()[1:] == ["    transformers 5.23.0: 1.0 MB"]


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((1_000_000, 2_500_000), "3.5 MB"),
        ((1_000_000, None), "at least 1.0 MB"),
        ((None, None), "of unknown size"),
    ],
)
def test_a_total_says_what_it_does_not_know(install_torch, sizes, text):
    rows = [(f"package{number}", "1", size) for number, size in enumerate(sizes)]
    assert install_torch.total(files_of(install_torch, *rows)) == text


class Sizes(http.server.BaseHTTPRequestHandler):
    """Answers HEAD with a length for one path, and with 404 for the rest."""

    def do_HEAD(self):
        known = self.path == "/known.whl"
        self.send_response(200 if known else 404)
        if known:
            self.send_header("Content-Length", "12345")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_sizes_are_asked_of_disk_and_servers(install_torch, tmp_path):
    wheel = tmp_path / "a file.whl"
    wheel.write_bytes(bytes(77))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sizes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        rows = [
            install_torch.Download("disk", "1", wheel.as_uri()),
            install_torch.Download("known", "1", f"{base}/known.whl"),
            install_torch.Download("missing", "1", f"{base}/missing.whl"),
            install_torch.Download("gone", "1", (tmp_path / "gone.whl").as_uri()),
            install_torch.Download("odd", "1", "git+ssh://host/place"),
        ]
        sizes = {file.name: file.num_bytes for file in install_torch.with_sizes(rows)}
    finally:
        server.shutdown()
        server.server_close()
    assert sizes == {"disk": 77, "known": 12345, "missing": None, "gone": None, "odd": None}


def test_what_the_lock_brought_is_held(install_torch):
    lock = """
        [[package]]
        name = "numpy"
        source = { registry = "r" }
        [[package]]
        name = "numpy"
        source = { registry = "r" }
        [[package]]
        name = "backplane-core"
        source = { editable = "core" }
        [[package]]
        name = "absent"
        source = { registry = "r" }
    """
    installed = {"numpy": "2.4.6", "backplane-core": "0.1.0", "torch": "2.13.0"}
    assert install_torch.held_versions(lock, installed) == ["numpy==2.4.6"]


def test_the_pins_are_in_the_range_that_the_package_names(members):
    requirements = (ROOT / "backends" / "torch" / "requirements.txt").read_text()
    pins = dict(
        line.split("#")[0].strip().split("==")
        for line in requirements.splitlines()
        if line and not line.startswith("#")
    )
    assert {"torch", "transformers"} <= set(pins)
    extra = members[ROOT / "backends" / "torch"]["project"]["optional-dependencies"]["engine"]
    ranges = dict(map(split_requirement, extra))
    for name, version in pins.items():
        numbers = as_numbers(version)
        for bound in ranges[name].split(","):
            if bound.startswith(">="):
                assert numbers >= as_numbers(bound[2:])
            else:
                assert bound.startswith("<")
                assert numbers < as_numbers(bound[1:])


def split_requirement(row):
    end = min(row.index(mark) for mark in "<>=" if mark in row)
    return row[:end], row[end:]


def as_numbers(version):
    return tuple(int(number) for number in version.split("."))


# ── what it does: a real pip, a real environment, wheels of our own ──────────────────────


def write_wheel(folder, name, version, *requires):
    dist_info = f"{name}-{version}.dist-info"
    contents = {
        f"{name}/__init__.py": "",
        f"{dist_info}/METADATA": "\n".join(
            [
                "Metadata-Version: 2.1",
                f"Name: {name}",
                f"Version: {version}",
                *(f"Requires-Dist: {requirement}" for requirement in requires),
                "",
            ]
        ),
        f"{dist_info}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    rows = []
    for path, text in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        rows.append(f"{path},sha256={digest.decode()},{len(text)}")
    contents[f"{dist_info}/RECORD"] = "\n".join([*rows, f"{dist_info}/RECORD,,", ""])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)


@pytest.fixture
def checkout(tmp_path):
    """A checkout with an empty environment, beside a folder of wheels; returns a runner."""
    tree, wheels = tmp_path / "tree", tmp_path / "wheels"
    (tree / "scripts").mkdir(parents=True)
    (tree / "backends" / "torch").mkdir(parents=True)
    wheels.mkdir()
    for name in ("install_torch.py", "source_files.py"):
        shutil.copy(ROOT / "scripts" / name, tree / "scripts" / name)
    requirements = tree / "backends" / "torch" / "requirements.txt"
    requirements.write_text("torch==2.13.0\ntransformers==5.23.0\n")
    (tree / "uv.lock").write_text('[[package]]\nname = "held"\nsource = { registry = "r" }\n')
    venv.create(tree / ".venv", symlinks=True)
    pip = tmp_path / "pip"
    pip.mkdir()
    (pip / "pip").symlink_to(Path(sysconfig.get_path("purelib")) / "pip")
    environment = {
        "PATH": "",
        "PYTHONPATH": str(pip),
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
    }

    def run(*arguments):
        return subprocess.run(
            [tree / ".venv" / "bin" / "python", tree / "scripts" / "install_torch.py", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    run.tree, run.wheels, run.environment = tree, wheels, environment
    return run


def installed(checkout):
    listed = subprocess.run(
        [checkout.tree / ".venv" / "bin" / "python", "-m", "pip", "list", "--format=json"],
        env=checkout.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {row["name"]: row["version"] for row in json.loads(listed)}


def test_it_says_what_comes_then_brings_it_then_rests(checkout):
    write_wheel(checkout.wheels, "torch", "2.13.0+cpu", "held>=1")
    write_wheel(checkout.wheels, "torch", "2.13.0")
    write_wheel(checkout.wheels, "transformers", "5.23.0", "small")
    write_wheel(checkout.wheels, "small", "1.0")
    write_wheel(checkout.wheels, "held", "1.5")
    result = checkout()
    assert result.returncode == 0, result.stderr
    assert "pip is going to install 4 packages" in result.stderr
    assert "torch 2.13.0+cpu, the build for the CPU alone" in result.stderr
    assert installed(checkout).items() >= {"torch": "2.13.0+cpu", "transformers": "5.23.0"}.items()
    again = checkout()
    assert again.returncode == 0
    assert again.stderr == "== torch 2.13.0+cpu, transformers 5.23.0: installed already\n"
    assert again.stdout == ""


def test_what_the_lock_brought_is_not_changed(checkout):
    """transformers would like a newer one: that is for `make lock`, not for pip, to decide."""
    write_wheel(checkout.wheels, "held", "1.5")
    subprocess.run(
        [checkout.tree / ".venv" / "bin" / "python", "-m", "pip", "install", "-q", "held"],
        env=checkout.environment,
        check=True,
    )
    write_wheel(checkout.wheels, "held", "2.0")
    write_wheel(checkout.wheels, "torch", "2.13.0+cpu")
    write_wheel(checkout.wheels, "transformers", "5.23.0", "held>=2")
    result = checkout()
    assert result.returncode == 1
    assert "held==1.5" in result.stderr
    assert installed(checkout)["held"] == "1.5"
    assert "torch" not in installed(checkout)


def test_a_failure_says_what_works_without(checkout):
    result = checkout()
    assert result.returncode == 1
    assert "torch==2.13.0" in result.stderr, "what pip says"
    assert "make serve" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_arguments_go_to_pip(checkout, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_wheel(elsewhere, "torch", "2.13.0+cu130")
    write_wheel(elsewhere, "transformers", "5.23.0")
    result = checkout("--find-links", str(elsewhere))
    assert result.returncode == 0, result.stderr
    assert "NVIDIA GPUs (cu130)" in result.stderr
    assert installed(checkout)["torch"] == "2.13.0+cu130"


# ── members that are gone ────────────────────────────────────────────────────────────────


def test_an_editable_distribution_without_its_source_is_named(script, tmp_path):
    here, gone = tmp_path / "here now", tmp_path / "gone"
    for folder in (here, gone):
        folder.mkdir()
    (here / "pyproject.toml").touch()  # of the other there is but what Python left: a branch change
    (gone / "__pycache__").mkdir()
    site = tmp_path / "site"
    for name, folder, editable in [
        ("backplane-here", here, True),
        ("backplane-gone", gone, True),
        ("unpacked", gone, False),
    ]:
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        origin = {"url": folder.as_uri(), "dir_info": {"editable": editable}}
        (info / "direct_url.json").write_text(json.dumps(origin))
    plain = site / "plain-1.0.dist-info"
    plain.mkdir()
    (plain / "METADATA").write_text("Metadata-Version: 2.1\nName: plain\nVersion: 1.0\n")
    assert script("departed_members").departed([str(site)]) == ["backplane-gone"]


def test_no_member_of_this_checkout_is_gone():
    shown = subprocess.run(
        [sys.executable, ROOT / "scripts" / "departed_members.py"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.strip() == ""
