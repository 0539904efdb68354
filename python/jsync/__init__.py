"""A stateful NAT64 whose sessions survive the death of its machine."""
