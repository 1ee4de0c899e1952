"""What is measured of a song; it lives in `preprocess.measure.song`."""

from preprocess.measure.song import Measures, measure_song

__all__ = ["Measures", "measure_song"]
