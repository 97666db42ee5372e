"""Statistics of layers and of classes, and the target features that are drawn from them."""
