"""Chat templates: what they may do, what they may not, and what ends them."""

import asyncio
import time

import pytest
from backplane_core.errors import ModelError, TemplateError, ValidationError
from backplane_server.templates.chat_prompt import (
    ChatPrompter,
    TemplateOptions,
    choose_templates,
    origin_of,
)
from backplane_server.templates.renderer import RendererProcess
from backplane_server.templates.sandbox import MAX_RANGE, check, render

HI = [{"role": "user", "content": "hi"}]

ATTACKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ().__class__.__bases__[0].__subclasses__()[0] }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ raise_exception.__globals__['__builtins__']['eval']('1') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ dict.__base__.__subclasses__() }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{% set x = messages.pop() %}",
    "{{ messages.clear() }}",
    "{% import 'os' as os %}",
    "{% include '/etc/passwd' %}",
    "{% extends 'x' %}",
    "{% from 'x' import y %}",
    "{% for i in range(10000000) %}x{% endfor %}",
    "{{ lipsum() }}",
    "{{ joiner() }}",
    "{{ get_flashed_messages() }}",
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{{ 1 / 0 }}",
    "{{ 1 + 'x' }}",
    "{{ undefined_name.attribute }}",
    "{% if %}",
    "{{ " + "(" * 300 + "1" + ")" * 300 + " }}",
    "{{ " + "1+" * 5000 + "1 }}",
    "{% if 1 %}" * 200 + "{% endif %}" * 200,
    "{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{%set n = namespace(a=1)%}{% for i in range(9000) %}{% set n.a = [n.a] %}{% endfor %}{{n.a}}",
    "x" * 1_000_001,
]

# These do not fail: the sandbox answers with an undefined value, which is worth nothing.
FRUITLESS = [
    "{{ messages[0].__class__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ ''|attr('__class__') }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{{ messages|map(attribute='__class__')|first }}",
    "{{ ([messages]|groupby('__class__'))[0][0] }}",
]


@pytest.mark.parametrize("attack", FRUITLESS)
def test_attacks_that_are_answered_with_nothing(attack):
    assert render(attack, {"messages": [{"role": "user", "content": "hi"}]}) == ""


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_fail_with_a_template_error(attack):
    messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(TemplateError) as caught:
        render(attack, {"messages": messages})
    assert messages == HI
    assert "0x" not in str(caught.value)


def test_what_chat_templates_use_works():
    source = (
        "{% set ns = namespace(n=0) %}"
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{% set ns.n = ns.n + 1 %}[{{ m['content'].strip().title() }}]{% endfor %}"
        "{{ ns.n }}{% generation %}g{% endgeneration %}"
        "{{ {'b': 'é<', 'a': [1]}|tojson }}|{{ [1]|tojson(indent=2) }}|{{ messages[::-1]|length }}"
        "{{ strftime_now('%%') }}"
    )
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": " hi "}]
    text = render(source, {"messages": messages})
    assert text == '[Hi]1g{"b": "é<", "a": [1]}|[\n  1\n]|2%'


def test_blocks_leave_no_blank_lines():
    assert render("a\n  {% if true %}\nb\n  {% endif %}\nc", {}) == "a\nb\nc"


def test_a_templates_own_refusal_is_told():
    with pytest.raises(TemplateError, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}", {})


def test_text_that_is_not_unicode_is_refused():
    with pytest.raises(TemplateError, match="not Unicode"):
        render("{{ '\\ud800' }}", {})
    with pytest.raises(TemplateError) as caught:
        render("{{ raise_exception('a \\ud800') }}", {})
    assert caught.value.message == "a ?"


def test_output_is_bounded():
    source = "{% for i in range(90000) %}{{ x }}{% endfor %}"
    with pytest.raises(TemplateError, match="longer than"):
        render(source, {"x": "y" * 1000})


@pytest.fixture(scope="module")
async def renderer():
    process = RendererProcess(time_limit_s=1.0)
    yield process
    await process.close()


BOMBS = {
    "time": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(s='aaaaaaaa') %}"
    "{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "power": "{{ 9 ** (9 ** (9 ** 9)) }}",
    "padding": "{{ 'a'|center(10000000000) }}",
    "format": "{{ '%10000000000d' % 1 }}",
    "repeat": "{{ 'a' * 10000000000 }}",
}


@pytest.mark.parametrize("bomb", list(BOMBS))
async def test_bombs_end_and_the_next_request_is_served(bomb):
    renderer = RendererProcess(time_limit_s=1.0)
    try:
        await renderer.start()
        begun = time.monotonic()
        with pytest.raises(TemplateError):
            await renderer.render(BOMBS[bomb], {})
        assert time.monotonic() - begun < 6
        assert await renderer.render("{{ x }}", {"x": "fine"}) == "fine"
    finally:
        await renderer.close()


async def test_a_cancelled_render_leaves_no_answer_for_the_next():
    renderer = RendererProcess()
    try:
        await renderer.start()
        slow = "{% for a in range(3000) %}{% for b in range(3000) %}{% endfor %}{% endfor %}slow"
        task = asyncio.create_task(renderer.render(slow, {}))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await renderer.render("quick", {}) == "quick"
    finally:
        await renderer.close()


async def test_many_renders_at_a_time_get_their_own_answers():
    renderer = RendererProcess()
    try:
        texts = await asyncio.gather(
            *(renderer.render("{{ x }}", {"x": number}) for number in range(20))
        )
        assert texts == [str(number) for number in range(20)]
    finally:
        await renderer.close()


class InProcess:
    async def check(self, source):
        check(source)

    async def render(self, source, variables):
        return render(source, variables)


def prompter(template, **more):
    templates = {**({} if template is None else {"default": template}), **more}
    return ChatPrompter(InProcess(), templates, bos_token="<s>", eos_token="</s>")  # noqa: S106 - markers


async def test_variables_of_a_prompt():
    template = (
        "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}{{ tools is none }}"
    )
    assert await prompter(template).prompt(HI) == "<s>hi</s>>True"


CONVERSATIONS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.mark.parametrize("text", ["Sure, ", "a", "assistant", "[end]", "", " \n", "hi", "s"])
async def test_a_last_assistant_turn_is_left_open_where_it_ends(text):
    messages = [*HI, {"role": "assistant", "content": text}]
    prompt = await prompter(CONVERSATIONS).prompt(messages)
    assert prompt == f"[user]hi[end][assistant]{text}"
    assert messages[-1]["content"] == text


async def test_a_template_that_trims_takes_no_wanted_space():
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}[end]{% endfor %}"
    messages = [*HI, {"role": "assistant", "content": " Sure, "}]
    assert await prompter(template).prompt(messages) == "[user]hi[end][assistant]Sure, "


async def test_a_turn_that_called_tools_is_over():
    messages = [*HI, {"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]
    assert (await prompter(CONVERSATIONS).prompt(messages)).endswith("x[end][assistant]")


async def test_a_template_that_leaves_the_last_turn_out_cannot_continue_it():
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(TemplateError, match="cannot be continued"):
        await prompter(template).prompt([*HI, {"role": "assistant", "content": "x"}])


async def test_no_template_is_a_sentence_with_a_remedy():
    with pytest.raises(TemplateError, match="no chat template"):
        await prompter(None).prompt(HI)


async def test_the_automatic_way_of_a_last_turn_can_be_switched():
    own = [*HI, {"role": "assistant", "content": "x"}]
    for messages, options, end in (
        (own, {}, "[assistant]x"),
        (own, {"continue_final_message": True}, "[assistant]x"),
        (own, {"continue_final_message": True, "add_generation_prompt": False}, "[assistant]x"),
        (own, {"continue_final_message": False}, "x[end][assistant]"),
        (own, {"add_generation_prompt": True}, "x[end][assistant]"),
        (own, {"add_generation_prompt": False}, "x[end]"),
        (HI, {"add_generation_prompt": False}, "hi[end]"),
        (HI, {"continue_final_message": False}, "hi[end][assistant]"),
    ):
        prompt = await prompter(CONVERSATIONS).prompt(messages, TemplateOptions(**options))
        assert prompt.endswith(end), options


@pytest.mark.parametrize(
    ("messages", "options"),
    [
        (HI, {"continue_final_message": True}),
        (
            [*HI, {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}],
            {"continue_final_message": True},
        ),
        (
            [*HI, {"role": "assistant", "content": "x"}],
            {"continue_final_message": True, "add_generation_prompt": True},
        ),
    ],
)
async def test_what_cannot_be_continued_is_refused_by_name(messages, options):
    with pytest.raises(ValidationError) as caught:
        await prompter(CONVERSATIONS).prompt(messages, TemplateOptions(**options))
    assert caught.value.parameter == "continue_final_message"


async def test_options_are_the_templates_variables():
    template = "{{ tools|tojson }}{{ documents|tojson }}{{ deep.a[0] }}{{ think }}"
    options = TemplateOptions(
        tools=[{"type": "function"}],
        documents=[{"text": "d"}],
        variables={"deep": {"a": [7]}, "think": False},
    )
    prompt = await prompter(template).prompt(HI, options)
    assert prompt == '[{"type": "function"}][{"text": "d"}]7False'
    none = TemplateOptions(tools=[], documents=[])
    assert await prompter("{{ tools is none and documents is none }}").prompt(HI, none) == "True"


async def test_a_template_made_for_tools_is_taken_for_tools():
    both = prompter("plain", tool_use="made for {{ tools|length }}")
    assert await both.prompt(HI) == "plain"
    assert await both.prompt(HI, TemplateOptions(tools=[{}])) == "made for 1"
    alone = prompter("plain")
    assert await alone.prompt(HI, TemplateOptions(tools=[{}])) == "plain"


def test_which_template_goes_first(tmp_path):
    own = {"default": "own", "tool_use": "own for tools"}

    def choose(**options):
        fields = {"chat_template": None, "tokenizer_config_path": None, **options}
        return choose_templates(own, **fields)

    assert choose() == own
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"chat_template": "configured", "model_max_length": 1}')
    assert choose(tokenizer_config_path=str(config)) == {"default": "configured"}
    config.write_text('{"chat_template": [{"name": "default", "template": "named"}]}')
    assert choose(tokenizer_config_path=str(config)) == {"default": "named"}
    config.write_text("{}")
    assert choose(tokenizer_config_path=str(config)) == own
    path = tmp_path / "template.jinja"
    path.write_text("from a file")
    chosen = choose(chat_template=str(path), tokenizer_config_path=str(config))
    assert chosen == {"default": "from a file"}
    path = tmp_path / "chat_template.json"
    path.write_text('{"chat_template": {"default": "a", "tool_use": "b"}}')
    assert choose(chat_template=str(path)) == {"default": "a", "tool_use": "b"}
    assert choose(chat_template="{{ inline }}") == {"default": "{{ inline }}"}
    with pytest.raises(ModelError, match="cannot be read"):
        choose(chat_template=str(tmp_path / "missing"))
    config.write_text("[")
    with pytest.raises(ModelError, match="no `chat_template`"):
        choose(tokenizer_config_path=str(config))


def test_a_template_error_is_422_on_the_chat_route_only(stack_module):
    template = "{{ raise_exception('no such talk') }}"
    with stack_module.Stack(chat_template=template) as stack:
        response = stack.post("/v1/chat/completions", {"messages": HI, "stream": True})
        assert response.status_code == 422
        error = response.json()["error"]
        assert (error["code"], error["message"]) == ("template", "no such talk")
        assert stack.post("/generate", {"inputs": "x"}).status_code == 200
        assert stack.metrics()['tgi_request_failure{err="template"}'] == 1


@pytest.mark.parametrize(
    "template",
    [
        "{% if %}",
        "{{ 'no end",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'x' * 10000000000 }}",
        "{{ '\\ud800' }}",
        "{{ messages[0].content.__class__.__mro__[1].__subclasses__() }}",
    ],
)
def test_a_bad_template_is_no_error_of_start_up(stack_module, template):
    with stack_module.Stack(chat_template=template, tool_call_parser="auto") as stack:
        for fields in ({}, {"stream": True}):
            response = stack.post("/v1/chat/completions", {"messages": HI, **fields})
            assert response.status_code == 422
            assert response.json()["error"]["code"] == "template"
            assert "Traceback" not in response.text
        assert stack.post("/chat_tokenize", {"messages": HI}).status_code == 422
        assert stack.post("/v1/completions", {"prompt": "x"}).status_code == 200
        assert "Traceback" not in stack.log()


def test_foreign_failures_are_told_in_words_of_ours():
    for source, sentence in (
        ("{% for i in range(100000000) %}{% endfor %}", f"range() is limited to {MAX_RANGE} num"),
        ("{{ 1 / 0 }}", "the template failed (ZeroDivisionError)"),
        (
            "a\n{% for x in messages %}",
            "the chat template does not compile: line 2: Unexpected end",
        ),
    ):
        with pytest.raises(TemplateError) as caught:
            render(source, {"messages": HI})
        assert str(caught.value).startswith(sentence)


BROKEN = "a\n{% for message in messages %}{{ message.content }}"


async def test_a_template_that_does_not_compile_is_known_before_a_chat(caplog):
    sources = {"default": BROKEN, "tool_use": "fine"}
    made = ChatPrompter(
        InProcess(),
        sources,
        bos_token="<s>",  # noqa: S106 - a marker
        eos_token="</s>",  # noqa: S106 - a marker
        origin=origin_of(sources, {}, chat_template="dir/bad.jinja", tokenizer_config_path=None),
    )
    await made.check()
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "'default' (--chat-template dir/bad.jinja) cannot be used" in record.getMessage()
    assert "line 2: Unexpected end of template" in record.getMessage()
    with pytest.raises(TemplateError) as caught:
        await made.prompt(HI)
    assert "line 2: Unexpected end of template" in str(caught.value)
    assert str(caught.value).endswith("(the flag --chat-template brought it)")
    assert "dir/" not in str(caught.value)


def test_whose_a_template_is():
    own, other = {"default": "x"}, {"default": "y"}
    for chosen, template, config, told in (
        (own, None, None, "the model's own"),
        (own, None, "c.json", "the model's own"),
        (other, None, "c.json", "--tokenizer-config-path c.json"),
        (other, "f.jinja", "c.json", "--chat-template f.jinja"),
        (other, "{{ x }}", None, "--chat-template"),
    ):
        found = origin_of(chosen, own, chat_template=template, tokenizer_config_path=config)
        assert str(found) == told


def test_a_bad_template_is_in_the_log_at_the_start_and_the_service_goes_on(stack_module, tmp_path):
    file = tmp_path / "bad.jinja"
    file.write_text(BROKEN)
    with stack_module.Stack(chat_template=str(file), reasoning_parser="deepseek_r1") as running:
        stack_module.wait_until(lambda: "cannot be used" in running.log())
        refused = running.post("/v1/chat/completions", {"messages": HI})
        assert refused.status_code == 422
        assert "--chat-template" in refused.json()["error"]["message"]
        assert str(file) not in refused.text
        assert running.post("/generate", {"inputs": "x"}).status_code == 200
        log = running.log()
    assert log.count(str(file)) == 1
    assert log.count("the chat template has neither <think> nor </think>") == 1
