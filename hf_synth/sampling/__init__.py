"""Density-weighted training: embed prompts, measure the density around each, draw the rare more often.

```python
vectors = embed_texts([prompt_text(prompt) for prompt in dataset["prompt"]])
weights = rarity_weights(knn_density(vectors), strength=1.0)  # 0.0 is the control
dataset = dataset.add_column("sampling_weight", weights)
trainer = WeightedGRPOTrainer(model, reward_funcs, args=args, train_dataset=dataset)  # or any other Weighted...Trainer
```

Nothing here knows of tasks: it serves any dataset and any trainer. Importing it loads neither torch nor TRL.
"""

from typing import TYPE_CHECKING

from hf_synth import lazy_names

if TYPE_CHECKING:  # isort: off
    from hf_synth.sampling.adaptive import (
        ChangingWeightsCallback, Curriculum, DensityRefreshCallback, FixedWeights, PassRates, RefreshedRarity,
        ScheduledRarity, WeightFactor, policy_density,
    )  # fmt: skip
    from hf_synth.sampling.density import intrinsic_dimension, knn_density, measure_knn_density
    from hf_synth.sampling.embeddings import embed_texts, prompt_text
    from hf_synth.sampling.mixin import WeightedSamplingMixin
    from hf_synth.sampling.samplers import DensityWeightedSampler, weighted_stream
    from hf_synth.sampling.trainers import (
        WeightedDPOTrainer, WeightedGRPOTrainer, WeightedRewardTrainer, WeightedSFTTrainer, WeightedTrainer,
    )  # fmt: skip
    from hf_synth.sampling.weights import (
        balanced_weights, check_weights, combined_weights, curriculum_weights, effective_sample_size,
        pass_rate_weights, permuted, rarity_weights, scheduled_strength,
    )  # fmt: skip

__getattr__, _HOMES = lazy_names(__name__, __file__)
__all__ = sorted(_HOMES)
