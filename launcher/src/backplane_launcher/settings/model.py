"""Flags that say which model, adapters and templates are served."""

from dataclasses import dataclass
from typing import Annotated

from backplane_launcher.settings.flag import MODEL, flag, words


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What is served, and where it comes from."""

    model_id: Annotated[
        str | None,
        flag(
            MODEL,
            "--model-id",
            help="A Hub id (owner/name, owner/name:quant), a local folder or file, or an id that "
            "a backend makes itself (echo:). What serves without it serves the bundled demo model.",
        ),
    ] = None
    revision: Annotated[
        str | None, flag(MODEL, "--revision", help="Branch, tag or commit on the Hub.")
    ] = None
    gguf_file: Annotated[
        str | None,
        flag(MODEL, "--gguf-file", help="Which GGUF file of the repository or folder to load."),
    ] = None
    served_model_name: Annotated[
        str | None,
        flag(MODEL, "--served-model-name", help="The name the APIs give the model."),
    ] = None
    strict_model_name: Annotated[
        bool,
        flag(
            MODEL,
            "--strict-model-name",
            help="Answer 404 to a model name that is neither the model's nor an adapter's; "
            "else the model answers to any name.",
        ),
    ] = False
    lora_adapters: Annotated[
        tuple[str, ...],
        flag(
            MODEL,
            "--lora-adapters",
            help="LoRA adapters to load: ID, ID@REVISION or NAME=ID-OR-PATH, with commas between; "
            "repeatable. Requests select one by its name.",
            converter=words,
        ),
    ] = ()
    trust_remote_code: Annotated[
        bool,
        flag(MODEL, "--trust-remote-code", help="Let the backend run the repository's code."),
    ] = False
    huggingface_hub_cache: Annotated[
        str | None,
        flag(MODEL, "--huggingface-hub-cache", help="Folder for what is downloaded."),
    ] = None
    weights_cache_override: Annotated[
        str | None,
        flag(
            MODEL,
            "--weights-cache-override",
            help="A local folder with all files of the model: it is loaded from there under the "
            "name that --model-id gives, and nothing is downloaded.",
        ),
    ] = None
    tokenizer_config_path: Annotated[
        str | None,
        flag(
            MODEL,
            "--tokenizer-config-path",
            help="A tokenizer_config.json in place of the model's.",
        ),
    ] = None
    chat_template: Annotated[
        str | None,
        flag(
            MODEL,
            "--chat-template",
            help="A Jinja chat template in place of the model's: its file (a .json is read as a "
            "tokenizer_config.json), or itself (with a brace or line break).",
        ),
    ] = None
    tool_call_parser: Annotated[
        str,
        flag(
            MODEL,
            "--tool-call-parser",
            help="How the model writes tool calls; auto tells it by the chat template.",
        ),
    ] = "auto"
    reasoning_parser: Annotated[
        str | None,
        flag(
            MODEL,
            "--reasoning-parser",
            help="How the model marks its reasoning, which then comes apart from the answer.",
        ),
    ] = None
