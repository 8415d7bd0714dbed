"""The life of every stage: load the configuration, check, serve telemetry, work, publish, answer, exit."""

import argparse
import logging
import math
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from posttrain_contract import layout, stage
from posttrain_contract.artifact import Manifest
from posttrain_contract.base import problems
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.hub import SCHEME
from posttrain_contract.result import StageResult
from pydantic import ValidationError

from posttrain_runtime import logs, store
from posttrain_runtime.checking import check_image, version
from posttrain_runtime.context import Finished, StageContext, mount_root
from posttrain_runtime.errors import Preempted, StageError, classify
from posttrain_runtime.files import leftovers, unique, write_atomically
from posttrain_runtime.hub import fetch_inputs
from posttrain_runtime.progress import ProgressReporter, read_progress
from posttrain_runtime.telemetry import Telemetry

log = logging.getLogger(__name__)

_MIN_FREE_BYTES = 16 << 20


def run_stage(
    name: str,
    work: Callable[[StageContext[Any]], Finished],
    argv: Sequence[str] | None = None,
    *,
    modules: Sequence[str] = (),
    libraries: Sequence[str] = (),
) -> int:
    """Runs one stage program to its end and returns the exit status.

    ``work`` gets the context and returns what came of it; it raises ``StageError`` for failures that it understands
    and ``Preempted`` when it was stopped. Nothing heavy may be imported before ``work`` is called. ``modules`` and
    ``libraries`` are what ``--check`` looks for beyond what the stage's distribution declares.
    """
    path = _arguments(name, argv)
    if path is None:
        return check_image(name, modules=modules, libraries=libraries)
    try:
        config = stage.load(path)
        if config.stage != name:
            raise StageError(ExitCode.USAGE, "WrongStage", f"{path} configures {config.stage!r}, not {name!r}")
    except (OSError, ValidationError, StageError) as error:
        return _refuse(path, error)
    logs.configure(run=config.run.id, attempt=config.run.attempt)
    with tempfile.TemporaryDirectory(prefix=f"posttrain-{name}-") as scratch:
        history = mount_root(path) / config.run.folder / layout.METRICS
        progress = ProgressReporter(Path(scratch) / "progress.json", history=history)
        context = StageContext(config=config, config_path=path, scratch=Path(scratch), progress=progress)
        result = _live(context, work).model_copy(update={"revisions": _revisions(context)})
        return _answer(context, result)


def _arguments(name: str, argv: Sequence[str] | None) -> Path | None:
    """The configuration's path; None when the image is to be checked."""
    parser = argparse.ArgumentParser(prog=f"posttrain-{name}", description=f"The {name} stage of posttrain.")
    parser.add_argument("--version", action="version", version=f"posttrain-{name} {version(name)}")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, help="stage configuration (JSON)")
    what.add_argument("--check", action="store_true", help="look whether this image has all that the stage needs")
    path: Path | None = parser.parse_args(argv).config
    return path


def _live(context: StageContext[Any], work: Callable[[StageContext[Any]], Finished]) -> StageResult:
    """The attempt itself; every way it can end becomes a StageResult."""
    signal.signal(signal.SIGTERM, lambda *_: context.stop.set())
    signal.signal(signal.SIGINT, lambda *_: context.stop.set())
    try:
        _check_store(context)
        if context.publishes:
            _clear(context)
        if context.publishes and (earlier := _published(context)) is not None:
            log.info("this artifact is published already")
            store.discard(context.work_area)
            return earlier
        telemetry = Telemetry(
            progress=lambda: read_progress(context.scratch / "progress.json"), ready=context.ready.is_set
        )
        try:
            _check_inputs(context)
            fetch_inputs(context)
            with store.staging_area(context.staging) if context.publishes else nullcontext():
                return _publish(context, work(context))
        finally:
            telemetry.close()
    except Preempted as stopped:
        return StageResult(outcome="Preempted", exit_code=stopped.code, reason="Preempted", message=str(stopped))
    except Exception as error:
        failure = classify(error)
        if failure.code is ExitCode.UNHANDLED:
            log.exception("the stage failed")
        return StageResult(
            outcome="Failed",
            exit_code=failure.code,
            reason=failure.reason,
            message=logs.redact(failure.message),
        )


def _check_store(context: StageContext[Any]) -> None:
    """Fails early, and by name, when nothing could be written at the end."""
    folder = context.folder
    try:
        (folder / layout.LOGS).mkdir(parents=True, exist_ok=True)
        probe = folder / unique("probe")
        probe.write_bytes(b"x")
        probe.unlink(missing_ok=True)
    except OSError as error:
        failure = classify(error)
        if failure.code is ExitCode.UNHANDLED:
            message = f"cannot write to {folder.resolve()}: {error.strerror}; make it writable or name another claim"
            failure = StageError(ExitCode.UNWRITABLE, "Unwritable", message)
        raise StageError(failure.code, failure.reason, f"run.storage.claim: {failure.message}") from error
    if (free := shutil.disk_usage(folder).free) < _MIN_FREE_BYTES:
        raise StageError(
            ExitCode.STORAGE,
            "DiskFull",
            f"run.storage.claim: only {free >> 20} MiB are free in {folder}; free some or use a larger claim",
        )


def _clear(context: StageContext[Any]) -> None:
    """Removes what killed predecessors left: their staging, so that nothing of it gets into the artifact, and the rest.

    Other pods of the run may be at work. Their staging folders are locked, and what has a temporary name is written
    under the lock, is on its way out, or is not missed.
    """
    with store.locked(context.folder):
        store.clear_staging(context.folder, context.staging_prefix)
        for left in leftovers(context.folder):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _check_inputs(context: StageContext[Any]) -> None:
    """Every input is there, and those that are artifacts are as they were published: stages need not look again."""
    for name, item in context.config.run.inputs.items():
        if item.uri.startswith(SCHEME):
            continue  # checked where it is fetched
        path = context.input_path(name)
        if not path.exists():
            beside = sorted(p.name for p in path.parent.iterdir())[:10] if path.parent.is_dir() else []
            there = f"; its folder has {', '.join(beside)}" if beside else "; its folder does not exist either"
            raise StageError(ExitCode.DATA, "InputMissing", f"spec.{name}: nothing is at {item.uri}{there}")
        if item.digest is not None or store.is_artifact(path.resolve()):
            # A claim may be mounted through a link; the manifest lies beside the folder itself.
            context.progress.update(f"checking {name}")
            store.check_artifact(
                path.resolve(), field=f"spec.{name}", uri=item.uri, digest=item.digest, check=context.check_stop
            )


def _published(context: StageContext[Any]) -> StageResult | None:
    """The result of an earlier attempt that published this very artifact but could not say so any more."""
    manifest = store.read_manifest(context.folder)
    if manifest is None:
        return None
    if manifest.config_digest != context.digest or store.damage(context.folder, manifest, hashes=True):
        store.withdraw(context.folder, manifest)
        return None
    try:
        return StageResult.model_validate_json((context.folder / layout.RESULT).read_bytes())
    except (FileNotFoundError, ValidationError):
        return _success(context, Finished(), manifest)


def _publish(context: StageContext[Any], finished: Finished) -> StageResult:
    """Publishes what the work staged: result, then folder, then manifest, so that a manifest implies the rest."""
    if finished.staged is None:
        return _success(context, finished, None)
    context.progress.update("publishing")
    manifest = store.describe(finished.staged, config_digest=context.digest, inputs=context.lineage)
    result = _success(context, finished, manifest).model_copy(update={"revisions": _revisions(context)})
    with store.locked(context.folder):
        write_atomically(context.folder / layout.RESULT, result.message_bytes())
        store.publish(context.folder, finished.staged, manifest)
    store.discard(context.work_area)
    return result


def _revisions(context: StageContext[Any]) -> dict[str, str]:
    return {name: pin.revision for name, pin in context.pins.items()}


def _success(context: StageContext[Any], finished: Finished, manifest: Manifest | None) -> StageResult:
    uri = f"{context.config.run.uri}/{layout.ARTIFACT}"
    return StageResult(
        outcome="Succeeded",
        exit_code=ExitCode.DONE,
        message=finished.message,
        metrics={name: value for name, value in finished.metrics.items() if math.isfinite(value)},
        artifact=None if manifest is None else store.summarize(manifest, uri=uri),
        resumed_from=finished.resumed_from,
    )


def _answer(context: StageContext[Any], result: StageResult) -> int:
    """Leaves the result where the operator and people find it."""
    level = logging.INFO if result.outcome != "Failed" else logging.ERROR
    log.log(level, "%s (exit %d) %s", result.outcome, result.exit_code, result.message)
    _write_termination_log(context.root, result)
    if result.outcome != "Succeeded" and context.publishes and context.folder.is_dir():
        _leave_in_store(context.folder, result)
    return int(result.exit_code)


def _leave_in_store(folder: Path, result: StageResult) -> None:
    """Keeps the cause beside the logs, but never over the result of an artifact that another pod has published."""
    try:
        with store.locked(folder):
            if store.read_manifest(folder) is None:
                write_atomically(folder / layout.RESULT, result.message_bytes())
    except OSError as error:
        log.warning("the result could not be written to the store: %s", error)


def _refuse(path: Path, error: Exception) -> int:
    """The configuration cannot be used: says every problem with its path."""
    if isinstance(error, ValidationError):
        message = "; ".join(f"{problem.field}: {problem.message}" for problem in problems(error))
    else:
        message = str(error)
    result = StageResult(
        outcome="Failed", exit_code=ExitCode.USAGE, reason="InvalidConfiguration", message=f"{path}: {message}"
    )
    print(result.message, file=sys.stderr)  # noqa: T201 - logging is configured by the file that cannot be read
    _write_termination_log(mount_root(path), result)
    return int(result.exit_code)


def _write_termination_log(root: Path, result: StageResult) -> None:
    """The termination message; its file is made by the kubelet, so outside a pod there is none and that is fine."""
    try:
        (root / layout.TERMINATION_LOG).write_bytes(result.message_bytes())
    except OSError as error:
        log.debug("no termination message: %s", error)
