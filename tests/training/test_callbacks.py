"""What happens between steps: which steps are kept, which model is the best, when a run stops, when a task grows."""

import dataclasses
import itertools
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed
from torch.distributed.fsdp import fully_shard
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_synth import build_tokenizer, get_task
from hf_synth.metrics.geometry import geometry
from hf_synth.models import RopeGPTConfig, RopeGPTForCausalLM
from hf_synth.online import HeldRows, OnlineRows, Stages
from hf_synth.training.checkpoints import train
from hf_synth.training.pretraining import take_best
from hf_synth.training.pretraining_callbacks import (
    VALIDATION_LOSS,
    BestModelCallback,
    CurriculumCallback,
    GeometryCallback,
    SnapshotCallback,
    StoppingCallback,
    save_model_atomically,
    spaced_steps,
)
from hf_synth.training.pretraining_data import Curriculum, CurriculumArguments, ScheduleArguments
from hf_synth.training.pretraining_trainer import PretrainingTrainer

SORT = get_task("sort", length=6, vocab_size=10)
ANALOGY = get_task("analogy", num_relations=40)


def grown(stage):
    return get_task("sort", length=2 + 2 * stage, vocab_size=10)


def trainer(folder, *, task=SORT, stages=None, steps=12, **changes):
    """A tiny model, looked at every third step."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(task)
    config = RopeGPTConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    settings = {"max_steps": steps, "eval_strategy": "steps", "eval_steps": 3, "save_steps": 4, "logging_steps": 2}
    settings |= {"per_device_train_batch_size": 4, "learning_rate": 3e-2, "lr_scheduler_type": "constant"}
    args = TrainingArguments(
        str(folder), use_cpu=True, bf16=False, report_to="none", disable_tqdm=True, **{**settings, **changes}
    )
    looks = {split: HeldRows(task.rows(0, 16, split=split)) for split in ("train", "validation")}
    rows = OnlineRows(task) if stages is None else OnlineRows(grown, stages=stages)
    return PretrainingTrainer(
        RopeGPTForCausalLM(config), args, train_dataset=rows, eval_dataset=looks, schedule=ScheduleArguments(),
        epoch_steps=steps, processing_class=tokenizer,
    )  # fmt: skip


# Steps


@pytest.mark.parametrize(
    ("per_doubling", "linear_after", "most", "wanted"),
    [
        (1, None, 100, [1, 2, 4, 8, 16, 32, 64]),
        (2, None, 20, [1, 2, 3, 4, 6, 8, 11, 16]),
        (0.5, None, 100, [1, 4, 16, 64]),
        (1, 8, 30, [1, 2, 4, 8, 12, 16, 20, 24, 28]),
        (1, 10, 50, [1, 2, 4, 8, 16, 24, 32, 40, 48]),
        (1, 1, 5, [1, 2, 3, 4, 5]),
        (1, None, 1, [1]),
        (1, None, 0, []),
    ],
)
def test_steps_spaced_by_a_factor_then_by_a_distance(per_doubling, linear_after, most, wanted):
    assert [*spaced_steps(per_doubling, linear_after, most)] == wanted


def test_the_ratio_of_spaced_steps_is_that_of_the_factor():
    steps = [*spaced_steps(8, None, 10**6)]
    assert all(later > sooner for sooner, later in itertools.pairwise(steps))
    assert all(abs(later / sooner - 2 ** (1 / 8)) < 2 / sooner for sooner, later in itertools.pairwise(steps))


# Models that are kept


def test_snapshots_are_models_of_their_steps_with_a_look_at_each(tmp_path):
    run = trainer(tmp_path, eval_steps=100)
    run.add_callback(SnapshotCallback(run, {1, 4, 8}))
    train(run)
    folders = sorted(path.name for path in (tmp_path / "snapshots").iterdir())
    assert folders == ["step-00000001", "step-00000004", "step-00000008"]
    for step in (4, 8):
        kept, saved = (
            load_file(tmp_path / folder / "model.safetensors")
            for folder in (f"snapshots/step-{step:08d}", f"checkpoint-{step}")
        )
        assert all(torch.equal(kept[name], saved[name]) for name in saved)
    assert RopeGPTForCausalLM.from_pretrained(tmp_path / "snapshots" / "step-00000001").config.vocab_size == 14
    looks = [entry["step"] for entry in run.state.log_history if VALIDATION_LOSS in entry]
    assert looks == [1, 4, 8, 12], "and at the end of every run"


def test_the_best_model_is_that_of_the_lowest_validation_loss(tmp_path):
    """A rate so large that the loss goes up and down."""
    run = trainer(tmp_path, eval_steps=1, save_steps=1, learning_rate=0.3)
    run.add_callback(BestModelCallback(run))
    train(run)
    losses = {entry["step"]: entry[VALIDATION_LOSS] for entry in run.state.log_history if VALIDATION_LOSS in entry}
    best = min(losses, key=losses.get)
    assert 1 < best < 12, losses
    kept, saved = (load_file(tmp_path / folder / "model.safetensors") for folder in ("best", f"checkpoint-{best}"))
    assert all(torch.equal(kept[name], saved[name]) for name in saved)
    assert not [*tmp_path.glob(".*")]
    take_best(run)
    assert torch.equal(run.model.state_dict()["lm_head.weight"], saved["lm_head.weight"])
    (tmp_path / "best" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="best cannot be read: "):
        take_best(run)
    (tmp_path / "best").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="best is gone, the best model so far; remove"):
        take_best(run)


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    run = trainer(tmp_path)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "left.txt").write_text("of before")
    save_model_atomically(run, tmp_path / "kept")
    assert (tmp_path / "kept" / "model.safetensors").is_file()
    assert not (tmp_path / "kept" / "left.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


# When to stop


def state(*losses):
    return TrainerState(log_history=[{"step": 10 * n, VALIDATION_LOSS: loss} for n, loss in enumerate(losses, 1)])


@pytest.mark.parametrize(
    ("patience", "threshold", "losses", "wanted"),
    [
        (2, None, [], False),
        (2, None, [3.0], False),
        (2, None, [3.0, 2.0, 2.5], False),
        (2, None, [3.0, 2.0, 2.5, 2.1], True),
        (2, None, [3.0, 2.0, 2.0, 2.0], True),  # as low is not lower
        (2, None, [3.0, 2.0, 2.5, 1.9], False),
        (1, None, [3.0, 3.1], True),
        (None, 0.5, [1.0, 0.51], False),
        (None, 0.5, [1.0, 0.5], True),
        (None, 0.5, [0.4, 0.6], False),  # the latest counts
        (None, None, [1.0, 2.0, 3.0, 4.0], False),
        (9, 0.5, [1.0, 0.1], True),
    ],
)
def test_patience_and_threshold(patience, threshold, losses, wanted):
    callback, control = StoppingCallback(patience, threshold), TrainerControl()
    assert callback.is_over(state(*losses)) == wanted
    callback.on_evaluate(None, state(*losses), control)
    assert control.should_training_stop == wanted


def test_a_run_stops_at_the_look_that_says_so(tmp_path):
    run = trainer(tmp_path, eval_steps=2)
    run.add_callback(StoppingCallback(None, 1000.0))
    assert train(run)["steps"] == 2


# How embeddings lie


def shape_of(table, run):
    """The geometry of an embedding table, ids by the tokenizer's words."""
    functor = run.processing_class.convert_tokens_to_ids("<f>")
    return {f"geometry/{name}": value for name, value in geometry(table, ANALOGY.functor(), functor).items()}


def logged_shapes(run):
    """{step: what was logged of the geometry}."""
    entries = [entry for entry in run.state.log_history if "geometry/isometry" in entry]
    return {e["step"]: {name: value for name, value in e.items() if name.startswith("geometry/")} for e in entries}


def test_the_geometry_logged_is_that_of_the_embeddings_at_the_start_and_at_each_look(tmp_path):
    run = trainer(tmp_path, task=ANALOGY, save_steps=3, steps=6)
    run.add_callback(GeometryCallback(run, ANALOGY))
    wanted = {0: shape_of(run.model.get_input_embeddings().weight.detach().numpy(), run)}
    train(run)
    for step in (3, 6):
        kept = RopeGPTForCausalLM.from_pretrained(tmp_path / f"checkpoint-{step}")
        wanted[step] = shape_of(kept.get_input_embeddings().weight.detach().numpy(), run)
    assert logged_shapes(run) == {step: pytest.approx(each) for step, each in wanted.items()}
    assert len({each["geometry/parallelogram"] for each in wanted.values()}) == 3


@pytest.fixture
def one_rank(tmp_path):
    """A group of one process."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_the_geometry_of_embeddings_in_shards(one_rank, tmp_path):
    run = trainer(tmp_path / "run", task=ANALOGY)
    wanted = shape_of(run.model.get_input_embeddings().weight.detach().numpy().copy(), run)
    mesh = distributed.init_device_mesh("cpu", (1,))
    fully_shard(run.model, mesh=mesh)
    GeometryCallback(run, ANALOGY).on_train_begin(run.args, run.state, run.control)
    assert logged_shapes(run) == {0: pytest.approx(wanted)}


# A task that grows


def curriculum(run, stages, *, threshold, last=2, every=2, delay=3):
    chosen = CurriculumArguments(
        curriculum_threshold=threshold, curriculum_every=every, curriculum_rows=8, curriculum_delay=delay
    )
    callback = CurriculumCallback(run, Curriculum(stages, grown, last), chosen, 0)
    run.add_callback(callback)
    return callback


def checks(run):
    """(step, stage, stage that begins, its first row) of each check that the log tells of."""
    names = ("step", "curriculum/stage", "curriculum/next_stage", "curriculum/first_row")
    return [tuple(entry.get(name) for name in names) for entry in run.state.log_history if "curriculum/stage" in entry]


def test_a_task_grows_when_it_is_mastered_and_not_before_its_own_rows_came(tmp_path):
    """Mastered at once: checks every 2nd step, stages begin 3 steps later, steps of 4 rows."""
    stages = Stages()
    run = trainer(tmp_path, stages=stages, steps=14)
    curriculum(run, stages, threshold=1e-9)
    train(run)
    assert checks(run) == [(2, 0.0, 1.0, 20.0), (6, 1.0, 2.0, 36.0)]
    assert [stages.first_row(stage) for stage in range(3)] == [0, 20, 36]


def test_a_task_that_is_not_mastered_stays(tmp_path):
    stages = Stages()
    run = trainer(tmp_path, stages=stages, steps=6)
    curriculum(run, stages, threshold=1.0)
    train(run)
    assert checks(run) == [(2, 0.0, None, None), (4, 0.0, None, None), (6, 0.0, None, None)]
    assert stages.last == 0


def test_each_check_asks_about_rows_that_none_did_before(tmp_path):
    stages = Stages()
    run = trainer(tmp_path, stages=stages)
    callback = curriculum(run, stages, threshold=1.0)
    seen = []

    class Asked:
        def rows(self, start, count, **where):
            seen.append((start, start + count, where["split"]))
            return grown(0).rows(start, count, **where)

    callback.curriculum = dataclasses.replace(callback.curriculum, task_of=lambda stage: Asked())
    train(run)
    assert [split for *_, split in seen] == ["validation"] * 6
    assert {stop - start for start, stop, _ in seen} == {8}, "curriculum_rows"
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(seen))


def test_stages_come_back_from_the_log_of_a_checkpoint(tmp_path):
    """A new process: other stages, the same log."""
    stages, first = Stages(), trainer(tmp_path, steps=8)
    first.train_dataset = OnlineRows(grown, stages=stages)
    curriculum(first, stages, threshold=1e-9)
    train(first)
    history = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
    again = Stages()
    callback = curriculum(trainer(tmp_path), again, threshold=1e-9)
    callback.on_train_begin(None, TrainerState(log_history=history), TrainerControl())
    assert (again.last, again.first_row(1)) == (1, 20)
    callback.on_train_begin(None, TrainerState(log_history=history), TrainerControl())
    assert again.last == 1
