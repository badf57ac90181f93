"""The model as this server knows it: from a worker's `Ready` to everything a request needs."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from backplane_core.capabilities import Limits
from backplane_core.control import ServerLaunch
from backplane_core.errors import AdapterError
from backplane_core.messages import ModelInfo, RunnerInfo
from backplane_core.tool_parsers import ToolParser

from backplane_server.errors import ModelNotFoundError
from backplane_server.templates.chat_prompt import ChatPrompter, choose_templates, origin_of
from backplane_server.templates.renderer import TemplateRenderer
from backplane_server.text.detokenizer import TokenTable
from backplane_server.text.reasoning import ReasoningFamily, choose_reasoning
from backplane_server.tokenization.tokenizer import Tokenizer
from backplane_server.tools.catalogue import ToolCatalogue
from backplane_server.tools.generic_json import JsonParser

# Names that clients send where there is but one model to ask: TGI's own, and what the Hub's
# client library puts in when it is given an address instead of a name.
_ALIASES = frozenset({"", "tgi", "dummy"})
_MAX_ALIASES_LOGGED: Final = 100
_MAX_NAME_CHARS: Final = 200
_MAX_NAMES_TOLD: Final = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """One model, ready for requests. Shared by all of them; never changes.

    Attributes:
        name: what answers call it.
        adapters: names of those that some worker has.
        strict_name: whether a name that is nobody's is refused.
        compute_type: what it runs on, in TGI's form ("1-nvidia-a10g") or the operator's words.
        tool_parser: reads the calls in its answers.
        reasoning: how it marks what it thinks; None where thoughts are not told apart.
        created: when this server got to know it, Unix seconds.
    """

    name: str
    info: RunnerInfo
    table: TokenTable
    tokenizer: Tokenizer
    prompter: ChatPrompter
    adapters: frozenset[str] = frozenset()
    strict_name: bool = False
    compute_type: str = ""
    tool_parser: type[ToolParser] = JsonParser
    reasoning: ReasoningFamily | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    _aliases_seen: set[str] = field(default_factory=set[str])

    @property
    def pipeline_tag(self) -> str:
        """The Hub's word for what the model does: the one it came with, else by what it takes."""
        can = self.info.capabilities
        likely = "image-text-to-text" if "image" in can.modalities else "text-generation"
        return self.info.model.detail.get("pipeline_tag", likely)

    def resolve(self, name: str | None) -> str | None:
        """The adapter that a request's `model` asks for; None is the model itself.

        Raises:
            ModelNotFoundError: the name is nobody's, and names are taken strictly.
        """
        if name is None or name in _ALIASES or name in {self.name, self.info.model.model_id}:
            return None
        if name in self.adapters:
            return name
        if self.strict_name:
            raise ModelNotFoundError(
                f"there is no model {name[:_MAX_NAME_CHARS]!r}; {self._served_names()}",
                parameter="model",
            )
        self._note_alias(name)
        return None

    def check_adapter(self, name: str | None) -> None:
        """Refuse an adapter that nobody has; never answer with the bare model in its place.

        Raises:
            AdapterError: naming those that there are.
        """
        if name is not None and name not in self.adapters:
            known = ", ".join(sorted(self.adapters)[:_MAX_NAMES_TOLD])
            raise AdapterError(
                f"there is no adapter {name[:_MAX_NAME_CHARS]!r}; known are: {known or 'none'}",
                parameter="adapter_id",
            )

    def _served_names(self) -> str:
        names = [self.name, *sorted(self.adapters)][:_MAX_NAMES_TOLD]
        return f"served are: {', '.join(names)}"

    def _note_alias(self, name: str) -> None:
        """Log, once, a name that nobody has. Clients of TGI send what they like, of any length."""
        name = name[:_MAX_NAME_CHARS]
        if name not in self._aliases_seen and len(self._aliases_seen) < _MAX_ALIASES_LOGGED:
            self._aliases_seen.add(name)
            _log.info("asked for the model %r; %s answers to it", name, self.name)


def is_same_model(one: RunnerInfo, other: RunnerInfo) -> bool:
    """Whether two workers serve the same, so that what was made for one does for the other."""
    return _identity(one) == _identity(other)


def _identity(info: RunnerInfo) -> tuple[object, ...]:
    model = info.model
    return (
        (model.model_id, model.revision, model.sha),
        info.tokenizer,
        info.chat_templates,
        info.vocabulary,
    )


def least_limits(limits: Sequence[Limits]) -> Limits:
    """What every one of them allows."""
    return Limits(
        **{name: min(getattr(one, name) for one in limits) for name in Limits.__struct_fields__}
    )


def make_model(
    settings: ServerLaunch,
    info: RunnerInfo,
    tokenizer: Tokenizer,
    renderer: TemplateRenderer,
    *,
    catalogue: ToolCatalogue,
    adapters: frozenset[str],
) -> ServedModel:
    """Put together what a worker's `Ready` and the settings say.

    Raises:
        ModelError: a file named in the settings cannot be read or used.
        SetupError: no parser has the name that the settings give.
    """
    table = TokenTable(info.vocabulary)
    templates = choose_templates(
        info.chat_templates,
        chat_template=settings.chat_template,
        tokenizer_config_path=settings.tokenizer_config_path,
    )
    origin = origin_of(
        templates,
        info.chat_templates,
        chat_template=settings.chat_template,
        tokenizer_config_path=settings.tokenizer_config_path,
    )
    eos_ids = info.vocabulary.eos_token_ids
    prompter = ChatPrompter(
        renderer,
        templates,
        bos_token=table.text_of(info.vocabulary.bos_token_id),
        eos_token=table.text_of(eos_ids[0] if eos_ids else None),
        origin=origin,
    )
    reasoning = choose_reasoning(settings.reasoning_parser, prompter.template())
    if reasoning is not None and (doubt := reasoning.doubt(prompter.template())):
        _log.warning("--reasoning-parser %s: %s", reasoning.name, doubt)
    return ServedModel(
        name=settings.served_model_name or settings.model_id,
        info=info,
        table=table,
        tokenizer=tokenizer,
        prompter=prompter,
        adapters=adapters,
        strict_name=settings.strict_model_name,
        compute_type=settings.compute_type or _compute_type(info.model),
        tool_parser=catalogue.choose(settings.tool_call_parser, prompter.template(with_tools=True)),
        reasoning=reasoning,
    )


def _compute_type(model: ModelInfo) -> str:
    return f"{model.num_devices}-{'-'.join(model.device.lower().split())}"
