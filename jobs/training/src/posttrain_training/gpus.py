"""What NVML tells of this pod's GPUs. Measuring never fails a run: where NVML fails, there are no figures."""

import logging
import time
from typing import Any, Final

import pynvml
import torch

log = logging.getLogger(__name__)

_INTERVAL: Final = 5.0
"""Seconds between two readings; one takes about a millisecond."""


def memory() -> int | None:
    """Bytes of the GPU that this process uses; None without one."""
    return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else None


class Gpus:
    """The GPUs that this process can see."""

    def __init__(self) -> None:
        self._handles = _handles()
        self._read = -_INTERVAL
        self._figures: dict[str, float] = {}

    def figures(self) -> dict[str, float]:
        """``gpuUtilization``, the mean share of time with a kernel running, 0 to 1, and ``gpuMemory``, bytes in use.

        Memory is that of the fullest GPU, of all processes. A reading is up to five seconds old.
        """
        now = time.monotonic()
        if self._handles and now - self._read >= _INTERVAL:
            self._read = now
            self._figures = self._measure()
        return self._figures

    def _measure(self) -> dict[str, float]:
        try:
            busy = [pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100 for handle in self._handles]
            used = [pynvml.nvmlDeviceGetMemoryInfo(handle).used for handle in self._handles]
        except pynvml.NVMLError as error:
            log.warning("NVML failed (%s): the GPUs' figures end here", error)
            self._handles = []
            return {}
        return {"gpuUtilization": sum(busy) / len(busy), "gpuMemory": float(max(used))}


def _handles() -> list[Any]:
    """By UUID, because NVML counts the GPUs of the machine and PyTorch those that this process may use."""
    if not torch.cuda.is_available():
        return []
    try:
        pynvml.nvmlInit()
        uuids = [torch.cuda.get_device_properties(number).uuid for number in range(torch.cuda.device_count())]
        return [pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}") for uuid in uuids]
    except (pynvml.NVMLError, AttributeError) as error:
        log.warning("NVML is not usable (%s): no figures of the GPUs", error)
        return []
