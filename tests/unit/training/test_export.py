"""Writing a model folder: files of weights that the Hub and slow links like."""

import json
from pathlib import Path

import pytest
from posttrain_training import export
from support.tiny_tokenizer import save_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

LIMIT = 100_000


def test_no_file_of_weights_is_larger_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert export._SHARD == "5GB"
    monkeypatch.setattr(export, "_SHARD", f"{LIMIT // 1000}KB")
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=320, **shape))
    tokenizer = save_tokenizer(tmp_path / "tokenizer", template=None)
    folder = tmp_path / "model"
    weights = export.save(model, tokenizer=tokenizer, folder=folder)
    shards = list(folder.glob("*.safetensors"))
    assert len(shards) > 1
    assert all(shard.stat().st_size <= LIMIT + 10_000 for shard in shards), "the limit counts weights, not headers"
    assert weights == model.num_parameters()
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert set(index["weight_map"].values()) == {shard.name for shard in shards}
    again = LlamaForCausalLM.from_pretrained(folder)
    assert again.num_parameters() == weights
