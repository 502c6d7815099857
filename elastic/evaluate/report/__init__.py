"""Figures, tables and traces of finished evaluations."""
