"""Memory of a process and of all below it: the sum of proportional set sizes (PSS), where shared pages count once."""

import threading
from typing import Final

import psutil

SAMPLE_SECONDS: Final = 0.5


class PeakMemory(threading.Thread):
    """Follows the memory of a process and all below it until ``stop``."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(process)
        self._stopped = threading.Event()
        self.peak_bytes = 0

    def run(self) -> None:
        """Samples until stopped."""
        while not self._stopped.wait(SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, self._sample())

    def stop(self) -> None:
        """Ends the sampling."""
        self._stopped.set()
        self.join()

    def _sample(self) -> int:
        total = 0
        for process in self._family():
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue
        return total

    def _family(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
