//! Memory that is there before it is needed.
//!
//! The system gives memory page by page as it is first touched, cleared: a quarter of a millisecond
//! for a huge page, several on a virtual machine whose host clears it too. Whoever touches it while
//! holding the engine makes packets wait for that; so a thread of its own touches it first.

use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// How far ahead of what is used.
const AHEAD: usize = 8 << 20;
/// Memory is made in parts, so that who maps or unmaps some meanwhile doesn't wait long.
const STEP: usize = 2 << 20;

/// Stretches of an engine's memory that are used from one end to the other.
pub type Unused = [Range<usize>; 2];

/// Keeps pages ready in front of what an engine uses.
#[derive(Debug)]
pub struct Ahead {
    /// Where each stretch is made up to.
    made: [usize; 2],
    orders: Sender<Range<usize>>,
}

impl Ahead {
    /// Starts the thread. It ends with this.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn new() -> io::Result<Self> {
        let (orders, receiver) = channel();
        thread::Builder::new().name("jsync-memory".into()).spawn(move || serve(&receiver))?;
        Ok(Self { made: [0; 2], orders })
    }

    /// Takes note of what isn't used yet.
    #[inline]
    pub fn follow(&mut self, unused: Unused) {
        for (stretch, made) in unused.into_iter().zip(&mut self.made) {
            let until = stretch.end.min(stretch.start + AHEAD);
            let from = stretch.start.max(*made);
            if until.saturating_sub(from) >= AHEAD / 2 || (from < until && until == stretch.end) {
                *made = until;
                // The thread is there as long as this is, but for systems that refuse.
                let _ = self.orders.send(from..until);
            }
        }
    }
}

fn serve(orders: &Receiver<Range<usize>>) {
    for range in orders {
        for start in range.clone().step_by(STEP) {
            if populate(start..range.end.min(start + STEP)).is_err() {
                return; // before Linux 5.14: pages come when they are used
            }
        }
    }
}

/// Makes the whole pages within a range writable memory, with the contents that they have.
fn populate(range: Range<usize>) -> io::Result<()> {
    const PAGE: usize = 4096;
    let start = range.start.next_multiple_of(PAGE);
    let Some(len) = (range.end / PAGE * PAGE).checked_sub(start) else { return Ok(()) };
    // SAFETY: this changes no contents, wherever it points. What isn't mapped (any more) is refused.
    let status = unsafe {
        libc::madvise(std::ptr::without_provenance_mut(start), len, libc::MADV_POPULATE_WRITE)
    };
    match status {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EINVAL) => Err(error),
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Whether each page of a range is in memory.
    fn resident(range: &Range<usize>) -> Vec<bool> {
        let mut pages = vec![0; range.len() / 4096];
        // SAFETY: `pages` has a byte for each page of the range.
        let status = unsafe {
            let start = std::ptr::without_provenance_mut(range.start);
            libc::mincore(start, range.len(), pages.as_mut_ptr())
        };
        assert_eq!(status, 0);
        pages.iter().map(|page| page & 1 == 1).collect()
    }

    #[test]
    fn pages_are_there_before_they_are_used() {
        const LEN: usize = 4 * AHEAD;
        let memory: Vec<u8> = Vec::with_capacity(LEN + 4096);
        let first = memory.as_ptr().addr().next_multiple_of(4096);
        let mut ahead = Ahead::new().unwrap();
        let ready = |range: Range<usize>| resident(&range).into_iter().all(|page| page);
        for used in [0, AHEAD / 4, AHEAD / 2, 3 * AHEAD, LEN - 4096] {
            ahead.follow([first + used..first + LEN, 0..0]);
            let until = LEN.min(used / (AHEAD / 2) * (AHEAD / 2) + AHEAD);
            let start = Instant::now();
            while !ready(first + used..first + until) {
                assert!(start.elapsed() < Duration::from_secs(5), "{used}");
                thread::sleep(Duration::from_millis(1));
            }
            // A huge page may reach further.
            let far = first + until + (4 << 20)..first + LEN;
            assert!(far.is_empty() || !resident(&far).contains(&true), "{used}");
        }
    }
}
