"""The project's own made-up songs, with ground truth: artists of measurable styles, seeded, in any number."""
