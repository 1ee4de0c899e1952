"""What bounds a run's speed, where it stands, and how it would scale: arithmetic on sizes and on measured parts."""
