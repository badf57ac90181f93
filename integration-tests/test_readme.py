"""The README's first steps, run as they stand but for the port."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deployment import Deployment

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return found


def at(deployment: Deployment, text: str) -> str:
    assert "http://localhost:3000" in text
    return text.replace("http://localhost:3000", deployment.url)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_command_is_answered(demo: Deployment) -> None:
    command = shlex.split(at(demo, block("bash", "curl ").replace("\\\n", " ")))
    shown = subprocess.run([*command, "-sS"], capture_output=True, text=True, check=True).stdout
    answer = json.loads(shown)
    assert answer["choices"][0]["message"]["content"].strip()
    assert answer["usage"]["completion_tokens"] <= 60


def test_the_client_snippet_prints_an_answer(demo: Deployment) -> None:
    snippet = at(demo, block("python", "import OpenAI"))
    shown = subprocess.run(
        [sys.executable, "-c", snippet], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert len(shown.split()) >= 3
