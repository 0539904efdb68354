//! Active/active without VRRP, packets spread over the nodes by chance: what each mode promises.

use jsync_core::sync::Durability;
use jsync_sim::clock::millis;
use jsync_sim::modes::{Figures, Mode, play};

fn run(nodes: usize, durability: Durability, pull: bool, death: bool, seed: u64) -> Figures {
    let mode = Mode { durability, pull, death, flows: 60, ..Mode::new(nodes) };
    let figures = play(mode, seed);
    assert_eq!(figures.violations, Vec::<String>::new(), "{mode}, seed {seed}");
    assert!(figures.tcp >= 60, "{mode}");
    figures
}

#[test]
fn async_alone_loses_the_first_packets_of_connections() {
    for nodes in [2, 3] {
        let figures = run(nodes, Durability::Async, false, false, 1);
        assert!(figures.repeated > 10, "{figures:?}");
        assert!(figures.singles.1 > 10, "{figures:?}");
        // TCP tries again, and no port is given away twice meanwhile.
        assert_eq!(figures.failed, 0, "{figures:?}");
    }
}

#[test]
fn with_acked_or_pull_no_connection_fails_or_waits_for_a_packet_to_be_sent_again() {
    for nodes in [2, 3] {
        for (durability, pull) in
            [(Durability::Acked, false), (Durability::Async, true), (Durability::Acked, true)]
        {
            for seed in 0..2 {
                let figures = run(nodes, durability, pull, false, seed);
                let told = format!("{nodes} {durability:?} {pull} {seed}: {figures:?}");
                assert_eq!((figures.failed, figures.repeated), (0, 0), "{told}");
                assert_eq!(figures.singles.1, 0, "{told}");
                // Three ways instead of one: there and back over the private network.
                assert!(figures.longest <= 600, "{told}");
            }
        }
    }
}

#[test]
fn lost_frames_hold_up_few_packets() {
    for seed in 0..2 {
        let mode = Mode { durability: Durability::Acked, loss: 200, flows: 100, ..Mode::new(3) };
        let figures = play(mode, seed);
        let (held, late) = figures.held;
        assert!(held > 400 && late * 20 < held, "{figures:?}");
        assert_eq!((figures.failed, figures.violations.len()), (0, 0), "{figures:?}");
    }
}

#[test]
fn where_acks_take_long_nothing_is_said_twice() {
    let acked = Mode { durability: Durability::Acked, flows: 100, ..Mode::new(3) };
    let frames = |delay| play(Mode { delay, ..acked }, 1).frames;
    assert!(frames(millis(12)) < frames(100) * 1.1, "{} {}", frames(millis(12)), frames(100));
}

#[test]
fn a_dead_nodes_connections_go_on_at_the_others() {
    for seed in 0..2 {
        let figures = run(3, Durability::Acked, true, true, seed);
        assert_eq!(figures.failed, 0, "{figures:?}");
        // What waited inside it died with it.
        assert!(figures.repeated <= 1 && figures.singles.1 <= 1, "{figures:?}");
        assert!(figures.held.1 > 0, "a dead peer costs acked-timeout: {figures:?}");
    }
}
