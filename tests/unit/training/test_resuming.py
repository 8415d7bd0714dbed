"""Going on from a checkpoint: who may, and which errors are the checkpoint's fault."""

import errno
import pickle
from pathlib import Path

import pytest
import torch
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime import checkpoints
from posttrain_runtime.errors import StageError
from posttrain_training.resuming import Loading, choose
from torch import distributed

DIGEST = "d" * 64


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A sealed checkpoint of one process."""
    path = tmp_path / "checkpoint-10"
    path.mkdir()
    (path / "optimizer.pt").write_bytes(b"o")
    checkpoints.seal(path, step=10, world_size=1, config_digest=DIGEST)
    return path


def ended(checkpoint: Path | None, error: Exception, *, begun: bool = False) -> BaseException:
    """What becomes of an error while a checkpoint is loaded, or once the first step has begun."""
    loading = Loading(checkpoint)
    if begun:
        loading.on_step_begin(None, None, None)
    with pytest.raises(Exception) as caught, loading.guarded():  # noqa: PT011 - the same error or a StageError
        raise error
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        pickle.UnpicklingError("invalid load key, 'n'."),
        EOFError("Ran out of input"),
        RuntimeError("PytorchStreamReader failed reading zip archive"),
        RuntimeError("Error(s) in loading state_dict for Model:\n\tsize mismatch"),
        OSError(errno.EIO, "Input/output error"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_speaks_of_the_checkpoint_sets_it_aside_and_ends_the_attempt(
    checkpoint: Path, error: Exception
) -> None:
    failure = ended(checkpoint, error)
    assert isinstance(failure, StageError)
    assert (failure.code, failure.reason) == (ExitCode.STORAGE, "CheckpointUnreadable")
    assert failure.code.retriable
    assert "the next attempt goes on from the one before it" in failure.message
    assert "\n" not in failure.message
    assert [path.name for path in checkpoint.parent.iterdir()] == ["broken-checkpoint-10"]
    assert choose(checkpoint.parent, config_digest=DIGEST).path is None, "nobody tries it again"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        distributed.DistBackendError("NCCL error"),
        RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"),
        StageError(ExitCode.MODEL, "ModelBroken", "spec.model: x"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_something_else_leaves_the_checkpoint_where_it_is(checkpoint: Path, error: Exception) -> None:
    assert ended(checkpoint, error) is error
    assert checkpoint.is_dir()


def test_an_error_of_the_training_leaves_the_checkpoint_where_it_is(checkpoint: Path) -> None:
    error = ValueError("shape")
    assert ended(checkpoint, error, begun=True) is error
    assert ended(None, error) is error
    assert checkpoint.is_dir()
