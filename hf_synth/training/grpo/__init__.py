"""A GRPO run: its arguments, its rewards, and its arms from a fresh policy to measured answers."""
