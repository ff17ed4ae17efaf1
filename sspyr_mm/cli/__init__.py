"""Commands of ``python -m sspyr_mm``, a module each."""
