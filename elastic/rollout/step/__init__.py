"""One decode step: drawing and forward pass, launched, captured or compiled; and whether rows are done."""
