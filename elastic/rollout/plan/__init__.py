"""What a call is going to do, checked before any of it is done."""
