"""Whole training scripts, one file each, to read, to run and to start from."""
