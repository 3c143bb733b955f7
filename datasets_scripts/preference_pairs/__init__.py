"""Preference pairs and their prompts as a dataset: collected, freed of repeats, weighed, written, published."""
