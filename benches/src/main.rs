//! Measurements of the core, in memory and on one thread.
//!
//! `jsync-bench [PREFIX]` prints a JSON object a line for every measurement whose name begins with
//! PREFIX: name, value, unit, ceiling (measured in the same run) and ratio = value / ceiling.
//! `jsync-bench --count KIND` has packets of a kind translated, or sessions merged if it is `apply`,
//! and prints how many: see [`translate::count`].

mod flows;
mod memory;
mod report;
mod session;
mod sync;
mod translate;

use report::Report;

#[global_allocator]
static ALLOCATOR: jsync_io::alloc::HugePages = jsync_io::alloc::HugePages;

fn main() {
    let prefix = std::env::args().nth(1).unwrap_or_default();
    if prefix == "--count" {
        let kind = std::env::args().nth(2).unwrap_or_default();
        let count = if kind == "apply" { Some(sync::count()) } else { translate::count(&kind) };
        println!("{}", count.expect("a kind such as v6to4/udp64"));
        return;
    }
    if prefix == "--alone" {
        let mut args = std::env::args().skip(2);
        let mut next = || args.next().expect("a measurement, a size, a line's time and a prefix");
        let (what, size, line, prefix) = (next(), next(), next(), next());
        let line = line.parse().expect("a number of nanoseconds");
        session::run_alone(&mut Report::new(prefix), &what, &size, line);
        return;
    }
    let mut report = Report::new(prefix);
    report.print_memory();
    translate::run(&mut report);
    session::run(&mut report);
    sync::run(&mut report);
}
