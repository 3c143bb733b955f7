"""Every model's checkpoint loads through the Auto classes, here and where hf_synth is not installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

AUTO_CLASSES = {"decoder": AutoModel, "causal": AutoModelForCausalLM}

CLEAN_PROCESS = """
import json, sys
from pathlib import Path

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_synth":
            raise ModuleNotFoundError("hf_synth is blocked here", name=name)

sys.meta_path.insert(0, Blocker())
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

folder = Path(sys.argv[1])
ids = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
mask = (ids != 0).long()
found = {}
for path in sorted(folder.glob("causal/*")):
    causal = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
    causal.save_pretrained(folder / "again" / path.name)
    again = AutoModelForCausalLM.from_pretrained(folder / "again" / path.name, trust_remote_code=True)
    assert torch.equal(again(ids, attention_mask=mask).logits, causal(ids, attention_mask=mask).logits)
    found[path.name] = {
        "logits": causal(ids, attention_mask=mask).logits[mask == 1].tolist(),
        "tokens": causal.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False).tolist(),
    }
for path in sorted(folder.glob("score/*")):
    score = AutoModelForSequenceClassification.from_pretrained(path, trust_remote_code=True)
    found[path.name]["scores"] = score(ids, attention_mask=mask).logits.tolist()
assert not any(name.split(".")[0] == "hf_synth" for name in sys.modules)
print(json.dumps(found))
"""


@pytest.mark.parametrize("kind", AUTO_CLASSES)
def test_saved_and_loaded_through_auto_classes(family, tiny, kind, tmp_path):
    cls = getattr(family, kind)
    model, ids = family.model(cls), tiny.tokens(2, 6)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*")} >= {"model.safetensors", Path(family.module.__file__).name}
    loaded = AUTO_CLASSES[kind].from_pretrained(tmp_path)
    assert type(loaded) is cls
    assert type(AutoConfig.from_pretrained(tmp_path)) is family.config_class
    torch.testing.assert_close(loaded(ids)[0], model(ids)[0], rtol=0, atol=0)


def test_a_saved_model_names_every_class_of_its_file(family, tmp_path):
    family.causal(family.config_class(vocab_size=9, hidden_size=8)).save_pretrained(tmp_path)
    result = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert sorted(name.split(".")[1] for name in result.values()) == sorted(family.module.__all__)


def test_a_saved_config_with_other_keys_loads_and_keeps_them(family, tmp_path):
    family.causal(family.config()).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    others = {"n_layer": 7, "hidden_sise": 5, "somebody_s_own": {"a": 1}}
    path.write_text(json.dumps(json.loads(path.read_text()) | others))
    config = AutoModelForCausalLM.from_pretrained(tmp_path).config
    assert {name: getattr(config, name) for name in others} == others
    assert config.num_hidden_layers == 2
    config.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == json.loads(path.read_text())
    with pytest.raises(ValueError, match="unknown config key 'n_layer'; wanted 'num_hidden_layers'"):
        AutoConfig.for_model(config.model_type, n_layer=7)


def test_the_file_imports_nothing_of_hf_synth(family):
    source = Path(family.module.__file__).read_text()
    imported = [line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert not [name for name in imported if name.startswith(("hf_synth", "."))]


@pytest.mark.processes
def test_checkpoints_load_where_hf_synth_is_not_installed(tiny, tmp_path):
    causal = {family.prefix: family.model() for family in tiny.FAMILIES}
    for name, model in causal.items():
        model.save_pretrained(tmp_path / "causal" / name)
    score = tiny.ROPE_GPT.model(tiny.ROPE_GPT.module.RopeGPTForSequenceClassification, num_labels=1)
    score.save_pretrained(tmp_path / "score" / tiny.ROPE_GPT.prefix)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", CLEAN_PROCESS, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    ids = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
    mask = (ids != 0).long()
    assert set(result) == set(causal)
    for name, model in causal.items():
        wanted = model(ids, attention_mask=mask).logits[mask == 1]
        torch.testing.assert_close(torch.tensor(result[name]["logits"]), wanted, atol=1e-5, rtol=1e-5)
        wanted_tokens = model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False)
        assert result[name]["tokens"] == wanted_tokens.tolist()
    wanted_scores = score(ids, attention_mask=mask).logits
    torch.testing.assert_close(torch.tensor(result["RopeGPT"]["scores"]), wanted_scores, atol=1e-5, rtol=1e-5)
