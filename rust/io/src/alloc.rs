//! An allocator that asks for huge pages where an allocation is large enough to use them.
//!
//! A table of millions of sessions is read at random: with 4 KiB pages most of its reads miss the
//! TLB too. Where transparent huge pages are switched off, the request has no effect.

use std::alloc::{GlobalAlloc, Layout, System};

/// Allocations from this size on are advised; a huge page is 2 MiB on x86-64 and arm64.
const LARGE: usize = 8 << 20;
const HUGE_PAGE: usize = 2 << 20;

/// The system's allocator, with `MADV_HUGEPAGE` for what is 8 MiB or larger.
#[derive(Debug)]
pub struct HugePages;

fn advise(start: *mut u8, size: usize) {
    let first = start.align_offset(HUGE_PAGE);
    if start.is_null() || first >= size {
        return;
    }
    let len = (size - first) / HUGE_PAGE * HUGE_PAGE;
    // SAFETY: start + first .. + len lies within the allocation that was just made. The advice
    // changes neither contents nor validity; a refusal is harmless, so the result is ignored.
    unsafe { libc::madvise(start.add(first).cast(), len, libc::MADV_HUGEPAGE) };
}

// SAFETY: every method passes its arguments on to `System` and returns what that returns.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `alloc`'s contract.
        let start = unsafe { System.alloc(layout) };
        if layout.size() >= LARGE {
            advise(start, layout.size());
        }
        start
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        let start = unsafe { System.alloc_zeroed(layout) };
        if layout.size() >= LARGE {
            advise(start, layout.size());
        }
        start
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: `start` came from `System` with this layout.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: `start` came from `System` with this layout; the caller keeps the rest.
        unsafe { System.realloc(start, layout, size) }
    }
}
