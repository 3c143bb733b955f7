"""Arguments: flag over YAML over default, one line that helps for every mistake, and a help that can be read."""

import importlib.util
import math
import re
from types import SimpleNamespace

import pytest
from transformers.debug_utils import DebugOption
from trl import DPOConfig, GRPOConfig, RewardConfig, SFTConfig

from hf_synth import get_task
from hf_synth.errors import json_dict
from hf_synth.hub.publish import PublishArguments
from hf_synth.training.arguments import (
    DataArguments,
    PolicyArguments,
    WeightArguments,
    check_schedule,
    parse_recipe,
    yaml_text,
)
from hf_synth.training.data import clusters

CLASSES = (DataArguments, WeightArguments, PolicyArguments, GRPOConfig)


@pytest.fixture
def yaml_file(tmp_path):
    """A writer of config files; `bf16: false` because not every CPU has it."""

    def write(text: str, name: str = "config.yaml"):
        path = tmp_path / name
        path.write_text(f"bf16: false\n{text}", encoding="utf-8")
        return path

    return write


def parse(*argv, default=None):
    """One object with all values."""
    result = {}
    for part in parse_recipe(CLASSES, [str(word) for word in argv], default):
        result |= vars(part)
    return result


def error(*argv, default=None) -> str:
    """The message of the ValueError; it must be one line."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (each test matches the text)
        parse(*argv, default=default)
    message = str(caught.value)
    assert "\n" not in message
    assert message.strip()
    return message


# Precedence


def test_flag_over_yaml_over_default(yaml_file):
    path = yaml_file("task: sort\nnum_rows: 7\nlearning_rate: 1e-4\n")
    result = parse("--config", path, "--num_rows", "9", "--beta", "0.25")
    assert (result["task"], result["num_rows"], result["learning_rate"]) == ("sort", 9, 1e-4)
    assert (result["beta"], result["rows_seed"]) == (0.25, 0)


def test_the_default_file_serves_only_where_no_other_is_named(yaml_file):
    first, second = yaml_file("task: sort\nnum_rows: 7\n", "a.yaml"), yaml_file("task: tivari\n", "b.yaml")
    assert parse(default=first)["num_rows"] == 7
    for form in (["--config", second], [f"--config={second}"]):
        result = parse(*form, default=first)
        assert (result["task"], result["num_rows"]) == ("tivari", 2000)


def test_without_any_file_flags_suffice():
    assert parse("--task", "sort", "--bf16", "false")["task"] == "sort"


# Help


def test_help_has_the_recipes_words_the_config_and_ours_before_the_trainers(capsys, yaml_file):
    path = yaml_file("task: sort\n")
    with pytest.raises(SystemExit):
        parse_recipe(CLASSES, ["--help"], path, "What it does.\n\n    one command\n    another")
    shown = capsys.readouterr().out
    assert re.match(r"usage: .* \[--config FILE\] .*\n\nWhat it does.\n\n    one command\n    another\n", shown)
    assert str(path) in "".join(shown.split("--config FILE")[2].partition("\n\n")[0].split())
    titles = re.findall(r"^(\w+): .*:$", shown, re.MULTILINE)
    assert titles == [part.__name__ for part in CLASSES]
    assert shown.index("--task TASK") < shown.index("PolicyArguments:") < shown.index("--gpt2_size")
    assert shown.index("GRPOConfig:") < shown.index("--learning_rate")


# Trackers


def test_a_tracker_that_is_not_installed_or_not_known(monkeypatch):
    there = importlib.util.find_spec
    gone = ("tensorboard", "tensorboardX", "trackio")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in gone else there(name, *more))
    for name in ("tensorboard", "trackio"):
        assert error("--task", "sort", "--bf16", "false", "--report_to", name) == (
            f"report_to: got {name!r}, which is not installed here; pip install {name}, or take none"
        )
    assert "did you mean 'tensorboard'?" in error("--task", "sort", "--bf16", "false", "--report_to", "tensorbord")
    assert parse("--task", "sort", "--bf16", "false", "--report_to", "none")["report_to"] == []


# Values


def test_mappings_come_as_yaml_or_as_json(yaml_file):
    written = yaml_file("task: sort\ntask_args: {length: 5}\nnew_model: {hidden_size: 32}\n")
    flags = ["--task_args", '{"length": 5}', "--new_model", '{"hidden_size": 32}']
    for result in (parse("--config", written), parse("--config", yaml_file("task: sort\n"), *flags)):
        assert result["task_args"] == {"length": 5}
        assert result["new_model"] == {"hidden_size": 32}
        assert result["mixture"] == {}


def test_a_mixture_comes_as_json_too(yaml_file):
    flag = '{"a": {"task": "sort", "share": 1.0, "task_args": {"length": 3}}}'
    result = parse("--config", yaml_file(""), "--mixture", flag)
    assert result["mixture"] == {"a": {"task": "sort", "share": 1.0, "task_args": {"length": 3}}}


@pytest.mark.parametrize(
    ("text", "wanted"), [("1", [1.0]), ("0", [0.0]), ("[1, 0]", [1.0, 0.0]), ("[0.5]", [0.5]), ("2.5", [2.5])]
)
def test_sampling_strength_is_a_number_or_several(text, wanted, yaml_file):
    path = yaml_file(f"task: sort\nsampling_strength: {text}\n")
    assert parse("--config", path)["sampling_strength"] == wanted
    flags = text.strip("[]").split(", ")
    assert parse("--config", yaml_file("task: sort\n"), "--sampling_strength", *flags)["sampling_strength"] == wanted


@pytest.mark.parametrize("text", ["-1", "[1, -0.5]", "[1, 1.0]", "[]", "null", "[1, many]", ".nan", ".inf", "{a: 1}"])
def test_no_other_strength_is_taken(text, yaml_file):
    message = error("--config", yaml_file(f"task: sort\nsampling_strength: {text}\n"))
    assert "sampling_strength: got" in message
    assert ", wanted " in message


@pytest.mark.parametrize("value", [-1.0, math.nan, [], "x", [1, None]])
def test_strengths_are_checked_wherever_they_come_from(value):
    with pytest.raises(ValueError, match="sampling_strength: got"):
        WeightArguments(sampling_strength=value)


@pytest.mark.parametrize("text", ["[1]", "5", '"length: 8"', "'{length: 8}'", "true"])
def test_task_args_that_are_no_mapping(text, yaml_file):
    assert "task_args: got" in error("--config", yaml_file(f"task: sort\ntask_args: {text}\n"))


def test_json_dict_names_what_it_wanted():
    assert json_dict('{"a": [1]}', "x") == json_dict({"a": [1]}, "x") == {"a": [1]}
    assert json_dict(None, "x") == {}
    with pytest.raises(ValueError, match=r"x: got '\{a', wanted JSON such as"):
        json_dict("{a", "x")
    with pytest.raises(ValueError, match=r"x: got \[1\], wanted a mapping"):
        json_dict("[1]", "x")


# Mistakes


def test_a_misspelt_key_names_the_nearest(yaml_file):
    path = yaml_file("task: sort\nsampling_strenth: 1\n")
    assert error("--config", path) == (
        f"{path}: got unknown key 'sampling_strenth'; did you mean 'sampling_strength'?"
    )


@pytest.mark.parametrize("key", ["private", "repo_id", "token", "revision", "wanted"])
def test_what_only_the_code_sets_is_no_key(yaml_file, key):
    path = yaml_file(f"task: sort\n{key}: 'true'\n")
    with pytest.raises(ValueError, match=f"got unknown key '{key}'"):
        parse_recipe((PublishArguments, *CLASSES), ["--config", str(path)])


def test_a_misspelt_flag_names_the_nearest(yaml_file):
    message = error("--config", yaml_file("task: sort\n"), "--num_rowz", "5")
    assert message == "got unknown flag '--num_rowz'; did you mean 'num_rows'?"


def test_where_nothing_is_near_the_message_stays_short(yaml_file):
    message = error("--config", yaml_file("task: sort\nqqqqqqqq: 1\n"))
    assert message.endswith("see --help")
    assert len(message) < 200


def test_words_without_a_flag(yaml_file):
    assert "got unexpected argument 'sort'" in error("--config", yaml_file("task: sort\n"), "sort")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("num_rows: many", "invalid int value: 'many'"),
        ("num_rows: 1.5", "num_rows: got 1.5 (float), wanted int"),
        ("num_rows: [1]", "num_rows: got [1] (list), wanted int"),
        ("num_rows: null", "num_rows: got None (NoneType), wanted int"),
        ("num_rows: true", "num_rows: got True (bool), wanted int"),
        ("preset: 8", "preset: got 8 (int), wanted str"),
        ("learning_rate: fast", "invalid float value: 'fast'"),
        ("use_cpu: 3", "use_cpu: got 3 (int), wanted bool"),
        ("max_prompt_tokens: {a: 1}", "max_prompt_tokens: got {'a': 1} (dict), wanted int"),
        ("test_share: 1", "test_share: got 1"),
        ("test_share: -0.1", "test_share: got -0.1, wanted at least 0 and below 1"),
        ("num_rows: 0", "num_rows: got 0, wanted at least 1"),
        ("num_rows: -5", "num_rows: got -5, wanted at least 1"),
    ],
)
def test_values_of_the_wrong_type_or_out_of_range(text, wanted, yaml_file):
    assert wanted in error("--config", yaml_file(f"task: sort\n{text}\n"))


@pytest.mark.parametrize("flag", [["--num_rows", "many"], ["--num_rows"], ["--use_cpu", "perhaps"]])
def test_flags_of_the_wrong_type(flag, yaml_file):
    assert flag[0] in error("--config", yaml_file("task: sort\n"), *flag)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no source"),
        ("task: sort\nprompts: a.jsonl\n", "task and prompts"),
        ("preferences: a\nprompts: b\n", "preferences and prompts"),
        ("task: sort\nmixture: {a: {task: sort, share: 1}}\n", "task and mixture"),
        ("mixture: {}\n", "no source"),
    ],
)
def test_exactly_one_source(text, named, yaml_file):
    message = error("--config", yaml_file(text))
    assert message.startswith(f"got {named} to train on, wanted exactly one of")


def test_files_that_are_no_config(tmp_path, yaml_file):
    (tmp_path / "folder").mkdir()
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "which is no file" in error("--config", tmp_path / "missing.yaml")
    assert "which is no file" in error("--config", tmp_path / "folder")
    assert "got list, wanted a mapping" in error("--config", tmp_path / "list.yaml")
    assert "got NoneType, wanted a mapping" in error("--config", tmp_path / "empty.yaml")
    assert "got no valid YAML" in error("--config", tmp_path / "bytes.yaml")
    assert "got no valid YAML" in error("--config", yaml_file("a: [1\nb: }\n"))
    unclosed = error("--config", yaml_file('task: sort\nhub_token: "hf_secret\n'))
    assert "got no valid YAML in line 4" in unclosed  # where the text ends
    assert "hf_secret" not in unclosed
    assert "got nothing after it" in error("--config")


def test_a_task_says_itself_what_is_wrong_with_its_values():
    """Found when the task is built: unknown names with the nearest, values with their range."""

    def built(**values):
        return [cluster.build() for cluster in clusters(DataArguments(**values)).values()]

    assert built(task="sort", task_args='{"length": 5}')[0].config == get_task("sort", length=5).config
    with pytest.raises(ValueError, match=r"SequenceConfig.length: got 0, wanted a value from 1"):
        built(task="sort", task_args={"length": 0})
    with pytest.raises(ValueError, match="got unknown field 'lenght'; did you mean 'length'"):
        built(task="sort", task_args={"lenght": 5})
    with pytest.raises(ValueError, match="got unknown task 'srot'; did you mean 'sort'"):
        built(task="srot")
    with pytest.raises(ValueError, match="got unknown preset '9'"):
        built(task="sort", preset="9")
    with pytest.raises(ValueError, match=r"task_args: got \{1: 2\}, wanted a mapping of names"):
        built(task="sort", task_args={1: 2})


def test_a_source_given_by_flag_takes_the_place_of_the_yaml_files(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("mixture: {one: {task: sort, share: 1.0}}\n", encoding="utf-8")
    (data,) = parse_recipe((DataArguments,), ["--config", str(path), "--task", "tivari"])
    assert (data.task, data.mixture) == ("tivari", {})
    (data,) = parse_recipe((DataArguments,), ["--config", str(path), "--prompts=mine.jsonl"])
    assert (data.task, data.mixture, data.prompts) == (None, {}, "mine.jsonl")


def test_another_task_or_preset_or_architecture_puts_away_what_the_yaml_says_of_the_first(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text('task: sort\npreset: "16"\ntask_args: {vocab_size: 9}\ngpt2_size: "1_1_8"\n', encoding="utf-8")

    def parsed(*flags):
        data, policy = parse_recipe((DataArguments, PolicyArguments), ["--config", str(path), *flags])
        return data.task, data.preset, data.task_args, policy.gpt2_size or None

    assert parsed() == ("sort", "16", {"vocab_size": 9}, "1_1_8")
    assert parsed("--task", "eca") == ("eca", None, {}, "1_1_8")
    assert parsed("--task", "eca", "--task_args", '{"width": 8}') == ("eca", None, {"width": 8}, "1_1_8")
    assert parsed("--preset", "64") == ("sort", "64", {}, "1_1_8")
    assert parsed("--task_args", '{"length": 3}') == ("sort", "16", {"length": 3}, "1_1_8")
    assert parsed("--model_type", "llama") == ("sort", "16", {"vocab_size": 9}, None)


@pytest.mark.parametrize(("name", "value"), [("density_k", 1), ("max_ratio", 0.5)])
def test_weight_arguments_out_of_range_are_errors_before_anything_is_trained(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: got .*{value}.*, wanted"):
        WeightArguments(**{name: value})


def test_an_unknown_estimator_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"^density_estimator: got 'mean'; .*Known: mean_distance, volume"):
        WeightArguments(density_estimator="mean")


@pytest.mark.parametrize("text", ["{'': x}", "{A=B: x}", '{A: "x\\0y"}', "{A: null}", "{A: [1]}", "{1: x}"])
def test_an_environment_that_no_process_can_have(text, yaml_file):
    message = error("--config", yaml_file(f"task: sort\nenv: {text}\n"))
    assert "config.yaml: env: got " in message
    assert "wanted a variable's name" in message


@pytest.mark.parametrize(
    ("kind", "given", "fits"),
    [
        ("linear", {"nonsense": 1}, False),
        ("linear", [1], False),
        ("constant", {"num_cycles": 1}, False),
        ("cosine", {"last_epoch": 3}, False),
        ("cosine", {"num_cycles": 1}, True),
        ("cosine_with_min_lr", {"min_lr": 0.1}, True),
        ("reduce_lr_on_plateau", {"patience": 0}, True),
        ("reduce_lr_on_plateau", {"patent": 0}, False),
        ("warmup_stable_decay", {}, False),
        ("warmup_stable_decay", {"num_decay_steps": 2}, True),
    ],
)
def test_a_schedule_takes_its_own_arguments(kind, given, fits):
    args = SimpleNamespace(lr_scheduler_type=kind, lr_scheduler_kwargs=given, warmup_steps=0, optim_args=None)
    if fits:
        check_schedule(args)
    else:
        with pytest.raises(ValueError, match=f"that the schedule {kind} takes"):
            check_schedule(args)


def test_steps_of_a_warmup_are_whole_or_a_fraction(yaml_file):
    for good in ("0.5", "1.0", "20"):
        assert parse("--config", yaml_file("task: sort\n"), "--warmup_steps", good)["warmup_steps"] == float(good)
    assert "warmup_steps: got 1.5" in error("--config", yaml_file("task: sort\n"), "--warmup_steps", "1.5")


@pytest.mark.parametrize("kind", [SFTConfig, DPOConfig, RewardConfig])
def test_activations_stay_where_there_is_no_gpu(kind, tmp_path):
    argv = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false", "--activation_offloading", "true"]
    with pytest.raises(ValueError, match="activation_offloading: got true on a CPU"):
        parse_recipe((kind,), argv)


def test_numbers_of_yaml_are_those_that_people_write(yaml_file):
    result = parse("--config", yaml_file("task: sort\nnum_rows: 010\nlearning_rate: 1e-4\n"))
    assert (result["num_rows"], result["learning_rate"]) == (10, 1e-4)
    assert "num_rows" in error("--config", yaml_file("task: sort\nnum_rows: 1:30\n"))
    assert "at most" in error("--task", "sort", "--num_rows", "9" * 20)


def test_names_of_levels_and_settings_that_are_enums():
    assert "log_level: got 'loud'" in error("--task", "sort", "--bf16", "false", "--log_level", "loud")
    assert yaml_text({"debug": [DebugOption.UNDERFLOW_OVERFLOW]}) == "debug:\n- underflow_overflow\n"


def test_no_error_says_a_secret(yaml_file):
    token = "hf_" + "secretsx" * 4 + "xx"
    for text in (f"seed: {{token: {token}}}", f"lr_scheduler_kwargs: {{min_lr: {token}}}", f"rows_seed: {token}"):
        message = error("--config", yaml_file(f"task: sort\n{text}\n"))
        assert "got a value with a token" in message
        assert token not in message


def test_a_recipe_checks_its_schedule():
    flags = ["--task", "sort", "--bf16", "false", "--lr_scheduler_kwargs"]
    assert "that the schedule linear takes" in error(*flags, '{"nonsense": 1}')


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("task_args: &a {x: *a}", "got no valid YAML: Circular reference"),
        ("rows_seed: -1", "rows_seed: got -1"),
        ("max_prompt_tokens: 0", "max_prompt_tokens: got 0"),
        ("fsdp_config: {version: 2}", "fsdp_config: got {'version': 2}, which says nothing without fsdp"),
    ],
)
def test_what_would_fail_late_or_say_nothing(text, named, yaml_file):
    assert named in error("--config", yaml_file(f"task: sort\n{text}\n"))


def test_every_tracker_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("hf_synth.training.arguments.get_available_reporting_integrations", list)
    for name in ("codecarbon", "mlflow", "wandb"):
        assert "which is not installed here" in error("--task", "sort", "--bf16", "false", "--report_to", name)
