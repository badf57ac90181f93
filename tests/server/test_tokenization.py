"""Tokenizers in the server: gathered calls, exact offsets, and errors with a remedy."""

import asyncio

import pytest
from backplane_core.errors import ModelError, ValidationError
from backplane_core.vocabulary import Vocabulary
from backplane_server.tokenization.file_tokenizer import FileTokenizer
from backplane_server.tokenization.remote_tokenizer import RemoteTokenizer
from backplane_server.tokenization.tokenizer import TokenSpan, align
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = {"<s>": 0, "hello": 1, "wörld": 2, "!": 3, "<unk>": 4}


@pytest.fixture
def path(tmp_path):
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))  # noqa: S106 - a marker
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer.add_special_tokens(["<s>"])
    file = tmp_path / "tokenizer.json"
    tokenizer.save(str(file))
    return str(file)


@pytest.fixture
def tokenizer(path):
    made = FileTokenizer(path, 2)
    yield made
    made.close()


async def test_special_tokens_are_added_on_demand_and_parsed_always(tokenizer):
    assert await tokenizer.encode("hello wörld", add_special=True) == [0, 1, 2]
    assert await tokenizer.encode("<s>hello", add_special=False) == [0, 1]


async def test_offsets_count_bytes(tokenizer):
    assert await tokenizer.encode_spans("wörld !", 9) == [
        TokenSpan(0, 0, 0),
        TokenSpan(2, 0, 6),
        TokenSpan(3, 7, 8),
    ]


async def test_texts_that_wait_are_encoded_together(path):
    tokenizer = FileTokenizer(path, 1)
    sizes = []
    encode_batch = tokenizer._encode_batch

    def watched(texts, add_special):
        sizes.append(len(texts))
        return encode_batch(texts, add_special)

    tokenizer._encode_batch = watched
    texts = ["hello " * (number % 5 + 1) for number in range(40)]
    found = await asyncio.gather(*(tokenizer.encode(text, add_special=False) for text in texts))
    assert found == [[1] * (number % 5 + 1) for number in range(40)]
    assert sizes == [1, 32, 7]
    tokenizer.close()


async def test_a_cancelled_caller_takes_nobody_down(path):
    tokenizer = FileTokenizer(path, 1)
    tasks = [asyncio.create_task(tokenizer.encode("hello", add_special=False)) for _ in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[2].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert (results[0], results[3]) == ([1], [1])
    assert await tokenizer.encode("!", add_special=False) == [3]
    tokenizer.close()


def test_an_unreadable_file_names_the_remedy(tmp_path):
    with pytest.raises(ModelError, match="download the model again"):
        FileTokenizer(str(tmp_path / "none.json"), 1)


class Worker:
    async def tokenize(self, texts, *, add_special=True, parse_special=False):
        assert parse_special
        return [([9] if add_special else []) + list(text.encode()) for text in texts]


async def test_remote_tokens_get_offsets_from_the_vocabulary():
    vocabulary = Vocabulary(tokens=[bytes([value]) for value in range(256)])
    tokenizer = RemoteTokenizer(Worker, vocabulary)
    assert await tokenizer.encode("ab", add_special=False) == [97, 98]
    assert await tokenizer.encode_spans("ab", 9) == [
        TokenSpan(9, 0, 0),
        TokenSpan(97, 0, 1),
        TokenSpan(98, 1, 2),
    ]


class CountingWorker:
    """Encodes a text as its characters' codes; notes the messages it was sent."""

    def __init__(self):
        self.messages = []

    async def tokenize(self, texts, *, add_special=True, parse_special=False):
        assert parse_special
        self.messages.append((len(texts), add_special))
        await asyncio.sleep(0)
        if "bad" in texts:
            raise ValidationError("cannot be encoded")
        return [[int(add_special), *text.encode()] for text in texts]


async def test_texts_that_come_together_go_in_one_message():
    worker = CountingWorker()
    tokenizer = RemoteTokenizer(lambda: worker, Vocabulary(tokens=[b"a"]))
    texts = [f"text {number}" for number in range(20)]
    found = await asyncio.gather(
        *(tokenizer.encode(text, add_special=index % 2 == 0) for index, text in enumerate(texts))
    )
    assert found == [[1 - index % 2, *text.encode()] for index, text in enumerate(texts)]
    assert sorted(worker.messages) == [(10, False), (10, True)]
    assert await tokenizer.encode("later", add_special=True) == [1, *b"later"]
    assert worker.messages[2:] == [(1, True)]


async def test_nobody_waits_for_another_s_long_text():
    worker = CountingWorker()
    tokenizer = RemoteTokenizer(lambda: worker, Vocabulary(tokens=[b"a"]))
    texts = ["x" * 4096, "y" * 4097, "z"]
    await asyncio.gather(*(tokenizer.encode(text, add_special=False) for text in texts))
    assert sorted(worker.messages) == [(1, False), (2, False)]


async def test_a_text_that_cannot_be_encoded_fails_alone():
    worker = CountingWorker()
    tokenizer = RemoteTokenizer(lambda: worker, Vocabulary(tokens=[b"a"]))
    good, bad, other = await asyncio.gather(
        *(tokenizer.encode(text, add_special=False) for text in ("good", "bad", "other")),
        return_exceptions=True,
    )
    assert (good, other) == ([0, *b"good"], [0, *b"other"])
    assert isinstance(bad, ValidationError)


async def test_who_gave_up_waiting_takes_no_neighbour_along():
    worker = CountingWorker()
    tokenizer = RemoteTokenizer(lambda: worker, Vocabulary(tokens=[b"a"]))
    left = asyncio.create_task(tokenizer.encode("left", add_special=False))
    stays = asyncio.create_task(tokenizer.encode("stays", add_special=False))
    await asyncio.sleep(0)
    left.cancel()
    assert await stays == [0, *b"stays"]
    assert left.cancelled()


async def test_a_worker_that_answers_short_leaves_nobody_waiting():
    class Short(CountingWorker):
        async def tokenize(self, texts, **options):
            found = await super().tokenize(texts, **options)
            return found[:1] if len(texts) > 1 else []

    tokenizer = RemoteTokenizer(Short, Vocabulary(tokens=[b"a"]))
    async with asyncio.timeout(5):
        found = await asyncio.gather(
            *(tokenizer.encode(text, add_special=False) for text in "ab"), return_exceptions=True
        )
    assert found[0] == [0, *b"a"]
    assert isinstance(found[1], ValueError)


async def test_without_a_worker_everybody_is_told():
    def nobody():
        raise ModelError("no worker answers")

    tokenizer = RemoteTokenizer(nobody, Vocabulary(tokens=[b"a"]))
    found = await asyncio.gather(
        *(tokenizer.encode(text, add_special=False) for text in "ab"), return_exceptions=True
    )
    assert [type(one) for one in found] == [ModelError, ModelError]


def test_alignment_of_a_leading_space_that_was_added():
    vocabulary = Vocabulary(tokens=[b"<s>", b" hello", b" world"], strip_leading_space=True)
    assert align(b"hello world", [0, 1, 2], vocabulary) == [
        TokenSpan(0, 0, 0),
        TokenSpan(1, 0, 5),
        TokenSpan(2, 5, 11),
    ]


async def test_more_tokens_than_are_taken_are_given_no_places(tokenizer):
    assert len(await tokenizer.encode_spans("hello " * 8, 9)) == 9
    with pytest.raises(ValidationError, match=r"less than 10 tokens\. Given: 10"):
        await tokenizer.encode_spans("hello " * 9, 9)
