"""The filter stage as a process: what it keeps, how it splits the work, and what it says of bad input."""

import hashlib
import itertools
import json
import random
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from posttrain_contract import layout
from posttrain_contract.exit_codes import ExitCode
from posttrain_contract.filter import FilterSpec
from posttrain_contract.result import StageResult
from posttrain_contract.stage import FilterStage, ResolvedInput
from posttrain_filter.rows import JsonlRange, SourceFile
from posttrain_filter.source import find_files, share
from posttrain_filter.work import filter_rows
from posttrain_runtime import store
from posttrain_runtime.store import damage, read_manifest
from support.readers import read_by_the_operator
from support.recording import leaves, recorded
from support.stages import StageProcess, pod_address, run_facts, start_stage_process
from support.tiny import context_in_process

BY_LABEL = {"column": "pass_rate", "max": 0.5}
SOURCE = "inputs/source"


def configure(spec: Mapping[str, Any], *, path: str = SOURCE, attempt: int = 1) -> FilterStage:
    """A filter of ``path`` below the mount root."""
    source = {"source": {"uri": f"pvc://inputs/{path}"}, "byLabel": BY_LABEL}
    inputs = {"source": ResolvedInput(uri=f"pvc://inputs/{path}", path=path)}
    return FilterStage(
        run=run_facts("FilterJob", inputs=inputs, attempt=attempt), spec=FilterSpec.parse({**source, **spec})
    )


def start(config: FilterStage, root: Path, *, worker: int = 0, pod: str = "") -> StageProcess:
    """Starts one worker pod with an address of its own."""
    address = pod_address()
    env = {"POD_IP": address, "JOB_COMPLETION_INDEX": str(worker)}
    return start_stage_process(config, root, env=env, pod=pod)


def run(root: Path, **spec: Any) -> StageResult:
    """Runs a filter with one worker on the source."""
    return start(configure(spec), root).wait()


def write_source(root: Path, files: Mapping[str, bytes | Sequence[Mapping[str, Any]]]) -> Path:
    """Writes raw bytes or rows into files of the source folder."""
    for name, content in files.items():
        path = root / SOURCE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text("".join(f"{json.dumps(row)}\n" for row in content), encoding="utf-8")
    return root / SOURCE


def run_folder(root: Path) -> Path:
    """The run folder of the one run of a test."""
    return root / "store/test/filterjob/test-0"


def published(root: Path) -> list[dict[str, Any]]:
    """The rows of the published dataset, in order; the artifact matches its manifest."""
    manifest = read_manifest(run_folder(root))
    assert manifest is not None
    assert damage(run_folder(root), manifest, hashes=True) is None
    files = [run_folder(root) / layout.ARTIFACT / entry.path for entry in manifest.files]
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


def problems(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with a pass rate in steps of a tenth; every fifth row has none."""
    draw = random.Random(seed)
    rates = [None if number % 5 == 0 else draw.randint(0, 10) / 10 for number in range(count)]
    return [{"problem": f"{n} + {n}?", "answer": str(2 * n), "pass_rate": rate} for n, rate in enumerate(rates)]


def test_rows_with_a_label_in_the_range_are_kept_in_order(tmp_path: Path) -> None:
    rows = problems(50)
    write_source(tmp_path, {"a.jsonl": rows[:20], "sub/b.jsonl": rows[20:]})

    result = run(tmp_path, byLabel={"column": "pass_rate", "min": 0.2, "max": 0.5})

    kept = [row for row in rows if row["pass_rate"] is not None and 0.2 <= row["pass_rate"] <= 0.5]
    assert result.outcome == "Succeeded", result.message
    assert published(tmp_path) == kept
    assert result.artifact is not None
    assert result.artifact.rows == len(kept)
    assert result.metrics == pytest.approx(
        {
            "rowsRead": 50,
            "rowsKept": len(kept),
            "rowsWithoutLabel": 10,
            "rowsDroppedByLabel": 40 - len(kept),
            "keptPercent": 2 * len(kept),
        }
    )


def test_work_is_removed_once_the_dataset_is_published(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": problems(10)})
    run(tmp_path)
    left = sorted(path.name for path in run_folder(tmp_path).iterdir())
    assert left == [".lock", "artifact", "artifact.json", "logs", "result.json"]


@pytest.mark.parametrize(("missing", "kept"), [("drop", 1), ("keep", 3)])
def test_rows_without_label_follow_the_rule(tmp_path: Path, missing: str, kept: int) -> None:
    write_source(tmp_path, {"a.jsonl": [{"pass_rate": 0.1}, {"pass_rate": None}, {"other": 1}]})
    result = run(tmp_path, byLabel={**BY_LABEL, "missing": missing})
    assert len(published(tmp_path)) == kept
    assert result.metrics["rowsWithoutLabel"] == 2


def test_a_missing_label_can_be_an_error(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": [{"pass_rate": 0.1}, {"rate": 1, "problem": "?"}]})
    result = run(tmp_path, byLabel={**BY_LABEL, "missing": "error"})
    assert (result.exit_code, result.reason) == (ExitCode.DATA, "MissingLabel")
    assert "a.jsonl:2" in result.message
    assert "rate, problem" in result.message


def test_columns_are_renamed_in_place(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": [{"problem": "1+1", "answer": "2", "pass_rate": 0}]})
    run(tmp_path, columns={"prompt": "problem", "gold": "answer", "copy": "answer"})
    rows = published(tmp_path)
    assert rows == [{"prompt": "1+1", "gold": "2", "copy": "2", "pass_rate": 0}]
    assert list(rows[0]) == ["prompt", "gold", "copy", "pass_rate"]


def test_values_are_copied_as_they_were_written(tmp_path: Path) -> None:
    line = b'{"pass_rate":0.50,"big":123456789012345678901234567890,"text":"h\\u00e9 \xe3\x81\x82","list":[1, 2.0]}'
    write_source(tmp_path, {"a.jsonl": line + b"\n"})
    run(tmp_path)
    assert (run_folder(tmp_path) / "artifact/part-00000.jsonl").read_bytes() == line + b"\n"


HARMLESS = {
    "byte-order-mark": b'\xef\xbb\xbf{"pass_rate": 0}\n{"pass_rate": 0}\n',
    "crlf": b'{"pass_rate": 0}\r\n{"pass_rate": 0}\r\n',
    "blank-lines": b'\n{"pass_rate": 0}\n  \n\n{"pass_rate": 0}\n\n',
    "no-final-newline": b'{"pass_rate": 0}\n{"pass_rate": 0}',
    "last-of-two-equal-keys": b'{"pass_rate": 1, "pass_rate": 0}\n{"pass_rate": 1e-400}\n',
}


def test_harmless_oddities_are_read(tmp_path: Path) -> None:
    write_source(tmp_path, {f"{name}.jsonl": content for name, content in HARMLESS.items()})
    result = run(tmp_path)
    assert result.metrics["rowsRead"] == result.metrics["rowsKept"] == 2 * len(HARMLESS), result.message


@pytest.mark.parametrize("content", HARMLESS.values(), ids=HARMLESS)
def test_every_cut_of_a_file_reads_every_line_once(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    file = SourceFile("a.jsonl", path, size=len(content), modified=0)
    whole = [row.position for row in JsonlRange(file, 0, len(content)).rows()]
    for size in range(1, len(content) + 1):
        cuts = [JsonlRange(file, first, min(first + size, len(content))) for first in range(0, len(content), size)]
        rows = [row for cut in cuts for row in cut.rows()]
        assert [row.position for row in rows] == whole
        assert not any(row.fault for row in rows)


BAD_LINES = {
    "not JSON": (b'{"pass_rate": 0', "not JSON"),
    "torn by a crash": (b"\x00\x00\x00\x00", "not JSON"),
    "an array": (b"[1, 2]", "no JSON object"),
    "not UTF-8": (b'{"pass_rate": 0, "text": "caf\xe9"}', "not UTF-8"),
    "half a surrogate pair": (b'{"pass_rate": 0, "text": "\\ud800"}', "not JSON"),
    "a second byte order mark": (b'\xef\xbb\xbf{"pass_rate": 0}', "not JSON"),
    "NaN": (b'{"pass_rate": NaN}', "not JSON"),
    "a boolean label": (b'{"pass_rate": true}', "true, not a finite number"),
    "a text label": (b'{"pass_rate": "0.5"}', '"0.5", not a finite number'),
    "a list label": (b'{"pass_rate": [0.5]}', "[0.5], not a finite number"),
    "an infinite label": (b'{"pass_rate": 1e999}', "1e999, not a finite number"),
    "a missing source column": (b'{"pass_rate": 0}', "spec.columns.gold: no column 'answer'; there is pass_rate"),
}


@pytest.mark.parametrize(("line", "sentence"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, line: bytes, sentence: str) -> None:
    good = b'{"pass_rate": 0, "answer": 1}\n'
    write_source(tmp_path, {"a.jsonl": good, "b.jsonl": good * 3 + line + b"\n" + good + line + b"\n"})
    result = run(tmp_path, columns={"gold": "answer"})
    assert (result.outcome, result.exit_code) == ("Failed", ExitCode.DATA)
    assert "spec.source: b.jsonl:4: " in result.message
    assert sentence in result.message
    assert "2 such rows were found; mend or remove them" in result.message
    assert not (run_folder(tmp_path) / layout.MANIFEST).exists()


def test_bad_rows_are_counted_up_to_a_bound(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": b"{}\n" + b"no\n" * 5000})
    assert "a.jsonl:2: the line is not JSON" in (message := run(tmp_path).message)
    assert "at least 100 such rows were found" in message


def test_a_new_name_that_exists_already_is_refused(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": [{"pass_rate": 0, "answer": 1, "expected": 2}]})
    result = run(tmp_path, columns={"answer": "expected"})
    assert result.reason == "DuplicateColumn"
    assert "'answer'" in result.message


def test_a_label_column_that_no_row_has_lists_the_columns_of_all_files(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": [{"problem": "?"}], "b.jsonl": [{"pass_rat": 1}]})
    result = run(tmp_path, byLabel={**BY_LABEL, "missing": "keep"})
    assert (result.exit_code, result.reason) == (ExitCode.DATA, "MissingColumn")
    assert "spec.byLabel.column: no row has a column 'pass_rate'; there is problem, pass_rat" in result.message


def test_when_no_row_is_kept_the_labels_that_were_seen_are_told(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": [{"pass_rate": rate} for rate in (0.6, 0.875, None)]})
    result = run(tmp_path)
    assert (result.exit_code, result.reason) == (ExitCode.DATA, "EmptyDataset")
    assert "none of 3 rows is kept by max 0.5 on 'pass_rate'; it lies in 0.6..0.875" in result.message
    assert "1 rows without label" in result.message


def test_an_empty_source_is_an_empty_dataset(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": b""})
    result = run(tmp_path)
    assert (result.reason, result.exit_code) == ("EmptyDataset", ExitCode.DATA)


def test_a_folder_without_readable_files_lists_what_there_is(tmp_path: Path) -> None:
    write_source(tmp_path, {"rows.csv": b"a,b\n", "notes.txt": b""})
    result = run(tmp_path)
    assert result.reason == "NoReadableFile"
    assert "there is notes.txt, rows.csv" in result.message


def test_parquet_is_read_like_json_lines(tmp_path: Path) -> None:
    rows = problems(1000)
    write_source(tmp_path, {"a.jsonl": rows})
    run(tmp_path)
    expected = published(tmp_path)
    other = tmp_path / "other"
    folder = write_source(other, {})
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows[:700]), folder / "a.parquet", row_group_size=100)
    write_source(other, {"b.jsonl": rows[700:]})
    run(other)
    assert published(other) == expected


def test_a_bad_label_in_parquet_is_named_by_row(tmp_path: Path) -> None:
    write_source(tmp_path, {}).mkdir(parents=True)
    table = pa.table({"pass_rate": [0.1] * 25 + [float("nan")]})
    pq.write_table(table, tmp_path / SOURCE / "a.parquet", row_group_size=10)
    result = run(tmp_path)
    assert result.reason == "InvalidLabel"
    assert "a.parquet:row 26: spec.byLabel.column: 'pass_rate' is nan" in result.message


def damaged_parquet(path: Path) -> bytes:
    """A Parquet file whose footer is whole and whose pages are not."""
    pq.write_table(pa.table({"pass_rate": [0.1, 0.2] * 500, "text": [str(n) for n in range(1000)]}), path)
    data = path.read_bytes()
    return data[:4] + bytes(len(data) // 3) + data[4 + len(data) // 3 :]


@pytest.mark.parametrize("whole_footer", [True, False])
def test_a_file_that_is_no_whole_parquet_is_named(tmp_path: Path, whole_footer: bool) -> None:
    content = damaged_parquet(tmp_path / "x") if whole_footer else b"PAR1 torn"
    write_source(tmp_path, {"a.parquet": content})
    result = run(tmp_path)
    assert (result.exit_code, result.reason) == (ExitCode.DATA, "InvalidFile"), result.message
    assert "spec.source: a.parquet is no whole Parquet file" in result.message


def test_a_single_file_can_be_the_source(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": [{"pass_rate": 0}], "b.jsonl": b"not read"})
    start(configure({}, path=f"{SOURCE}/a.jsonl"), tmp_path).wait()
    assert len(published(tmp_path)) == 1


def test_an_artifact_is_read_by_its_manifest(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": problems(30)})
    run(tmp_path)
    upstream = tmp_path / "inputs/upstream"
    run_folder(tmp_path).rename(upstream)
    (upstream / "artifact/stray.jsonl").write_bytes(b"not in the manifest\n")
    config = configure({"byLabel": {"column": "pass_rate", "max": 0.2}}, path="inputs/upstream/artifact")

    assert start(config, tmp_path).wait().outcome == "Succeeded"
    assert {row["pass_rate"] for row in published(tmp_path)} <= {0, 0.1, 0.2}

    (upstream / "artifact/part-00000.jsonl").write_bytes(b"{}\n")
    result = start(configure({}, path="inputs/upstream/artifact"), tmp_path).wait()
    assert result.reason == "InputDamaged"


def test_the_filter_leaves_hashing_its_source_to_the_start_of_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_source(tmp_path, {"a.jsonl": problems(10)})
    run(tmp_path)
    hashed: list[Path] = []
    monkeypatch.setattr(store, "digests", hashed.append)
    found = find_files(run_folder(tmp_path) / layout.ARTIFACT, ResolvedInput(uri="pvc://x", path="x"))
    assert [file.name for file in found] == ["part-00000.jsonl"]
    assert not hashed


def dataset_digest(root: Path) -> str:
    """One hash over names and bytes of the published files."""
    digest = hashlib.sha256()
    for path in sorted((run_folder(root) / layout.ARTIFACT).iterdir()):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def run_workers(root: Path, config: FilterStage, *, workers: Sequence[int]) -> list[StageResult]:
    """Runs worker pods at the same time."""
    pods = [start(config, root, worker=worker, pod=f"pod-{number}") for number, worker in enumerate(workers)]
    return [pod.wait() for pod in pods]


def test_the_dataset_is_the_same_whatever_the_number_of_workers(tmp_path: Path) -> None:
    rows = problems(997)
    digests = set()
    for workers in (1, 3):
        root = tmp_path / str(workers)
        folder = write_source(root, {"a.jsonl": rows[:600], "c.jsonl": rows[900:]})
        pq.write_table(pa.Table.from_pylist(rows[600:900]), folder / "b.parquet", row_group_size=50)
        config = configure({"parallelism": workers, "output": {"rowsPerShard": 100}})
        results = run_workers(root, config, workers=range(workers))
        assert {result.outcome for result in results} == {"Succeeded"}, results
        assert published(root) == [row for row in rows if row["pass_rate"] is not None and row["pass_rate"] <= 0.5]
        digests.add(dataset_digest(root))
    assert len(digests) == 1


def test_shards_hold_the_asked_number_of_rows(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": [{"pass_rate": 0, "n": n} for n in range(25)]})
    run(tmp_path, output={"rowsPerShard": 10})
    shards = sorted((run_folder(tmp_path) / layout.ARTIFACT).iterdir())
    assert [(path.name, path.read_bytes().count(b"\n")) for path in shards] == [
        ("part-00000.jsonl", 10),
        ("part-00001.jsonl", 10),
        ("part-00002.jsonl", 5),
    ]


def test_nothing_is_published_before_the_last_worker_is_done(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": problems(100)})
    config = configure({"parallelism": 2})
    first = start(config, tmp_path, worker=0).wait()
    assert (first.outcome, first.artifact) == ("Succeeded", None)
    assert not (run_folder(tmp_path) / layout.MANIFEST).exists()
    second = start(config, tmp_path, worker=1).wait()
    assert second.artifact is not None
    assert second.metrics["rowsRead"] == 100


def test_several_workers_that_finish_at_once_do_no_harm(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": problems(100)})
    config = configure({"parallelism": 2})
    results = run_workers(tmp_path, config, workers=[0, 1, 0, 1])
    assert {result.outcome for result in results} == {"Succeeded"}, results
    kept = [row for row in problems(100) if row["pass_rate"] is not None and row["pass_rate"] <= 0.5]
    assert published(tmp_path) == kept
    assert not (run_folder(tmp_path) / "work").exists()


def test_a_restarted_worker_does_not_repeat_finished_units(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": problems(100)})
    config = configure({"parallelism": 2})
    start(config, tmp_path, worker=0).wait()
    unit = run_folder(tmp_path) / "work/unit-000000.jsonl"
    before = unit.stat().st_mtime_ns
    start(config, tmp_path, worker=0).wait()
    assert unit.stat().st_mtime_ns == before


def test_units_of_a_changed_source_or_configuration_are_done_again(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": problems(100)})
    start(configure({"parallelism": 2}), tmp_path, worker=0).wait()
    write_source(tmp_path, {"a.jsonl": problems(100, seed=1)})
    rule = {"column": "pass_rate", "max": 0.8}
    run_workers(tmp_path, configure({"parallelism": 2, "byLabel": rule}), workers=[0, 1])
    kept = [row for row in problems(100, seed=1) if row["pass_rate"] is not None and row["pass_rate"] <= 0.8]
    assert published(tmp_path) == kept


def test_a_worker_that_starts_after_publication_answers_with_the_artifact(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": problems(100)})
    config = configure({})
    first = start(config, tmp_path).wait()
    assert start(config, tmp_path).wait() == first
    assert not (run_folder(tmp_path) / "work").exists()


def test_a_stop_request_ends_the_work_and_the_next_attempt_completes_it(tmp_path: Path) -> None:
    rows = [{"pass_rate": 0.1, "text": "x" * 200, "n": n} for n in range(200_000)]
    write_source(tmp_path, {"a.jsonl": rows})
    process = start(configure({}), tmp_path)
    work = run_folder(tmp_path) / "work"
    poll = threading.Event()
    while not any(work.glob(".unit-*")):
        assert process.process.poll() is None, process.log
        poll.wait(0.01)
    process.process.send_signal(signal.SIGTERM)
    stopped = process.wait()
    assert (stopped.outcome, stopped.exit_code) == ("Preempted", ExitCode.PREEMPTED_UNSAVED)
    assert not any(work.glob("*.tmp"))

    result = start(configure({}, attempt=2), tmp_path).wait()
    assert result.artifact is not None
    assert result.artifact.rows == len(rows)


def test_every_field_is_read_by_the_filter_or_the_operator(tmp_path: Path) -> None:
    write_source(tmp_path, {"a.jsonl": [{"pass_rate": 0.1, "q": "1 + 1"}, {"q": "no rate"}]})
    config = configure({"byLabel": {**BY_LABEL, "min": 0}, "columns": {"problem": "q"}})
    seen: set[str] = set()
    watched = config.model_copy(update={"spec": recorded(config.spec, seen)})
    assert filter_rows(context_in_process(watched, tmp_path)).staged is not None
    assert seen | read_by_the_operator(config.spec) == set(leaves(config.spec))


def test_the_shares_of_all_workers_are_the_whole() -> None:
    for count, workers in itertools.product(range(20), range(1, 9)):
        shares = [share(count, worker=worker, workers=workers) for worker in range(workers)]
        assert list(itertools.chain.from_iterable(shares)) == list(range(count))
