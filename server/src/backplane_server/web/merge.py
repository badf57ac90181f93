"""Several generations' batches as one stream, in the order in which they arrive."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from backplane_server.services.generation import Generation
from backplane_server.text.choice_decoder import ChoiceEvent

Batch = tuple[int, list[ChoiceEvent]]


async def merge_batches(generations: Sequence[Generation]) -> AsyncGenerator[Batch, None]:
    """Yield `(number of the generation, its events)` until all have ended.

    Raises:
        BackplaneError: the first that one of them raises.
    """
    if len(generations) == 1:
        async with aclosing(generations[0].batches()) as batches:
            async for events in batches:
                yield 0, events
        return
    # Bounded by what the requests may generate: an item is a batch of tokens.
    queue: asyncio.Queue[Batch | BaseException | None] = asyncio.Queue()
    tasks = [
        asyncio.create_task(_feed(number, generation, queue))
        for number, generation in enumerate(generations)
    ]
    try:
        num_running = len(tasks)
        while num_running:
            item = await queue.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                num_running -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _feed(
    number: int,
    generation: Generation,
    queue: asyncio.Queue[Batch | BaseException | None],
) -> None:
    try:
        async for events in generation.batches():
            queue.put_nowait((number, events))
        queue.put_nowait(None)
    except Exception as error:  # noqa: BLE001 - raised again by the reader
        queue.put_nowait(error)
