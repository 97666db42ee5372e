"""Get the files of published data sets and read them: fetching, unpacking, decoding, caches."""
