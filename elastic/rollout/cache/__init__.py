"""Keys and values of the rows in flight: slots in pools, prompts, and the memory they take."""
