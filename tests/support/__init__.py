"""What several test modules share: small runs and networks, slow references, a pretended GPU."""
