"""Parts of an objective or a start that know no network: colour, spectrum, the space of images."""
