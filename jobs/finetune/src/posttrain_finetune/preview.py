"""``python -m posttrain_finetune.preview``: the first rows of a job as the model will see them, as JSON.

It is what `posttrain preview` starts. Each row is a list of tokens with the word whether they are learned.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.hub import SCHEME
from posttrain_contract.stage import FineTuneStage, ResolvedInput, RunFacts
from posttrain_runtime.context import StageContext
from posttrain_runtime.errors import StageError
from posttrain_runtime.hub import fetch_inputs
from posttrain_runtime.progress import ProgressReporter
from posttrain_training.folders import check_model_folder

Token = tuple[str, bool]
"""The text of a token, and whether it is learned."""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the rows; returns 0, or 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(description="Shows rows as they are prepared.")
    parser.add_argument("--spec", type=Path, required=True, help="what to do of a FineTuneJob (JSON)")
    parser.add_argument("--model", required=True, help="folder of the model, or hf://...")
    parser.add_argument("--dataset", required=True, help="file or folder of the rows, or hf://...")
    parser.add_argument("--hub-folder", type=Path, required=True, help="where what is on the Hub is fetched to")
    parser.add_argument("--hub", help="URL of the Hub; absent: the public one")
    parser.add_argument("--rows", type=int, required=True, help="how many")
    arguments = parser.parse_args(argv)
    spec = FineTuneSpec.parse(json.loads(arguments.spec.read_bytes()))
    try:
        inputs = {"model": arguments.model, "dataset": arguments.dataset}
        places = _places(spec, inputs, arguments.hub_folder, hub=arguments.hub)
        check_model_folder(places["model"])
        rows = _rows(spec, model=places["model"], dataset=places["dataset"], count=arguments.rows)
    except StageError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(json.dumps(rows, ensure_ascii=False) + "\n")
    return 0


def _places(spec: FineTuneSpec, inputs: dict[str, str], hub_folder: Path, *, hub: str | None) -> dict[str, Path]:
    """Where the inputs lie; those on the Hub are fetched, rows to where a run looks for them, of a model no weights."""
    with tempfile.TemporaryDirectory(prefix="posttrain-preview-") as name:
        scratch = Path(name)
        resolved = {field: ResolvedInput(uri=uri, path=str(hub_folder)) for field, uri in inputs.items()}
        facts = RunFacts(
            kind="FineTuneJob",
            namespace="preview",
            name="preview",
            attempt=1,
            folder="run",
            uri="",
            inputs=resolved,
            hub=hub,
        )
        context = StageContext(
            config=FineTuneStage(run=facts, spec=spec),
            config_path=scratch / "config" / "stage.json",
            scratch=scratch,
            progress=ProgressReporter(scratch / "progress.json", history=scratch / "history.jsonl"),
        )
        context.folder.mkdir()
        fetch_inputs(context, weights=False)
        return {
            field: context.input_path(field) if uri.startswith(SCHEME) else Path(uri) for field, uri in inputs.items()
        }


def _rows(spec: FineTuneSpec, *, model: Path, dataset: Path, count: int) -> list[dict[str, Any]]:
    from posttrain_training.preparation.key import Shape  # noqa: PLC0415 - after the specification was read
    from posttrain_training.preparation.prepare import Preparation, sample  # noqa: PLC0415
    from posttrain_training.tokenizers import load_tokenizer  # noqa: PLC0415

    shape = Shape(max_length=spec.training.max_length, packing=False)
    found = sample(Preparation(spec.dataset, dataset, model, shape, "spec.dataset"), count=count)
    tokenizer = load_tokenizer(model, plain=True, template=None)
    return [
        {"place": place, "parts": None if row is None else [list(part) for part in _parts(row.columns, tokenizer)]}
        for place, row in found
    ]


def _parts(columns: dict[str, Any], tokenizer: Any) -> Iterator[list[Token]]:
    """The tokens of a demonstration; or of a pair's prompt, better and worse answer."""
    if "labels" in columns:
        learned = columns["labels"] >= 0
        yield [(tokenizer.decode([token]), bool(one)) for token, one in zip(columns["input_ids"], learned, strict=True)]
        return
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        yield [(tokenizer.decode([token]), name != "prompt_ids") for token in columns[name]]


if __name__ == "__main__":
    sys.exit(main())
