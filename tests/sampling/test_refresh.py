"""Density of the policy's own hidden states, measured again while it trains: when, on which vectors, and on resume."""

import numpy as np
import pytest
import torch
from trl import GRPOConfig

from hf_synth.sampling import (
    DensityRefreshCallback,
    FixedWeights,
    RefreshedRarity,
    WeightedGRPOTrainer,
    knn_density,
    policy_density,
    rarity_weights,
)
from hf_synth.sampling.adaptive import FACTORS_FILE

ROWS = 16


def first_layer(tokenizer):
    """A plain embedder: the embedding of a prompt's one word, which training moves."""

    def embed(model, texts):
        ids = [tokenizer(text).input_ids[0] for text in texts]
        assert not model.training
        return model.get_input_embeddings().weight.detach()[ids].numpy()

    return embed


def build(tiny, directory, *, every=3, **changes):
    recorded = tiny.Recorded()
    options = {"num_generations": 4, "max_completion_length": 3, "per_device_train_batch_size": 8, "max_steps": 12}
    trainer = WeightedGRPOTrainer(
        tiny.model(),
        recorded,
        args=tiny.arguments(GRPOConfig, directory, **{**options, **changes}),
        train_dataset=tiny.prompts(np.ones(ROWS)),
        processing_class=tiny.tokenizer(),
        round_size=4,
    )
    refresh = DensityRefreshCallback(trainer, every=every, embed=first_layer(tiny.tokenizer()), k=3, strength=0.5)
    trainer.add_callback(refresh)
    return trainer, recorded, refresh


def test_density_is_that_of_the_policy_when_it_was_measured(tiny, tmp_path):
    """Rounds of two steps, every third step: measured as the rounds at 0, 4, 6 and 10 begin."""
    trainer, _, refresh = build(tiny, tmp_path)
    plainly, used, factor = {}, {}, refresh.factors[0]
    stock = factor.weights

    def weights(step, steps):
        table = trainer.model.get_input_embeddings().weight.detach().numpy()[3 : 3 + ROWS]
        plainly[step] = rarity_weights(knn_density(table, k=3), strength=0.5)
        used[step] = stock(step, steps)
        return used[step]

    factor.weights = weights
    trainer.train()
    for step, measured in {0: 0, 2: 0, 4: 4, 6: 6, 8: 6, 10: 10}.items():
        np.testing.assert_array_equal(used[step], plainly[measured])
    assert len({array.tobytes() for array in used.values()}) == 4


@pytest.mark.parametrize("saved", [5, 6])
def test_resume_is_exact_within_a_round_and_where_one_is_due(saved, tiny, tmp_path):
    def run(directory, resume=None):
        trainer, recorded, _ = build(tiny, directory, save_strategy="steps", save_steps=saved)
        trainer.train(resume_from_checkpoint=resume)
        return recorded.calls, tiny.parameters(trainer)

    calls, whole = run(tmp_path / "a")
    checkpoint = tmp_path / "a" / f"checkpoint-{saved}"
    assert (checkpoint / FACTORS_FILE).exists()
    again, resumed = run(tmp_path / "b", str(checkpoint))
    assert again == calls[saved:]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_copies_of_a_prompt_are_embedded_once_and_count(tiny, tmp_path):
    trainer, _, _ = build(tiny, tmp_path)
    trainer.train_dataset = trainer.train_dataset.map(lambda row, i: {"prompt": f"w{i // 4}"}, with_indices=True)
    asked = []

    def embed(model, texts):
        asked.extend(texts)
        return np.array([[float(text[1:]) ** 2, 1.0] for text in texts])

    result = policy_density(trainer, embed, k=2)
    assert asked == ["w0", "w1", "w2", "w3"]
    vectors = np.array([[float(row // 4) ** 2, 1.0] for row in range(ROWS)])
    np.testing.assert_array_equal(result, knn_density(vectors, k=2))


def test_nothing_is_measured_for_a_control(tiny):
    factor = RefreshedRarity(lambda: pytest.fail("measured"), every=1, density=np.arange(1.0, 5), strength=0.0)
    assert not factor.changes
    assert factor.weights(10, 20).tolist() == [1.0] * 4


def test_others_multiply(tiny, tmp_path):
    trainer, _, _ = build(tiny, tmp_path)
    fixed = FixedWeights(np.arange(ROWS) + 1.0)
    refresh = DensityRefreshCallback(trainer, every=5, density=np.ones(ROWS), others=[fixed])
    assert [factor.name for factor in refresh.factors] == ["density", "fixed"]


def test_errors(tiny, tmp_path):
    with pytest.raises(ValueError, match="every=0: wanted at least 1 step"):
        RefreshedRarity(np.ones, every=0, density=np.ones(3))
    factor = RefreshedRarity(np.ones, every=1, density=np.ones(3))
    with pytest.raises(ValueError, match="of 2 rows, this one of 3"):
        factor.load({"density": np.ones(2), "measured_at": np.array([0])})
