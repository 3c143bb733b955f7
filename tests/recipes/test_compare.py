"""A whole comparison, tiny: shared first policy, two arms, two seeds; what it leaves, and what it refuses."""

import csv
import fnmatch
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import HfApi
from huggingface_hub.cli.jobs import uv_app
from transformers import LlamaConfig, LlamaForCausalLM

from hf_synth.experiments.statistics import known_measures, recipe_measures
from hf_synth.preferences import train_bpe_tokenizer
from hf_synth.reports import write_report

ROOT = Path(__file__).parents[2]
SFT = {
    "task": "agreement",
    "num_rows": 64,
    "new_model": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    "max_steps": 2,
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "disable_tqdm": True,
    "per_device_train_batch_size": 8,
}
GRPO = {
    **{name: value for name, value in SFT.items() if name not in ("task", "new_model")},
    "mixture": {
        "large": {"task": "agreement", "share": 0.75, "task_args": {"dialect": 1}},
        "small": {"task": "agreement", "share": 0.25, "task_args": {"dialect": 2}},
    },
    "rows_seed": "{seed}",
    "num_generations": 4,
    "max_completion_length": 4,
    "eval_prompts": 4,
    "sample_every": 1,
    "final_samples": 2,
    "learning_rate": 1e-2,
    "density_k": 3,
}
COMPARISON = {
    "shared": {"policy": {"recipe": "sft", "config": "sft.yaml"}},
    "model_name_or_path": "{policy}",
    "arms": {"uniform": {"sampling_strength": 0}, "density": {"sampling_strength": 1}},
    "seeds": 2,
    "primary": "halves/validity/rare",
    "output_dir": "out",
}


@pytest.fixture
def compare(monkeypatch, tmp_path):
    """The recipe's module, in a folder with the config of its first policy."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "recipes")])  # behind the library `evaluate`
    monkeypatch.chdir(tmp_path)
    mixture = {**SFT, "mixture": GRPO["mixture"]}
    mixture.pop("task")
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(mixture))
    yield importlib.import_module("compare")
    for name in ("compare", "grpo", "sft"):
        sys.modules.pop(name, None)


def write(**values):
    Path("my.yaml").write_text(yaml.safe_dump({**GRPO, **COMPARISON, **values}, sort_keys=False))
    return ["--config", "my.yaml"]


def test_a_comparison_from_the_first_policy_to_the_report(compare, tmp_path, capsys):
    argv = write(page="docs/the results.md", page_prompts=0)
    Path("docs").mkdir()
    folder = compare.main(argv)
    said = capsys.readouterr().out
    power = "- 2 seeds show that it runs. Fewer than 8 decide nothing."
    assert said.index(power) < said.index("Run 1 of 6: policy, seed 0")
    assert "Run 6 of 6: density, seed 1" in said

    configs = {
        (arm, seed): yaml.safe_load((folder / arm / f"seed-{seed}" / "resolved_config.yaml").read_text())
        for arm in ("uniform", "density")
        for seed in (0, 1)
    }
    plain, weighted = configs["uniform", 1], configs["density", 1]
    assert {name for name in plain if plain[name] != weighted[name]} == {
        "sampling_strength", "settings", "output_dir", "run_name",
    }  # fmt: skip
    assert (weighted["project"], weighted["run_name"]) == ("out", "density-seed-1")
    assert configs["density", 0]["rows_seed"] == 0
    assert weighted["rows_seed"] == weighted["seed"] == 1
    assert weighted["model_name_or_path"] == "out/shared/policy/seed-1"

    of_an_arm = (folder / "density" / "seed-1" / "report.md").read_text()
    assert "`../../report.html`" in of_an_arm
    assert "no control" not in of_an_arm

    report = (folder / "report.md").read_text()
    assert "**Undecided.** `density` minus `uniform` in `halves/validity/rare`:" in report
    assert {path.stem for path in (folder / "figures").iterdir()} == {"primary", "groups", "steps"}
    with (folder / "differences.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["measure"] == "halves/validity/rare"
    assert {"kl/mean", "equal_kl/validity", "validity/all"} <= {row["measure"] for row in rows}
    metrics = [
        [json.loads((folder / arm / f"seed-{seed}" / "metrics.json").read_text())["kl/mean"] for seed in (0, 1)]
        for arm in ("density", "uniform")
    ]
    result = next(row for row in rows if row["measure"] == "kl/mean")
    assert float(result["mean"]) == pytest.approx(
        sum(mine - other for mine, other in zip(*metrics, strict=True)) / 2, rel=1e-4
    )
    samples = pq.read_table(folder / "samples.parquet")
    assert samples.num_rows == 2 * 2 * 8 * 2  # arms, seeds, prompts, samples
    assert set(samples.column("arm").to_pylist()) == {"uniform", "density"}

    page = Path("docs/the results.md").read_text()
    assert "## Side by side" in report
    assert "## Run it again" in report
    assert "Run it again" not in page, "its reader has the config"
    assert "Side by side" not in page, "no prompt goes to the page"
    assert page.count("<!-- begin out -->") == 1
    assert all(Path("docs", name).exists() for name in ("the results/out_primary.png", "the results/out_steps.png"))
    assert "(the%20results/out_primary.png)" in page
    rows = [json.loads(line) for line in Path("docs/the results/out.jsonl").read_text().splitlines()]
    assert [f"{row['arm']}-{row['seed']}" for row in rows] == ["uniform-0", "uniform-1", "density-0", "density-1"]
    assert rows[3]["metrics"]["kl/mean"] == metrics[0][1]

    # Again: nothing is trained, and the section of the page is replaced.
    before = (folder / "density" / "seed-1" / "model.safetensors").stat().st_mtime_ns
    compare.main(argv)
    assert capsys.readouterr().out.count("finished before") == 6
    assert (folder / "density" / "seed-1" / "model.safetensors").stat().st_mtime_ns == before
    assert Path("docs/the results.md").read_text() == page

    # What was promised stays, and runs are not compared with those of other values.
    with pytest.raises(ValueError, match="primary: got 'kl/mean'"):
        compare.main([*argv, "--primary", "kl/mean"])
    with pytest.raises(ValueError, match=r"begun with other values \(learning_rate"):
        compare.main([*argv, "--learning_rate", "0.5"])
    # A seed that diverged is named, and ends nothing; damaged files are named too.
    path = folder / "uniform" / "seed-1" / "metrics.json"
    whole = path.read_text()
    path.write_text(json.dumps({**json.loads(whole), "halves/validity/rare": float("nan")}))
    write_report(folder)
    report = (folder / "report.md").read_text()
    assert "Without a finite value of the primary metric, so not in its means: `uniform/seed-1`" in report
    assert "(1 of 2 seeds)" in report
    assert "no answer" in report
    path.write_text(whole)
    for name in ("plan.json", "comparison.yaml", "density/seed-1/samples.parquet"):
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(b'{"base": ')
        with pytest.raises(ValueError, match=name.rpartition("/")[2]):
            compare.main([*argv]) if name == "plan.json" else write_report(folder)
        path.write_bytes(whole)
    path = folder / "density" / "seed-0" / "resolved_config.yaml"
    changed = {**yaml.safe_load(path.read_text()), "learning_rate": 0.5}
    path.write_text(yaml.safe_dump(changed))
    with pytest.raises(ValueError, match="differ in learning_rate too"):
        compare.main(argv)


def test_values_to_vary_make_arms(compare):
    folder = compare.main([*write(arms={}, seeds=[3]), "--vary", "sampling_strength=0,1"])
    report = (folder / "report.md").read_text()
    assert "minus" not in report, "one seed has no differences"
    assert "`sampling_strength-1`" in report
    metrics = json.loads((folder / "sampling_strength-1" / "seed-3" / "metrics.json").read_text())
    unknown = [
        name
        for name in known_measures({"": {0: metrics}})
        if not any(fnmatch.fnmatchcase(name, known) for known in recipe_measures("grpo", GRPO["mixture"]))
    ]
    assert unknown == [], "a comparison may rest on any of them, and is refused if the recipe's list lacks it"


@pytest.mark.parametrize(
    ("values", "primary", "nearest"),
    [
        ({}, "halves/validity/rarer", "halves/validity/rare"),
        ({}, "validity/tial", "validity/tail"),
        ({}, "validity/huge", "validity/"),
        ({"recipe": "sft"}, "validity/tail", "loss/final"),
        ({"recipe": "pretrain"}, "acuracy/test", "accuracy/test"),
    ],
)
def test_a_mistaken_primary_is_refused_before_anything_is_trained(compare, values, primary, nearest):
    with pytest.raises(
        ValueError, match=f"primary: got '{primary}', .* does not measure; the nearest of .*: {nearest}"
    ):
        compare.main([*write(**values), "--primary", primary])
    assert not list(Path().rglob("config.yaml"))


def test_metrics_of_recorded_runs_can_be_primary():
    """Those of pretraining: every name in the records of the replications."""
    names = {name for path in (ROOT / "docs" / "reproduction").glob("*.jsonl") for line in path.open()
             for name in known_measures({"": {0: json.loads(line)["metrics"]}})}  # fmt: skip
    patterns = recipe_measures("pretrain")
    assert len(names) > 100
    assert [name for name in names if not any(fnmatch.fnmatchcase(name, known) for known in patterns)] == []


def test_arms_that_each_train_their_own_first_policy_are_compared(compare):
    """As in the README: the policies are the same, though files beside them name another folder."""
    folder = compare.main(write(shared={}, model_name_or_path=None, warm_up="sft.yaml", seeds=[0]))
    models = [json.loads(path.read_text())["models"] for path in folder.glob("*/seed-0/trained_on.json")]
    assert models[0] == models[1]
    assert "`density`" in (folder / "report.md").read_text()


def test_a_plan_can_be_made_for_others_to_run(compare, tmp_path):
    folder = compare.main([*write(), "--plan"])
    result = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("config.yaml"))
    assert result == [
        *(f"density/seed-{seed}/config.yaml" for seed in (0, 1)),
        *(f"shared/policy/seed-{seed}/config.yaml" for seed in (0, 1)),
        *(f"uniform/seed-{seed}/config.yaml" for seed in (0, 1)),
    ]
    assert not list(folder.rglob("metrics.json"))


def results(folder):
    """What a comparison's answer rests on, without the times that runs took."""
    table = csv.DictReader((folder / "differences.csv").read_text().splitlines())
    metrics = {
        path.parent.relative_to(folder): {
            name: value for name, value in json.loads(path.read_text()).items() if "second" not in name
        }
        for path in folder.rglob("metrics.json")
    }
    return [row for row in table if "second" not in row["measure"]], metrics


@pytest.mark.processes
def test_the_lines_of_a_slurm_array_make_the_comparison(compare, tmp_path, capsys):
    argv = write(seeds=[0])
    plain = compare.main([*argv, "--output_dir", "plain"])
    capsys.readouterr()
    folder = compare.main([*argv, "--output_dir", "out", "--plan", "slurm"])
    text = (folder / "plan.sh").read_text()
    assert text in capsys.readouterr().out
    assert re.findall(r"--array=(\S+)", text) == ["0-0", "1-2", "3-3"], "the shared policy, the arms, the comparison"
    assert len(re.findall(r"^\d\) ", text, re.MULTILINE)) == 4
    bin_ = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    for task in (0, 2, 1, 3):  # arms in any order
        line = {**environment, "SLURM_ARRAY_TASK_ID": str(task)}
        done = subprocess.run(["bash", str(folder / "plan.sh")], env=line, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert results(folder) == results(plain)
    assert len(results(folder)[1]) == 3


def test_jobs_of_the_hub_are_spelt_as_its_command_has_them(compare, tmp_path, capsys):
    with pytest.raises(ValueError, match="output_dir: got 'out', wanted an absolute path: jobs mount their bucket"):
        compare.main([*write(), "--plan", "jobs"])
    assert not Path("out").exists(), "nothing is written before that"
    folder = compare.main([*write(), "--output_dir", str(tmp_path / "jobs"), "--plan", "jobs"])
    lines = (folder / "plan.sh").read_text().splitlines()
    assert lines[1] == f'hf buckets sync {folder} "hf://buckets/$BUCKET"'
    runs = [line for line in lines if line.startswith("hf jobs uv run ")]
    assert [bool(line.startswith("hf jobs")) for line in lines[2:]] == [
        *[True] * 2,
        False,
        *[True] * 4,
        False,
        True,
        False,
    ]
    assert {line for line in lines[2:] if line not in runs} == {compare._WAIT}
    failing = 'hf() { [ "$1" = buckets ] || { echo "$2" >&2; return 1; }; }'
    for pause in ("", "sleep 0.2\n"):  # a run that has ended before it is waited for has failed too
        script = "\n".join([failing, *lines[:4]]) + "\n" + pause + "\n".join(lines[4:])
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
        assert (done.returncode, done.stderr.split()) == (1, ["uv"] * 2), "no arm starts after a failed shared run"
    inside = [shlex.split(line.removesuffix(compare._BEGUN))[-1] for line in runs]
    config = folder / "shared" / "policy" / "seed-0" / "config.yaml"
    launch = f"accelerate launch /tmp/recipes/sft.py --config {config};"
    assert inside[0] == f"hf-synth recipes /tmp/recipes; {launch}"
    assert inside[-1] == f"hf-synth recipes /tmp/recipes; hf-synth report {folder};"
    for line in runs:  # read by the command itself, up to what it would send
        argv = shlex.split(
            line.removesuffix(compare._BEGUN).replace("$BUCKET", "me/runs").replace("$JOB_FLAGS", "--timeout 1d")
        )
        parameters = uv_app.commands["run"].make_context("run", argv[4:]).params
        assert (parameters["secrets"], parameters["volume"]) == (["HF_TOKEN"], (f"hf://buckets/me/runs:{folder}",))
        sent = {"dependencies": list(parameters["with_"]), "python": None, "env": None, "secrets": None, "token": None}
        script = {"script": parameters["script"], "script_args": list(parameters["script_args"]), "namespace": "me"}
        command, *_ = HfApi()._create_uv_command_env_and_secrets(**script, **sent)
        assert command == ["uv", "run", "--with", "hf_synth", "sh", "-c", argv[-1]]


@pytest.mark.parametrize("kind", ["slurm", "jobs"])
def test_a_plan_keeps_the_name_of_its_folder_whatever_is_in_it(compare, tmp_path, kind):
    folder = compare.main([*write(), "--output_dir", str(tmp_path / 'it\'s "$HOME" `x`'), "--plan", kind])
    shown = 'hf() { accelerate hf "$@"; }; sbatch() { accelerate "$@"; }; accelerate() { printf \'%s\\n\' "$@" >&2; }'
    text = (folder / "plan.sh").read_text()
    argv = [shlex.split(line) for line in re.findall("^#SBATCH (.*)", text, re.MULTILINE)]
    assert argv == ([[f"--job-name={folder.name}", "--requeue", "--open-mode=append"]] if kind == "slurm" else [])
    text = re.sub("^# job=", "job=", text, flags=re.MULTILINE)
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "0", "BUCKET": "me/runs"}
    done = subprocess.run(["bash", "-c", f"{shown}\n{text}"], env=environment, capture_output=True, text=True)
    arguments = done.stderr.splitlines()
    assert done.returncode == 0
    if kind == "slurm":
        assert arguments.count(f"{folder}/plan.sh") == 3
        assert arguments[-1] == f"{folder}/shared/policy/seed-0/config.yaml"
    else:
        assert arguments[:5] == ["hf", "buckets", "sync", str(folder), "hf://buckets/me/runs"]
        assert arguments.count(f"hf://buckets/me/runs:{folder}") == 7


def test_a_plan_of_another_kind_is_refused(compare):
    with pytest.raises(ValueError, match="plan: got 'slrm'; did you mean 'slurm'"):
        compare.main([*write(), "--plan", "slrm"])


SMALL = {
    "num_rows": 300,
    "eval_prompts": 2,
    "look_samples": 1,
    "final_samples": 2,
    "round_size": 8,
    "max_steps": 5,
    "per_device_train_batch_size": 16,
    "max_completion_length": 4,
    "sample_every": 5,
}


@pytest.mark.processes
@pytest.mark.nightly
@pytest.mark.parametrize(
    "config",
    [
        "density/testbed_verifier.yaml",
        "density/testbed_proxy.yaml",
        "density/testbed_budget.yaml",
        "density/testbed_coverage.yaml",
        "density/preferences_compare.yaml",
        "procedural/structure.yaml",
        "density/smollm2_grpo.yaml",
        "hyperdata/smollm2.yaml",
    ],
)
def test_shipped_comparisons_are_launched(config, compare):
    values = yaml.safe_load((ROOT / "recipes" / "configs" / config).read_text())
    pretrain = values["recipe"] == "pretrain"
    values |= {
        **({"max_steps": 4, "eval_steps": 2, "eval_rows": 16, "test_rows": 16} if pretrain else SMALL),
        "seeds": [0],
    }
    for arm in values["arms"].values():
        arm |= {"max_steps": 2 * values["max_steps"]} if "max_steps" in arm else {}
    for shared in values.get("shared", {}).values():
        shared |= {"max_steps": 2, "per_device_train_batch_size": 8} | ({} if pretrain else {"num_rows": 300})
    if "preferences" in values:
        pairs = [
            {
                "chosen": f"\n\nHuman: Question {n}?\n\nAssistant: Yes {n}.",
                "rejected": f"\n\nHuman: Question {n}?\n\nAssistant: No.",
            }
            for n in range(120)
        ]
        Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        values |= {"preferences": "pairs.jsonl", "save_steps": 4}
        for shared in values["shared"].values():
            shared |= {"preferences": "pairs.jsonl"}
            shared |= {} if "model_name_or_path" in shared else {"tokenizer_vocab_size": 400}
        for config in (values, *values["shared"].values()):
            del config["num_rows"]  # which is of tasks
    if (checkpoint := values.get("model_name_or_path")) == "runs/smollm2/model":
        tokenizer = train_bpe_tokenizer([f"Question {n}? Yes {n}." for n in range(120)], vocab_size=400)
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        ends = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape, **ends)).save_pretrained(checkpoint)
        tokenizer.save_pretrained(checkpoint)
    if "canonical" in values:
        values |= {"canonical": "stand_in", "canonical_eval": "0.05", "canonical_eval_tokens": 512}
    Path("small.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    folder = compare.main(["--config", "small.yaml", "--output_dir", "out"])
    report = (folder / "report.md").read_text()
    assert all(f"`{arm}`" in report for arm in values["arms"])
    result = [json.loads(path.read_text()) for path in sorted(folder.glob("*/seed-0/metrics.json"))]
    assert len(result) == len(values["arms"])
    assert all(values["primary"] in metrics for metrics in result)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1}, "unknown key 'learning_rat'"),
        ({"arms": {"a": {}, "b": {"sampling_strenth": 1}}}, "unknown key 'sampling_strenth'"),
        ({"shared": {"policy": {"recipe": "sft", "config": "none.yaml"}}}, "none.yaml'?, which is no file"),
        ({"seeds": 0}, "seeds: got"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(compare, values, message):
    with pytest.raises(ValueError, match=message):
        compare.main(write(**values))
    assert not list(Path().rglob("training_log.json"))


def test_help_says_what_a_comparison_takes(compare, capsys):
    compare.main(["--help"])
    assert "--smallest_effect" in capsys.readouterr().out
