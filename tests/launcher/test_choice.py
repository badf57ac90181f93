import pytest
from backplane_core.backend import (
    Available,
    BackendFacts,
    BestEffort,
    Device,
    Native,
    Unavailable,
    Unsupported,
)
from backplane_core.describe import BackendDescription
from backplane_core.errors import BackendError, ErrorInfo, ModelError
from backplane_launcher.choice import check_name, choose

HERE = Available(devices=(Device(name="Toy 9000"),), version="1")
ABSENT = Unavailable(reason="no driver", remedy="install the driver")


def described(name, support=None, *, priority=0, availability=HERE, files_error=None, summary=""):
    return BackendDescription(
        facts=BackendFacts(name=name, priority=priority, summary=summary),
        availability=availability,
        support=support or Native(),
        files=("a",),
        files_error=files_error,
    )


@pytest.mark.parametrize(
    ("descriptions", "winner"),
    [
        ([described("b"), described("a")], "a"),
        ([described("a"), described("b", priority=1)], "b"),
        ([described("a", BestEffort(reason="slow"), priority=9), described("b")], "b"),
        (
            [described("a", BestEffort(reason="slow")), described("b", Unsupported(reason="no"))],
            "a",
        ),
        ([described("a", availability=ABSENT, priority=9), described("b")], "b"),
        ([described("a", availability=None, priority=9), described("b")], "b"),
    ],
)
def test_auto_takes_the_best(descriptions, winner):
    best, sentences = choose("auto", descriptions)
    assert best.facts.name == winner
    assert sentences[0].startswith(f"backend {winner}: ")
    others = [each.facts.name for each in descriptions if each.facts.name != winner]
    assert len(sentences) == 1 + len(others)
    for name, sentence in zip(others, sentences[1:], strict=True):
        assert sentence.startswith(f"not taken: backend {name}")


def test_auto_says_why():
    _, sentences = choose(
        "auto",
        [
            described("a"),
            described("b", BestEffort(reason="it must convert"), priority=5),
            described("c", priority=1),
            described("d"),
            described("e", availability=ABSENT),
            described("for_tests", priority=-1),
            described("for_tests_too", Unsupported(reason="not mine"), priority=-1),
            described("f", Unsupported(reason="no GGUF file")),
        ],
    )
    assert sentences == [
        "backend c: made for this model, on Toy 9000",
        "not taken: backend a: made for this model, on Toy 9000, but c has priority (1, 0)",
        "not taken: backend d: made for this model, on Toy 9000, but c has priority (1, 0)",
        (
            "not taken: backend b: serves this model on Toy 9000 as best it can "
            "(it must convert), but c is made for it"
        ),
        "not taken: backend e cannot run here: no driver",
        "not taken: backend f cannot serve this model: no GGUF file",
    ]


def test_a_plugin_that_failed_is_not_told_as_a_backend():
    failed = Unavailable(
        reason="its plugin failed to load: ImportError: x", remedy="reinstall its package"
    )
    _, sentences = choose("auto", [described("a"), described("parser", availability=failed)])
    assert sentences[1:] == ["not taken: plugin parser failed to load: ImportError: x"]


def test_equals_are_told_apart_by_name():
    _, sentences = choose("auto", [described("b"), described("a")])
    assert sentences[1].endswith("but a comes first by name")


def test_a_backend_for_tests_serves_what_is_its_own():
    best, sentences = choose(
        "auto", [described("echo", priority=-100), described("a", Unsupported(reason="no file"))]
    )
    assert best.facts.name == "echo"
    assert sentences[1:] == ["not taken: backend a cannot serve this model: no file"]


def test_a_named_backend_is_taken_though_another_is_better():
    best, _ = choose("b", [described("b", BestEffort(reason="slow"))])
    assert best.facts.name == "b"


def test_a_named_backend_is_never_exchanged():
    with pytest.raises(BackendError, match="b cannot run here: no driver") as caught:
        choose("b", [described("b", availability=ABSENT)])
    assert caught.value.remedy == "install the driver"
    with pytest.raises(ModelError, match="b cannot serve this model: too new"):
        choose("b", [described("b", Unsupported(reason="too new"))])


def test_nobody_can():
    with pytest.raises(BackendError, match="no backend can run here") as caught:
        choose("auto", [described("a", availability=ABSENT)])
    assert caught.value.remedy == "install the driver"
    with pytest.raises(BackendError, match="none is installed"):
        choose("auto", [])
    with pytest.raises(ModelError, match=r"no backend can serve this model: .*too new"):
        choose("auto", [described("a", Unsupported(reason="too new"))])
    with pytest.raises(BackendError, match="b gave no answer"):
        choose("b", [described("a")])


def test_nobody_can_says_who_runs_here_and_what_it_serves():
    descriptions = [
        described("a", availability=ABSENT),
        described("echo", Unsupported(reason="only echo:"), priority=-100),
        described("z", Unsupported(reason="no GGUF file"), summary="GGUF models"),
    ]
    with pytest.raises(ModelError) as caught:
        choose("auto", descriptions)
    assert caught.value.message == (
        "no backend can serve this model: z: no GGUF file; backend a cannot run here: no driver"
    )
    assert caught.value.remedy == "choose a model for what runs here, z: GGUF models"
    with pytest.raises(BackendError, match="none is installed") as caught:
        choose("auto", descriptions[1:2])
    assert "backplane-llamacpp" in caught.value.remedy


def test_an_ambiguous_choice_of_files_is_told_as_it_is():
    error = ErrorInfo(code="model", message="several fit: x, y", remedy="use --gguf-file")
    descriptions = [described("a", files_error=error), described("b", Unsupported(reason="no"))]
    for wanted in ("auto", "a"):
        with pytest.raises(ModelError, match="several fit: x, y") as caught:
            choose(wanted, descriptions)
        assert caught.value.remedy == "use --gguf-file"


def test_a_name_is_checked_before_anything_starts():
    facts = [BackendFacts(name="good"), BackendFacts(name="bad", error="ImportError: libx")]
    check_name("auto", facts)
    check_name("good", facts)
    with pytest.raises(BackendError, match="bad failed to load: ImportError: libx") as caught:
        check_name("bad", facts)
    assert "BACKPLANE_EXTRA_PLUGINS" in caught.value.remedy
    with pytest.raises(BackendError, match=r"no backend is called nobody \(installed: good\)"):
        check_name("nobody", facts)
