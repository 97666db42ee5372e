"""Get the files of data sets and read them: download, unpack, decode, cache.

Read ``listed_images.py`` first: it is the base of the data sets whose images are files.
"""
