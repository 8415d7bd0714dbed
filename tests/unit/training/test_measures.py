"""What steps cost: shares of time, rates, goodput over attempts, the model's arithmetic against the device's peak."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from posttrain_contract import layout
from posttrain_training import flops, gpus, measures
from posttrain_training.history import History
from posttrain_training.measures import Compute, Measures, overall

LLAMA_2_7B = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008}
QWEN_3_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12288,
}
LLAMA_2_70B = {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 28672,
}


@pytest.mark.parametrize(
    ("config", "vocabulary", "gigaflops"),
    [(LLAMA_2_7B, 32_000, 46.1), (QWEN_3_8B, 151_936, 52.7), (LLAMA_2_70B, 32_000, 445)],
)
def test_the_arithmetic_of_a_token_is_that_of_the_published_counts(
    config: dict[str, int], vocabulary: int, gigaflops: float
) -> None:
    model = SimpleNamespace(**config, vocab_size=vocabulary)
    cost = flops.per_token(model, length=4096, all_weights=True)
    assert cost is not None
    assert cost / 1e9 == pytest.approx(gigaflops, rel=0.005)
    assert flops.per_token(model, length=4096, all_weights=False) == pytest.approx(cost * 2 / 3)


def test_a_model_of_unknown_shape_has_no_count() -> None:
    assert flops.per_token(SimpleNamespace(n_embd=64), length=10, all_weights=True) is None
    experts = SimpleNamespace(**LLAMA_2_7B, vocab_size=10, num_experts_per_tok=2)
    assert flops.per_token(experts, length=10, all_weights=True) is None


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("Tesla V100-SXM2-16GB", None),
        ("NVIDIA GH200 480GB", None),
        ("", None),
    ],
)
def test_peaks_are_known_by_the_device_name(name: str, teraflops: float | None) -> None:
    assert flops.peak(name) == (None if teraflops is None else teraflops * 1e12)


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(measures, "time", clock)
    return clock


ARGUMENTS = SimpleNamespace(train_batch_size=4, gradient_accumulation_steps=2)


def step(measured: Measures, clock: Clock, *, tokens: int, evaluation: float = 0.0, checkpoint: float = 0.0) -> None:
    """One optimizer step: two seconds of waiting for rows, six of work."""
    clock.now += 2
    measured.on_step_begin(ARGUMENTS, None, None)
    clock.now += 6
    with measured.evaluating():
        clock.now += evaluation
    logs = {"loss": 1.0, "num_tokens": tokens}
    measured.on_log(ARGUMENTS, None, None, logs=logs)
    measured.closing.on_log(ARGUMENTS, None, None, logs=logs)
    if checkpoint:
        clock.now += checkpoint
        measured.closing.on_save(ARGUMENTS, None, None)


def write_history(folder: Path, *lines: dict[str, Any]) -> History:
    path = folder / layout.METRICS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return History(folder)


def test_every_second_is_waited_worked_evaluated_or_saved(tmp_path: Path, clock: Clock) -> None:
    measured = Measures(write_history(tmp_path, {"step": 0, "metrics": {}, "time": 960.0}), resumed_at=0)
    measured.on_train_begin(ARGUMENTS, None, None)
    step(measured, clock, tokens=800, evaluation=12, checkpoint=4)
    step(measured, clock, tokens=2400)
    assert measured.figures == {
        "stepSeconds": 6,
        "dataSeconds": 2,
        "samplesPerSecond": 1,
        "tokens": 2400,
        "tokensPerSecond": 200,
        "dataWaitShare": 4 / 32,
        "stepShare": 12 / 32,
        "evaluationShare": 12 / 32,
        "checkpointShare": 4 / 32,
        "checkpointSeconds": 4,
        "goodput": 12 / (40 + 32),
    }


def test_steps_that_are_repeated_after_a_crash_were_not_productive(tmp_path: Path, clock: Clock) -> None:
    cost = {"stepSeconds": 10.0, "dataSeconds": 0.0, "tokens": 100.0}
    history = write_history(
        tmp_path,
        {"step": 0, "metrics": {"attempt": 1}, "time": 900.0},
        {"step": 1, "metrics": cost, "time": 920.0},
        {"step": 2, "metrics": {**cost, "tokens": 200.0}, "time": 940.0},
    )
    measured = Measures(history, resumed_at=1)
    measured.on_train_begin(ARGUMENTS, None, None)
    step(measured, clock, tokens=50)
    assert measured.figures["tokens"] == 150
    assert measured.figures["goodput"] == pytest.approx((10 + 6) / (1008 - 900))
    done = write_history(
        tmp_path,
        {"step": 0, "metrics": {"attempt": 1}, "time": 900.0},
        {"step": 1, "metrics": cost},
        {"step": 2, "metrics": cost},
        {"step": 2, "metrics": {**measured.figures}},
    )
    assert overall(done)["goodput"] == pytest.approx((10 + 6) / (1008 - 900))
    assert overall(done)["tokensPerSecond"] == pytest.approx(150 / (10 + 6 + 2))


def test_utilization_is_of_the_peak_of_all_devices(tmp_path: Path, clock: Clock) -> None:
    config = SimpleNamespace(**LLAMA_2_7B, vocab_size=32_000)
    cost = flops.per_token(config, length=100, all_weights=True)
    assert cost is not None
    measured = Measures(History(tmp_path), resumed_at=0, compute=Compute(config, all_weights=True, peak=cost * 1000))
    measured.on_train_begin(ARGUMENTS, None, None)
    step(measured, clock, tokens=800)
    assert measured.figures["mfu"] == pytest.approx(0.1)
    assert "goodput" not in measured.figures, "without a beginning nothing is claimed"


class Nvml:
    """An NVML with two GPUs."""

    NVMLError = RuntimeError

    def __init__(self) -> None:
        self.broken = False

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        return int(uuid[-1])

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        if self.broken:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(gpu=40 + 20 * handle)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=1000 * handle)


def test_gpus_are_read_by_nvml_until_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        get_device_properties=lambda number: SimpleNamespace(uuid=f"uuid-{number}"),
    )
    monkeypatch.setattr(gpus, "pynvml", nvml)
    monkeypatch.setattr(gpus, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(gpus, "_INTERVAL", 0.0)
    found = gpus.Gpus()
    assert found.figures() == {"gpuUtilization": 0.5, "gpuMemory": 1000.0}
    nvml.broken = True
    assert found.figures() == {}
    nvml.broken = False
    assert found.figures() == {}, "a failed NVML is not asked again"


def test_without_gpus_there_are_no_figures_of_them() -> None:
    assert gpus.Gpus().figures() == {}
