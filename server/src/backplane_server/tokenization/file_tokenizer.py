"""Encodes with a `tokenizer.json` in a small thread pool, several texts to a call.

While every thread is busy, texts gather; the next free thread takes them together, which is
several times cheaper than one by one.
"""

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from backplane_core.errors import ModelError
from tokenizers import Encoding
from tokenizers import Tokenizer as HubTokenizer

from backplane_server.tokenization.tokenizer import TokenSpan, check_num_tokens

_MAX_BATCH: Final = 32

_Waiting = tuple[str, bool, "asyncio.Future[Encoding]"]


class FileTokenizer:
    """A `Tokenizer` over a file.

    Args:
        path: of a `tokenizer.json`.
        num_threads: how many calls may run at a time.

    Raises:
        ModelError: the file cannot be read.
    """

    def __init__(self, path: str, num_threads: int) -> None:
        try:
            self._tokenizer = HubTokenizer.from_file(path)
        except Exception as error:  # the library raises bare Exceptions
            raise ModelError(
                f"the tokenizer file {path} cannot be read: {error}",
                remedy="download the model again",
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._executor = ThreadPoolExecutor(num_threads, thread_name_prefix="tokenizer")
        self._free = num_threads
        self._num_threads = num_threads
        self._waiting: deque[_Waiting] = deque()
        self._closing = False

    async def encode(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids."""
        return (await self._encode(text, add_special=add_special)).ids

    async def encode_spans(
        self, text: str, max_tokens: int, *, add_special: bool = True, name: str = "inputs"
    ) -> list[TokenSpan]:
        """Tokens with byte offsets; the library counts characters."""
        encoding = await self._encode(text, add_special=add_special)
        check_num_tokens(len(encoding), max_tokens, name)
        return await asyncio.to_thread(_spans, text, encoding)

    def close(self) -> None:
        """Stop the threads once what was asked for is done; ask for nothing more."""
        self._closing = True
        self._stop_if_idle()

    async def _encode(self, text: str, *, add_special: bool) -> Encoding:
        future: asyncio.Future[Encoding] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, add_special, future))
        self._dispatch()
        return await future

    def _dispatch(self) -> None:
        """Give what waits to a free thread; texts of one call agree on `add_special`."""
        while self._free and self._waiting:
            add_special = self._waiting[0][1]
            batch: list[_Waiting] = []
            while self._waiting and len(batch) < _MAX_BATCH and self._waiting[0][1] == add_special:
                batch.append(self._waiting.popleft())
            self._free -= 1
            texts = [text for text, _, _ in batch]
            call = asyncio.get_running_loop().run_in_executor(
                self._executor, self._encode_batch, texts, add_special
            )
            call.add_done_callback(lambda done, batch=batch: self._deliver(batch, done))

    def _encode_batch(self, texts: list[str], add_special: bool) -> list[Encoding]:
        if len(texts) == 1:
            return [self._tokenizer.encode(texts[0], add_special_tokens=add_special)]
        return self._tokenizer.encode_batch(texts, add_special_tokens=add_special)

    def _deliver(self, batch: list[_Waiting], done: "asyncio.Future[list[Encoding]]") -> None:
        self._free += 1
        error = None if done.cancelled() else done.exception()
        for position, (_, _, future) in enumerate(batch):
            if future.done():
                continue
            if done.cancelled():
                future.cancel()
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(done.result()[position])
        self._dispatch()
        self._stop_if_idle()

    def _stop_if_idle(self) -> None:
        if self._closing and self._free == self._num_threads and not self._waiting:
            self._executor.shutdown(wait=False)


def _spans(text: str, encoding: Encoding) -> list[TokenSpan]:
    places = [0]
    for character in text:
        places.append(places[-1] + len(character.encode()))
    return [
        TokenSpan(token_id, places[start], places[stop])
        for token_id, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True)
    ]
