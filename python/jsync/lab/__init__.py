"""The sample network in namespaces: n6, n4, the NAT64s J, K and L, and a private network.

Everything lives in a mount, network and process namespace of its own (`isolation`), so the
machine that runs it stays untouched and the kernel itself cleans up when the lab's first process
ends, by whatever cause.
"""
