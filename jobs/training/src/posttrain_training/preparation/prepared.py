"""Prepared rows as a dataset that is mapped into memory."""

from pathlib import Path

import datasets


def load_prepared(folder: Path) -> datasets.Dataset:
    """The rows in the files of a folder, in their order."""
    parts = [datasets.Dataset.from_file(str(path)) for path in sorted(folder.glob("part-*.arrow"))]
    return datasets.concatenate_datasets([part for part in parts if len(part)])
