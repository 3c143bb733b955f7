"""What each of two processes runs (see test_processes.py): python -m torch.distributed.run ... worker.py OUT_DIR."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import tiny
import torch
from transformers import TrainingArguments
from trl import GRPOConfig, GRPOTrainer

from hf_synth.sampling import (
    DensityRefreshCallback,
    DensityWeightedSampler,
    PassRates,
    WeightedGRPOTrainer,
    WeightedTrainer,
    knn_density,
    policy_density,
    weighted_stream,
)

WEIGHTS = np.array([5.0, 0.0, 1.0, 1.0, 1.0, 0.5, 2.0, 1.5, 0.0, 3.0, 1.0, 1.0, 1.0])
RANK = int(os.environ["RANK"])


def checksum(trainer):
    return [float(t.double().sum()) for t in tiny.parameters(trainer).values()]


def run_plain(directory, resume=None, weights=WEIGHTS, change=None):
    args = tiny.arguments(
        TrainingArguments,
        directory,
        per_device_train_batch_size=2,
        num_train_epochs=3,
        save_strategy="steps",
        save_steps=3,
    )
    trainer = WeightedTrainer(tiny.model(), args, train_dataset=tiny.causal_rows(weights))
    if change is not None:
        trainer.set_sampling_weights(change)
    seen = tiny.record_rows(trainer)
    trainer.train(resume_from_checkpoint=resume)
    steps = [[row - 3 for row in batch] for batch in seen]
    return {"steps": steps, "sum": checksum(trainer), "world": trainer.args.world_size}


def run_streamed_grpo(directory):
    """The stock trainer on the stream: what `run_grpo` draws in 12 steps."""
    recorded = tiny.Recorded()
    options = {"num_generations": 4, "steps_per_generation": 2, "max_completion_length": 3, "max_steps": 12}
    args = tiny.arguments(GRPOConfig, directory, gradient_accumulation_steps=1, shuffle_dataset=False, **options)
    stream = weighted_stream(tiny.prompts(WEIGHTS), DensityWeightedSampler(WEIGHTS, seed=args.seed, batch_size=4))
    GRPOTrainer(tiny.model(), recorded, args=args, train_dataset=stream, processing_class=tiny.tokenizer()).train()
    return {"calls": recorded.calls}


def run_grpo(directory, resume=None):
    recorded = tiny.Recorded()
    args = tiny.arguments(
        GRPOConfig,
        directory,
        num_generations=4,
        steps_per_generation=2,
        max_completion_length=3,
        gradient_accumulation_steps=1,
        num_train_epochs=2,
        save_strategy="steps",
        save_steps=2,
    )
    trainer = WeightedGRPOTrainer(
        tiny.model(),
        recorded,
        args=args,
        train_dataset=tiny.prompts(WEIGHTS),
        processing_class=tiny.tokenizer(),
    )
    trainer.train(resume_from_checkpoint=resume)
    rows, sampler = [], trainer.weighted_sampler
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        rows += sampler.round_rows().tolist()
    return {"calls": recorded.calls, "sum": checksum(trainer), "drawn": rows}


def run_changing(directory, resume=None):
    """Pass rates and a density of the policy's own embeddings, both learnt while it trains."""
    recorded = tiny.Recorded()
    options = {"num_generations": 4, "max_completion_length": 3, "max_steps": 12, "per_device_train_batch_size": 4}
    trainer = WeightedGRPOTrainer(
        tiny.model(),
        lambda completions, **columns: [reward / 4 for reward in recorded(completions=completions, **columns)],
        args=tiny.arguments(GRPOConfig, directory, save_strategy="steps", save_steps=3, **options),
        train_dataset=tiny.prompts(WEIGHTS),
        processing_class=tiny.tokenizer(),
        round_size=4,
    )
    rates, sizes = PassRates(trainer.train_dataset["prompt"]), []

    def embed(model, texts):
        sizes.append(len(texts))
        ids = [trainer.processing_class(text).input_ids[0] for text in texts]
        return model.get_input_embeddings().weight.detach()[ids].numpy()

    refresh = DensityRefreshCallback(trainer, every=4, embed=embed, k=3, others=[rates])
    trainer.add_callback(refresh)
    trainer.train(resume_from_checkpoint=resume)
    density = refresh.factors[0].state()["density"].tolist()
    plainly = knn_density(embed(trainer.accelerator.unwrap_model(trainer.model), trainer.train_dataset["prompt"]), k=3)
    return {
        "calls": recorded.calls,
        "rates": rates.rates().tolist(),
        "density": density,
        "sizes": sizes,
        "now": policy_density(trainer, embed, k=3).tolist(),
        "plainly": plainly.tolist(),
        "weights": trainer.sampling_weights.tolist(),
        "sum": checksum(trainer),
    }


def run_disagreement(directory):
    try:
        run_plain(directory, change=np.arange(len(WEIGHTS)) + RANK)
    except ValueError as error:
        return str(error)
    return "no error"


def run_stock(directory):
    """Losses and weights of each weighted trainer at equal weights, and of the stock one on the same rows."""
    import test_stock

    folders, result = test_stock.saved_models(tiny, directory / f"models-{RANK}"), {}
    for case in sorted(test_stock.CASES.keys() - {"dpo, reference computed before"}):  # TRL cannot, in memory
        both = test_stock.weighted_and_stock(case, tiny, folders, directory / "out")
        weights = [[value.flatten().tolist() for value in tiny.parameters(trainer).values()] for trainer in both]
        result[case] = {
            "losses": [test_stock.losses(trainer) for trainer in both],
            "equal": weights[0] == weights[1],
            "sum": checksum(both[0]),
            "world": both[0].args.world_size,
            "steps": both[0].state.global_step,
        }
    return result


if __name__ == "__main__":
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    if sys.argv[2:] == ["stock"]:
        (out / f"rank{RANK}.json").write_text(json.dumps(run_stock(out)))
        sys.exit()
    results = {"plain": run_plain(out / "plain")}
    results["plain_resumed"] = run_plain(out / "plain2", str(out / "plain" / "checkpoint-9"))
    results["changed"] = run_plain(out / "changed", weights=np.ones(len(WEIGHTS)), change=WEIGHTS)
    results["changed_resumed"] = run_plain(
        out / "changed2", str(out / "changed" / "checkpoint-6"), weights=np.ones(len(WEIGHTS))
    )
    results["grpo"] = run_grpo(out / "grpo")
    results["streamed"] = run_streamed_grpo(out / "streamed")
    results["grpo_resumed"] = run_grpo(out / "grpo2", str(out / "grpo" / "checkpoint-8"))
    results["changing"] = run_changing(out / "learnt")
    results["changing_resumed"] = run_changing(out / "learnt2", str(out / "learnt" / "checkpoint-6"))
    results["disagreement"] = run_disagreement(out / "bad")
    (out / f"rank{RANK}.json").write_text(json.dumps(results))
