"""Result files, tables of results, and published results."""
