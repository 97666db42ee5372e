"""Methods that keep the towers of a CLIP frozen and train small modules in them."""
