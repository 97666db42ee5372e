"""Methods that train a ResNet with a head per task."""
