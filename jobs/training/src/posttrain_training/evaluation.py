"""Evaluation by greedy generation: the share of tasks whose final answer is exactly right."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from posttrain_contract import layout
from posttrain_contract.evaluation import EVALUATION_INPUT, GenerationEvaluation
from posttrain_contract.progress import SampleLine
from posttrain_runtime import answers
from posttrain_runtime.errors import Preempted
from posttrain_runtime.progress import ProgressReporter

from posttrain_training import gang
from posttrain_training.tasks import Task, load_tasks

PHASE = "evaluating"
_SAMPLES = 16


class Evaluator:
    """Scores a model on held-out tasks; every rank takes its share of them."""

    def __init__(
        self,
        settings: GenerationEvaluation,
        *,
        path: Path,
        tokenizer: Any,
        run_folder: Path,
        stop: gang.Stop,
        progress: ProgressReporter,
    ) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._samples = run_folder / layout.SAMPLES
        self._stop = stop
        self._progress = progress
        self.listeners: list[Callable[[Sequence[SampleLine]], None]] = []
        """Called in the leading rank with the samples of every evaluation."""
        self._reader = answers.reader(settings.answer, settings.pattern)
        field = f"spec.{EVALUATION_INPUT}"
        self._tasks = load_tasks(path, field=field, dataset=settings.dataset, readers=[self._reader])

    def score(self, model: Any, *, step: int) -> float:
        """The share of tasks solved, 0 to 1, the same in every rank; some answers go to ``logs/samples.jsonl``.

        Raises ``Preempted`` when the run was asked to stop.
        """
        was_training = model.training
        model.eval()
        try:
            own = [line for batch in self._batches(step) for line in self._solve(model, batch, step=step)]
        finally:
            model.train(was_training)
        shares = gang.gather((sum(line.correct for line in own), len(own), own[:_SAMPLES]))
        if gang.rank() == 0:
            self._write(shares[0][2])
            for listener in self.listeners:
                listener(shares[0][2])
        solved, tried = (sum(share[index] for share in shares) for index in (0, 1))
        return float(solved / tried)

    def _batches(self, step: int) -> Iterator[Sequence[Task]]:
        """This rank's tasks; the number of batches is the same in every rank, so that they can agree to stop."""
        size = self._settings.batch_size
        for start in range(0, len(self._tasks), size * gang.size()):
            if self._stop.agreed():
                raise Preempted(saved=False)
            self._progress.update(PHASE, step=step)
            yield self._tasks[start : start + size * gang.size()][gang.rank() :: gang.size()]

    @torch.no_grad()
    def _solve(self, model: Any, tasks: Sequence[Task], *, step: int) -> list[SampleLine]:
        if not tasks:
            # A model that is split among the ranks computes in all of them or in none.
            self._generate(model, [self._tasks[0].prompt])
            return []
        completions = self._generate(model, [task.prompt for task in tasks])
        return [
            SampleLine(
                step=step,
                prompt=task.prompt,
                completion=text,
                gold=task.answer,
                correct=ended and self._reader.matches(text, task.answer),
            )
            for task, (text, ended) in zip(tasks, completions, strict=True)
        ]

    def _generate(self, model: Any, prompts: Sequence[str]) -> list[tuple[str, bool]]:
        """Each completion's text, and whether it came to its end within the limit."""
        tokenizer = self._tokenizer
        conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
        batch = tokenizer.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            return_dict=True,
        ).to(model.device)
        ends = end_tokens(model, tokenizer)
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=self._settings.max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            use_cache=True,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
        )
        new = output[:, batch["input_ids"].shape[1] :]
        ended = torch.isin(new, torch.tensor(ends, device=new.device)).any(dim=1).tolist()
        return list(zip(tokenizer.batch_decode(new, skip_special_tokens=True), ended, strict=True))

    def _write(self, lines: Sequence[SampleLine]) -> None:
        with self._samples.open("a", encoding="utf-8") as file:
            file.writelines(line.model_dump_json(by_alias=True) + "\n" for line in lines)


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a completion: the tokenizer's and those of the model's generation settings."""
    configured = getattr(model, "generation_config", None)
    ends = getattr(configured, "eos_token_id", None)
    listed = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return sorted({tokenizer.eos_token_id, *listed})
