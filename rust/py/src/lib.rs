//! The Python module `jsync._core`.
