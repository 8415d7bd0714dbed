"""What is published loads with those who read models: transformers and vLLM, which write the same with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from posttrain_contract import layout
from support.stages import run_stage_process
from support.tiny import HELD_OUT, finetune_config, mount, run_folder

KIND = "FineTuneJob"
PROMPTS, TOKENS = 4, 16
GREEDY = Path(__file__).parents[1] / "support" / "vllm_greedy.py"
VLLM_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in the program itself starts in a second
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TORCHDYNAMO_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
}

pytestmark = pytest.mark.timeout(300)  # two trainings and a vLLM, each of which takes seconds of two cores to start


def artifact(root: Path) -> Path:
    return run_folder(root, KIND) / layout.ARTIFACT


@pytest.fixture(scope="module")
def exported(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A model all of whose weights were trained, and one into which an adapter was merged."""
    folders = []
    for name, adapter in (("full", None), ("merged", {"lora": {"rank": 4, "alpha": 64}})):
        root = mount(tmp_path_factory.mktemp("export") / name, tiny_inputs)
        result = run_stage_process(finetune_config(steps=4, adapter=adapter, evaluation=None), root)
        assert result.outcome == "Succeeded", result.message
        folders.append(artifact(root))
    return folders


def prompts(model: Path, inputs: Path) -> list[list[int]]:
    """Held-out problems as the model's own template and tokenizer ask them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    lines = (inputs / Path(HELD_OUT).name).read_text(encoding="utf-8").splitlines()[:PROMPTS]
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": json.loads(line)["problem"]}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        for line in lines
    ]


def written_by_transformers(model: Path, asked: list[list[int]]) -> list[list[int]]:
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    loaded.generation_config.eos_token_id = None  # as with vLLM, the end is a token like any other
    settings = {"do_sample": False, "max_new_tokens": TOKENS}
    answers = (loaded.generate(torch.tensor([prompt]), **settings)[0][len(prompt) :] for prompt in asked)
    return [answer.tolist() for answer in answers]


def written_by_vllm(models: list[Path], asked: list[list[int]]) -> list[list[list[int]]]:
    done = subprocess.run(
        [sys.executable, str(GREEDY), *map(str, models)],
        input=json.dumps({"prompts": asked, "tokens": TOKENS}),
        env={**os.environ, **VLLM_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[list[list[int]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_vllm_and_transformers_write_the_same_with_what_is_published(exported: list[Path], tiny_inputs: Path) -> None:
    asked = prompts(exported[0], tiny_inputs)
    ours = [written_by_transformers(model, asked) for model in exported]
    assert ours[0] != ours[1], "two trainings, two models"
    assert written_by_vllm(exported, asked) == ours
