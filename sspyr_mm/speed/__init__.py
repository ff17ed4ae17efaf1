"""How fast this package is on a machine, counted and measured beside others."""
