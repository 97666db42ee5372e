"""Define the methods that adapt a pre-trained CLIP. Read ``clip_model.py`` first."""
