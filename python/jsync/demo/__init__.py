"""`jsync demo`: connections survive the death of their NAT64, told as a story."""
