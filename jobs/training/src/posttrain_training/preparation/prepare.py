"""Preparing a dataset: every row is read, rendered, tokenized and packed once, and published by its content's name."""

import gc
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from posttrain_contract.examples import ExampleDataset
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime import store
from posttrain_runtime.errors import StageError

from posttrain_training.preparation import parts
from posttrain_training.preparation.encoding import Encoder, Row
from posttrain_training.preparation.formats import Example, Reader
from posttrain_training.preparation.key import Shape, content_key
from posttrain_training.preparation.parts import Columns, Counts
from posttrain_training.preparation.rendering import Renderer
from posttrain_training.preparation.selection import Mask, select
from posttrain_training.preparation.source import Chunk, chunks, data_files, records
from posttrain_training.preparation.templates import TEMPLATES
from posttrain_training.tokenizers import load_tokenizer

log = logging.getLogger(__name__)

_PART_ROWS = 32_000
_PART_TOKENS = 16_000_000
"""A part is packed and written as a whole, so it bounds the memory, and what a killed preparation does again."""
_ALONE = 2_000
"""Rows that one process prepares sooner than others could start."""


@dataclass(frozen=True)
class Preparation:
    """What to prepare, for whom."""

    dataset: ExampleDataset
    path: Path
    model: Path
    shape: Shape
    field: str


def prepare(
    task: Preparation, root: Path, *, report: Callable[[int, int], None], check_stop: Callable[[], None]
) -> Path:
    """The folder of the prepared dataset below ``root``, made unless it is there already.

    ``report`` gets the rows done and those to do, zeros while another process prepares the same; ``check_stop`` may
    raise to stop. What a killed preparation has done is not done again. Raises ``StageError``.
    """
    files = data_files(task.path, field=task.field)
    folder = root / content_key(task.dataset, files, model=task.model, shape=task.shape)
    folder.mkdir(parents=True, exist_ok=True)

    def waiting() -> None:
        check_stop()
        report(0, 0)

    with store.locked(folder, waiting=waiting):
        if _is_published(folder):
            log.info("the dataset is prepared already: %s", folder.name[:12])
            return folder
        counts = _Work(task, files, folder, report=report, check_stop=check_stop).run()
        _publish(folder, counts)
    return folder


def _is_published(folder: Path) -> bool:
    manifest = store.read_manifest(folder)
    if manifest is None:
        return False
    if (damage := store.damage(folder, manifest, hashes=True)) is None:
        return True
    log.warning("the prepared dataset %s is made again: %s", folder.name[:12], damage)
    store.remove(folder)
    return False


def _publish(folder: Path, counts: Counts) -> None:
    staged = store.Staged(folder / "parts", "dataset", rows=counts.rows)
    store.publish(folder, staged, store.describe(staged, config_digest=folder.name, inputs={}))
    log.info(
        "prepared %d rows of %d: %d tokens, %d of them learned; %d rows reach the limit, %d had no room for an answer",
        counts.rows, counts.read, counts.tokens, counts.learned, counts.full, counts.dropped,
    )  # fmt: skip


def sample(task: Preparation, *, count: int) -> list[tuple[str, Row | None]]:
    """The first rows as they would be prepared, each with its place; None where nothing is left to learn.

    Nothing is written. Raises ``StageError``.
    """
    worker, files = Worker(task), data_files(task.path, field=task.field)
    mask = select(task.dataset, chunks(files, field=task.field), reader=worker.reader, field=task.field)
    found: list[tuple[str, Example]] = []
    for chunk in chunks(files, field=task.field):
        found += worker.examples(chunk, mask[chunk.start : chunk.start + len(chunk.rows)])
        if len(found) >= count:
            break
    examples = found[:count]
    return [(place, row) for (place, _), row in zip(examples, worker.encoder.encode(examples), strict=True)]


class _Work:
    """One preparation, part by part."""

    def __init__(
        self,
        task: Preparation,
        files: Sequence[Path],
        folder: Path,
        *,
        report: Callable[[int, int], None],
        check_stop: Callable[[], None],
    ) -> None:
        self._task = task
        self._files = files
        self._parts = folder / "parts"
        self._report = report
        self._check_stop = check_stop

    def run(self) -> Counts:
        """Prepares what is not prepared yet; returns the counts of the whole."""
        task = self._task
        self._parts.mkdir(exist_ok=True)
        worker = Worker(task)
        mask = select(
            task.dataset, self._chunks(), reader=worker.reader, field=task.field, validation=task.shape.validation
        )
        total = int(mask.sum())
        if not total:
            left = " left beside those for validation" if task.dataset.validation is not None else ""
            raise _error(
                "EmptyDataset", task, f"{store.shown_name(task.path)} has no rows{left}; name a dataset that has some"
            )
        done, number = self._done()
        with ExitStack() as stack:
            results = self._results(worker, mask, skip=done.chunks, total=total, stack=stack)
            while (part := self._next_part(results)) is not None:
                columns, counts = part
                parts.write(self._parts / f"part-{number:05d}.arrow", columns, counts)
                done, number = done + counts, number + 1
        if not done.rows:
            what = f"no row has room for an answer within training.maxLength ({task.shape.max_length} tokens); raise it"
            raise _error("RowsTooLong", task, what)
        return done

    def _chunks(self) -> Iterator[Chunk]:
        return chunks(self._files, field=self._task.field)

    def _done(self) -> tuple[Counts, int]:
        """What an earlier preparation has done, and the number of the next part; what follows a gap is removed."""
        done, number = Counts(), 0
        for path in sorted(self._parts.iterdir()):
            counts = parts.read_counts(path) if path.name == f"part-{number:05d}.arrow" else None
            if counts is None:
                path.unlink()
            else:
                done, number = done + counts, number + 1
        return done, number

    def _next_part(self, results: Iterator[tuple[Columns, Counts]]) -> tuple[list[Columns], Counts] | None:
        found: list[Columns] = []
        total = Counts()
        for columns, counts in results:
            self._check_stop()
            total += counts
            if counts.rows:
                found.append(columns)
            if total.rows >= _PART_ROWS or total.tokens >= _PART_TOKENS:
                break
        if not total.chunks:
            return None
        if self._task.shape.packing and found:
            found = [parts.pack(found, capacity=self._task.shape.max_length)]
            total = Counts(**{**vars(total), "rows": len(found[0].ends["input_ids"])})
        return found, total

    def _results(
        self, worker: "Worker", mask: Mask, *, skip: int, total: int, stack: ExitStack
    ) -> Iterator[tuple[Columns, Counts]]:
        """The columns of every chunk, in order; by several processes when that is worth their start."""
        wanted = ((chunk, mask[chunk.start : chunk.start + len(chunk.rows)]) for chunk in self._chunks())
        processes = min(len(os.sched_getaffinity(0)), total // _ALONE)
        submit = _submitter(worker, processes, stack) if processes > 1 else None
        waiting: deque[Future[tuple[Columns, Counts]]] = deque()
        rows = 0
        for number, (chunk, wanted_rows) in enumerate(wanted):
            rows += int(wanted_rows.sum())
            if number < skip:
                continue
            if submit is None:
                yield worker.work(chunk, wanted_rows)
                self._report(rows, total)
                continue
            waiting.append(submit(chunk, wanted_rows))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
                self._report(rows, total)
        while waiting:
            yield waiting.popleft().result()
            self._report(total, total)


class Worker:
    """Prepares chunks; one in each process."""

    def __init__(self, task: Preparation) -> None:
        dataset = task.dataset
        tokenizer = load_tokenizer(task.model, template=TEMPLATES.get(dataset.template), plain=dataset.format == "text")
        self._field = task.field
        self._max_length = task.shape.max_length
        self.reader = Reader(dataset, field=task.field)
        self.encoder = Encoder(
            tokenizer,
            None if dataset.format == "text" else Renderer(tokenizer, field=task.field),
            max_length=task.shape.max_length,
            learn_all=dataset.loss == "all",
        )

    def examples(self, chunk: Chunk, wanted: Mask) -> list[tuple[str, Example]]:
        """The examples in a chunk that are wanted, each with its place."""
        return [
            (place, self.reader.read(record, place))
            for (place, record), use in zip(records(chunk, field=self._field), wanted, strict=True)
            if use and record is not None
        ]

    def work(self, chunk: Chunk, wanted: Mask) -> tuple[Columns, Counts]:
        """The rows of a chunk that are wanted, and what became of them."""
        encoded = self.encoder.encode(self.examples(chunk, wanted))
        rows = [row for row in encoded if row is not None]
        columns = Columns.of(rows)
        counts = Counts(
            chunks=1,
            read=len(chunk.rows),
            rows=len(rows),
            dropped=len(encoded) - len(rows),
            full=sum(row.length >= self._max_length for row in rows),
            tokens=sum(row.length for row in rows),
            learned=parts.learned(columns),
        )
        return columns, counts


_worker: Worker | None = None


def _start() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each process has one core
    gc.freeze()  # what is inherited stays: looking through it for garbage again and again takes a tenth of the time


def _work(chunk: Chunk, wanted: Mask) -> tuple[Columns, Counts]:
    if _worker is None:
        raise RuntimeError("the worker was not inherited")
    return _worker.work(chunk, wanted)


def _submitter(
    worker: Worker, processes: int, stack: ExitStack
) -> Callable[[Chunk, Mask], Future[tuple[Columns, Counts]]]:
    """Processes that inherit the worker: importing its libraries anew would take as long as ten thousand rows."""
    global _worker  # noqa: PLW0603 - what is forked can be inherited in no other way
    _worker = worker
    pool = ProcessPoolExecutor(processes, mp_context=get_context("fork"), initializer=_start)
    stack.callback(pool.shutdown, cancel_futures=True)
    return lambda chunk, wanted: pool.submit(_work, chunk, wanted)


def _error(reason: str, task: Preparation, message: str) -> StageError:
    return StageError(ExitCode.DATA, reason, f"{task.field}: {message}")
