"""Programs around a generator that choose among several answers."""
