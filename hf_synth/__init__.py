"""Controlled experiments with synthetic data on the Hugging Face stack."""
