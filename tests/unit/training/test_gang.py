"""Losing another rank: which errors mean that, and which are a rank's own."""

import pytest
from posttrain_contract.exit_codes import ExitCode
from posttrain_runtime.errors import StageError
from posttrain_training import gang
from torch import distributed

LOST = {
    "gloo": RuntimeError(
        "[/pytorch/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4711\nframe 1"
    ),
    "gloo's full mesh": RuntimeError("Gloo connectFullMesh failed with timed out"),
    "NCCL": RuntimeError("NCCL error: remote process exited or there was a network error"),
    "the store, before there is a group": distributed.DistStoreError("wait timeout after 1000ms, keys: /rank/1"),
    "the network": distributed.DistNetworkError("Broken pipe"),
    "an error without words": distributed.DistBackendError(""),
}
OWN = {
    "a shape": RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
    "a row": ValueError("gloo is no number"),
    "a cause": StageError(ExitCode.DIVERGED, "Diverged", "loss is nan at step 3"),
}


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_NPROC_PER_NODE", "2")


def raised_from(error: Exception) -> BaseException:
    with pytest.raises(type(error) if isinstance(error, StageError) else Exception) as caught, gang.losing_peers():
        raise error
    return caught.value


@pytest.mark.usefixtures("two_processes")
@pytest.mark.parametrize("error", LOST.values(), ids=LOST)
def test_the_error_of_a_broken_group_is_a_lost_peer(error: Exception) -> None:
    found = raised_from(error)
    assert isinstance(found, StageError)
    assert (found.code, found.reason) == (ExitCode.PEER_LOST, "PeerLost")
    assert found.message.startswith("spec.distributed: ")
    assert "run.resources.memory" in found.message
    assert "frame 1" not in found.message


@pytest.mark.usefixtures("two_processes")
@pytest.mark.parametrize("error", OWN.values(), ids=OWN)
def test_an_error_of_this_rank_stays_what_it_is(error: Exception) -> None:
    assert raised_from(error) is error


@pytest.mark.parametrize("error", LOST.values(), ids=LOST)
def test_a_gang_of_one_has_no_peer_to_lose(error: Exception) -> None:
    assert raised_from(error) is error


@pytest.mark.usefixtures("two_processes")
def test_work_that_loses_nobody_ends_as_it_ends() -> None:
    @gang.losing_peers()
    def work(value: int) -> int:
        return value + 1

    assert work(1) == 2
