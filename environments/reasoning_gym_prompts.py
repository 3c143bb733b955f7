r"""Any dataset of reasoning-gym as prompts for recipes/grpo.py, with its scorer as the reward.

    python environments/reasoning_gym_prompts.py leg_counting --size 1000 --output_dir legs
    accelerate launch recipes/grpo.py --prompts legs/train.jsonl \
        --reward environments/reasoning_gym_prompts.py:score ...

Prompts and a function, not a Task: a Task has a closed vocabulary and an exact floor, and these texts have neither.
Density, weights, comparisons and reports need no more than this; a floor is not known and not reported.

reasoning-gym's item i of seed s is item i + 1 of seed s - 1 in most datasets, so that two seeds share their items.
Here the hash of a question says its split, and each question comes once: splits never meet, of whatever seeds.
"""

import argparse
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import reasoning_gym
from reasoning_gym.utils import extract_answer

from hf_synth.errors import json_dict, user_errors
from hf_synth.io import write_text

SPLITS = {"train": 0.8, "validation": 0.9, "test": 1.0}  # where the share of each ends
MOST_DRAWS = 50  # items drawn for each one that is wanted


def split_of(question: str) -> str:
    """The split of a question, by its content alone."""
    share = int.from_bytes(hashlib.blake2b(question.encode(), digest_size=8).digest(), "big") / 2**64
    return next(split for split, end in SPLITS.items() if share < end or end == 1.0)


def prompts(name: str, size: int, seed: int = 0, **config: Any) -> dict[str, list[dict[str, str]]]:
    """`size` different questions by split, 8 : 1 : 1 in expectation. ValueError where there are not so many."""
    if name not in reasoning_gym.factory.DATASETS:
        raise ValueError(f"got {name!r}, which is no dataset of reasoning-gym")
    try:
        made = reasoning_gym.create_dataset(name, seed=seed, size=MOST_DRAWS * size, **config)
    except (AssertionError, TypeError) as error:
        raise ValueError(f"{name}: got a config that reasoning-gym refuses: {error}") from error
    parts: dict[str, list[dict[str, str]]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    for index in range(MOST_DRAWS * size):
        question = made[index]["question"]
        if question not in seen:
            seen.add(question)
            item = json.dumps({"name": name, "seed": seed, "index": index, "config": config}, sort_keys=True)
            parts[split_of(question)].append({"prompt": question, "item": item})
        if len(seen) == size:
            return parts
    raise ValueError(f"{name}: got {len(seen)} different questions in {MOST_DRAWS * size} draws, wanted {size}")


@functools.lru_cache(maxsize=10_000)
def entry(item: str) -> tuple[Any, dict[str, Any]]:
    """The dataset of an item, and the item made again."""
    described = json.loads(item)
    made = reasoning_gym.create_dataset(
        described["name"], seed=described["seed"], size=described["index"] + 1, **described["config"]
    )
    return made, made[described["index"]]


def score(prompts: list[Any], completions: list[Any], item: list[str], **columns: Any) -> list[float]:
    """reasoning-gym's score of each completion: of what stands in its last <answer> tag, or else of the whole text."""
    scores = []
    for prompt, completion, one in zip(prompts, completions, item, strict=True):
        made, asked = entry(one)
        question, text = (turns if isinstance(turns, str) else turns[-1]["content"] for turns in (prompt, completion))
        if question != asked["question"]:
            raise ValueError(f"got another question for {one}: the prompts are of another version of reasoning-gym")
        answer = extract_answer(text)
        scores.append(float(made.score_answer(text.strip() if answer is None else answer, asked)))
    return scores


def main() -> None:
    """Write OUTPUT_DIR/train.jsonl, validation.jsonl and test.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="a name that reasoning-gym knows")
    parser.add_argument("--size", type=int, default=1_000, help="questions in all splits together (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", default="{}", help="the dataset's config as JSON, such as '{\"min_animals\": 2}'")
    parser.add_argument("--output_dir", type=Path, required=True)
    asked = parser.parse_args()
    parts = prompts(asked.dataset, asked.size, asked.seed, **json_dict(asked.config, "config"))
    for split, rows in parts.items():
        write_text(asked.output_dir / f"{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    print({split: len(rows) for split, rows in parts.items()})


if __name__ == "__main__":
    with user_errors("reasoning_gym_prompts.py"):
        main()
