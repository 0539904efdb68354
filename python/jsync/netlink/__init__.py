"""The host's side of the data plane: routes, rules, nftables and sysctls, and their undoing.

`plan` says what is wanted, `steps` how each part is done and undone, `journal` remembers what was
done, so that the next start can finish the work of a daemon that was killed, `dataplane` puts
them together. Everything here blocks: the daemon calls it in a thread.
"""
