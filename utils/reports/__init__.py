"""Tables, plots and pictures made from records."""
