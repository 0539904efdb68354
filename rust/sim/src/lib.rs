//! A seeded network and a cluster of nodes on it.
