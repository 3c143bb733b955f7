"""What a trained model does: log-probabilities of labels, sampled answers, measures of both; for loaded models."""
