"""What is lyric stays, what a source added goes; and what a song is fit for."""
