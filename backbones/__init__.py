"""Networks, each able to say which pieces it is made of: ``pieces()`` composed, then ``head``, is the network."""
