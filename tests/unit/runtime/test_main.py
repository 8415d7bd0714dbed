"""The life of a stage: whatever happens, there is one result with a cause, and an exit status that agrees with it."""

import itertools
import json
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.filter import FilterSpec
from posttrain_contract.result import MAX_RESULT_BYTES, StageResult
from posttrain_contract.stage import FilterStage, ResolvedInput
from posttrain_runtime import files, store, telemetry
from posttrain_runtime.context import Finished, StageContext
from posttrain_runtime.errors import Preempted, StageError
from posttrain_runtime.files import sha256
from posttrain_runtime.main import run_stage
from posttrain_runtime.store import Staged
from support.crashes import crashes_at
from support.stages import pod_address, run_facts

Work = Callable[[StageContext[FilterStage]], Finished]
FOLDER = "store/test/filterjob/test-0"


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An address of this test alone and an endpoint that closes at once; signal handlers and loggers are put back."""
    monkeypatch.setattr(telemetry, "_CLOSING_SECONDS", 0.002)
    monkeypatch.setenv("POD_IP", pod_address())
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in signals.items():
        signal.signal(number, handler)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def configure(*, attempt: int = 1, maximum: float = 0.5, inputs: dict[str, ResolvedInput] | None = None) -> FilterStage:
    """Some stage's configuration."""
    spec = {"source": {"uri": "pvc://a/b"}, "byLabel": {"column": "rate", "max": maximum}}
    return FilterStage(run=run_facts("FilterJob", inputs=inputs, attempt=attempt), spec=FilterSpec.parse(spec))


def run(root: Path, work: Work, *, config: FilterStage | None = None) -> StageResult:
    """Runs a stage in this process. Returns what it left as termination message, which agrees with the exit status."""
    path = root / layout.CONFIG_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text((config or configure()).model_dump_json(by_alias=True), encoding="utf-8")
    return run_file(path, work)


def run_file(path: Path, work: Work) -> StageResult:
    """The same from a configuration file."""
    log = path.parent.parent / layout.TERMINATION_LOG
    log.write_bytes(b"")
    status = run_stage("filter", work, ["--config", str(path)])
    result = StageResult.parse(json.loads(log.read_bytes()))
    assert result.exit_code == status
    return result


def publish(content: str) -> Work:
    """Work that stages one file."""

    def work(context: StageContext[FilterStage]) -> Finished:
        context.staging.mkdir()
        (context.staging / "a.txt").write_text(content, encoding="utf-8")
        return Finished({"rowsKept": 1.0}, Staged(context.staging, "dataset", rows=1))

    return work


def fail(error: Exception) -> Work:
    """Work that fails."""

    def work(context: StageContext[FilterStage]) -> Finished:
        del context
        raise error

    return work


def unexpected(context: StageContext[FilterStage]) -> Finished:
    """Work that must not be done."""
    raise AssertionError(f"the work was done, with {context.config}")


def published(root: Path) -> str:
    """The published content."""
    assert store.read_manifest(root / FOLDER) is not None
    return (root / FOLDER / "artifact/a.txt").read_text(encoding="utf-8")


def test_work_is_published_and_told(tmp_path: Path) -> None:
    result = run(tmp_path, publish("new"))
    assert (result.outcome, result.exit_code, result.metrics) == ("Succeeded", ExitCode.DONE, {"rowsKept": 1.0})
    assert result.artifact is not None
    assert result.artifact.uri == f"pvc://{FOLDER}/artifact"
    assert published(tmp_path) == "new"
    assert StageResult.model_validate_json((tmp_path / FOLDER / layout.RESULT).read_bytes()) == result
    assert not list((tmp_path / FOLDER).glob(".staging*"))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda text: text.replace('"column"', '"colum"'), "spec.byLabel.colum: unknown field"),
        (lambda text: text.replace('"byLabel"', '"by_label"'), "spec.by_label: unknown field"),
        (lambda text: text.replace('"filter"', '"upload"'), "unknown field"),
        (lambda text: text.replace('"schemaVersion":1', '"schemaVersion":2'), "schemaVersion"),
        (lambda text: text[:-1], "EOF"),
        (lambda text: text.replace("filter", "sieve"), "sieve"),
    ],
    ids=["misspelt field", "snake case", "another stage's specification", "version", "torn", "unknown stage"],
)
def test_a_wrong_configuration_is_told_field_by_field(
    tmp_path: Path, spoil: Callable[[str], str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / layout.CONFIG_FILE
    path.parent.mkdir()
    path.write_text(spoil(configure().model_dump_json(by_alias=True)), encoding="utf-8")
    result = run_file(path, unexpected)
    assert (result.exit_code, result.reason) == (ExitCode.USAGE, "InvalidConfiguration")
    assert sentence in result.message
    assert result.message in capsys.readouterr().err


def test_a_missing_configuration_is_told(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    result = run_file(tmp_path / layout.CONFIG_FILE, unexpected)
    assert result.exit_code is ExitCode.USAGE
    assert "No such file" in result.message


def test_the_configuration_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / layout.CONFIG_FILE
    path.parent.mkdir()
    path.write_text(configure().model_dump_json(by_alias=True), encoding="utf-8")
    (tmp_path / layout.TERMINATION_LOG).touch()
    assert run_stage("upload", unexpected, ["--config", str(path)]) == ExitCode.USAGE
    assert b"configures 'filter', not 'upload'" in (tmp_path / layout.TERMINATION_LOG).read_bytes()


def test_a_missing_input_lists_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "inputs/train.jsonl").mkdir(parents=True)
    source = ResolvedInput(uri="pvc://data/trian.jsonl", path="inputs/trian.jsonl")
    result = run(tmp_path, unexpected, config=configure(inputs={"source": source}))
    assert (result.exit_code, result.reason) == (ExitCode.DATA, "InputMissing")
    assert result.message == "spec.source: nothing is at pvc://data/trian.jsonl; its folder has train.jsonl"


def test_a_store_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    result = run(tmp_path, unexpected)
    assert (result.exit_code, result.reason) == (ExitCode.UNWRITABLE, "Unwritable")
    assert "run.storage.claim: cannot write to" in result.message


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Mounts a small file system as the store; skips where that is not allowed."""
    target = tmp_path / "store"
    target.mkdir()

    def run_mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(target)]
        if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("mounting a file system is not allowed here")

    yield run_mount
    subprocess.run(["umount", str(target)], check=False, capture_output=True)


def test_a_read_only_store_is_named(tmp_path: Path, mount: Callable[[str], None]) -> None:
    mount("ro")
    result = run(tmp_path, unexpected)
    assert (result.exit_code, result.reason) == (ExitCode.UNWRITABLE, "Unwritable")
    assert "run.storage.claim: " in result.message
    assert "make the store writable" in result.message


def test_a_store_without_space_is_noticed_before_the_work(tmp_path: Path, mount: Callable[[str], None]) -> None:
    mount("size=8m")
    result = run(tmp_path, unexpected)
    assert (result.exit_code, result.reason) == (ExitCode.STORAGE, "DiskFull")
    assert "run.storage.claim: only 8 MiB are free" in result.message


def test_a_disk_that_fills_up_under_the_work_can_be_retried(tmp_path: Path, mount: Callable[[str], None]) -> None:
    mount("size=20m")

    def fill(context: StageContext[FilterStage]) -> Finished:
        context.staging.mkdir()
        (context.staging / "a.txt").write_bytes(bytes(30 << 20))
        return Finished()

    result = run(tmp_path, fill)
    assert (result.exit_code, result.reason) == (ExitCode.STORAGE, "DiskFull")
    assert result.exit_code.retriable
    assert run(tmp_path, publish("after")).outcome == "Succeeded"


def test_a_published_artifact_is_not_made_again(tmp_path: Path) -> None:
    first = run(tmp_path, publish("new"))
    assert run(tmp_path, unexpected, config=configure(attempt=2)) == first


def test_a_lost_result_of_a_published_artifact_is_told_from_its_manifest(tmp_path: Path) -> None:
    first = run(tmp_path, publish("new"))
    (tmp_path / FOLDER / layout.RESULT).unlink()
    again = run(tmp_path, unexpected)
    assert (again.outcome, again.artifact) == ("Succeeded", first.artifact)


def test_another_configuration_withdraws_what_was_published(tmp_path: Path) -> None:
    run(tmp_path, publish("old"))
    run(tmp_path, publish("new"), config=configure(maximum=0.7))
    assert published(tmp_path) == "new"


def test_a_damaged_artifact_is_made_again(tmp_path: Path) -> None:
    run(tmp_path, publish("old"))
    (tmp_path / FOLDER / "artifact/a.txt").write_text("dlo", encoding="utf-8")
    run(tmp_path, publish("new"))
    assert published(tmp_path) == "new"


def test_a_failure_beside_a_published_artifact_does_not_hide_it(tmp_path: Path) -> None:
    """Two pods of an Indexed Job: one publishes while the other is at work and then fails."""

    def late(context: StageContext[FilterStage]) -> Finished:
        other = context.folder / ".staging-1-1"
        other.mkdir()
        (other / "a.txt").write_text("of the other", encoding="utf-8")
        staged = Staged(other, "dataset")
        with store.locked(context.folder):
            store.publish(context.folder, staged, store.describe(staged, config_digest=context.digest, inputs={}))
        raise StageError(ExitCode.DATA, "Late", "too late")

    assert run(tmp_path, late).reason == "Late"
    assert run(tmp_path, unexpected).outcome == "Succeeded"
    assert published(tmp_path) == "of the other"


def test_what_a_killed_attempt_staged_does_not_get_into_the_artifact(tmp_path: Path) -> None:
    left = tmp_path / FOLDER / ".staging-0-posttrain-filter-killed"
    left.mkdir(parents=True)
    (left / "stale.txt").touch()
    run(tmp_path, publish("new"), config=configure(attempt=2))
    assert not left.exists()
    assert [path.name for path in (tmp_path / FOLDER / "artifact").iterdir()] == ["a.txt"]


def test_two_pods_of_one_index_do_not_touch_what_the_other_stages(tmp_path: Path) -> None:
    """A node is lost and comes back: the first pod is at work still when the second begins."""

    def first(context: StageContext[FilterStage]) -> Finished:
        finished = publish("of the first")(context)
        # Signals are the main thread's; the second pod is another process.
        status = os.waitpid(_fork(partial(run, tmp_path, publish("of the second"))), 0)[1]
        assert status == 0
        assert (context.staging / "a.txt").read_text(encoding="utf-8") == "of the first"
        return finished

    assert run(tmp_path, first).outcome == "Succeeded"
    assert published(tmp_path) == "of the second"
    assert not litter(tmp_path)


def _fork(action: Callable[[], StageResult]) -> int:
    """Runs an action in a process of its own, which ends with 0 when it succeeds."""
    child = os.fork()
    if child == 0:
        succeeded = False
        os.environ["POD_IP"] = "127.27.100.27"  # a pod has an address of its own
        try:
            succeeded = action().outcome == "Succeeded"
        finally:
            os._exit(0 if succeeded else 1)
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_request_without_a_checkpoint_is_a_preemption(tmp_path: Path, number: signal.Signals) -> None:
    def work(context: StageContext[FilterStage]) -> Finished:
        os.kill(os.getpid(), number)
        context.stop.wait(10)
        context.check_stop()
        raise AssertionError("not stopped")

    result = run(tmp_path, work)
    assert (result.outcome, result.exit_code, result.message) == ("Preempted", 144, "stopped on request")
    assert result.exit_code.preempted
    assert StageResult.model_validate_json((tmp_path / FOLDER / layout.RESULT).read_bytes()) == result


def test_a_port_that_is_taken_is_a_retriable_failure(tmp_path: Path) -> None:
    with socket.create_server((os.environ["POD_IP"], layout.TELEMETRY_PORT)):
        result = run(tmp_path, unexpected)
    assert (result.exit_code, result.reason) == (ExitCode.PORT_TAKEN, "PortTaken")


def test_a_preemption_tells_how_far_it_came(tmp_path: Path) -> None:
    result = run(tmp_path, fail(Preempted(saved=True, step=7)))
    assert (result.exit_code, result.message) == (143, "stopped on request at step 7 after saving a checkpoint")


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (StageError(ExitCode.MODEL, "NoTokenizer", "no tokenizer"), ExitCode.MODEL, "NoTokenizer"),
        (PermissionError(13, "denied", "/x"), ExitCode.UNWRITABLE, "Unwritable"),
        (OSError(28, "full", "/x"), ExitCode.STORAGE, "DiskFull"),
        (MemoryError(), ExitCode.OUT_OF_MEMORY, "OutOfMemory"),
        (ZeroDivisionError("by nought"), ExitCode.UNHANDLED, "UnhandledException"),
    ],
)
def test_every_failure_has_a_cause(tmp_path: Path, error: Exception, code: ExitCode, reason: str) -> None:
    result = run(tmp_path, fail(error))
    assert (result.outcome, result.exit_code, result.reason) == ("Failed", code, reason)
    assert result.message


def test_a_secret_is_in_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary_0123456789")
    result = run(tmp_path, fail(ValueError("refused hf_canary_0123456789")))
    assert result.message == "ValueError: refused [redacted]"


def test_a_figure_that_is_no_number_does_not_spoil_the_result(tmp_path: Path) -> None:
    result = run(tmp_path, lambda _: Finished({"loss": float("nan"), "rows": 1.0}))
    assert (result.outcome, result.metrics) == ("Succeeded", {"rows": 1.0})


@pytest.mark.parametrize("text", ["x" * 10_000, "漢字" * 5_000, '"\n\\' * 3_000], ids=["ascii", "wide", "escapes"])
def test_a_result_fits_into_a_termination_message(tmp_path: Path, text: str) -> None:
    result = run(tmp_path, fail(ValueError(text)))
    size = (tmp_path / layout.TERMINATION_LOG).stat().st_size
    assert 0 < size <= MAX_RESULT_BYTES
    assert result.message.startswith(f"ValueError: {text[:100]}")


def publish_from_work_area(context: StageContext[FilterStage]) -> Finished:
    """Work that leaves something in the folder that pods share."""
    context.work_area.mkdir(exist_ok=True)
    (context.work_area / "unit").write_bytes(b"")
    return publish("new")(context)


def litter(root: Path) -> list[str]:
    """What is in the run folder and should not be there after a run."""
    expected = {".lock", "artifact", "artifact.json", "logs", "result.json"}
    return sorted({path.name for path in (root / FOLDER).iterdir()} - expected)


def test_the_work_area_goes_once_the_artifact_is_published(tmp_path: Path) -> None:
    run(tmp_path, publish_from_work_area)
    assert published(tmp_path) == "new"
    assert not litter(tmp_path)


@pytest.mark.parametrize("earlier", ["nothing", "another configuration"])
def test_whenever_a_stage_is_killed_the_next_attempt_publishes_and_leaves_no_litter(
    tmp_path: Path, earlier: str
) -> None:
    littered = set()
    for change in itertools.count(1):
        root = tmp_path / str(change)
        root.mkdir()
        if earlier != "nothing":
            run(root, publish("old"), config=configure(maximum=0.7))
        crashed = crashes_at(change, root / FOLDER, partial(run, root, publish_from_work_area))
        if (root / FOLDER).exists():
            littered.update(litter(root))
        assert run(root, publish_from_work_area, config=configure(attempt=2)).outcome == "Succeeded"
        assert published(root) == "new"
        assert not litter(root), f"killed at change {change}"
        if not crashed:
            break
    kinds = {"probe", "artifact.json", "staging-0-", "work", "result.json"}
    assert {kind for kind in kinds for name in littered if kind in name} == kinds, "the crashes missed some steps"


def test_what_other_pods_are_writing_is_left_alone(tmp_path: Path) -> None:
    names = (".staging-1-posttrain-filter-x", "server.key", ".server.key.0123456789abcdef.tmp")
    others = [tmp_path / FOLDER / name for name in names]
    for path in others:
        path.mkdir(parents=True)
    run(tmp_path, publish("new"))
    assert all(path.exists() for path in others)


def test_an_input_is_hashed_before_the_work_whether_or_not_its_digest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = tmp_path / "inputs/made"
    (upstream / ".staging").mkdir(parents=True)
    (upstream / ".staging/a.txt").write_text("x", encoding="utf-8")
    staged = Staged(upstream / ".staging", "dataset")
    store.publish(upstream, staged, store.describe(staged, config_digest="0" * 64, inputs={}))
    hashed: list[Path] = []

    def note(path: Path) -> str:
        hashed.append(path)
        return sha256(path)

    monkeypatch.setattr(files, "sha256", note)
    source = ResolvedInput(uri="pvc://inputs/made/artifact", path="inputs/made/artifact")
    config = configure(inputs={"source": source})
    assert run(tmp_path, fail(StageError(ExitCode.DATA, "Begun", "begun")), config=config).reason == "Begun"
    assert hashed == [upstream / "artifact/a.txt"]
    (upstream / "artifact/a.txt").write_text("y", encoding="utf-8")
    result = run(tmp_path, unexpected, config=config)
    assert result.reason == "InputDamaged"
    assert result.message.startswith("spec.source: ")
