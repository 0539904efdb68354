//! File descriptors that signal, and waiting for them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A flag that other threads and event loops can wait for (eventfd(2)), non-blocking.
#[derive(Debug)]
pub struct EventFd(File);

impl EventFd {
    /// A new one, not raised.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so `fd` is open and nobody else's.
        Ok(Self(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Makes it readable. An overflow (2^64 calls without `clear`) leaves it so.
    pub fn raise(&self) {
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Makes it unreadable.
    pub fn clear(&self) {
        let _ = (&self.0).read(&mut [0; 8]);
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of `fds` is readable or in error, or until `timeout_ms` have passed
/// (None: forever), or a signal came. Returns whether the first of them is.
///
/// # Errors
/// As poll(2), but for EINTR.
pub fn wait<'a>(
    fds: impl IntoIterator<Item = BorrowedFd<'a>>,
    timeout_ms: Option<u64>,
) -> io::Result<bool> {
    let polled =
        |fd: BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut polled: Vec<_> = fds.into_iter().map(polled).collect();
    let timeout = timeout_ms.map_or(-1, |ms| i32::try_from(ms).unwrap_or(i32::MAX));
    // SAFETY: the pointer and the count are those of one vector, which outlives the call.
    let status = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
    match status {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
        _ => Ok(polled.first().is_some_and(|fd| fd.revents != 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn is_readable_while_raised() {
        let event = EventFd::new().unwrap();
        let readable = || wait([event.as_fd()], Some(1)).unwrap();
        assert!(!readable());
        event.raise();
        event.raise();
        assert!(readable());
        event.clear();
        assert!(!readable());
    }
}
