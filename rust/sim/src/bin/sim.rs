//! `sim N` plays N random schedules and those that are written down, and looks whether the mutants
//! are caught. `sim --seed S` and `sim --script NAME` play one schedule and tell all that happens;
//! with `--follow TEXT` also what becomes of the sessions that contain the text, say `#20001`.
//! `sim modes` shows what connections notice of active/active in each mode.

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use jsync_core::mutant::Mutant;
use jsync_sim::modes;
use jsync_sim::schedule::{self, Outcome, Script};

/// Schedules that may be played until a mutant is caught.
const SEARCH: u64 = 1000;
/// Schedules between two words about how far it is.
const PROGRESS: u64 = 1000;
const USAGE: &str = "usage: sim SCHEDULES [FIRST-SEED] | \
    sim --seed SEED | --script NAME [--follow SESSION] | sim modes [SEED]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    match *arguments {
        ["--seed", seed] => number(seed).map(|seed| tell(&schedule::play(seed, None))),
        ["--seed", seed, "--follow", text] => {
            number(seed).map(|seed| tell(&schedule::play(seed, Some(text))))
        }
        ["--script", name] => script(name).map(|script| tell(&script.play(None))),
        ["--script", name, "--follow", text] => {
            script(name).map(|script| tell(&script.play(Some(text))))
        }
        ["modes"] => Some(show_modes(0)),
        ["modes", seed] => number(seed).map(show_modes),
        [count] => number(count).map(|count| play(count, 0)),
        [count, first] => number(count).zip(number(first)).map(|(count, first)| play(count, first)),
        _ => None,
    }
    .unwrap_or_else(|| {
        eprintln!("{USAGE}");
        ExitCode::from(2)
    })
}

fn script(name: &str) -> Option<Script> {
    Script::ALL.into_iter().find(|script| script.to_string() == name)
}

fn show_modes(seed: u64) -> ExitCode {
    let rows: Vec<_> =
        modes::all().into_iter().map(|mode| (mode, modes::play(mode, seed))).collect();
    print!("{}", modes::table(&rows));
    let violated = rows.iter().any(|(_, figures)| !figures.violations.is_empty());
    ExitCode::from(u8::from(violated))
}

fn play(count: u64, first: u64) -> ExitCode {
    let failed = AtomicU64::new(0);
    let played = AtomicU64::new(0);
    for script in Script::ALL {
        if let Some(violation) = script.play(None).violations.first() {
            failed.fetch_add(1, Ordering::Relaxed);
            println!("script {script}: {violation}");
        }
    }
    share(count, |number| {
        let seed = first + number;
        if let Some(violation) = schedule::play(seed, None).violations.first() {
            failed.fetch_add(1, Ordering::Relaxed);
            println!(
                "seed {seed}: {violation}\n    \
                 replay: cargo run --release -p jsync-sim --bin sim -- --seed {seed}"
            );
        }
        let played = played.fetch_add(1, Ordering::Relaxed) + 1;
        if played.is_multiple_of(PROGRESS) && played < count {
            let failed = failed.load(Ordering::Relaxed);
            eprintln!("{played} of {count} schedules, {failed} of them with violations");
        }
    });
    let caught = AtomicU64::new(0);
    let mutants = Mutant::ALL.len() as u64;
    share(mutants, |number| {
        let mutant = Mutant::ALL[number as usize];
        match schedule::catches(mutant, SEARCH) {
            Some(catch) => {
                caught.fetch_add(1, Ordering::Relaxed);
                println!("{mutant:?}: caught by {catch}");
            }
            None => println!("{mutant:?}: not caught by {SEARCH} schedules"),
        }
    });
    let (failed, caught) = (failed.into_inner(), caught.into_inner());
    println!("schedules={count} violations={failed} mutants_caught={caught}/{mutants}");
    ExitCode::from(u8::from(failed > 0 || caught < mutants))
}

/// Does `work` for each number below `count`, on all processors.
fn share(count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    work(number);
                }
            });
        }
    });
}

fn tell(outcome: &Outcome) -> ExitCode {
    println!("{}", outcome.plan);
    for line in &outcome.log {
        let name = char::from(b'J' + line.machine as u8);
        println!("{:>14.3} ms  {name}  {}", line.at as f64 / 1000.0, line.text);
    }
    for violation in &outcome.violations {
        println!("VIOLATION {violation}");
    }
    println!("schedules=1 violations={}", outcome.violations.len().min(1));
    ExitCode::from(u8::from(!outcome.violations.is_empty()))
}
