"""`SequenceState`: what a sequence asks of its sampler, noted once. Knows no logits."""

from backplane_core.batching.sampling_needs import end_token_ids_to_mask, penalizes
from backplane_core.batching.sequence import Sequence
from backplane_core.sampling import SamplingParams

from backplane_torch.engine.sampling.token_table import TokenRow, TokenTable


class SequenceState:
    """Kept from a sequence's first token until it leaves.

    Attributes:
        sequence: whose it is.
        token_row: its row of the table of tokens; None where it neither biases nor penalizes.
        greedy: whether it takes the highest.
        num_top: how many alternatives' logprobs it wants beside the token's; None is neither.
    """

    def __init__(self, sequence: Sequence, table: TokenTable) -> None:
        params = sequence.sampling
        self.sequence = sequence
        self._table = table
        self.token_row: TokenRow | None = None
        if params.logit_bias or penalizes(params):
            self.token_row = table.add(sequence)
        self.greedy = params.greedy
        self.num_top = sequence.request.top_logprobs
        self._may_not_end = sequence.guide is None and bool(end_token_ids_to_mask(sequence))
        self._steers = _steers(params, sequence)

    def close(self) -> None:
        """Give its row of the table back."""
        if self.token_row is not None:
            self._table.remove(self.token_row)

    @property
    def plain(self) -> bool:
        """Whether it takes the highest of the model's own logits."""
        return self.greedy and not self._steers and not self.masked_ends()

    def masked_ends(self) -> list[int]:
        """End tokens that may not come yet, unless a guide sees to it."""
        if not self._may_not_end:
            return []
        masked = end_token_ids_to_mask(self.sequence)
        self._may_not_end = bool(masked)
        return masked


def _steers(params: SamplingParams, sequence: Sequence) -> bool:
    """Whether anything but the number of tokens so far changes its logits."""
    return (
        params.watermark is not None
        or bool(params.logit_bias)
        or penalizes(params)
        or sequence.guide is not None
    )
