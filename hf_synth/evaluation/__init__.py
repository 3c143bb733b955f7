"""What a trained model does: log-probabilities of labels, sampled answers, and measures of both. Takes loaded models."""
