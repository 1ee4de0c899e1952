"""Export a trained adapter: as a plain peft adapter or merged into a whole model, and which servers take which."""
