"""Rankings of whole chains under given weights."""
