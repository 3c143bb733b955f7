"""Published data as its users meet it: columns, floors, tokenizers, pairs, and training by TRL's own command."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "publishing.md").read_text("utf-8"), re.DOTALL)
STREAM = next(snippet for snippet in SNIPPETS if "GRPOTrainer" in snippet)
PUBLISH = f"""
import runpy, sys
for configs in (["dyck-k2-l16"], ["sort-8", "sort-8-preference"]):
    sys.argv = ["procedural.py", "--repo_id", "user/procedural", "--rows", "train=100", "validation=20", "test=50"]
    sys.argv += ["--configs", *configs]
    runpy.run_path({str(ROOT / "datasets_scripts" / "procedural.py")!r}, run_name="__main__")
"""
READ = """
import json, re
from datasets import get_dataset_config_names, load_dataset
from huggingface_hub import DatasetCard, snapshot_download
from transformers import AutoTokenizer

assert get_dataset_config_names("user/procedural") == ["sort-8", "sort-8-preference", "dyck-k2-l16"]
union = AutoTokenizer.from_pretrained("user/procedural")
assert union.convert_ids_to_tokens(range(10)) == [
    *("<pad>", "<bos>", "<eos>", "<sep>", "(0", "(1", ")0", ")1", "0", "1")
], "the words of the first config keep their ids"
card = DatasetCard.load("user/procedural", repo_type="dataset").text
for name in ("sort-8", "dyck-k2-l16"):
    tokenizer = AutoTokenizer.from_pretrained("user/procedural", subfolder=name)
    rows = load_dataset("user/procedural", name)
    for split in rows.values():
        assert split.column_names == ["input_ids", "labels", "text", "prompt", "completion", "task", "floor"]
        for row in split:
            assert row["prompt"] + row["completion"] == row["text"]
            assert tokenizer.decode(row["input_ids"]) == f"<bos> {row['text']} <eos>"
            assert [*tokenizer(row["text"]).input_ids, tokenizer.eos_token_id] == row["input_ids"]
            assert json.loads(row["task"])["name"] == name.partition("-")[0]
            assert union.decode(union(row["text"]).input_ids) == f"<bos> {row['text']}"
    for split in ("train", "test"):
        tokens = sum(label != -100 for labels in rows[split]["labels"] for label in labels)
        floor = f"{sum(rows[split]['floor']) / tokens:.4f} ±"
        assert re.search(rf"^\\| `{name}` .*\\| {floor}", card, re.M), (name, split, floor)
pairs = load_dataset("user/procedural", "sort-8-preference", split="test")
rows = load_dataset("user/procedural", "sort-8", split="test")
assert pairs["prompt"][:] == rows["prompt"][:] and pairs["chosen"][:] == rows["completion"][:]
assert "trl grpo --dataset_name user/procedural --dataset_config sort-8 --reward_funcs" in card
folder = snapshot_download("user/procedural", repo_type="dataset")
assert load_dataset(folder, "sort-8", split="train")[:] == load_dataset(folder, data_dir="sort-8", split="train")[:]
assert len(AutoTokenizer.from_pretrained(folder)) == len(union)
"""
TRAIN = f"""
import os, runpy, subprocess, sys
from pathlib import Path
from datasets import load_dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from hf_synth.rewards import verified

rows, pairs = (load_dataset("user/procedural", name, split="test") for name in ("sort-8", "sort-8-preference"))
assert verified(rows["prompt"], rows["completion"], rows["task"]) == [1.0] * 50
assert verified(pairs["prompt"], pairs["rejected"], rows["task"]) == [0.0] * 50
tokenizer = AutoTokenizer.from_pretrained("user/procedural", subfolder="sort-8")
shape = {{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}}
config = LlamaConfig(vocab_size=len(tokenizer), **shape, pad_token_id=0, bos_token_id=1, eos_token_id=2)
for part in (LlamaForCausalLM(config), tokenizer):
    part.push_to_hub("user/policy")
os.mkdir("empty")
os.chdir("empty")
command = "trl grpo --dataset_name user/procedural --dataset_config sort-8 --reward_funcs hf_synth.rewards.verified "
command += "--model_name_or_path user/policy --output_dir run --max_steps 2 --num_generations 4 --logging_steps 1 "
command += "--per_device_train_batch_size 8 --max_completion_length 10 --report_to none --use_cpu true --bf16 false"
done = subprocess.run([Path(sys.executable).with_name("trl"), *command.split()[1:]], capture_output=True, text=True)
assert done.returncode == 0, done.stderr
assert done.stdout.count("'rewards/verified/mean'") == 2, done.stdout
assert {{path.name for path in Path().iterdir()}} == {{"run"}}
assert (Path("run") / "model.safetensors").is_file()
Path("snippet.py").write_text({STREAM!r}.replace("max_steps=1000", "max_steps=2, use_cpu=True, bf16=False"))
trainer = runpy.run_path("snippet.py")["trainer"]
assert trainer.state.global_step == 2
assert "rewards/verified/mean" in trainer.state.log_history[0]
"""


@pytest.mark.processes
def test_what_is_published_is_read_and_trained_on(hub, client):
    client(PUBLISH, blocked=(), OMP_NUM_THREADS="1")
    client(READ)
    client(TRAIN, blocked=(), OMP_NUM_THREADS="1")
    assert hub.files("user/procedural", repo_type="model").keys() == {
        ".gitattributes",
        "README.md",
        *(path for path in hub.files("user/procedural", repo_type="dataset") if "tokenizer" in path),
    }
