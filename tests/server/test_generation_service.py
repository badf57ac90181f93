"""What is refused before it costs anything, and the one model that several workers make."""

import asyncio
import threading
import time
from types import SimpleNamespace

import msgspec
import pytest
from backplane_core.capabilities import Capabilities, Limits
from backplane_core.control import ServerLaunch
from backplane_core.errors import ValidationError
from backplane_core.messages import ModelInfo, RunnerInfo
from backplane_core.sampling import SamplingParams
from backplane_core.vocabulary import TokenizerFile, Vocabulary
from backplane_server.metrics.metrics import Metrics
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.services.generation_service import GenerationService
from backplane_server.services.text_bounds import check_length, keep_end
from backplane_server.text.detokenizer import TokenTable
from tokenizers import Tokenizer, models, pre_tokenizers

SETTINGS = ServerLaunch(server_id="s", control_path="", model_id="m", max_concurrent_requests=3)
LIMITS = Limits(
    max_total_tokens=100,
    max_input_tokens=90,
    max_batch_tokens=64,
    max_sequences=4,
    max_waiting_requests=8,
    cache_tokens=400,
)
TABLE = TokenTable(Vocabulary(tokens=[b"a", b"four", b"\xc3\xa9"]))


@pytest.fixture
def path(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "four": 1, "?": 2}, unk_token="?"))  # noqa: S106 - a marker
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return str(tmp_path / "tokenizer.json")


def info(path, tokens=(b"a", b"four", b"?"), **limits):
    return RunnerInfo(
        model=ModelInfo(model_id="m", backend="plain", backend_version="1", device="cpu"),
        limits=msgspec.structs.replace(LIMITS, **limits),
        capabilities=Capabilities(),
        vocabulary=Vocabulary(tokens=list(tokens)),
        tokenizer=TokenizerFile(path=path),
    )


class Link:
    """A worker that never answers `submit`."""

    outstanding_tokens = 0
    adapters = frozenset()

    def __init__(self, info):
        self.info = info
        self.closed = asyncio.Event()

    def next_request_id(self):
        return "s-1"

    async def submit(self, _):
        await asyncio.Event().wait()


@pytest.fixture
async def service():
    made = GenerationService(SETTINGS, SimpleNamespace(), Metrics())
    yield made
    if made.known_model is not None:
        made.known_model.tokenizer.close()


async def connect(service, info):
    link = Link(info)
    await service._connected(link)
    service.pool._connections[str(id(link))] = link
    return link


def request(prompt="a four", **fields):
    return GenerationRequest(
        prompt=prompt,
        add_special=True,
        sampling=SamplingParams(temperature=0.0),
        keep_stop=False,
        names={"num_sequences": "n"},
        **fields,
    )


async def test_replicas_of_other_limits_are_one_model_with_the_least(service, path):
    first = await connect(service, info(path, cache_tokens=500, max_input_tokens=80))
    model = service.model
    await connect(service, info(path, cache_tokens=300))
    assert service.model.tokenizer is model.tokenizer
    limits = service.model.info.limits
    assert (limits.cache_tokens, limits.max_input_tokens) == (300, 80)
    first.closed.set()
    await connect(service, info(path, cache_tokens=350))
    assert service.model.info.limits.max_input_tokens == 90
    assert await model.tokenizer.encode("a four", add_special=True) == [0, 1]


async def test_replicas_that_come_at_once_make_one_tokenizer(service, path):
    before = threading.active_count()
    await asyncio.gather(*(connect(service, info(path, cache_tokens=n)) for n in (7, 5, 6)))
    await service.model.tokenizer.encode("a", add_special=True)
    assert threading.active_count() - before <= SETTINGS.validation_workers + 1
    assert service.model.info.limits.cache_tokens == 5


async def test_another_model_takes_over_and_the_old_ones_users_are_served(service, path):
    await connect(service, info(path))
    old = service.model.tokenizer
    texts = [asyncio.create_task(old.encode("a " * 5000, add_special=True)) for _ in range(40)]
    await asyncio.sleep(0)
    await connect(service, info(path, tokens=(b"b",)))
    assert service.model.tokenizer is not old
    assert [len(token_ids) for token_ids in await asyncio.gather(*texts)] == [5000] * 40
    assert old._executor._shutdown


@pytest.mark.parametrize(
    ("requests", "name"),
    [([request()] * 4, "prompt"), ([request(num_sequences=2)] * 2, "n")],
)
async def test_what_can_never_fit_together_is_refused_for_good(service, path, requests, name):
    await connect(service, info(path))
    service.check_together(requests[:1])
    with pytest.raises(ValidationError, match="4 sequences in all; at most 3") as caught:
        service.check_together(requests)
    assert caught.value.parameter == name


def test_a_text_is_refused_by_its_bytes_well_beyond_those_of_the_longest_tokens():
    check_length("four" * 40, "inputs", 10, TABLE)
    with pytest.raises(
        ValidationError, match=r"less than 11 tokens, .* 160 .* 161 bytes"
    ) as caught:
        check_length("four" * 40 + "a", "inputs", 10, TABLE)
    assert caught.value.parameter == "inputs"
    with pytest.raises(ValidationError, match="34 bytes"):
        check_length("é" * 17, "inputs", 2, TABLE)  # bytes count, not characters


async def test_a_tokenizer_that_folds_spaces_gets_what_it_needs(service, path):
    await connect(service, info(path))
    spaced = "four       " * 30  # 330 bytes make 30 tokens of at most 4
    model = service.model
    check_length(spaced, "inputs", 30, model.table)
    assert await model.tokenizer.encode(spaced, add_special=True) == [1] * 30
    text = "a    " + "four       " * 5000
    kept = keep_end(text, 1000, model.table)
    assert len(kept) < len(text)
    assert (await model.tokenizer.encode(kept, add_special=True))[-1000:] == [1] * 1000


def test_the_end_that_is_kept_holds_whole_characters():
    assert keep_end("four", 1, TABLE) == "four"
    for front in ("", "a", "aa"):
        text = front + "é" * 100_000
        kept = keep_end(text, 10, TABLE)
        assert text.endswith(kept)
        assert 16 * 10 <= len(kept.encode()) <= 16 * 10 + 4096


async def test_a_long_text_is_cut_before_it_is_encoded(service, path):
    await connect(service, info(path))
    encoded = []
    encode = service.model.tokenizer.encode

    async def watched(text, **options):
        encoded.append(text)
        return await encode(text, **options)

    service.model.tokenizer.encode = watched
    with pytest.raises(ValidationError, match="bytes are read"):
        await service.start(request("a" * 1_900_000), arrived=time.monotonic())
    assert encoded == []
    with pytest.raises(TimeoutError):  # it is the worker that does not answer
        async with asyncio.timeout(1):
            await service.start(request("four " * 400_000, truncate=5), arrived=time.monotonic())
    assert len(encoded[0]) < 5000


def test_a_body_full_of_text_holds_nobody_up(stack):
    """Each of these took seconds of the event loop."""
    text = "a" * 1_900_000
    worst = 0.0
    statuses = []

    def ask():
        for path in ("/tokenize", "/generate", "/v1/completions"):
            body = {"prompt": text} if path == "/v1/completions" else {"inputs": text}
            statuses.append(stack.post(path, body).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    while thread.is_alive():
        begun = time.monotonic()
        assert stack.get("/health/live").status_code == 200
        worst = max(worst, time.monotonic() - begun)
    thread.join()
    assert statuses == [422, 422, 422]
    assert worst < 1.0
