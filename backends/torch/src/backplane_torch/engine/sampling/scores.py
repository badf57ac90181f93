"""Log-probabilities of tokens by the model's own logits, and the highest ones beside them."""

from typing import Final

import torch

from backplane_torch.engine.sampling.highest import highest

# A token's log-probability, and the highest `(token id, logprob)` pairs, best first.
Score = tuple[float, list[tuple[int, float]]]

# So many numbers at a time: their log-probabilities are as many again.
_NUM_AT_ONCE: Final = 1 << 22


def score_tokens(logits: torch.Tensor, token_ids: list[int], num_top: list[int]) -> list[Score]:
    """Score one token per row. Waits for the device.

    Args:
        logits: [rows, vocabulary], of any float type.
        token_ids: the token of each row.
        num_top: how many of the highest each row asks for; more than there are is all.
    """
    width = logits.shape[1]
    most = min(max(num_top), width)
    size = max(1, _NUM_AT_ONCE // width)
    targets = torch.tensor(token_ids).to(logits.device, non_blocking=True).unsqueeze(1)
    parts = [
        _logprobs(rows.float(), wanted, most)
        for rows, wanted in zip(logits.split(size), targets.split(size), strict=True)
    ]
    chosen, top_ids, top_logprobs = (torch.cat(part).tolist() for part in zip(*parts, strict=True))
    return [
        (logprob, list(zip(ids[:num], logprobs[:num], strict=True)))
        for (logprob,), ids, logprobs, num in zip(
            chosen, top_ids, top_logprobs, num_top, strict=True
        )
    ]


def _logprobs(
    logits: torch.Tensor, targets: torch.Tensor, num_top: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logprobs = logits.log_softmax(-1)
    ids = highest(logits, num_top) if num_top else targets.new_empty(len(targets), 0)
    return logprobs.gather(1, targets), ids, logprobs.gather(1, ids)
