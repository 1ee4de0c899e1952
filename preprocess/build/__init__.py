"""From songs to shards."""
