"""What several test modules share: small runs, small networks, slow references, a pretended device."""
