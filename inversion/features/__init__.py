"""What is kept of features and how targets are drawn from it: statistics, Gaussians, contrastive selection, projection."""
