"""The model for measuring conversations: what it says is certain, and comes back from its text."""

from pathlib import Path

import pytest
from backplane_llamacpp.loading import load_model
from backplane_llamacpp.settings import LlamaCppSettings
from backplane_llamacpp.tokenizer import LlamaCppTokenizer, read_vocabulary

from benchmarks import random_model
from tests.llamacpp import tiny_gguf
from tests.llamacpp.conftest import MakeRunner, ignore_progress
from tests.llamacpp.test_runner import lone
from tests.llamacpp.test_tokenizer import decode, encode

MODEL = random_model.Model(tiny_gguf.Shape(width=128), 600, words_alone=True)
FIRST_WORD = MODEL.vocabulary - len(random_model.more_tokens(MODEL))


@pytest.fixture(scope="module")
def bpe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "words.gguf"
    random_model.write_gguf(MODEL, path)
    return path


def test_each_word_is_answered_by_the_next_and_a_letter_by_some_word(
    make_runner: MakeRunner,
) -> None:
    said = lone(make_runner(), [40, MODEL.vocabulary - 2], max_new_tokens=3)
    assert said == [MODEL.vocabulary - 1, FIRST_WORD, FIRST_WORD + 1]
    first, *more = lone(make_runner(), [300, 301, 40], max_new_tokens=8)
    assert first >= FIRST_WORD
    assert more == list(range(first + 1, first + 8))


def test_an_answer_comes_back_as_the_tokens_that_it_was(bpe_path: Path) -> None:
    model = load_model(bpe_path, LlamaCppSettings(), ignore_progress)
    tokenizer, vocabulary = LlamaCppTokenizer(model), read_vocabulary(model, model.metadata())
    prompt = encode(tokenizer, "the of and")
    answer = [*range(FIRST_WORD, MODEL.vocabulary)]
    text = "the of and" + decode(vocabulary, answer).decode()
    assert encode(tokenizer, f"{text}\nto in") == [
        *prompt,
        *answer,
        *encode(tokenizer, "\nto in"),
    ]
    model.close()


def test_known_words_are_a_token_each_at_a_prompts_start_and_within_it(tmp_path: Path) -> None:
    spoken = ("the", "of", "number", "animals")
    model_ = random_model.Model(tiny_gguf.Shape(), 600, words_alone=True, known=spoken)
    random_model.write_gguf(model_, tmp_path / "known.gguf")
    model = load_model(tmp_path / "known.gguf", LlamaCppSettings(), ignore_progress)
    tokenizer = LlamaCppTokenizer(model)
    for first in spoken:
        assert len(encode(tokenizer, " ".join((first, *spoken, *spoken)))) == 9
    model.close()
