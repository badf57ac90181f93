"""Run by test_out_of_memory: answers a prompt under an address space that is too small for it.

Prints, as JSON, the tokens with and without the limit and what was refused on the way.
"""

import json
import logging
import resource
import sys
from pathlib import Path

from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.messages import Submit, TokenSegment
from backplane_core.runner import ModelRunner
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_torch.backend import TorchBackend

PROMPT = [(7 * number) % 200 + 8 for number in range(500)]


def answer(runner: ModelRunner, name: str) -> tuple[list[int], list[str]]:
    runner.submit(
        Submit(
            request_id=name,
            prompt=[TokenSegment(token_ids=PROMPT)],
            sampling=SamplingParams(temperature=0.0),
            stopping=StoppingParams(max_new_tokens=8, ignore_eos=True),
            cache_salt=name,
        )
    )
    tokens: list[int] = []
    errors: list[str] = []
    for _ in range(200):
        output = runner.poll(0.0)
        tokens += [token for delta in output.deltas for token in delta.token_ids]
        errors += [failure.error.code for failure in output.failures]
        if errors or len(tokens) == 8:
            break
    return tokens, errors


def main(folder: Path, spare_mib: int) -> None:
    files = tuple(path.name for path in folder.iterdir())
    spec = RunnerSpec(
        model=ModelSource(model_id="tiny", path=str(folder), files=files),
        engine=EngineSettings(max_batch_total_tokens=2048, max_batch_size=4),
        settings={"threads": 1},
    )
    runner = TorchBackend().create_runner(spec, lambda *_: None)
    # Short first, so that what a step needs at all has been taken.
    before, _ = answer(runner, "a-1")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    whole = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + spare_mib * 2**20, whole[1]))
    starved, errors = answer(runner, "a-2")
    resource.setrlimit(resource.RLIMIT_AS, whole)
    after, _ = answer(runner, "a-3")
    print(
        json.dumps(
            {"before": before, "starved": starved, "errors": errors, "after": after}
            | {"steps": runner.num_steps}
        )
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(Path(sys.argv[1]), int(sys.argv[2]))
