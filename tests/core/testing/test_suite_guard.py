"""The suite cannot be passed by changing it: overrides, marks and skips are refused."""

import pytest
from backplane_core.testing.conformance import BackendConformance
from backplane_core.testing.conformance.base import ConformanceBase
from backplane_core.testing.conformance.suite import standard_tests

pytest_plugins = ["pytester"]

SUITE = """
    import pytest
    from backplane_core.backend import ModelSource
    from backplane_core.testing.conformance import BackendConformance

    class TestIt(BackendConformance):
        backend = "echo"
        model = ModelSource(model_id="echo:guard")
        golden = {golden}
        allowed_skips = frozenset({allowed})
"""
GOLDEN = "test_greedy_is_the_known_output"
NUM_OTHERS = len(standard_tests()) - 1


def define(**attributes):
    return type("Subclass", (BackendConformance,), attributes)


@pytest.mark.parametrize(
    "replacement", [None, lambda self: None, pytest.mark.skip(lambda self: None)]
)
def test_a_standard_test_cannot_be_replaced(replacement) -> None:
    with pytest.raises(TypeError, match="overrides standard tests: test_stats_add_up"):
        define(test_stats_add_up=replacement)


def test_nor_by_a_base_class_beside_the_suite() -> None:
    class Easier:
        def test_stats_add_up(self) -> None: ...

    with pytest.raises(TypeError, match="test_stats_add_up"):
        type("Subclass", (Easier, BackendConformance), {})


@pytest.mark.parametrize("name", ["skip", "skipif", "xfail"])
def test_the_class_cannot_be_marked_away(name: str) -> None:
    with pytest.raises(TypeError, match=f"marked {name}"):
        define(pytestmark=getattr(pytest.mark, name))
    with pytest.raises(TypeError, match=f"marked {name}"):
        define(pytestmark=[pytest.mark.slow, getattr(pytest.mark, name)])


def test_allowed_skips_must_be_tests() -> None:
    with pytest.raises(TypeError, match="holds no tests: test_stats_add_upp"):
        define(allowed_skips=frozenset({"test_stats_add_upp"}))


def test_tests_and_marks_of_ones_own_are_welcome() -> None:
    define(test_of_mine=lambda self: None, pytestmark=pytest.mark.slow)


def test_no_two_parts_share_a_name() -> None:
    seen: dict[str, str] = {}
    for part in BackendConformance.__bases__:
        for name in vars(part):
            if not name.startswith("__"):
                assert name not in seen, f"{name} is in {seen[name]} and {part.__name__}"
                assert not hasattr(ConformanceBase, name), f"{part.__name__} hides {name}"
                seen[name] = part.__name__


def run(pytester, *, golden: str = "()", allowed: str = "()", more: str = ""):
    pytester.makepyfile(SUITE.format(golden=golden, allowed=allowed) + more)
    return pytester.runpytest_subprocess(*("-p", "no:cacheprovider", "-k", GOLDEN), timeout=60.0)


def test_an_undeclared_skip_fails(pytester) -> None:
    result = run(pytester)
    result.assert_outcomes(failed=1, deselected=NUM_OTHERS)
    result.stdout.fnmatch_lines([f"*{GOLDEN} skipped (*golden outputs), but TestIt.allowed_skips*"])


def test_an_allowed_skip_is_printed(pytester) -> None:
    result = run(pytester, allowed=f"['{GOLDEN}']")
    result.assert_outcomes(skipped=1, deselected=NUM_OTHERS)
    result.stdout.fnmatch_lines(
        ["*backend conformance: skipped*", f"TestIt.{GOLDEN}: *golden outputs*"]
    )


def test_a_skip_from_elsewhere_fails_too(pytester) -> None:
    pytester.makeconftest(
        "import pytest\n\ndef pytest_runtest_setup(item):\n    pytest.skip('not today')\n"
    )
    result = run(pytester, golden="(((1, 2), (1, 2)),)")
    result.assert_outcomes(errors=1, deselected=NUM_OTHERS)
    result.stdout.fnmatch_lines(["*skipped (not today), but*"])


def test_a_wrong_golden_output_fails(pytester) -> None:
    result = run(pytester, golden="(((65, 66), (65, 67)),)")
    result.assert_outcomes(failed=1, deselected=NUM_OTHERS)
