"""A finished set of images in the forms that others read: files.py, shards.py."""
