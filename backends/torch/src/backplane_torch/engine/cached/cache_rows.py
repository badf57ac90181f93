"""`CacheRows`: the caches of all sequences; those that are computed together share a batch.

Knows neither models nor schedules. What changes hands is copied when it is next computed.
"""

from backplane_torch.engine.cached.layers import Layer, Row, gather


class _Batch:
    """A layer of transformers with a row for each of these sequences."""

    __slots__ = ("layer", "seq_ids")

    def __init__(self, seq_ids: list[int], layer: Layer) -> None:
        self.seq_ids = seq_ids
        self.layer = layer

    def row(self, seq_id: int) -> Row:
        return Row(self.layer, self.seq_ids.index(seq_id))


class CacheRows:
    """Each layer by itself knows who is in which batch.

    So a re-forming that runs out of memory between two layers leaves every layer whole, and only
    one layer's copies are beside what is kept.
    """

    def __init__(self) -> None:
        self._layers: list[dict[int, _Batch]] = []  # by sequence id
        self._trimmed: dict[int, int] = {}
        self._has_leftovers = False

    def put(self, seq_ids: list[int], layers: list[Layer]) -> None:
        """Keep the layers of a batch's first forward pass."""
        self._layers = self._layers or [{} for _ in layers]
        for batches, layer in zip(self._layers, layers, strict=True):
            batches.update(dict.fromkeys(seq_ids, _Batch(seq_ids, layer)))

    def take(self, seq_ids: list[int]) -> list[Layer]:
        """The layers of equally long sequences as one batch, to be computed with.

        In steady decode that is the batch of the last step, and nothing is copied.
        """
        layers: list[Layer] = []
        for batches in self._layers:
            batch = batches[seq_ids[0]]
            if batch.seq_ids != seq_ids:
                layer = gather([batches[seq_id].row(seq_id) for seq_id in seq_ids])
                batch = _Batch(seq_ids, layer)
                batches.update(dict.fromkeys(seq_ids, batch))
                self._has_leftovers = True
            layers.append(batch.layer)
        return layers

    def trim(self, seq_id: int, num_tokens: int) -> None:
        """Keep the first tokens of a sequence; the memory is free after `settle`."""
        self._trimmed[seq_id] = num_tokens
        self._has_leftovers = True

    def release(self, seq_id: int) -> None:
        """Forget a sequence; the memory is free after `settle`, or at once where it was alone."""
        for batches in self._layers:
            batches.pop(seq_id, None)
        self._trimmed.pop(seq_id, None)
        self._has_leftovers = True

    def settle(self) -> None:
        """Free the memory of what was released, trimmed or taken out of batches."""
        if not self._has_leftovers:
            return
        for batches in self._layers:
            for batch in list(dict.fromkeys(batches.values())):
                self._settle(batches, batch)
        self._trimmed.clear()
        self._has_leftovers = False

    def _settle(self, batches: dict[int, _Batch], batch: _Batch) -> None:
        by_length: dict[int | None, list[int]] = {}
        for seq_id in batch.seq_ids:
            if batches.get(seq_id) is batch:
                by_length.setdefault(self._trimmed.get(seq_id), []).append(seq_id)
        if list(by_length) == [None] and by_length[None] == batch.seq_ids:
            return
        for num_tokens, seq_ids in by_length.items():
            layer = gather([batch.row(seq_id) for seq_id in seq_ids], num_tokens)
            batches.update(dict.fromkeys(seq_ids, _Batch(seq_ids, layer)))

    def clear(self) -> None:
        """Forget all."""
        self._layers.clear()
        self._trimmed.clear()
