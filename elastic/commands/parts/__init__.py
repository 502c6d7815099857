"""Long commands made of independent parts: processes that run them, and what they keep on disk.

`elastic demo` and `make replicate` are such commands. A part is known by its name; a module of the command
has `run_part(name, out, settings)`, and everything that a part needs to know comes in `settings`, as JSON.
"""
