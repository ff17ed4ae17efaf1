"""What was measured: one file a figure, tables, and what others have published."""
