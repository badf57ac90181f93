import json
from importlib.resources import files
from random import Random

import pytest
from backplane_launcher.bench.dataset import read_dataset
from backplane_launcher.bench.dialects import Message
from backplane_launcher.bench.lengths import Lengths
from backplane_launcher.bench.plan import make_plan
from backplane_launcher.bench.prompts import WORDS, PromptMaker, token_range
from backplane_launcher.bench.reply import Reply
from backplane_launcher.bench.workload import MadeWorkload
from backplane_launcher.settings.bench import BenchSettings
from backplane_launcher.usage import UsageError
from hypothesis import given
from hypothesis import strategies as st


def test_the_usual_token_ids_are_in_the_demo_models_vocabulary():
    tokenizer = files("backplane_launcher") / "demo_model" / "tokenizer.json"
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    assert token_range(BenchSettings().token_ids).stop <= len(vocabulary)


def plan(**settings):
    return make_plan(BenchSettings(**{"seed": 1, **settings}))


def asks(workload, numbers):
    return [workload.conversation(number).ask() for number in numbers]


def answered(text, failure=""):
    reply = Reply(started=0.0)
    reply.texts.append(text)
    reply.failure = failure
    return reply


@pytest.mark.parametrize("prompts", ["ids", "words"])
def test_the_same_seed_asks_the_same_and_another_seed_something_else(prompts):
    settings = {
        "prompts": prompts,
        "prompt_length": "lognormal:50:0.5",
        "output_length": "normal:20:5",
    }
    one, again = (asks(plan(**settings).workload, range(20)) for _ in range(2))
    assert one == again
    assert asks(plan(**settings, seed=2).workload, range(20)) != one


@given(
    st.integers(0, 2**32),
    st.integers(0, 10**8),
    st.integers(3, 20),
    st.booleans(),
    st.integers(0, 5),
)
def test_no_two_prompts_are_alike_but_for_what_they_share(seed, first, length, as_ids, num_shared):
    ids = range(300, 340) if as_ids else None
    maker = PromptMaker(seed=seed, ids=ids, num_shared=num_shared)
    prompts = [maker.make(number, length) for number in range(first, first + 30)]
    units = [prompt.split() if isinstance(prompt, str) else prompt for prompt in prompts]
    assert {len(unit) for unit in units} == {num_shared + length}
    assert len({tuple(unit[:num_shared]) for unit in units}) == 1
    # They part at their first own token, so a cache finds nothing beyond what is shared.
    assert len({unit[num_shared] for unit in units}) == 30
    if as_ids:
        assert all(token_id in ids for unit in units for token_id in unit)


def test_words_are_different_from_one_another():
    assert len(set(WORDS)) == len(WORDS) > 200


def test_numbers_of_short_prompts_are_used_up_before_any_comes_again():
    maker = PromptMaker(seed=0, ids=range(10, 15), num_shared=0)
    prompts = {tuple(maker.make(number, 2)) for number in range(25)}
    assert len(prompts) == 25


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("157", 157, 157),
        ("uniform:100:200", 100, 200),
        ("normal:10:40", 1, 400),
        ("lognormal:20:2", 1, 1e9),
    ],
)
def test_lengths_lie_where_they_must(text, least, most):
    lengths = Lengths.parse(text, "--prompt-length")
    random = Random(0)  # noqa: S311 -- no secret
    drawn = [lengths.draw(random) for _ in range(500)]
    assert least <= min(drawn) <= max(drawn) <= most
    assert (len(set(drawn)) > 1) == (text != "157")


@pytest.mark.parametrize(
    "text", ["", "0", "-3", "many", "uniform:5", "uniform:9:5", "gamma:1:2", "normal:nan:1", "1:2"]
)
def test_lengths_that_are_none(text):
    with pytest.raises(UsageError, match="--prompt-length"):
        Lengths.parse(text, "--prompt-length")


def test_a_range_of_ids():
    assert token_range("97:123") == range(97, 123)
    for wrong in ("97", "97:97", "a:b", ":5", "9:5"):
        with pytest.raises(UsageError, match="--token-ids"):
            token_range(wrong)


def test_a_chat_sends_what_was_said_before_with_the_real_answers():
    workload = plan(api="openai-chat", turns=3, prompt_length="4", shared_prefix=2).workload
    dialogue = workload.conversation(0)
    first = dialogue.ask()
    dialogue.answered(answered("one"))
    second = dialogue.ask()
    dialogue.answered(answered("two"))
    third = dialogue.ask()
    assert second.messages[:2] == [*first.messages, Message("assistant", "one")]
    assert third.messages[:4] == [*second.messages, Message("assistant", "two")]
    assert [message.role for message in third.messages] == ["user", "assistant"] * 2 + ["user"]
    # What all share stands once, at the very beginning.
    assert [len(message.content.split()) for message in third.messages[::2]] == [6, 4, 4]
    dialogue.answered(answered("three"))
    assert dialogue.ask() is None


def test_a_conversation_of_texts_grows_by_the_answers():
    dialogue = plan(turns=2, prompt_length="3").workload.conversation(0)
    first = dialogue.ask()
    dialogue.answered(answered(" an answer"))
    assert dialogue.ask().prompt.startswith(f"{first.prompt} an answer\n")


def test_a_failure_ends_the_conversation():
    dialogue = plan(api="openai-chat", turns=3).workload.conversation(0)
    assert dialogue.ask() is not None
    dialogue.answered(answered("", failure="cut"))
    assert dialogue.ask() is None


def test_a_workload_can_be_asked_for_any_number_at_any_time():
    workload = plan().workload
    assert isinstance(workload, MadeWorkload)
    assert asks(workload, [7, 3]) == [asks(workload, range(8))[index] for index in (7, 3)]


# ── files ────────────────────────────────────────────────────────────────────────────────────

SHARE = [
    {
        "id": "a",
        "conversations": [
            {"from": "system", "value": "be kind"},
            {"from": "human", "value": "hello"},
            {"from": "gpt", "value": "not sent"},
            {"from": "human", "value": "and now"},
        ],
    },
    {"id": "empty", "conversations": [{"from": "gpt", "value": "nobody asked"}]},
]


def test_a_file_of_conversations(tmp_path):
    path = tmp_path / "share.json"
    path.write_text(json.dumps(SHARE))
    dataset = read_dataset(str(path))
    (entry,) = dataset.entries
    assert dataset.remark == f"--dataset {path}: 1 of 2 is left out: no user speaks (entry 2)"
    assert (entry.says, entry.system) == (("hello", "and now"), "be kind")
    dialogue = plan(api="openai-chat", dataset=str(path), turns=5).workload.conversation(0)
    assert dialogue.ask().messages == [Message("system", "be kind"), Message("user", "hello")]
    dialogue.answered(answered("hi"))
    assert dialogue.ask().messages[2:] == [Message("assistant", "hi"), Message("user", "and now")]
    dialogue.answered(answered("well"))
    assert dialogue.ask() is None


def test_a_file_of_lines(tmp_path):
    path = tmp_path / "prompts.jsonl"
    lines = [
        {"prompt": "one", "output_length": 5},
        {"messages": [{"role": "user", "content": "two"}]},
        {"prompt": "three"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    workload = plan(dataset=str(path), output_length="9").workload
    first = asks(workload, range(3))
    assert {(ask.prompt, ask.num_output) for ask in first} == {("one", 5), ("two", 9), ("three", 9)}
    # All were used, so they come again.
    assert {ask.prompt for ask in asks(workload, range(3, 6))} == {"one", "two", "three"}
    assert asks(workload, range(3)) == first


HELLO = b'{"prompt": "hello"}\n'


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (b"no json", "JSON is malformed"),
        (b'{"prompt": "torn', "Input data was truncated"),
        (b'{"prompt": "\xff"}', "no UTF-8"),
        (b"7", "Expected `object`, got `int`"),
        (b'{"prompt": 3}', r"Expected `str`, got `int` - at `\$.prompt`"),
        (b'{"promt": "hi", "id": 5}', "it has only `promt` and `id`"),
        (b"{}", "it has nothing"),
        (
            b'{"prompt": "hi", "output_lenght": 5, "id": 1}',
            "it has `output_lenght` and `id` beside `prompt`, `output_length` or `max_tokens`",
        ),
        (
            b'{"messages": [{"role": "user", "content": "x"}], "id": 1, "max_token": 5}',
            "it has `max_token`, which is no key: `max_tokens` is",
        ),
        (
            b'{"conversations": [{"from": "human", "value": "x"}], "output_len": 5}',
            "it has `output_len`, which is no key: `output_length` is",
        ),
        (b'{"prompt": "hi", "output_length": 0}', "Expected `int` >= 1"),
        (b'{"messages": [{"role": "user", "contnet": "x"}]}', "message 1 has no `content`"),
        (b'{"conversations": [{"value": "x"}]}', "message 1 has no `role`"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, row, told):
    path = tmp_path / "prompts"
    path.write_bytes(HELLO + b"\n" + row + b"\n" + HELLO)
    with pytest.raises(UsageError, match=rf"--dataset {path}, line 3: .*{told}"):
        read_dataset(str(path))


def test_an_entry_of_an_array_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text('[{"prompt": "hello"}, {"promt": "hi"}]')
    with pytest.raises(UsageError, match=rf"--dataset {path}, entry 2: .*`promt`"):
        read_dataset(str(path))


@pytest.mark.parametrize("text", ["", "[]", "[{]", '{"prompt": ""}'])
def test_a_file_of_nothing(tmp_path, text):
    path = tmp_path / "wrong"
    path.write_text(text)
    with pytest.raises(UsageError, match="--dataset"):
        read_dataset(str(path))


def test_rows_that_datasets_have_and_nobody_can_send_are_counted(tmp_path):
    path = tmp_path / "prompts"
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
    rows = [
        {"prompt": "one"},
        {"prompt": ""},
        {"messages": [picture]},
        {"messages": [{"role": "user", "content": "what is this?"}, picture]},
        {"messages": [{"role": "assistant", "content": None}], "id": 7},
        {"conversations": []},
        {"messages": [{"role": "user", "content": "two"}, {"role": "tool", "content": None}]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    dataset = read_dataset(str(path))
    assert [entry.says for entry in dataset.entries] == [("one",), ("two",)]
    assert dataset.remark == (
        f"--dataset {path}: 5 of 7 are left out: the prompt is empty (line 2), "
        "what is said is more than text (line 3 and 1 more), no user speaks (line 5 and 1 more)"
    )


def test_conversations_may_have_what_others_wrote_beside_them(tmp_path):
    path = tmp_path / "prompts"
    talk = [{"role": "user", "content": "hi"}]
    rows = [
        {"messages": talk, "prompt": "hi", "prompt_id": 5, "model": "x", "temperature": 0.5},
        {"messages": talk, "max_tokens": 4, "output": "", "tokens": 3, "category": "chat"},
        {"messages": talk, "num_tokens": 312, "input_length": 7},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [entry.num_output for entry in read_dataset(str(path)).entries] == [None, 4, None]


def test_of_a_file_that_is_used_whole_there_is_nothing_to_tell(tmp_path):
    path = tmp_path / "prompts"
    path.write_bytes(HELLO)
    assert read_dataset(str(path)).remark == ""


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_dataset(str(tmp_path / "none"))


# ── flags that contradict each other ─────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"concurrency": (1,), "rate": (1.0,)}, "--concurrency and --rate"),
        ({"requests": 1, "duration": 1.0}, "--requests and --duration"),
        ({"concurrency": (1, 0)}, "--concurrency 0"),
        ({"extra": "[1]"}, "--extra"),
        ({"slo": "ttft"}, "--slo ttft"),
        ({"slo": "ttft:fast"}, "--slo"),
        ({"slo": "first:5"}, "--slo"),
        ({"api": "tgi", "prompts": "ids"}, "--api tgi goes with texts"),
        ({"turns": 2, "prompts": "ids"}, "--turns 2 goes with texts"),
        ({"dataset": "x", "prompts": "ids"}, "--dataset goes with texts"),
        ({"dataset": "x", "shared_prefix": 5}, "--shared-prefix"),
    ],
)
def test_what_cannot_be_meant(settings, told):
    with pytest.raises(UsageError, match=told):
        plan(**settings)


def test_levels_have_enough_requests_unless_told():
    nums = [(level.concurrency, level.num) for level in plan(concurrency=(1, 32)).levels]
    assert nums == [(1, 16), (32, 128)]
    assert [level.num for level in plan(concurrency=(2,), requests=5).levels] == [5]
    assert [level.num for level in plan(rate=(2.0,), duration=3.0).levels] == [None]


def test_a_seed_is_drawn_where_none_is_given():
    assert make_plan(BenchSettings()).seed != make_plan(BenchSettings()).seed
