"""How the rows of a step attend to their slots: by lengths, or under a mask."""
