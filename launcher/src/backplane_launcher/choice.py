"""Which backend serves a model, from what the backends answered about themselves and it."""

from collections.abc import Sequence

from backplane_core.backend import Available, BackendFacts, BestEffort, Native, Unsupported
from backplane_core.describe import PLUGIN_FAILED, BackendDescription
from backplane_core.errors import BackendError, BackplaneError, ModelError, SetupError

AUTO = "auto"


def is_for_tests(facts: BackendFacts) -> bool:
    """Whether nobody would expect this backend to serve: it says so by a negative priority."""
    return facts.priority < 0


def check_name(name: str, facts: Sequence[BackendFacts]) -> None:
    """Refuse a backend that is not installed or whose plugin is broken, before anything starts.

    Raises:
        BackendError: with the names there are, or the plugin's error.
    """
    if name == AUTO:
        return
    known = {known.name: known for known in facts}
    if name not in known:
        working = [known.name for known in facts if known.error is None]
        raise BackendError(
            f"no backend is called {name}", remedy=f"installed: {', '.join(working) or 'none'}"
        )
    if error := known[name].error:
        raise BackendError(
            f"backend {name} failed to load: {error}",
            remedy="reinstall its package, or correct BACKPLANE_EXTRA_PLUGINS if that names it, "
            "or choose another --backend",
        )


def choose(
    wanted: str, descriptions: Sequence[BackendDescription]
) -> tuple[BackendDescription, list[str]]:
    """The backend to use, and a sentence for it and for each rival that was not taken.

    A backend for tests is nobody's rival. A named backend is taken or refused, never exchanged
    for another. Among those that can, `auto` prefers Native to BestEffort, then the higher
    priority, then the name.

    Raises:
        BackendError: the named backend, or every backend, is unavailable.
        ModelError: no backend that can run supports the model.
    """
    if wanted != AUTO:
        description = next((each for each in descriptions if each.facts.name == wanted), None)
        if description is None:
            raise BackendError(
                f"backend {wanted} gave no answer", remedy="see what `backplane backends` says"
            )
        if (obstacle := _obstacle(description)) is not None:
            raise obstacle
        return description, [f"backend {wanted}: as asked, {_ability(description)}"]
    able = sorted((each for each in descriptions if _obstacle(each) is None), key=_rank)
    if not able:
        raise _nobody(descriptions)
    best = able[0]
    rivals = [each for each in able[1:] if not is_for_tests(each.facts)]
    sentences = [f"backend {best.facts.name}: {_ability(best)}"]
    sentences += [
        f"not taken: backend {other.facts.name}: {_ability(other)}, but {_why_behind(other, best)}"
        for other in rivals
    ]
    sentences += [
        f"not taken: {obstacle.message}"
        for each in descriptions
        if not is_for_tests(each.facts) and (obstacle := _obstacle(each)) is not None
    ]
    return best, sentences


def _obstacle(description: BackendDescription) -> BackplaneError | None:
    name = description.facts.name
    availability, support = description.availability, description.support
    if not isinstance(availability, Available):
        reason = availability.reason if availability else "it gave no answer"
        remedy = availability.remedy if availability else None
        if reason.startswith(PLUGIN_FAILED):  # what failed may be no backend: a tool parser, say
            return BackendError(
                f"plugin {name} failed to load{reason.removeprefix(PLUGIN_FAILED)}", remedy=remedy
            )
        return BackendError(f"backend {name} cannot run here: {reason}", remedy=remedy or None)
    if isinstance(support, Unsupported):
        return ModelError(f"backend {name} cannot serve this model: {support.reason}")
    if description.files_error is not None:
        return description.files_error.restore()
    return None


def _rank(description: BackendDescription) -> tuple[bool, int, str]:
    facts = description.facts
    return not isinstance(description.support, Native), -facts.priority, facts.name


def _ability(description: BackendDescription) -> str:
    available = description.availability
    devices = available.devices if isinstance(available, Available) else ()
    where = ", ".join(device.name for device in devices) or "this machine"
    if isinstance(description.support, BestEffort):
        return f"serves this model on {where} as best it can ({description.support.reason})"
    return f"made for this model, on {where}"


def _why_behind(other: BackendDescription, best: BackendDescription) -> str:
    if _rank(other)[0] != _rank(best)[0]:
        return f"{best.facts.name} is made for it"
    if other.facts.priority != best.facts.priority:
        return f"{best.facts.name} has priority ({best.facts.priority}, {other.facts.priority})"
    return f"{best.facts.name} comes first by name"


def _why_not(description: BackendDescription) -> str:
    name, support = description.facts.name, description.support
    if isinstance(description.availability, Available) and isinstance(support, Unsupported):
        return f"{name}: {support.reason}"
    obstacle = _obstacle(description)
    return obstacle.message if obstacle else name


def _nobody(descriptions: Sequence[BackendDescription]) -> SetupError:
    """The most telling of the obstacles: about the model's files, else the model, else devices."""
    real = [each for each in descriptions if not is_for_tests(each.facts)]
    # Those that can run here come first: what they say is about the model.
    real.sort(key=lambda each: not isinstance(each.availability, Available))
    runnable = [each for each in real if isinstance(each.availability, Available)]
    for each in runnable:
        if each.files_error is not None and (error := _obstacle(each)):
            return ModelError(error.message, remedy=error.remedy)
    reasons = "; ".join(_why_not(each) for each in real) or "none is installed"
    if runnable:
        kinds = " or ".join(f"{each.facts.name}: {each.facts.summary}" for each in runnable)
        return ModelError(
            f"no backend can serve this model: {reasons}",
            remedy=f"choose a model for what runs here, {kinds}",
        )
    obstacles = [obstacle for each in real if (obstacle := _obstacle(each)) is not None]
    remedies = "; ".join(obstacle.remedy for obstacle in obstacles if obstacle.remedy)
    return BackendError(
        f"no backend can run here: {reasons}",
        remedy=remedies or "install one, for example backplane-llamacpp",
    )
