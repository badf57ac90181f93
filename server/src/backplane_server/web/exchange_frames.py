"""What an exchange puts into a stream of events: its generations' news, or why there are none."""

from collections.abc import Sequence
from typing import Final, Protocol

from backplane_server.services.generation import Generation
from backplane_server.services.generation_group import GenerationGroup
from backplane_server.text.choice_decoder import ChoiceEvent
from backplane_server.web.errors import Dialect
from backplane_server.web.event_stream import End, FrameSource, Write


class StreamRenderer(Protocol):
    """A dialect's way of writing a stream."""

    dialect: Dialect

    def event(self, prompt: int, event: ChoiceEvent) -> bytes:
        """Frames for news of one sequence of prompt number `prompt`; may be none."""
        ...

    def end(self) -> bytes:
        """Frames after the last one of every sequence."""
        ...


class StreamOwner(Protocol):
    """The exchange, as its stream sees it."""

    def succeed(self) -> None:
        """The request is answered in full."""
        ...

    def fail(self, error: BaseException) -> None:
        """The request ends by an error."""
        ...

    def last_words(self, error: Exception, dialect: Dialect) -> bytes:
        """What the stream says of it."""
        ...

    def close(self) -> None:
        """The stream is over, whatever the end."""
        ...


class GenerationFrames(FrameSource):
    """The frames of all generations of a request, in the order in which their news come."""

    def __init__(
        self, owner: StreamOwner, generations: Sequence[Generation], renderer: StreamRenderer
    ) -> None:
        self._owner: Final = owner
        self._group: Final = GenerationGroup(generations)
        self._renderer: Final = renderer

    def start(self, write: Write, end: End) -> None:
        """Make frames from now on, of what came before first."""
        render = self._renderer.event

        def tell(prompt: int, event: ChoiceEvent) -> None:
            if data := render(prompt, event):
                write(data)

        self._group.follow(tell, end)

    def hold(self) -> None:
        """Make none until `resume`."""
        self._group.hold()

    def resume(self) -> None:
        """Go on."""
        self._group.resume()

    def last_frames(self, error: Exception | None) -> bytes:
        """What the dialect says at the end, or of the error."""
        if error is None:
            try:
                self._owner.succeed()
                return self._renderer.end()
            except Exception as fault:  # noqa: BLE001 - the mapper logs what nobody expected
                error = fault
        self._owner.fail(error)
        return self._owner.last_words(error, self._renderer.dialect)

    def close(self) -> None:
        """End the exchange."""
        self._owner.close()


class Refusal(FrameSource):
    """TGI's way with `--tgi-strict`: a stream that says nothing but why it is none."""

    def __init__(self, owner: StreamOwner, error: Exception, dialect: Dialect) -> None:
        self._owner: Final = owner
        self._error: Final = error
        self._dialect: Final[Dialect] = dialect

    def start(self, write: Write, end: End) -> None:  # noqa: ARG002 - there is nothing but the end
        """Tell the end."""
        end(self._error)

    def hold(self) -> None:
        """Nothing is made before the end."""

    def resume(self) -> None:
        """Likewise."""

    def last_frames(self, error: Exception | None) -> bytes:
        """Why there is no stream."""
        return self._owner.last_words(error or self._error, self._dialect)

    def close(self) -> None:
        """End the exchange."""
        self._owner.close()
