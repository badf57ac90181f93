"""Frames are put together from pieces: they are what the encoder makes of the dialects' structs."""

from types import SimpleNamespace

import msgspec
import pytest
from backplane_core.messages import SequenceDelta
from backplane_core.sampling import SamplingParams
from backplane_core.vocabulary import Vocabulary
from backplane_server.dialects.chat_stream import ChatStream
from backplane_server.dialects.chat_types import ChatChunk, ChatChunkChoice, ChatDelta
from backplane_server.dialects.completions_stream import CompletionStream
from backplane_server.dialects.completions_types import Completion, CompletionChoice
from backplane_server.dialects.native_stream import NativeStream
from backplane_server.dialects.native_types import StreamResponse, Token
from backplane_server.dialects.openai import chat_logprobs, usage_of
from backplane_server.dialects.openai_replies import ReplyHead
from backplane_server.dialects.openai_types import StreamOptions
from backplane_server.dialects.text_logprobs import text_logprobs
from backplane_server.services.generation import Generation, GenerationTimes
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.text.choice_decoder import ChoiceEvent, TokenOut
from backplane_server.text.detokenizer import TokenTable
from backplane_server.web.event_stream import frame
from hypothesis import given
from hypothesis import strategies as st

PIECES = [
    b"plain",
    b' "quoted"\\',
    b"\n\x00\x1f",
    "\u2028é東🦊".encode(),
    b"\xf0\x9f",
    b"",
    b"<eos>",
]
SPECIAL = len(PIECES) - 1
TABLE = TokenTable(Vocabulary(tokens=PIECES, special_token_ids=[SPECIAL], eos_token_ids=[SPECIAL]))
HEAD = ReplyHead(id='cmpl-"1"', created=1_700_000_000, model="a/b\\c", system_fingerprint="1-x")

ids = st.integers(0, len(PIECES) - 1)
logprobs = st.none() | st.floats()
tokens = st.builds(
    TokenOut,
    ids,
    st.text(),
    st.booleans(),
    logprobs,
    st.none() | st.lists(st.tuples(ids, st.floats()), max_size=3),
)
options = st.sampled_from([None, StreamOptions(include_usage=True, continuous_usage_stats=True)])


class Silence:
    def listen(self, listener):
        pass

    def cancel(self, index=None):
        pass


def generation(n=1):
    request = GenerationRequest(
        prompt="p", add_special=True, sampling=SamplingParams(), keep_stop=False, num_sequences=n
    )
    made = Generation(
        request,
        SimpleNamespace(table=TABLE),
        Silence(),
        prompt_token_ids=[1, 2],
        max_new_tokens=10,
        seed=None,
        times=GenerationTimes(0.0, 0.0),
    )
    for index in range(n):  # something for the counts
        made.choices[index].push(SequenceDelta("r", index, [0, 0]))
    return made


@given(st.lists(tokens, min_size=1, max_size=4))
def test_a_native_token(given_tokens):
    stream = NativeStream(SimpleNamespace(details=False, top_tokens=False), generation())
    expected = b""
    for number, token in enumerate(given_tokens, start=1):
        text = TABLE.literal(token.token_id) if token.silent else token.text
        told = Token(token.token_id, text, token.logprob, TABLE.is_special(token.token_id))
        expected += frame(msgspec.json.encode(StreamResponse(index=number, token=told)))
    assert stream.event(0, ChoiceEvent(0, given_tokens)) == expected


def completion_event(made, index, text, logprobs, asked):
    choice = CompletionChoice(index=index, text=text, logprobs=logprobs, finish_reason=None)
    event = Completion(
        id=HEAD.id,
        created=HEAD.created,
        model=HEAD.model,
        system_fingerprint=HEAD.system_fingerprint,
        choices=[choice],
        usage=None if asked is None else usage_of([made]),
    )
    return frame(msgspec.json.encode(event))


@pytest.mark.parametrize("top", [None, 0, 2])
@given(st.lists(tokens, min_size=1, max_size=4), st.integers(0, 2), options)
def test_a_completion_s_token(top, given_tokens, index, asked):
    made = generation(3)
    plan = SimpleNamespace(num_choices=3, echo=False, logprobs=top, scores_only=False)
    stream = CompletionStream(HEAD, plan, [made], [], asked)
    expected, start = b"", 0
    for token in given_tokens:
        if top is not None:
            told = text_logprobs(TABLE, [token], start, top=top)
            expected += completion_event(made, index, token.text, told, asked)
        elif token.text:
            expected += completion_event(made, index, token.text, None, asked)
        start += len(token.text)
    assert stream.event(0, ChoiceEvent(index, given_tokens)) == expected


@pytest.mark.parametrize("tells_logprobs", [False, True])
@given(st.lists(tokens, min_size=1, max_size=4), options)
def test_a_chat_s_token(tells_logprobs, given_tokens, asked):
    made = generation()
    plan = SimpleNamespace(
        logprobs=tells_logprobs, reading=SimpleNamespace(plain=True, reasoning=None)
    )
    stream = ChatStream(HEAD, plan, made, asked)
    deltas = []
    for token in given_tokens:
        has_logprob = tells_logprobs and not token.silent
        if token.text or has_logprob:
            if not deltas:
                deltas.append((ChatDelta(role="assistant", content=""), None))
            told = chat_logprobs(TABLE, [token]) if has_logprob else None
            deltas.append((ChatDelta(content=token.text), told))
    expected = b""
    for delta, told in deltas:
        choice = ChatChunkChoice(index=0, delta=delta, logprobs=told, finish_reason=None)
        chunk = ChatChunk(
            id=HEAD.id,
            created=HEAD.created,
            model=HEAD.model,
            system_fingerprint=HEAD.system_fingerprint,
            choices=[choice],
            usage=None if asked is None else usage_of([made]),
        )
        expected += frame(msgspec.json.encode(chunk))
    assert stream.event(0, ChoiceEvent(0, given_tokens)) == expected
