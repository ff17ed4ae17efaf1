"""Atlas of prototypes: its tables, map, figure and page, and the page's server."""
