"""The model as this server knows it: from a worker's `Ready` to everything a request needs."""

from dataclasses import dataclass

from backplane_core.control import ServerLaunch
from backplane_core.messages import RunnerInfo

from backplane_server.errors import UnknownModelError
from backplane_server.templates.chat_prompt import ChatPrompter, choose_template
from backplane_server.templates.renderer import TemplateRenderer
from backplane_server.text.detokenizer import TokenTable
from backplane_server.tokenization.tokenizer import Tokenizer

# Names that clients send where there is but one model to ask: TGI's own, and what the Hub's
# client library puts in when it is given an address instead of a name.
_ALIASES = frozenset({"", "tgi", "dummy"})


@dataclass(frozen=True)
class ServedModel:
    """One model, ready for requests. Shared by all of them; never changes."""

    name: str
    info: RunnerInfo
    table: TokenTable
    tokenizer: Tokenizer
    prompter: ChatPrompter

    def check_name(self, name: str | None) -> None:
        """Accept the served name, the model's id and the aliases for "the one there is".

        Raises:
            UnknownModelError: any other name.
        """
        if name is None or name in _ALIASES or name in {self.name, self.info.model.model_id}:
            return
        raise UnknownModelError(
            f"the model {name[:200]!r} is not served here",
            parameter="model",
            remedy=f"ask for {self.name!r}; GET /v1/models lists what there is",
        )


def make_model(
    settings: ServerLaunch, info: RunnerInfo, tokenizer: Tokenizer, renderer: TemplateRenderer
) -> ServedModel:
    """Put together what a worker's `Ready` and the settings say.

    Raises:
        ModelError: a file named in the settings cannot be read.
    """
    table = TokenTable(info.vocabulary)
    template = choose_template(
        info.chat_templates,
        chat_template=settings.chat_template,
        tokenizer_config_path=settings.tokenizer_config_path,
    )
    eos_ids = info.vocabulary.eos_token_ids
    return ServedModel(
        name=settings.served_model_name or settings.model_id,
        info=info,
        table=table,
        tokenizer=tokenizer,
        prompter=ChatPrompter(
            renderer,
            template,
            bos_token=table.text_of(info.vocabulary.bos_token_id),
            eos_token=table.text_of(eos_ids[0] if eos_ids else None),
        ),
    )
