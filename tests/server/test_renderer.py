"""Whose answer is whose: callers of the renderer that leave at any moment."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from backplane_core.errors import ProtocolError, TemplateError, UnavailableError
from backplane_core.wire import FrameDecoder, encode
from backplane_server.helper_process.child import encoded_answer
from backplane_server.templates.child import Render, Rendered, failed
from backplane_server.templates.renderer import RendererProcess


@pytest.fixture
async def renderer():
    process = RendererProcess()
    yield process
    await process.close()


async def leave(renderer, when):
    """Ask for somebody's text and leave; `when` is awaited in between."""
    task = asyncio.create_task(renderer.render("{{ x }}", {"x": "of one who left"}))
    await when
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def turns_of_the_loop(number):
    for _ in range(number):
        await asyncio.sleep(0)


async def assert_next_answers_are_their_own(renderer):
    for name in ("alice", "bob", "carol"):
        assert await renderer.render("{{ x }}", {"x": name}) == name


@pytest.mark.parametrize("delay", [0, 0.005, 0.05, 0.2])
async def test_leaving_while_the_process_starts(renderer, delay):
    await leave(renderer, asyncio.sleep(delay))
    await assert_next_answers_are_their_own(renderer)


async def test_leaving_at_every_turn_costs_no_process(renderer):
    await renderer.start()
    pid = renderer._process.pid
    for number in range(30):
        await leave(renderer, turns_of_the_loop(number))
        await assert_next_answers_are_their_own(renderer)
    assert renderer._process.pid == pid


async def test_leaving_in_the_queue(renderer):
    await renderer.start()
    tasks = [
        asyncio.create_task(renderer.render("{{ x }}", {"x": str(number)})) for number in range(9)
    ]
    await turns_of_the_loop(3)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[1::2] == ["1", "3", "5", "7"]
    await assert_next_answers_are_their_own(renderer)


async def test_an_answer_to_another_question_ends_the_process(renderer):
    await renderer.start()
    renderer._process.stdin.write(encode(Render(id=-1, source="a secret", variables={})))
    with pytest.raises(ProtocolError):
        await renderer.render("{{ x }}", {"x": "mine"})
    await assert_next_answers_are_their_own(renderer)


async def test_two_answers_at_once_end_the_process(renderer):
    await renderer.start()
    stray = encode(Render(id=-1, source="a secret", variables={}))
    # Both answers lie in the pipe before the next one is read.
    renderer._process.stdin.write(stray + stray)
    await asyncio.sleep(0.3)
    with pytest.raises(ProtocolError):
        await renderer.render("{{ x }}", {"x": "mine"})
    await assert_next_answers_are_their_own(renderer)


async def test_closing_in_the_midst_of_a_template_does_not_wait():
    renderer = RendererProcess()
    await renderer.start()
    slow = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    tasks = [asyncio.create_task(renderer.render(slow, {})) for _ in range(3)]
    await asyncio.sleep(0.1)
    begun = time.monotonic()
    await renderer.close()
    assert time.monotonic() - begun < 1
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [type(result) for result in results[1:]] == [UnavailableError] * 2


SLOW = "{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}slow"


async def test_a_process_that_is_killed_costs_nobody_an_answer(renderer):
    await renderer.start()
    task = asyncio.create_task(renderer.render(SLOW, {}))
    await asyncio.sleep(0.01)
    pid = renderer._process.pid
    os.kill(pid, signal.SIGKILL)
    assert await task == "slow"
    assert renderer._process.pid != pid


async def test_a_process_that_is_killed_twice_is_no_fault_of_the_template(renderer):
    await renderer.start()
    ask = renderer._ask
    pids = set()

    async def ask_and_kill(process, request):
        if request.source == "{{ x }}":
            pids.add(process.pid)
            process.kill()
            await process.wait()
        return await ask(process, request)

    renderer._ask = ask_and_kill
    with pytest.raises(UnavailableError, match="killed twice") as caught:
        await renderer.render("{{ x }}", {"x": "mine"})
    assert caught.value.retry_after_s == 1
    assert len(pids) == 2
    renderer._ask = ask
    await assert_next_answers_are_their_own(renderer)


async def test_a_process_that_cannot_start_is_no_fault_of_the_template(renderer, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(UnavailableError, match="does not start") as caught:
            await renderer.render("{{ x }}", {"x": "mine"})
    assert caught.value.retry_after_s == 1
    await assert_next_answers_are_their_own(renderer)


def fail_by(error):
    def answer(request):
        raise error

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (fail_by(MemoryError()), "memory"),
        (fail_by(KeyError("/secret")), "KeyError"),
        (lambda request: Rendered(id=request.id, text="\ud800"), "UnicodeEncodeError"),
    ],
)
def test_whatever_fails_while_an_answer_is_made_is_an_answer(answer, words):
    question = Render(id=3, source="", variables={})
    [told] = FrameDecoder(Rendered).feed(encoded_answer(question, answer, failed))
    assert told.id == 3
    error = told.error.restore()
    assert isinstance(error, TemplateError)
    assert words in error.message
    assert "secret" not in error.message


@pytest.mark.parametrize("source", ["{{ '\\ud800' }}", "{{ raise_exception('\\ud800') }}"])
async def test_what_is_not_unicode_is_the_templates_fault_and_costs_no_process(renderer, source):
    await renderer.start()
    pid = renderer._process.pid
    with pytest.raises(TemplateError):
        await renderer.render(source, {})
    assert renderer._process.pid == pid


def children_of(pid):
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def test_over_http_nobody_reads_anothers_conversation(stack_module):
    path = "/v1/chat/completions"

    def body(content):
        return {"messages": [{"role": "user", "content": content}], "temperature": 0}

    with stack_module.Stack() as stack:
        for delay in (0.0, 0.01, 0.05, 0.15, 0.3):
            for child in children_of(stack.server.pid):  # as a template that took too long does
                os.kill(child, signal.SIGKILL)
            raw = stack.connect()
            raw.sendall(stack_module.http_request(path, body("the secret of one who left")))
            time.sleep(delay)
            raw.close()
            time.sleep(0.02)
            for name in ("alice", "bob", "carol"):
                answer = stack.post(path, body(name)).json()
                assert answer["choices"][0]["message"]["content"] == name
