"""Comparison of pre-trained networks on a user's labelled images."""
