"""How fast PretrainingTrainer is: against a plain PyTorch loop with the same model, batches and optimizer.

    python benchmarks/training.py [--only rlm] [--steps 6] [--rounds 6] [--write docs/training_speed.md]

The two of a pair take turns, A B A B ..., a few steps each. Figures are medians over the turns; the ratios carry over
to other machines, the times do not. Both of a pair end with the same loss, or the program stops.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

import hf_synth
from hf_synth.models import RopeGPTForCausalLM
from hf_synth.online import Batch, OnlineRows
from hf_synth.tasks import Task
from hf_synth.tokenization import build_tokenizer
from hf_synth.training.arguments import PolicyArguments
from hf_synth.training.models import load_policy
from hf_synth.training.pretraining_callbacks import StoppingCallback
from hf_synth.training.pretraining_data import ScheduleArguments, held_rows
from hf_synth.training.pretraining_trainer import PretrainingTrainer

RECIPE = Path(__file__).parents[1] / "recipes" / "pretrain.py"
BATCH = 64
PARTS = ("rows", "loader", "forward", "backward", "optimizer")
NO_DROPOUT = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """What is trained: a task, a model, and the arguments of its optimizer."""

    task: Task
    policy: PolicyArguments
    optimizer: dict[str, Any] = dataclasses.field(default_factory=lambda: {"learning_rate": 1e-3, "weight_decay": 0.1})
    clip: float = 1.0
    pace: int = 1  # steps of a turn for each that is asked for: a small model takes more

    def model(self) -> PreTrainedModel:
        """The model with its first weights, the same at every call."""
        return load_policy(self.policy, build_tokenizer(self.task), seed=0)

    @functools.cache  # noqa: B019 - settings live as long as the program
    def batches(self, count: int) -> list[Batch]:
        """The first batches of the training rows, on the device."""
        rows = OnlineRows(self.task)
        made = (rows.__getitems__(range(step * BATCH, (step + 1) * BATCH))[0] for step in range(count))
        return [{name: value.to(DEVICE) for name, value in batch.items()} for batch in made]


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of one side: seconds a step, and the mean training loss, which shows that the work was done."""

    seconds: float
    loss: float


Side = Callable[[int], Turn]


class Clock(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """A step is over when its kernels are."""
        settle()
        self.ends.append(time.perf_counter())


def settle() -> None:
    """Wait for a GPU."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def make_trainer(
    setting: Setting, folder: str, steps: int, model: PreTrainedModel | None = None, **more: Any
) -> PretrainingTrainer:
    """A trainer on fresh rows of a setting; `model` and further arguments go before the setting's own."""
    args = TrainingArguments(
        folder,
        **{
            "max_steps": steps,
            "per_device_train_batch_size": BATCH,
            "lr_scheduler_type": "constant",
            "max_grad_norm": setting.clip,
            "use_cpu": DEVICE == "cpu",
            "bf16": False,
            "logging_steps": 100,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            **setting.optimizer,
            **more,
        },
    )
    trainer = PretrainingTrainer(
        setting.model() if model is None else model,
        args,
        train_dataset=OnlineRows(setting.task),
        eval_dataset={},
        schedule=ScheduleArguments(),
        epoch_steps=steps,
    )
    trainer.pop_callback(transformers.PrinterCallback)
    return trainer


def trainer_side(setting: Setting, make_model: Callable[[], PreTrainedModel] | None = None) -> Side:
    """PretrainingTrainer on rows made at every step; its first step, which starts the loader, is not timed."""

    def turn(steps: int) -> Turn:
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(setting, folder, steps, make_model() if make_model else None)
            clock = Clock()
            trainer.add_callback(clock)
            loss = trainer.train().training_loss
        return Turn((clock.ends[-1] - clock.ends[0]) / (steps - 1), loss)

    return turn


def bare_side(setting: Setting, bf16: bool = False) -> Side:
    """The plain loop over batches made beforehand: fused optimizer, no value read before the end, nothing logged."""

    def turn(steps: int) -> Turn:
        model, batches = setting.model().to(DEVICE).train(), setting.batches(steps)
        weights, optimizer = list(model.parameters()), bare_optimizer(setting, model)
        total = torch.zeros((), device=DEVICE)
        for step, batch in enumerate(batches):
            with torch.autocast(DEVICE, torch.bfloat16, enabled=bf16):
                loss = model(**batch, use_cache=False).loss
            loss.backward()
            if setting.clip:
                torch.nn.utils.clip_grad_norm_(weights, setting.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total += loss.detach()
            if step == 0:
                settle()
                start = time.perf_counter()
        settle()
        return Turn((time.perf_counter() - start) / (steps - 1), total.item() / steps)

    return turn


def bare_optimizer(setting: Setting, model: PreTrainedModel) -> torch.optim.Optimizer:
    """The optimizer that Trainer would make, in its fastest form."""
    rate, decay = setting.optimizer["learning_rate"], setting.optimizer.get("weight_decay", 0.0)
    if setting.optimizer.get("optim") == "sgd":
        return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, fused=True)
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, fused=True)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two sides that are compared, and how many times as fast as the second the first shall be."""

    name: str
    side: Side
    other: Side
    pace: int
    promised: float
    same_loss: float = 1e-3

    def line(self, steps: int, rounds: int) -> str:
        """A line of the table: medians in milliseconds a step, and the median and range of the rounds' ratios."""
        steps *= self.pace
        turns = [(self.side(steps), self.other(steps)) for _ in range(rounds)]
        for ours, theirs in turns:
            if not math.isclose(ours.loss, theirs.loss, rel_tol=self.same_loss):
                raise SystemExit(f"{self.name}: losses {ours.loss} and {theirs.loss} are not those of the same work")
        first, second = (statistics.median(turn[side].seconds for turn in turns) for side in (0, 1))
        ratios = sorted(theirs.seconds / ours.seconds for ours, theirs in turns)
        ratio = statistics.median(ratios)
        verdict = f"{self.promised}{'' if ratio >= self.promised else ', missed'}"
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        return f"| {self.name} | {1e3 * first:.2f} | {1e3 * second:.2f} | {ratio:.2f} | {spread} | {verdict} |"


class WholeHead(RopeGPTForCausalLM):
    """The same model with the head on every position, as stock models of transformers compute their loss."""

    def forward(self, input_ids: Any, labels: Any, num_items_in_batch: Any = None, **_: Any) -> Any:
        """Logits [B, Q, V] of all positions, and the loss on those with a label."""
        logits = self.lm_head(self.model(input_ids, use_cache=False).last_hidden_state)
        loss = self.loss_function(logits, labels, self.config.vocab_size, num_items_in_batch=num_items_in_batch)
        return {"loss": loss, "logits": logits}


def whole_head(setting: Setting) -> PreTrainedModel:
    """A setting's model with the head on every position."""
    model = setting.model()
    model.__class__ = WholeHead
    model.loss_type = "ForCausalLM"  # transformers does not know it by the class's name
    return model


def gpt2(size: str, length: int, pace: int) -> Setting:
    """A GPT-2 on sort with lists of a length."""
    policy = PolicyArguments(gpt2_size=size, new_model=NO_DROPOUT)
    return Setting(hf_synth.get_task("sort", "64", length=length), policy, pace=pace)


def rlm(depth: int, symbols: int, pace: int, **shape: Any) -> Setting:
    """An RLM transformer on the last leaf, with SGD."""
    task = hf_synth.get_task("rlm", "v128-l1-b2", depth=depth, vocab_size=symbols)
    policy = PolicyArguments(model_type="rlm_transformer", new_model=shape)
    return Setting(task, policy, {"learning_rate": 1e-3, "optim": "sgd", "optim_args": "momentum=0.9"}, 0.0, pace)


def analogy(layers: int = 2) -> Setting:
    """The reference run of analogy: 10,000 relations, width 128."""
    shape = {"hidden_size": 128, "num_hidden_layers": layers, "num_attention_heads": 1, "max_position_embeddings": 64}
    task = hf_synth.get_task("analogy", "e10")
    return Setting(task, PolicyArguments(model_type="rope_gpt", new_model=shape), clip=0.0, pace=4)


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 numbers by itself."""
    if DEVICE == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


def settings() -> dict[str, Setting]:
    """All that is trained here, by name."""
    return {
        "GPT-2 4_4_256, sort of 64": gpt2("4_4_256", 64, pace=1),
        "GPT-2 2_4_16, sort of 64": gpt2("2_4_16", 64, pace=2),
        "GPT-2 2_4_16, sort of 8": gpt2("2_4_16", 8, pace=8),
        "rlm L=6 V=64, 4 layers of 128": rlm(6, 64, 1, hidden_size=128, num_hidden_layers=4, num_attention_heads=4),
        "rlm L=1 V=128, 1 layer of 64": rlm(1, 128, pace=25),
        "rlm L=1 V=64, 1 layer of 64": rlm(1, 64, pace=25),
        "analogy e10, vocabulary 10,011": analogy(),
        "analogy e10, 1 layer": analogy(1),
    }


def pairs(known: dict[str, Setting]) -> list[Pair]:
    """All comparisons."""
    promised = {"GPT-2 4_4_256, sort of 64": 0.9, "rlm L=6 V=64, 4 layers of 128": 0.9}
    promised |= {"rlm L=1 V=64, 1 layer of 64": 0.77, "analogy e10, 1 layer": 0.91}
    found = [
        Pair(f"{name}: Trainer, plain loop", trainer_side(each), bare_side(each), each.pace, promised.get(name, 0.75))
        for name, each in known.items()
    ]
    last = known["analogy e10, vocabulary 10,011"]
    whole = trainer_side(last, lambda: whole_head(last))
    found.append(
        Pair("analogy under Trainer: head on the last token, on all", trainer_side(last), whole, last.pace, 1.8)
    )
    if has_bf16():
        name = "rlm L=6 V=64, 4 layers of 128"
        each = known[name]
        found.append(Pair(f"{name}: bf16, float32", bare_side(each, bf16=True), bare_side(each), each.pace, 1.5, 0.05))
    return found


def shares(name: str, setting: Setting, steps: int) -> str:
    """A line of the table of parts: where the time of a step goes under Trainer."""
    spent = dict.fromkeys((*PARTS, "counting"), 0.0)

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **options: Any) -> Any:
            settle()
            start = time.perf_counter()
            result = call(*args, **options)
            settle()
            spent[part] += time.perf_counter() - start
            return result

        return measured

    class Parts(Clock):
        def on_step_end(self, args: Any, state: Any, control: Any, **found: Any) -> None:
            if state.global_step == 1:  # what the first step prepared stays as it is
                for key in spent:
                    spent[key] = 0.0
                trainer.optimizer.step = timed("optimizer", trainer.optimizer.step)
                trainer.model.zero_grad = timed("optimizer", trainer.model.zero_grad)
            super().on_step_end()

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(setting, folder, steps)
        trainer.get_batch_samples = timed("loader", trainer.get_batch_samples)
        trainer.train_dataset.__getitems__ = timed("rows", trainer.train_dataset.__getitems__)
        trainer._get_num_items_in_batch = timed("counting", trainer._get_num_items_in_batch)
        trainer.compute_loss = timed("forward", trainer.compute_loss)
        trainer.accelerator.backward = timed("backward", trainer.accelerator.backward)
        trainer._clip_grad_norm = timed("optimizer", trainer._clip_grad_norm)
        clock = Parts()
        trainer.add_callback(clock)
        trainer.train()
    # While a batch is fetched its rows are made, by us, and its labels counted, by Trainer.
    spent["loader"] -= spent["rows"] + spent.pop("counting")
    whole = clock.ends[-1] - clock.ends[0]
    own = whole - sum(spent.values())
    each = " | ".join(f"{100 * value / whole:.1f} %" for value in (*spent.values(), own))
    missed = ", missed" if spent["rows"] > 0.05 * whole else ""
    return f"| {name} | {1e3 * whole / (steps - 1):.2f} | {each} | {1e3 * own / (steps - 1):.2f} | 5 %{missed} |"


def seconds_to_excess(excess: float) -> tuple[float, int, float]:
    """Seconds, steps and the floor of rlm L=1 V=128 by AdamW until its validation loss is near its floor."""
    setting = dataclasses.replace(rlm(1, 128, pace=25), optimizer={"learning_rate": 3e-3}, clip=1.0)
    held = held_rows(setting.task, "validation", 4096, 0)
    floor = float(-held.optimal.sum() / held.rows.loss_mask.sum())  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(setting, folder, 20_000, eval_strategy="steps", eval_steps=50)
        trainer.eval_dataset = {"validation": held}
        trainer.add_callback(StoppingCallback(None, floor + excess))
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start, trainer.state.global_step, floor


def process_seconds(program: str, repeats: int = 3) -> float:
    """Median wall time of a Python program in a process of its own, that of an empty one taken off."""

    def once(text: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", text], check=True, capture_output=True)
        return time.perf_counter() - start

    once(program)
    return statistics.median(once(program) - once("pass") for _ in range(repeats))


def start_lines() -> list[str]:
    """How long imports take, and a recipe until its first batch is there."""
    found = f"import sys; sys.path.insert(0, {str(RECIPE.parent)!r}); import pretrain"
    first = "import os, transformers; transformers.Trainer.training_step = lambda *_, **__: os._exit(0)"
    with tempfile.TemporaryDirectory() as folder:
        run = f"{first}; {found}; pretrain.main(['--output_dir', f'{folder}/{{os.getpid()}}'])"
        programs = {"import hf_synth": "import hf_synth", "import of the recipe": found}
        lines = [f"- {name}: {process_seconds(program):.2f} s" for name, program in programs.items()]
        return [*lines, f"- `recipes/pretrain.py` from its start to the first batch: {process_seconds(run):.2f} s"]


def machine() -> str:
    """The processor and the threads that the figures are from."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model n")]
        model = names[-1] if names else model
    if DEVICE == "cuda":
        model = f"{torch.cuda.get_device_name()} with {model}"
    bf16 = "bf16 in hardware" if has_bf16() else "no bf16 in hardware (bf16 is not measured)"
    busy = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{model}, {torch.get_num_threads()} thread(s) of {os.cpu_count()}, {bf16}; load at the start {busy}; "
        f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    )


HEAD = """# How fast training is

`Trainer` beside a plain PyTorch loop: in the column `ratio`, 1 means as fast, 0.9 means 10 % slower. `python benchmarks/training.py --write docs/training_speed.md` writes this page.

- Two programs take turns in one run, a few steps each. Times are medians in milliseconds per step.
- `ratio` is the speed of the first program divided by that of the second: the median over pairs of neighbouring turns. The last pair compares two heads, both under Trainer.
- `rounds` shows the lowest and the highest of these ratios. A narrow range means a quiet machine. `asked for` is the minimum ratio that the project requires; it differs between models.
- GPT-2 `4_4_256` has 4 layers, 4 heads and width 256.
- The plain loop has the same model, a fused optimizer and batches made in advance, and reads no value before the end. Trainer makes fresh rows at every step.
- Both programs end with the same loss. A batch has 64 rows. The models have no dropout.
"""  # noqa: E501


def main() -> None:
    """Measure all, or what holds the words of `--only`, print it as Markdown and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", default="", help="part of a line's name: GPT-2, rlm, analogy, parts, excess, start")
    parser.add_argument("--steps", type=int, default=6, help="steps of a turn, small models more (6)")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each side (6)")
    parser.add_argument("--write", metavar="PATH", help="write the page there as well")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    known, lines = settings(), [HEAD, f"Machine: {machine()}.\n"]
    print("\n".join(lines), flush=True)

    def say(*more: str) -> None:
        lines.extend(more)
        print("\n".join(more), flush=True)

    say("| pair | first, ms | second, ms | ratio | rounds | asked for |", "|---|---|---|---|---|---|")
    for pair in pairs(known):
        if options.only in pair.name:
            say(pair.line(options.steps, options.rounds))
    names = {f"parts of {name}": name for name in known}
    parts = "Parts of a step under Trainer. `rows`: making the rows. `loader`: what torch and accelerate add to it."
    parts += " `Trainer`: all the rest, also in ms. `rows at most`: the limit for `rows`."
    parts += " Timing the parts makes a step slower than in the first table."
    say("", f"{parts}\n\n| | ms | {' | '.join(PARTS)} | Trainer | its ms | rows at most |")
    say(f"|{'---|' * (len(PARTS) + 5)}")
    for title, name in names.items():
        if options.only in title:
            say(shares(name, known[name], 2 * options.steps * known[name].pace))
    say("")
    if options.only in "time to an excess":
        seconds, steps, floor = seconds_to_excess(0.4)
        what = f"- rlm L=1 V=128 by AdamW at 3e-3 to a validation loss 0.4 above its floor of {floor:.3f}"
        what += " on the 4,096 validation rows"
        say(f"{what}: {seconds:.1f} s, {steps} steps and an evaluation of 4,096 rows after each 50, included")
    if options.only in "start":
        say(*start_lines())
    if options.write:
        Path(options.write).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
