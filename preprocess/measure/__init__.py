"""What can be counted in lyrics."""
