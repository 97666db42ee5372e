"""The space in which images are optimised: colours and frequencies, without any network."""
