"""The recipe from beginning to end: text, tokenizer, training, files, evaluation, model card."""

from __future__ import annotations

import argparse
import shutil
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from recipe.corpus.mixture import Mixture
from recipe.evaluate import evaluate, save_scores
from recipe.export_gguf import export_gguf
from recipe.model import save_model
from recipe.model_card import write_model_card
from recipe.tokenizer import save_tokenizer, train_tokenizer
from recipe.train import Trainer, TrainingSettings

ROOT = Path(__file__).resolve().parents[2]
SHIPPED_FOLDER = ROOT / "launcher" / "src" / "backplane_launcher" / "demo_model"
BUILD_FOLDER = ROOT / "demo-model" / "build"
GGUF_NAME = "backplane-demo-f16.gguf"
TOKENIZER_DOCUMENTS = 20_000
DEFAULT_STEPS = 1700


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="build.py", description=__doc__)
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS, help="training steps")
    parser.add_argument("--threads", type=int, default=2, help="processor cores to use")
    parser.add_argument("--output", type=Path, default=SHIPPED_FOLDER, help="where to write")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--evaluate-only",
        action="store_true",
        help="evaluate what --output holds, and say what is wrong",
    )
    return parser.parse_args()


def _make_tokenizer(folder: Path, seed: int) -> Tokenizer:
    documents = islice(Mixture(seed).documents(), TOKENIZER_DOCUMENTS)
    texts = ("".join(segment.text for segment in document) for document in documents)
    tokenizer = train_tokenizer(texts)
    save_tokenizer(tokenizer, folder)
    return tokenizer


def _publish(folder: Path, target: Path) -> None:
    """Copies the finished files, so that a run which fails leaves the shipped model as it was."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir()):
        shutil.copyfile(path, target / path.name)


def main() -> None:
    """Runs all steps, saying what it does."""
    arguments = _arguments()
    if arguments.evaluate_only:
        evaluate(arguments.output, show_wrong=True)
        return
    folder = BUILD_FOLDER / "model"
    folder.mkdir(parents=True, exist_ok=True)
    settings = TrainingSettings(num_steps=arguments.steps, num_threads=arguments.threads)
    print("1/4 writing text and training the tokenizer", flush=True)
    tokenizer = _make_tokenizer(folder, settings.seed)
    print(f"2/4 training for {settings.num_steps} steps", flush=True)
    trainer = Trainer(tokenizer, settings, BUILD_FOLDER / "checkpoint.safetensors")
    if arguments.resume:
        trainer.resume()
    model = trainer.run()
    print("3/4 writing safetensors and GGUF", flush=True)
    save_model(model, tokenizer, folder)
    export_gguf(folder, folder / GGUF_NAME)
    print("4/4 evaluating on held-out questions", flush=True)
    scores = evaluate(folder)
    save_scores(scores, BUILD_FOLDER / "scores.json")
    write_model_card(folder, settings, scores)
    _publish(folder, arguments.output)
    print(f"done: {arguments.output}", flush=True)


if __name__ == "__main__":
    main()
