"""Models as ordinary `PreTrainedModel`s: importing this package makes the Auto classes of transformers know them.

One file holds one model, config included, and imports nothing of hf_synth: it travels with its checkpoints.
"""

from peft.utils import constants
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from hf_synth.models.modeling_rlm_transformer import (
    RLMTransformerConfig,
    RLMTransformerForCausalLM,
    RLMTransformerModel,
)
from hf_synth.models.modeling_rope_gpt import (
    RopeGPTConfig,
    RopeGPTForCausalLM,
    RopeGPTForSequenceClassification,
    RopeGPTModel,
)

AutoConfig.register(RLMTransformerConfig.model_type, RLMTransformerConfig, exist_ok=True)
AutoModel.register(RLMTransformerConfig, RLMTransformerModel, exist_ok=True)
AutoModelForCausalLM.register(RLMTransformerConfig, RLMTransformerForCausalLM, exist_ok=True)

AutoConfig.register(RopeGPTConfig.model_type, RopeGPTConfig, exist_ok=True)
AutoModel.register(RopeGPTConfig, RopeGPTModel, exist_ok=True)
AutoModelForCausalLM.register(RopeGPTConfig, RopeGPTForCausalLM, exist_ok=True)
AutoModelForSequenceClassification.register(RopeGPTConfig, RopeGPTForSequenceClassification, exist_ok=True)

# Adapters without `target_modules` go where those of llama go, whose layers have the same names.
for name, targets in vars(constants).items():
    if name.startswith("TRANSFORMERS_MODELS_TO_") and "llama" in targets:
        for config in (RLMTransformerConfig, RopeGPTConfig):
            targets.setdefault(config.model_type, targets["llama"])

__all__ = [
    "RLMTransformerConfig",
    "RLMTransformerForCausalLM",
    "RLMTransformerModel",
    "RopeGPTConfig",
    "RopeGPTForCausalLM",
    "RopeGPTForSequenceClassification",
    "RopeGPTModel",
]
