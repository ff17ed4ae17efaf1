"""Downstream protocols: data, runs, results and tables."""
