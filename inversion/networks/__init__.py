"""A user's network as the engine needs it: in pieces, frozen, its statistics at hand."""
