"""What `--quantize int8` of the torch backend costs in accuracy, on the shipped demo model.

`python -m benchmarks.int8_accuracy`: held-out exchanges of its recipe, that is text it never
saw; next-token distributions against those of float32, and greedy answers.
"""
# Types of PyTorch, transformers and the recipe's scripts are partly unknown.
# pyright: standard

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import torch
from backplane_torch.engine.devices.cpu import CpuDevice
from backplane_torch.engine.devices.cpu_linears import INT8
from tokenizers import Tokenizer
from torch import nn
from transformers import LlamaForCausalLM

_ROOT: Final = Path(__file__).resolve().parents[1]
_MODEL: Final = _ROOT / "launcher" / "src" / "backplane_launcher" / "demo_model"
_ANSWER_TOKENS: Final = 160
_END: Final = "<|im_end|>"

Change = Callable[[nn.Module], object]


class Text(NamedTuple):
    """A held-out exchange in tokens."""

    prompt: list[int]
    answer: list[int]


class Variant(NamedTuple):
    """A way to compute, and which linear layers stay as they are (names that begin so)."""

    name: str
    dtype: torch.dtype
    quantize: str | None = None
    spared: tuple[str, ...] = ()


VARIANTS: Final = (
    Variant("float32", torch.float32),
    Variant("bfloat16", torch.bfloat16),
    Variant("int8", torch.bfloat16, INT8),
    Variant("int8, down_proj bfloat16", torch.bfloat16, INT8, ("down_proj",)),
    Variant("int8, attention bfloat16", torch.bfloat16, INT8, ("self_attn",)),
    Variant("int8, float32 beside it", torch.float32, INT8),
)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=300, help="held-out exchanges that are scored")
    parser.add_argument("--answers", type=int, default=100, help="of them, answered greedily")
    asked = parser.parse_args()
    texts = list(_texts(asked.texts))
    answered = texts[:: max(1, len(texts) // asked.answers)]
    reference: list[torch.Tensor] = []
    first: list[list[int]] = []
    print(f"{sum(map(len, map(_scored, texts)))} tokens in {len(texts)} exchanges")
    print("variant | perplexity | KL to float32 | likeliest differs | answers that differ | right")
    for variant in VARIANTS:
        model = _load(variant)
        logprobs = [_logprobs(model, text) for text in texts]
        answers = [_greedy(model, text) for text in answered]
        reference, first = reference or logprobs, first or answers
        differing = sum(one != other for one, other in zip(answers, first, strict=True))
        right = sum(one == text.answer for one, text in zip(answers, answered, strict=True))
        print(
            f"{variant.name} | {_perplexity(texts, logprobs):.4f} | "
            f"{_divergence(reference, logprobs):.5f} | {_disagreement(reference, logprobs):.2%} | "
            f"{differing} of {len(answers)} | {right}",
            flush=True,
        )


def _texts(number: int) -> Iterator[Text]:
    """Spread over the topics."""
    # The recipe is a folder of scripts and not an installed package.
    sys.path.insert(0, str(_ROOT / "demo-model"))
    from recipe.chat_format import turn  # noqa: PLC0415 # pyright: ignore[reportMissingImports] -- found only now
    from recipe.corpus.mixture import exchanges  # noqa: PLC0415 # pyright: ignore[reportMissingImports] -- likewise

    tokenizer = Tokenizer.from_file(str(_MODEL / "tokenizer.json"))
    held_out = exchanges()[1]
    for exchange in held_out[:: max(1, len(held_out) // number)][:number]:
        turns = turn("system", exchange.system) if exchange.system else []
        turns += turn("user", exchange.question)
        prompt = "".join(segment.text for segment in turns) + "<|im_start|>assistant\n"
        yield Text(
            tokenizer.encode(prompt, add_special_tokens=False).ids,
            tokenizer.encode(exchange.answer + _END, add_special_tokens=False).ids,
        )


def _load(variant: Variant) -> LlamaForCausalLM:
    model = LlamaForCausalLM.from_pretrained(_MODEL, dtype=variant.dtype).eval()
    spared = [
        (owner, name, child)
        for path, owner in model.named_modules()
        for name, child in owner.named_children()
        if isinstance(child, nn.Linear) and _is_spared(f"{path}.{name}", variant)
    ]
    # One thread: of so small a model several spend their time waiting for one another.
    CpuDevice(threads=1).prepare_layers(model, variant.quantize, lambda _: None)
    for owner, name, child in spared:
        setattr(owner, name, child)
    return model


def _is_spared(path: str, variant: Variant) -> bool:
    return any(part in variant.spared for part in path.split("."))


@torch.inference_mode()
def _logprobs(model: LlamaForCausalLM, text: Text) -> torch.Tensor:
    """[scored tokens, vocabulary]: the distribution that each is drawn from."""
    token_ids = torch.tensor([text.prompt + text.answer[:-1]])
    return model(input_ids=token_ids).logits[0].float().log_softmax(-1)


def _scored(text: Text) -> list[int]:
    """Question and answer, without the first token: nothing stands before it."""
    return [*text.prompt[1:], *text.answer]


@torch.inference_mode()
def _greedy(model: LlamaForCausalLM, text: Text) -> list[int]:
    prompt = torch.tensor([text.prompt])
    made = model.generate(  # pyright: ignore[reportAttributeAccessIssue] -- it is there
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=_ANSWER_TOKENS,
        eos_token_id=text.answer[-1],
        pad_token_id=text.answer[-1],
    )
    return made[0, len(text.prompt) :].tolist()


def _perplexity(texts: list[Text], logprobs: list[torch.Tensor]) -> float:
    own = [
        logprob[range(len(logprob)), _scored(text)]
        for text, logprob in zip(texts, logprobs, strict=True)
    ]
    return math.exp(-torch.cat(own).double().mean().item())


def _divergence(reference: list[torch.Tensor], logprobs: list[torch.Tensor]) -> float:
    """Mean Kullback-Leibler divergence of a token's distribution, in nats."""
    wanted, given = torch.cat(reference), torch.cat(logprobs)
    return (wanted.exp() * (wanted - given)).sum(-1).double().mean().item()


def _disagreement(reference: list[torch.Tensor], logprobs: list[torch.Tensor]) -> float:
    """For how many tokens another one is the likeliest."""
    return (
        (torch.cat(reference).argmax(-1) != torch.cat(logprobs).argmax(-1)).double().mean().item()
    )


if __name__ == "__main__":
    main()
