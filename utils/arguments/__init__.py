"""From what was typed to resolved values: options, presets, resumed arguments."""
