"""Every architecture on the torch backend gives the tokens that transformers gives by itself."""

import re

import pytest
import torch
from backplane_core.messages import Grammar
from backplane_core.sampling import SamplingParams, sequence_seed

from tests.torch.models.proof import Proof
from tests.torch.models.served_model import MAX_STEP_TOKENS, ServedModel, prompt_of

# Short ones first: they are let in together, and get in each other's way as they grow.
_LENGTHS = (5, 6, 7, 60, 37, 23)
_NUM_TOKENS = 32


@pytest.fixture
def proof(served: ServedModel, proofs: dict[str, Proof]) -> Proof:
    return proofs[served.case.name]


def test_sequences_batched_chunked_and_preempted(served: ServedModel, proof: Proof) -> None:
    assert max(_LENGTHS) > 2 * MAX_STEP_TOKENS
    prompts = [prompt_of(length, number) for number, length in enumerate(_LENGTHS)]
    answers = served.answer([served.request(prompt, _NUM_TOKENS) for prompt in prompts])
    for prompt, [answer] in zip(prompts, answers, strict=True):
        assert answer.token_ids == served.generate(prompt, _NUM_TOKENS), len(prompt)
    assert sum(len(set(answer.token_ids)) for [answer] in answers) > 5 * len(prompts)
    assert served.runner.stats().num_preemptions > 0
    proof.batched = True


def test_known_prefixes(served: ServedModel, proof: Proof) -> None:
    begun = prompt_of(40, 9)
    [[first]] = served.answer([served.request(begun, 8)])
    others = [begun[:32] + prompt_of(9, 10), begun + first.token_ids + prompt_of(5, 11)]
    found: list[bool] = []
    for prompt in others:
        [[answer]] = served.answer([served.request(prompt, 8)])
        assert answer.token_ids == served.generate(prompt, 8)
        assert answer.num_cached_tokens < len(prompt)
        found.append(answer.num_cached_tokens > 0)
        served.answer([served.request(begun, 8)])  # what the next one goes on from
    proof.shares_prefixes, proof.continues = found
    if proof.is_paged:
        assert found == [True, True]


def test_forks_are_answers_of_their_own(served: ServedModel, proof: Proof) -> None:
    prompt = prompt_of(29, 12)
    sampling = SamplingParams(temperature=1.0, seed=5)
    [forks] = served.answer([served.request(prompt, 12, sampling, num_sequences=2)])
    lone = [
        served.request(prompt, 12, SamplingParams(temperature=1.0, seed=sequence_seed(5, index)))
        for index in range(2)
    ]
    answers = [served.answer([request])[0][0] for request in lone]
    assert [fork.token_ids for fork in forks] == [answer.token_ids for answer in answers]
    assert forks[0].token_ids != forks[1].token_ids
    proof.forks = True


def test_logprobs_of_prompts(served: ServedModel, proof: Proof) -> None:
    offered = served.runner.info.capabilities.prompt_logprobs
    assert offered is not served.model.config.is_encoder_decoder
    if not offered:
        return
    prompt = prompt_of(50, 13)
    [[answer]] = served.answer([served.request(prompt, 1, prompt_logprobs=0)])
    token_ids = torch.tensor([prompt])
    with torch.inference_mode():
        scores = served.model(token_ids).logits[0, :-1].log_softmax(-1)
    expected = scores.gather(1, token_ids[0, 1:, None])[:, 0]
    assert answer.prompt_logprobs[0] is None
    torch.testing.assert_close(
        torch.tensor(answer.prompt_logprobs[1:]), expected, rtol=1e-4, atol=1e-4
    )
    proof.scores_prompts = True


def test_grammars(served: ServedModel, proof: Proof) -> None:
    grammar = Grammar(kind="regex", source="[0-9]{3}-[a-f]{4}")
    request = served.request(prompt_of(11, 14), 20, grammar=grammar, ignore_eos=False)
    [[answer]] = served.answer([request])
    vocabulary = served.runner.info.vocabulary
    *said, end = answer.token_ids
    assert end in vocabulary.eos_token_ids
    text = b"".join(vocabulary.tokens[token_id] for token_id in said).decode()
    assert re.fullmatch(grammar.source, text)
    proof.guided = True
