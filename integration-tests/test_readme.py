"""The README's first steps, run as they stand but for the port."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def at(deployment: Deployment, text: str) -> str:
    assert "http://localhost:3000" in text
    return text.replace("http://localhost:3000", deployment.url)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


CURLS = [text for text in blocks("bash") if text.startswith("curl ")]
SNIPPETS = [text for text in blocks("python") if "http://localhost:3000" in text]


def answer_of(deployment: Deployment, containing: str) -> dict[str, Any]:
    """What the README's curl command with these words is answered."""
    (text,) = [text for text in CURLS if containing in text]
    command = shlex.split(at(deployment, text).replace("\\\n", " "))
    shown = subprocess.run([*command, "-sS"], capture_output=True, text=True, check=True).stdout
    return json.loads(shown)


pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def test_the_question_is_answered(demo: Deployment) -> None:
    answer = answer_of(demo, "What is Backplane?")
    assert answer["choices"][0]["message"]["content"].strip()
    assert answer["usage"]["completion_tokens"] <= 60


def test_the_grammar_is_obeyed(demo: Deployment) -> None:
    person = json.loads(answer_of(demo, '"grammar"')["generated_text"])
    assert person["name"] in {"Anna", "Ben"}
    assert person["age"] <= 99


def test_the_function_is_called(demo: Deployment) -> None:
    (choice,) = answer_of(demo, '"tools"')["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}


def test_there_is_nothing_else_to_try() -> None:
    assert (len(CURLS), len(SNIPPETS)) == (3, 2)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["openai", "huggingface_hub"])
def test_the_clients_print_an_answer(demo: Deployment, snippet: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", at(demo, snippet)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert len(shown.split()) >= 3
