"""An explorer: rows of tasks with their floors, a map of prompts by density, runs over steps.

`hf-synth explore` serves it; as a Space it runs as it is.
"""

import functools
import html
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_synth.cli.show import violations
from hf_synth.tasks import Rows, Task, get_task, list_tasks, task_class
from hf_synth.tasks.base import SPLITS

_WORDS = 200  # shown of a row
_ROWS = 8
_MOST_LISTED = 10  # prompts at either end of the density


def rows_table(task: Task, split: str, seed: int) -> list[list[Any]]:
    """Return the first rows of a split: number, prompt, target, and the floor in nats a token."""
    rows = task.rows(0, _ROWS, split=split, seed=seed)
    loss = floor(task, rows).sum(axis=1)
    table = []
    for row in range(_ROWS):
        words, start = row_words(task, rows, row), rows.loss_start[row]
        mean = loss[row] / (rows.loss_stop[row] - start)
        table.append([row, *(" ".join(part[:_WORDS]) for part in (words[:start], words[start:])), round(mean, 4)])
    return table


def row_words(task: Task, rows: Rows, row: int) -> list[str]:
    """Return the words of a row, special tokens included."""
    from hf_synth.tokenization import all_words

    words = all_words(task)
    return [words[token] for token in rows.tokens[row, : rows.lengths[row]]]


def floor(task: Task, rows: Rows) -> np.ndarray:
    """Return the nats that the best predictor pays for each token, [rows, width]; 0 where no loss is."""
    return -np.where(rows.loss_mask, task.optimal_log_probs(rows), 0.0) + 0.0


def coloured(task: Task, split: str, seed: int, row: int) -> str:
    """Return a row as HTML: each token with its floor below it, the stronger coloured the more it costs.

    Full colour is ln of the vocabulary's size, what a token costs if nothing is known. Tokens without loss are grey.
    """
    from hf_synth.reports.figures import COLOURS

    rows = task.rows(row, 1, split=split, seed=seed)
    nats, words = floor(task, rows)[0], row_words(task, rows, 0)
    most = np.log(len(task.vocabulary()))
    cells = []
    for place, word in enumerate(words[:_WORDS]):
        carries = rows.loss_start[0] <= place < rows.loss_stop[0]
        strength = round(255 * min(1.0, nats[place] / most)) if most else 0
        colour = f"{COLOURS[1]}{strength:02x}" if carries else "#dddddd"
        below = f"{nats[place]:.2f}" if carries else "&nbsp;"
        cells.append(
            f'<span style="display:inline-block;margin:2px;padding:2px 5px;text-align:center;color:#111;'
            f'background:linear-gradient({colour},{colour}),#fff"><code>{html.escape(word)}</code><br>'
            f"<small>{below}</small></span>"
        )
    rest = f" … {len(words) - _WORDS:,} more" if len(words) > _WORDS else ""
    total = f"<p>{nats.sum():.4f} nats in the row, {nats.sum() / rows.loss_mask.sum():.4f} per token with loss</p>"
    return "".join(cells) + rest + total


def tree(task: Task, split: str, seed: int, row: int) -> str:
    """Return the derivation or parse of a row, or why there is none."""
    if task.config.holdout != "none":
        return 'Rows of holdout="content" may be drawn more than once; their trees are not kept.'
    try:
        return task.trees(task.row_random(row, 1, split=split, seed=seed))[0]
    except ValueError as error:
        return str(error)


def verdict(task: Task, prompt: str, completion: str) -> str:
    """Return whether a completion is right after a prompt, and which of its words the task does not know."""
    if not task.verifiable:
        return f"No text of {task.name} is wrong."
    known = {*task.vocabulary(), "<sep>"}
    strange = [word for word in dict.fromkeys([*prompt.split(), *completion.split()]) if word not in known]
    said = "right" if task.verify(prompt.strip(), completion.strip()) == 1.0 else "wrong"
    return f"{said}; no words of the task: {', '.join(strange)}" if strange else said


def density_map(path: str | None, k: int) -> tuple[str, Any, list[list[Any]], list[list[Any]]]:
    """Return how many rows of a file are used, a map of its prompts by density, and its rarest and most crowded."""
    from datasets import Dataset

    from hf_synth.reports.figures import prompt_map
    from hf_synth.sampling import prompt_text
    from hf_synth.training.arguments import WeightArguments
    from hf_synth.training.data import usable_prompts
    from hf_synth.training.run_directory import REJECTED_ROWS
    from hf_synth.training.weighting import measure_density

    if path is None:
        raise ValueError("prompts: got no file, wanted one")
    with tempfile.TemporaryDirectory() as folder:
        texts = [prompt_text(prompt) for prompt, _ in usable_prompts(path, Path(folder))]
        kept = Path(folder, REJECTED_ROWS)
        rejected = [json.loads(line)["reason"] for line in kept.open(encoding="utf-8")] if kept.exists() else []
    left_out = "; ".join(f"{count:,} left out: {reason}" for reason, count in Counter(rejected).items())
    used = f"{len(texts):,} prompts" + (f"; {left_out}" if left_out else "")
    prompts = Dataset.from_dict({"prompt": texts})
    measured = measure_density(prompts, WeightArguments(density_k=k))
    order = np.argsort(measured.density, kind="stable")
    rarest, crowded = (
        [[f"{measured.density[row]:.3g}", prompts[int(row)]["prompt"][:_WORDS]] for row in rows]
        for rows in (order[:_MOST_LISTED], order[::-1][:_MOST_LISTED])
    )
    return used, prompt_map(measured.points, measured.density, "density", None), rarest, crowded


def run_folders(place: Path) -> list[str]:
    """Return the folders of finished runs at or below a place, by their paths from there."""
    from hf_synth.training.checkpoints import TRAINING_LOG

    return sorted(path.parent.relative_to(place).as_posix() for path in place.rglob(TRAINING_LOG))


def logged(place: Path, folders: Sequence[str]) -> list[str]:
    """Return what all of these runs have logged over steps."""
    from hf_synth.reports.read import read_finished

    runs = [run for folder in folders if (run := read_finished(place / folder)) is not None]
    return sorted(set.intersection(*(set(run.names()) for run in runs)) - {"step", "epoch"}) if runs else []


def over_steps(place: Path, folders: Sequence[str], name: str) -> Any:
    """Return a figure of one logged quantity over the steps of runs."""
    from hf_synth.reports.figures import Line, Panel, arm_style, curves, label
    from hf_synth.reports.read import read_finished

    lines = []
    for number, folder in enumerate(folders):
        colour, style = arm_style(number)
        if (run := read_finished(place / folder)) is not None:
            lines.append(Line(label(folder), *run.series(name), colour, style))
    return curves([Panel(name, name, lines)])


def app(place: Path) -> Any:
    """Return the page; `place`: the folder whose runs are compared. No visitor names a file of the machine."""
    import gradio as gr

    def handler(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def answer(*inputs: Any) -> Any:
            try:
                return function(*inputs)
            except ValueError as error:
                raise gr.Error(str(error), print_exception=False) from error

        return answer

    @handler
    def show(name: str, preset: str, split: str, seed: float, row: float) -> tuple[Any, ...]:
        task, seed, row = get_task(name, preset), int(seed or 0), int(row or 0)
        rule = "\n\n".join([f"`{task.config.to_json()}`", *task.explanations()])
        one = task.rows(row, 1, split=split, seed=seed)
        words, start, stop = row_words(task, one, 0), one.loss_start[0], one.loss_stop[0]
        texts = [" ".join(part) for part in (words[1:start], words[start : stop - (words[-1] == "<eos>")])]
        wrong = [[kind.removeprefix("violation "), text.strip()] for kind, text in violations(task, one, _WORDS)]
        shown = coloured(task, split, seed, row), tree(task, split, seed, row)
        return rule, rows_table(task, split, seed), *shown, wrong, *texts

    @handler
    def judge(name: str, preset: str, prompt: str, completion: str) -> str:
        return verdict(get_task(name, preset), prompt, completion)

    def presets(name: str) -> Any:
        names = list(task_class(name).presets)
        return gr.Dropdown(choices=names, value=names[0])

    def picked(event: gr.SelectData) -> int:
        return event.index[0]

    @handler
    def names(folders: list[str], before: str | None) -> Any:
        shared = logged(place, folders)
        kept = [name for name in (before, "loss", *shared) if name in shared]
        return gr.Dropdown(choices=shared, value=next(iter(kept), None))

    @handler
    def compare(folders: list[str], name: str | None) -> Any:
        return over_steps(place, folders, name) if name else None

    with gr.Blocks(title="hf_synth explorer", analytics_enabled=False) as page:
        gr.Markdown("# hf_synth explorer")
        with gr.Tab("Tasks"):
            with gr.Row():
                task = gr.Dropdown(list_tasks(), value="dyck", label="Task")
                preset = gr.Dropdown(list(task_class("dyck").presets), value="k2-l16", label="Preset")
                split = gr.Dropdown(list(SPLITS), value="train", label="Split")
                seed, row = gr.Number(0, label="Seed", precision=0), gr.Number(0, label="Row", precision=0, minimum=0)
            rule = gr.Markdown()
            floors = gr.HTML(label="The row, and the floor of each token in nats")
            rows = gr.Dataframe(headers=["row", "prompt", "target", "floor (nats/token)"], label="First rows")
            drawn = gr.Code(label="Derivation or parse of the row", language=None)
            wrong = gr.Dataframe(headers=["violation", "text, with what is >wrong<"], label="Violations of the row")
            prompt, completion = gr.Textbox(label="Prompt"), gr.Textbox(label="Completion")
            check, said = gr.Button("Is it right?"), gr.Textbox(label="Verdict")
            inputs = [task, preset, split, seed, row]
            outputs = [rule, rows, floors, drawn, wrong, prompt, completion]
            task.input(presets, task, preset)
            for changed in (preset, split, seed, row):
                changed.change(show, inputs, outputs)
            rows.select(picked, None, row)
            page.load(show, inputs, outputs)
            check.click(judge, [task, preset, prompt, completion], said)
        with gr.Tab("Prompts by density"):
            file = gr.File(label="Prompts: JSON lines, CSV or Parquet with a column prompt")
            k = gr.Slider(2, 50, 10, step=1, label="Neighbours that measure density")
            measure, used, mapped = gr.Button("Measure"), gr.Textbox(label="Rows"), gr.Plot(label="Map")
            ends = [gr.Dataframe(headers=["density", "prompt"], label=label) for label in ("Rarest", "Most crowded")]
            measure.click(handler(density_map), [file, k], [used, mapped, *ends])
        with gr.Tab("Runs"):
            chosen = gr.CheckboxGroup(run_folders(place), label=f"Finished runs in {place}")
            name, plot = gr.Dropdown([], label="Logged quantity"), gr.Plot(label="Over steps")
            drawing = {"fn": compare, "inputs": [chosen, name], "outputs": plot}
            chosen.change(names, [chosen, name], name).then(**drawing)
            name.input(**drawing)
    return page


if __name__ == "__main__":
    app(Path("runs")).launch()
