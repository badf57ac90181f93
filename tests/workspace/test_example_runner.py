"""docs/examples/backwards, the engine of one's own that the documentation shows."""

import re
from pathlib import Path

from backplane_core.backend import ModelSource
from backplane_core.testing.conformance import BackendConformance

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "backwards"
END = 256


class TestBackwards(BackendConformance):
    """It is not installed, so it also shows what BACKPLANE_EXTRA_PLUGINS is for."""

    backend = "backwards"
    model = ModelSource(model_id="backwards:test")
    environment = {  # noqa: RUF012 -- the suite never writes it
        "PYTHONPATH": str(EXAMPLE),
        "BACKPLANE_EXTRA_PLUGINS": "backplane_backwards",
    }
    settings = {"step_seconds": 0.001}  # noqa: RUF012 -- the suite never writes it
    golden = (((*b"abc",), (*b"cba", END)), ((*b"!oh",), (*b"ho",)))
    allowed_skips = frozenset(
        {
            "test_a_broken_grammar_fails_alone",
            "test_a_grammar_may_end_where_nothing_else_follows",
            "test_adapters_do_not_mix",
            "test_cancelling_one_choice_leaves_the_others",
            "test_choices_share_a_prompt_and_differ_in_seed",
            "test_cuts_to_one_token_are_greedy",
            "test_different_seeds_differ",
            "test_draws_follow_the_distribution",
            "test_end_token_ends_and_is_delivered",
            "test_grammars_are_obeyed",
            "test_grammars_leave_their_neighbours_alone",
            "test_ignored_end_token_does_not_end",
            "test_known_prefix_is_not_computed_again",
            "test_logit_bias_lifts_and_bans",
            "test_logprobs_are_the_models_own",
            "test_logprobs_are_well_formed",
            "test_min_new_tokens_masks_end_tokens",
            "test_penalties_count_what_they_should",
            "test_prefixes_do_not_cross_salts",
            "test_prompt_logprobs_are_those_of_the_output",
            "test_prompt_logprobs_cover_the_prompt",
            "test_same_seed_same_tokens",
            "test_watermark_prefers_green_tokens",
        }
    )


def test_the_page_shows_the_examples_own_poll():
    page = (EXAMPLE.parents[1] / "writing-a-backend.md").read_text()
    source = (EXAMPLE / "backplane_backwards.py").read_text()
    shown = re.search(r"^```python\n(    def poll.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert shown[1] in source
