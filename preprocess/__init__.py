"""Songs in, packed Arrow shards with label masks out. CPU only; imports no torch."""
