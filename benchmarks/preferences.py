"""How long 276,000 preference pairs take, from three published layouts to weighed Parquet, and in how much memory.

    python benchmarks/preferences.py [--pairs 276000] [--output_dir DIR]

Makes a stand-in with the schemas and about the lengths of Anthropic/hh-rlhf, ultrafeedback_binarized and
stack-exchange-preferences (HTML with code blocks), in which one prompt in twenty nearly repeats an earlier one. Then
runs datasets_scripts/preferences.py on it as a user would, and prints seconds, rows a second and the peak of memory.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SCRIPT = Path(__file__).resolve().parents[1] / "datasets_scripts" / "preferences.py"
SHARES = {"hh": 161 / 276, "uf": 61 / 276, "se": 54 / 276}  # of the pairs, about as published
TOPICS, SENTENCES = 2_000, 120
REPEATED = 20  # one prompt in so many nearly repeats an earlier one
PAIRS_A_QUESTION = 2
PROMISED = {"seconds": 120, "GB": 2.0}


class Writer:
    """Made-up text: sentences of topics of Zipf sizes, each topic with words of its own; no two prompts by chance."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
        words = ["".join(self.rng.choice(letters, size)) for size in self.rng.integers(2, 10, 30_000)]
        common, rest = words[:300], words[300:]
        self.topics = []
        for _ in range(TOPICS):
            own = list(self.rng.choice(rest, 60)) + list(self.rng.choice(common, 60))
            drawn = self.rng.choice(own, (SENTENCES, 12))
            self.topics.append([" ".join(sentence).capitalize() + "." for sentence in drawn])
        self.sizes = 1 / np.arange(1, TOPICS + 1)
        self.sizes /= self.sizes.sum()
        self.planted = 0
        self.before: list[str] = []

    def topics_of(self, count: int) -> list[int]:
        """Topics of `count` prompts."""
        return self.rng.choice(TOPICS, count, p=self.sizes).tolist()

    def text(self, topic: int, sentences: int) -> str:
        """Some sentences of a topic, and a number that no other text has."""
        chosen = self.rng.integers(0, SENTENCES, sentences).tolist()
        return f"{' '.join(self.topics[topic][row] for row in chosen)} {self.rng.integers(10**9)}?"

    def prompt(self, text: str) -> str:
        """A new prompt, or, one time in twenty, an earlier one of this source in other case, with a word more."""
        if self.before and self.rng.integers(REPEATED) == 0:
            self.planted += 1
            return self.before[self.rng.integers(len(self.before))].swapcase() + " please"
        self.before.append(text)
        return text


def hh_rows(writer: Writer, count: int) -> Iterator[dict[str, Any]]:
    """Dialogues of one to three turns: whole prompts of some 470 characters."""
    for topic in writer.topics_of(count):
        turns = [writer.text(topic, 3)]
        for _ in range(int(writer.rng.integers(3))):
            turns.append(f"{writer.text(topic, 2)}\n\nHUMAN: {writer.text(topic, 1)}")
        dialogue = writer.prompt("\n\nASSISTANT: ".join(turns))
        opening = "\n\nHuman: " + re.sub("(?i)(human|assistant):", lambda name: name[0].capitalize(), dialogue)
        yield {side: f"{opening}\n\nAssistant: {writer.text(topic, 4)}" for side in ("chosen", "rejected")}


def uf_rows(writer: Writer, count: int) -> Iterator[dict[str, Any]]:
    """Conversations of one turn with long replies."""
    for number, topic in enumerate(writer.topics_of(count)):
        prompt = writer.prompt(writer.text(topic, 6))
        sides = {
            side: [{"content": prompt, "role": "user"}, {"content": writer.text(topic, 16), "role": "assistant"}]
            for side in ("chosen", "rejected")
        }
        scores = {"score_chosen": 8.0, "score_rejected": 5.0 + number % 2}
        yield {"prompt": prompt, "prompt_id": f"{number:064x}", "messages": sides["chosen"], **sides, **scores}


def se_rows(writer: Writer, pairs: int) -> Iterator[dict[str, Any]]:
    """Questions in HTML with a code block; answers of three scores give two pairs."""
    for number, topic in enumerate(writer.topics_of(-(-pairs // PAIRS_A_QUESTION))):
        answers = [
            {"answer_id": rank, "author": "a", "author_id": 1, "author_profile": "p", "pm_score": 3 - rank}
            | {"selected": rank == 0, "text": _html(writer.text(topic, 8), rank)}
            for rank in range(PAIRS_A_QUESTION + 1)
        ]
        question = _html(writer.prompt(writer.text(topic, 8)), 7)
        yield {"qid": number, "question": question, "answers": answers, "date": "2020/01/01"}


def _html(text: str, number: int) -> str:
    first, _, rest = text.partition(". ")
    code = f"<pre><code>for i in range({number}):\n    if i &lt; 3 &amp;&amp; x:\n        print(i)\n</code></pre>"
    return f"<p>{first}. <code>x_{number}</code></p>\n\n{code}\n\n<p>{rest}</p>\n"


def write_stand_in(folder: Path, pairs: int) -> int:
    """Write the three files; returns how many near duplicates were planted."""
    writer = Writer()
    counts = {name: round(pairs * share) for name, share in SHARES.items()}
    rows = {"uf": uf_rows(writer, counts["uf"]), "se": se_rows(writer, counts["se"])}
    with gzip.open(folder / "train.jsonl.gz", "wt", compresslevel=1, encoding="utf-8") as lines:
        for row in hh_rows(writer, counts["hh"]):
            lines.write(json.dumps(row) + "\n")
    for name, made in rows.items():
        writer.before.clear()
        _write_parquet(folder / f"{name}.parquet", made)
    return writer.planted


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    parquet: pq.ParquetWriter | None = None
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == 1_000:
            parquet = _written(parquet, path, batch)
    if batch:
        parquet = _written(parquet, path, batch)
    if parquet:
        parquet.close()


def _written(parquet: pq.ParquetWriter | None, path: Path, batch: list[dict[str, Any]]) -> pq.ParquetWriter:
    table = pa.Table.from_pylist(batch)
    parquet = parquet or pq.ParquetWriter(path, table.schema)
    parquet.write_table(table)
    batch.clear()
    return parquet


def main() -> None:
    """Generate, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=276_000)
    parser.add_argument("--output_dir", help="keep the stand-in there, for another run (default: a temporary folder)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.output_dir or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        planted = folder / f"planted_{given.pairs}"
        if not planted.exists():
            planted.write_text(str(write_stand_in(folder, given.pairs)))
        run(folder, int(planted.read_text()))


def run(folder: Path, planted: int) -> None:
    """The command on the stand-in, and its figures."""
    sources = [f"hh={folder / 'train.jsonl.gz'}", f"uf={folder / 'uf.parquet'}", f"se={folder / 'se.parquet'}"]
    shutil.rmtree(folder / "made", ignore_errors=True)
    command = [sys.executable, str(SCRIPT), "--sources", *sources, "--output_dir", str(folder / "made")]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr)
    counts = json.loads((folder / "made" / "counts.json").read_text("utf-8"))["sources"].values()
    pairs = sum(source["pairs_made"] for source in counts)
    found = sum(source["prompts"] - source["prompts_kept"] for source in counts)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    for name, taken, busy in re.findall(r"^(.*): ([\d.]+) s, ([\d.]+) s busy$", done.stderr, flags=re.MULTILINE):
        print(f"    {name:48} {float(taken):7.1f} s {float(taken) / seconds:6.0%} {float(busy):7.1f} s of processor")
    print(f"near duplicates: {found:,} found of {planted:,} planted")
    print(f"{pairs:,} pairs: {seconds:.1f} s (promised {PROMISED['seconds']}), {pairs / seconds:,.0f} pairs/s")
    print(f"processor time of all processes: {used.ru_utime + used.ru_stime:.1f} s")
    peak = used.ru_maxrss / 1e6  # kilobytes on Linux
    print(f"peak memory of the largest process: {peak:.2f} GB (promised {PROMISED['GB']})")


if __name__ == "__main__":
    main()
