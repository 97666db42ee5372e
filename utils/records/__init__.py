"""What a run leaves on the disk: record, checkpoints, TensorBoard events; and the metrics in them."""
