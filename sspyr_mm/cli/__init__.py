"""Commands of ``python -m sspyr_mm``, one module per command."""
