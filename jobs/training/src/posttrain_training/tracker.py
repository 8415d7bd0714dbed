"""``python -m posttrain_training.tracker``: passes the lines of figures on its standard input to the trackers.

It is started by ``tracking``, which can kill it at any time. A tracker that fails is given up with one warning; the
exit status is 1 then, so that the loss is told.
"""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

from posttrain_contract import layout
from posttrain_runtime import logs

log = logging.getLogger("posttrain_training.tracker")

_INIT_SECONDS: Final = 30
"""How long W&B may take to answer before the run is written offline."""
_LAST_SECONDS: Final = 60.0
"""How long the trackers may take to end."""
_KEY: Final = "WANDB_API_KEY"
_STEP: Final = "step"


class _Sink(Protocol):
    """Where figures go."""

    def figures(self, step: int, figures: Mapping[str, float]) -> None: ...

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None: ...

    def close(self, status: int) -> None: ...


class _TensorBoard:
    """Event files; each attempt adds one, and readers take the later value of a step that was repeated."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        from tensorboard.summary import Writer  # noqa: PLC0415 - only when asked for

        self._writer = Writer(str(Path(settings["folder"]) / layout.TENSORBOARD))

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """TensorBoard has no tables."""

    def close(self, status: int) -> None:
        self._writer.close()


class _Wandb:
    """One W&B run for all attempts of an object.

    Figures have our steps as their own axis, because W&B's own step must rise: after a resume it would drop the steps
    that are repeated.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        import wandb  # noqa: PLC0415 - only when asked for

        self._wandb = wandb
        self.degraded = False
        wanted = settings["tracking"]["wandb"]
        online = wanted["mode"] == "online"
        if online and not os.environ.get(_KEY):
            log.warning("run.secrets.wandb is not set, so W&B gets nothing; the run is written offline")
            online = False
            self.degraded = True
        self._run = self._begin(settings, wanted, "online" if online else "offline")
        self._run.define_metric(_STEP)
        self._run.define_metric("*", step_metric=_STEP)

    def _begin(self, settings: Mapping[str, Any], wanted: Mapping[str, Any], mode: str) -> Any:
        try:
            return self._init(settings, wanted, mode)
        except Exception as error:
            if mode == "offline":
                raise
            # Whatever it is, login, network or server: the figures are kept.
            log.warning("W&B did not begin the run (%s); it is written offline, for `wandb sync`", _first_line(error))
            self.degraded = True
            self._wandb.teardown()
            return self._init(settings, wanted, "offline")

    def _init(self, settings: Mapping[str, Any], wanted: Mapping[str, Any], mode: Any) -> Any:
        return self._wandb.init(
            entity=wanted["entity"],
            project=wanted["project"],
            id=settings["id"],
            name=wanted["run"] or settings["name"],
            group=wanted["group"],
            tags=wanted["tags"],
            config=settings["spec"],
            mode=mode,
            resume="allow",
            allow_val_change=True,
            dir=str(Path(settings["folder"]) / layout.WANDB_PARENT),
            settings=self._wandb.Settings(
                silent=True,
                console="off",
                init_timeout=_INIT_SECONDS,
                disable_git=True,
                disable_code=True,
                x_disable_meta=True,
                x_disable_stats=True,
            ),
        )

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log({_STEP: step, **figures})

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """One table for each evaluation: the step is in its name, so that no later one takes its place."""
        columns = ["step", "prompt", "completion", "gold", "correct"]
        table = self._wandb.Table(columns=columns, data=[[row[name] for name in columns] for row in rows])
        self._run.log({_STEP: step, f"samples/step-{step}": table})

    def close(self, status: int) -> None:
        self._run.finish(exit_code=status)


def main() -> int:
    """Works until standard input ends; returns the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the end of the input is the end
    lines = _take_standard_input()
    settings = json.loads(lines.readline())["settings"]
    logs.configure(run=settings["run"], attempt=settings["attempt"])
    sinks = _Sinks(settings)
    status = 1  # an input that ends without a word is a trainer that was killed
    for line in lines:
        message = json.loads(line)
        if "end" in message:
            status = message["end"]
        else:
            sinks.take(message)
    # Whoever started this may be gone and cannot end it any more.
    watchdog = threading.Timer(_LAST_SECONDS, lambda: os.killpg(0, signal.SIGKILL))
    watchdog.daemon = True
    watchdog.start()
    sinks.close(status)
    return int(sinks.failed)


def _take_standard_input() -> TextIO:
    """Standard input, which no child inherits: W&B's process would hold the pipe open after this one is killed."""
    lines = os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    return lines


class _Sinks:
    """The trackers that work; one that fails is left out from then on."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.failed = False
        self._open: list[_Sink] = []
        tracking = settings["tracking"]
        kinds: list[Callable[[Mapping[str, Any]], _Sink]] = [_Wandb] if tracking["wandb"] else []
        kinds += [_TensorBoard] if tracking["tensorboard"] else []
        for kind in kinds:
            try:
                sink = kind(settings)
            except Exception as error:  # noqa: BLE001 - the trackers' own, of any kind
                self._give_up(str(kind), error)
            else:
                self._open.append(sink)
                self.failed |= getattr(sink, "degraded", False)

    def take(self, message: Mapping[str, Any]) -> None:
        for sink in list(self._open):
            try:
                if "figures" in message:
                    sink.figures(message["step"], message["figures"])
                else:
                    sink.samples(message["step"], message["samples"])
            except Exception as error:  # noqa: BLE001
                self._give_up(type(sink).__name__, error)
                self._open.remove(sink)

    def close(self, status: int) -> None:
        for sink in self._open:
            try:
                sink.close(status)
            except Exception as error:  # noqa: BLE001
                self._give_up(type(sink).__name__, error)

    def _give_up(self, name: str, error: Exception) -> None:
        self.failed = True
        log.warning("%s failed and is given up: %s", name.strip("_"), _first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    sys.exit(main())
