"""What a collection of songs is like."""
