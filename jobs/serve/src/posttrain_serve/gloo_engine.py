"""A weight-transfer engine for vLLM on CPU: the same requests as with NCCL, the tensors over gloo."""

from dataclasses import dataclass

import torch
from posttrain_training.weights import GlooGroup, tensor_type
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

_TIMEOUT_SECONDS = 300.0


@dataclass
class GlooInitInfo(WeightTransferInitInfo):
    """Where the trainer waits, and this server's place in the group."""

    master_address: str
    master_port: int
    rank_offset: int
    world_size: int


@dataclass
class GlooUpdateInfo(WeightTransferUpdateInfo):
    """The tensors that follow, in order."""

    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]


class GlooWeightTransferEngine(WeightTransferEngine[GlooInitInfo, GlooUpdateInfo]):
    """Receives whole tensors from the trainer and loads them as from a checkpoint."""

    init_info_cls = GlooInitInfo
    update_info_cls = GlooUpdateInfo

    _group: GlooGroup | None = None

    def init_transfer_engine(self, init_info: GlooInitInfo) -> None:
        """Joins the trainer's group."""
        parallel = self.parallel_config
        worker = parallel.data_parallel_index * parallel.world_size + parallel.rank
        self._group = GlooGroup(
            address=init_info.master_address,
            port=init_info.master_port,
            rank=init_info.rank_offset + worker,
            world_size=init_info.world_size,
            timeout_seconds=_TIMEOUT_SECONDS,
        )

    def start_weight_update(self) -> None:
        """Brings the layers back into the form that a checkpoint is loaded into."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: GlooUpdateInfo) -> None:
        """Receives the announced tensors and loads each."""
        if self._group is None:
            raise RuntimeError("weights were announced before the transfer was initialized")
        for name, dtype, shape in zip(update_info.names, update_info.dtype_names, update_info.shapes, strict=True):
            tensor = torch.empty(shape, dtype=tensor_type(dtype))
            self._group.broadcast(tensor)
            self.model.load_weights([(name, tensor)])

    def finish_weight_update(self) -> None:
        """Packs the layers for the CPU kernels again."""
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Leaves the group."""
        self._group = None
