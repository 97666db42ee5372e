"""Define the methods that train a ResNet from scratch. Read ``sgd.py`` first."""
