"""A marked text is found by the command that looks for marks, and a plain one is not."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract.conftest import kept
from contract.wire import generated
from deployment import BACKPLANE, Deployment

# Hot, so that there is something to choose between: a text that is certain bears no mark.
OPTIONS = {"do_sample": True, "temperature": 2.0, "max_new_tokens": 120}
PROMPT = "Tell a tale of"


@pytest.fixture(scope="module")
def marking() -> Iterator[Deployment]:
    """The demo model is surer of itself than grown ones are, so its marks have to be strong."""
    with kept("--watermark-delta", "8") as deployment:
        yield deployment


def detect(path: Path, *arguments: str) -> tuple[int, dict]:
    run = subprocess.run(
        [str(BACKPLANE), "detect-watermark", str(path), "--json", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode in {0, 1}, run.stderr
    return run.returncode, json.loads(run.stdout)


@pytest.mark.parametrize("watermark", [True, False], ids=["marked", "plain"])
def test_the_detector_tells_marked_from_plain(marking, tmp_path, watermark):
    """Over a few texts together, as one alone may end before it says anything."""
    token_ids = []
    for seed in range(4):
        answer = generated(marking, PROMPT, watermark=watermark, seed=seed, **OPTIONS)
        token_ids += [token["id"] for token in answer["details"]["tokens"]]
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps(token_ids))
    status, report = detect(ids, "--tokens")
    assert report["watermarked"] is watermark, report
    assert status == (0 if watermark else 1)


def test_the_text_is_enough_where_its_server_runs(marking, tmp_path):
    answer = generated(marking, PROMPT, watermark=True, seed=1, **OPTIONS)
    text = tmp_path / "text.txt"
    text.write_text(answer["generated_text"])
    _, report = detect(text, "--url", marking.url)
    assert report["watermarked"], report
