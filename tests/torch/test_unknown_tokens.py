"""Of a tokenizer with more ids than the model has rows, the others are refused in prompts."""

import logging
from pathlib import Path

import pytest
from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.errors import ValidationError
from backplane_core.messages import Submit, TokenSegment
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.worker.admission import check_request
from backplane_torch.backend import TorchBackend
from tokenizers import Tokenizer

from tests.torch.models.tiny_checkpoint import VOCABULARY, make_model, write_checkpoint
from tests.torch.test_executor import TINY, outputs


def request(name: str, *token_ids: int) -> Submit:
    return Submit(
        request_id=name,
        prompt=[TokenSegment(token_ids=list(token_ids))],
        sampling=SamplingParams(temperature=0.0),
        stopping=StoppingParams(max_new_tokens=2, ignore_eos=True),
    )


def test_a_token_without_a_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_checkpoint(make_model(TINY), tmp_path)
    file = str(tmp_path / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    tokenizer.add_tokens([f"<|{number}|>" for number in range(20)])
    tokenizer.save(file)
    late = tokenizer.encode("<|19|>").ids
    assert late[0] >= VOCABULARY

    spec = RunnerSpec(
        model=ModelSource(model_id="tiny", path=str(tmp_path)),
        engine=EngineSettings(max_batch_total_tokens=256, max_batch_size=2),
        settings={"threads": 1},
    )
    with caplog.at_level(logging.WARNING, "backplane_torch"):
        runner = TorchBackend().create_runner(spec, lambda *_: None)
    [warning] = caplog.messages
    assert f"the tokenizer has {late[0] + 1} ids and the model {VOCABULARY}: " in warning
    with pytest.raises(ValidationError, match=f"token id {late[0]}, outside the vocabulary of 272"):
        check_request(request("s-1", 9, *late), runner.info)

    last = request("s-2", 9, VOCABULARY - 1)
    check_request(last, runner.info)
    runner.submit(last)
    deltas = [delta for output in outputs(runner) for delta in output.deltas]
    assert sum(len(delta.token_ids) for delta in deltas) == 2
    runner.close()
