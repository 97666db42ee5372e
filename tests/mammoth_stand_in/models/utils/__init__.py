"""Settings of methods: yaml files of this folder's sibling ``config`` only."""

import os


def load_model_config(args, buffer_size=None):
    if args.model_config == "best" and not os.path.exists(os.path.join("models", "config", args.model + ".yaml")):
        raise FileNotFoundError(args.model)
    return {}
