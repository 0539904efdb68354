//! Random schedules, as many as a test run affords; `make sim` plays more.

use jsync_core::mutant::Mutant;
use jsync_sim::schedule::{self, Script};

#[test]
fn invariants_hold() {
    for seed in 0..60 {
        let outcome = schedule::play(seed, None);
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
    }
}

#[test]
fn scripts_hold() {
    for script in Script::ALL {
        let outcome = script.play(None);
        assert!(outcome.violations.is_empty(), "{script}: {:#?}", outcome.violations);
    }
}

/// The invariants bite: whatever is broken on purpose shows. What each mutant breaks is told where
/// they are defined.
#[test]
fn every_mutant_is_caught() {
    for &mutant in Mutant::ALL {
        assert!(schedule::catches(mutant, 200).is_some(), "{mutant:?}");
    }
}

#[test]
fn a_seed_decides_everything() {
    for seed in [3, 4] {
        assert_eq!(schedule::play(seed, None), schedule::play(seed, None));
    }
    assert_ne!(schedule::play(3, None).log, schedule::play(4, None).log);
}
