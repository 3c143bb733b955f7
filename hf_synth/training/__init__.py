"""What the recipes share: arguments, run directories, checkpoints, models, data and evaluation."""
