"""``posttrain plan``: the memory that FineTuneJobs need on each GPU, before they are submitted."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from posttrain_contract.finetune import FineTuneSpec
from posttrain_contract.fitting import MORE, what_would_fit
from posttrain_contract.memory import Estimate, estimate, trained_parameters
from posttrain_contract.shape import ModelShape
from posttrain_operator.api.quantities import to_amount
from posttrain_operator.api.resources import read_spec, upstream_refs
from posttrain_operator.cluster import Json, Ref

from posttrain.commands.loading import json_option, load, paths_argument, refuse
from posttrain.commands.places import claims_option, workspace_option
from posttrain.local.workspace import LocalOptions
from posttrain.shapes import known_shape, shape_in, to_parameters, typical_shape

EXIT_FAILED = 1
_GIB = 2**30
_PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "evaluation", "other")

T = TypeVar("T")


def _reading(read: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, str | None], T | None]:
    """A callback that reads an option, and says what is wrong with it."""

    def callback(_: click.Context, __: click.Parameter, text: str | None) -> T | None:
        try:
            return None if text is None else read(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def _to_bytes(text: str) -> int:
    amount = to_amount(text)
    if amount is None or amount < _GIB:
        raise ValueError(f"expected a quantity of at least 1Gi, such as 80Gi, found {text!r}")
    return int(amount)


@click.command("plan", short_help="Estimate the memory that training needs.")
@paths_argument
@click.option(
    "--gpu-memory",
    default="80Gi",
    show_default=True,
    metavar="N",
    callback=_reading(_to_bytes),
    help="Memory of a GPU.",
)
@click.option(
    "--parameters",
    metavar="N",
    callback=_reading(to_parameters),
    help="Size of models whose shape is not known here, such as 8B.",
)
@workspace_option
@claims_option
@json_option
def command(
    paths: tuple[str, ...],
    *,
    gpu_memory: int,
    parameters: float | None,
    workspace: Path,
    claims: dict[str, Path],
    as_json: bool,
) -> None:
    """Estimate what every FineTuneJob in PATH needs on each GPU, and warn of those that cannot fit.

    The shape of a model comes from its config.json where `posttrain run` would find it, else from a table of well-known
    models, else from --parameters. Nothing is loaded and nothing is asked of a network or a cluster.

    \b
    Exit codes: 0 shown, also with a warning; 1 a model's shape is not known, 2 wrong usage, 3 invalid manifest.
    """
    checked = load(paths)
    if checked.findings:
        refuse(checked, as_json=as_json, err=True)
    jobs = [obj for obj in checked.objects if obj["kind"] == "FineTuneJob"]
    if not jobs:
        raise click.UsageError(f"there is no FineTuneJob in {', '.join(paths)}")
    finder = _Finder(checked.objects, LocalOptions(workspace=workspace, claims=claims), parameters)
    plans = {f"FineTuneJob/{obj['metadata']['name']}": _plan(obj, finder, room=gpu_memory) for obj in jobs}
    if as_json:
        click.echo(json.dumps(plans, indent=2, ensure_ascii=False))
    else:
        click.echo("\n\n".join("\n".join(_lines(name, plan)) for name, plan in plans.items() if "total" in plan))
    unknown = {name: plan["problem"] for name, plan in plans.items() if "problem" in plan}
    for name, problem in unknown.items():
        click.echo(f"{name}: {problem}", err=True)
    if unknown:
        raise SystemExit(EXIT_FAILED)


class _Finder:
    """Finds the shape of the model that a job trains."""

    def __init__(self, objects: Sequence[Json], options: LocalOptions, parameters: float | None) -> None:
        self._objects = {Ref.of(obj): obj for obj in objects}
        self._options = options
        self._parameters = parameters

    def find(self, obj: Json) -> ModelShape:
        """The shape. Raises ``ValueError`` with a sentence when it is not known."""
        shape = self._of(obj)
        if shape is None and self._parameters is not None:
            shape = typical_shape(self._parameters)
        if shape is None:
            named = obj["spec"]["model"].get("uri") or obj["spec"]["model"]["from"]
            raise ValueError(f"spec.model: the shape of {named} is not known here; give its size with --parameters")
        return shape

    def _of(self, obj: Json) -> ModelShape | None:
        """The shape as far as files tell; training changes none, so that of another job's model is its model's."""
        uri = obj["spec"]["model"].get("uri")
        return self._of(self._objects[upstream_refs(obj)["model"]]) if uri is None else self._at(uri)

    def _at(self, uri: str) -> ModelShape | None:
        if not uri.startswith(("pvc://", "file://")):
            return known_shape(uri)
        try:
            return shape_in(self._options.path(uri))
        except ValueError as error:
            raise ValueError(f"spec.model: config.json of {uri}: {error}") from error


def _plan(obj: Json, finder: _Finder, *, room: int) -> dict[str, Any]:
    """What is known of a job, for machines; bytes are those of one GPU."""
    _, spec, run = read_spec(obj)
    assert isinstance(spec, FineTuneSpec)  # noqa: S101 - of this kind, and checked
    assert run is not None  # noqa: S101
    try:
        shape = finder.find(obj)
    except ValueError as error:
        return {"problem": str(error)}
    needed = estimate(spec, shape)
    fits = needed.total <= room or run.resources.gpus == 0
    remedies = () if fits else what_would_fit(spec, shape, room=room)
    return {
        "parameters": shape.parameters,
        "trained": trained_parameters(spec, shape),
        "processes": spec.distributed.nodes * spec.distributed.processes_per_node,
        "gpus": run.resources.gpus,
        "strategy": spec.distributed.strategy,
        **_bytes(needed),
        "gpuMemory": room,
        "fits": fits,
        "remedies": [] if fits else [change.text for change in remedies] or [MORE],
    }


def _bytes(needed: Estimate) -> dict[str, int]:
    return {**{part: getattr(needed, part) for part in _PARTS}, "total": needed.total}


def _lines(name: str, plan: dict[str, Any]) -> Iterator[str]:
    share = 100 * plan["trained"] / plan["parameters"]
    where = f"{plan['processes']} x GPU" if plan["gpus"] else f"{plan['processes']} x CPU process, in main memory"
    yield f"{name}: {plan['parameters'] / 1e9:.2f}B parameters, {share:.3g} % trained, {where}, {plan['strategy']}"
    for part in _PARTS:
        if plan[part] or part != "evaluation":
            yield f"  {part:<12}{_gib(plan[part]):>12}"
    limit = f" of {_gib(plan['gpuMemory'])}" if plan["gpus"] else ""
    yield f"  {'total':<12}{_gib(plan['total']):>12}{limit}"
    if not plan["fits"]:
        yield f"WARNING: {name} cannot fit; what would: {'; '.join(plan['remedies'])}"


def _gib(size: int) -> str:
    return f"{size / _GIB:,.1f} GiB"
