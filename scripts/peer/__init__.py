"""What `peers.py` measures: Muster, and each peer beside it."""
