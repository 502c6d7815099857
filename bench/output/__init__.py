"""What becomes of a run: its JSON, tables, pictures and parts of pages."""
