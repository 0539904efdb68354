//! `sim N` plays N random schedules, `sim --seed S` plays one and tells all that happens; with
//! `--follow TEXT` also what becomes of the sessions that contain the text, say `#20001`.
//! `sim modes` shows what connections notice of active/active in each mode.

use std::process::ExitCode;

use jsync_core::mutant::Mutant;
use jsync_sim::{modes, schedule};

/// Schedules that may be played until a mutant is caught.
const SEARCH: u64 = 1000;
const USAGE: &str = "usage: sim SCHEDULES [FIRST-SEED] | sim --seed SEED [--follow SESSION] | \
    sim modes [SEED]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    match *arguments {
        ["--seed", seed] => number(seed).map(|seed| replay(seed, None)),
        ["--seed", seed, "--follow", text] => number(seed).map(|seed| replay(seed, Some(text))),
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

fn show_modes(seed: u64) -> ExitCode {
    let rows: Vec<_> =
        modes::all().into_iter().map(|mode| (mode, modes::play(mode, seed))).collect();
    print!("{}", modes::table(&rows));
    let violated = rows.iter().any(|(_, figures)| !figures.violations.is_empty());
    ExitCode::from(u8::from(violated))
}

fn play(count: u64, first: u64) -> ExitCode {
    let mut failed = 0;
    for seed in first..first + count {
        let outcome = schedule::play(seed, None);
        if let Some(violation) = outcome.violations.first() {
            failed += 1;
            println!("seed {seed}: {violation}");
            println!("    replay: cargo run --release -p jsync-sim --bin sim -- --seed {seed}");
        }
    }
    let caught = Mutant::ALL.iter().filter(|&&mutant| match schedule::catches(mutant, SEARCH) {
        Some(seed) => {
            println!("{mutant:?}: caught by seed {seed}");
            true
        }
        None => {
            println!("{mutant:?}: not caught by {SEARCH} schedules");
            false
        }
    });
    let (caught, mutants) = (caught.count(), Mutant::ALL.len());
    println!("schedules={count} violations={failed} mutants_caught={caught}/{mutants}");
    ExitCode::from(u8::from(failed > 0 || caught < mutants))
}

fn replay(seed: u64, follow: Option<&str>) -> ExitCode {
    let outcome = schedule::play(seed, follow);
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
