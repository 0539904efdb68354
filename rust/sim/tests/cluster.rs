//! What a cluster must do, one scene a test. The random ones are in `schedules.rs`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use jsync_core::stats::Counter;
use jsync_core::table::{SessionKey, State};
use jsync_sim::clock::{Micros, millis, seconds};
use jsync_sim::cluster::{Cluster, N4, N6, Setup, Side};
use jsync_sim::flow::Pace;
use jsync_sim::network::Link;
use jsync_sim::tcp;
use jsync_sim::vrrp::Role;

const SLOW: Pace = Pace { interval: seconds(1000), chunk: 64 };
const BRISK: Pace = Pace { interval: millis(100), chunk: 64 };

fn running(setup: &Setup) -> Cluster {
    let mut cluster = Cluster::new(setup).unwrap();
    cluster.start_all().unwrap();
    let all_in = |c: &Cluster| c.machines().iter().all(|m| m.role() != Role::Fault);
    assert!(cluster.wait(seconds(10), all_in), "not all are ready");
    assert!(cluster.wait(seconds(5), |c| c.current_masters() == [0]), "J isn't MASTER");
    cluster
}

fn remote(setup: &Setup, port: u16) -> SocketAddr {
    SocketAddr::new(setup.nat64.pool6.embed(N4).into(), port)
}

/// `count` UDP flows from `first` on, of which each is a session. They send once.
fn open_udp(cluster: &mut Cluster, setup: &Setup, first: u16, count: u16, pace: Pace) {
    for number in first..first + count {
        let local = SocketAddr::new(N6.into(), number);
        let remote = remote(setup, 7000);
        cluster.on_host(Side::Six, |host, now| host.open_udp(now, local, remote, pace));
    }
}

fn open_tcp(cluster: &mut Cluster, setup: &Setup, port: u16) -> u64 {
    let local = SocketAddr::new(N6.into(), port);
    let remote = remote(setup, 7001);
    cluster.on_host(Side::Four, |host, _| host.listen(7001));
    cluster.on_host(Side::Six, |host, now| host.connect(now, local, remote, BRISK))
}

fn states(cluster: &Cluster, machine: usize) -> BTreeMap<SessionKey, State> {
    cluster.table(machine).into_iter().map(|(key, record)| (key, record.state)).collect()
}

fn assert_equal(cluster: &Cluster, sessions: usize) {
    let first = states(cluster, 0);
    assert_eq!(first.len(), sessions);
    for machine in 1..cluster.machines().len() {
        assert_eq!(states(cluster, machine), first, "machine {machine}");
    }
    assert_eq!(cluster.violations, [""; 0]);
}

fn count(cluster: &Cluster, machine: usize, counter: Counter) -> u64 {
    cluster.machines()[machine].node().unwrap().nat64().stats.value(counter)
}

fn wide_pool(mut setup: Setup) -> Setup {
    setup.nat64.pool4[0].ports = "10000-65535".parse().unwrap();
    setup
}

#[test]
fn tables_are_equal_soon_after_the_last_packet_with_2_3_and_8_nodes() {
    for nodes in [2, 3, 8] {
        let setup = Setup { skewed: true, ..Setup::new(nodes, nodes as u64) };
        let mut cluster = running(&setup);
        open_udp(&mut cluster, &setup, 20_000, 100, SLOW);
        let keys: Vec<u64> = (0..50).map(|n| open_tcp(&mut cluster, &setup, 30_000 + n)).collect();
        cluster.run_for(seconds(1));
        for (index, &key) in keys.iter().enumerate() {
            cluster.on_host(Side::Six, |host, now| match index % 3 {
                0 => host.close(now, key),
                1 => host.abort(key),
                _ => {}
            });
        }
        cluster.run_for(millis(400));
        cluster.on_host(Side::Six, |host, _| host.pause());
        cluster.on_host(Side::Four, |host, _| host.pause());
        // A wire, a flush deadline of 5 ms, a wire: no time for anything but the first telling.
        cluster.run_for(millis(10));
        assert_equal(&cluster, 150);
        let reached: Vec<_> = states(&cluster, nodes - 1).into_values().collect();
        for state in [State::Established, State::Trans, State::V4FinV6FinRcv] {
            assert!(reached.contains(&state), "{nodes} nodes, {state:?}");
        }
    }
}

#[test]
fn who_joins_gets_5000_sessions_while_traffic_flows() {
    for loss in [0, 200] {
        let setup = wide_pool(Setup::new(3, 1));
        let mut cluster = Cluster::new(&setup).unwrap();
        cluster.start(0).unwrap();
        assert!(cluster.wait(seconds(5), |c| c.current_masters() == [0]));
        open_udp(&mut cluster, &setup, 10_000, 5000, SLOW);
        cluster.run_for(millis(10));
        assert_eq!(cluster.table(0).len(), 5000);
        cluster.network.links().for_each(|link| *link = Link { loss, ..Link::good() });
        cluster.start(1).unwrap();
        cluster.start(2).unwrap();
        let mut port = 40_000;
        while !(cluster.machines()[1].ready() && cluster.machines()[2].ready()) {
            assert!(cluster.now() < seconds(20), "they never get ready");
            open_udp(&mut cluster, &setup, port, 1, SLOW);
            port += 1;
            cluster.run_for(millis(1));
        }
        let sessions = 5000 + usize::from(port - 40_000);
        assert!(sessions > 5000);
        // What J knew when they asked, they have when they say so; the last few are on their way.
        assert!(cluster.table(1).len() >= 5000 && cluster.table(2).len() >= 5000);
        cluster.run_for(if loss == 0 { millis(10) } else { seconds(5) });
        assert_equal(&cluster, sessions);
    }
}

#[test]
fn killing_the_primary_loses_nothing_that_was_told() {
    for seed in 0..5 {
        let setup = Setup::new(3, seed);
        let mut cluster = running(&setup);
        let keys: Vec<u64> = (0..40).map(|n| open_tcp(&mut cluster, &setup, 30_000 + n)).collect();
        open_udp(&mut cluster, &setup, 20_000, 40, BRISK);
        cluster.run_for(seconds(1));
        let told = states(&cluster, 1);
        assert_eq!(told.len(), 80);
        cluster.kill(0);
        cluster.run_for(seconds(3));
        assert_eq!(cluster.current_masters(), [1]);
        for machine in [1, 2] {
            let left = states(&cluster, machine);
            assert!(told.keys().all(|key| left.contains_key(key)), "machine {machine}");
        }
        let since = cluster.now() - seconds(1);
        for key in keys {
            for side in [Side::Six, Side::Four] {
                let end = cluster.host(side).connection(key).unwrap();
                assert_eq!((end.state(), end.corrupt), (tcp::State::Established, 0));
                assert!(end.received.last > since, "a connection is stuck");
            }
        }
    }
}

#[test]
fn a_wrong_key_learns_nothing_and_is_counted() {
    let setup = Setup::new(3, 1);
    let mut cluster = Cluster::new(&setup).unwrap();
    cluster.set_keys(2, vec![[7; 32]]);
    cluster.start_all().unwrap();
    assert!(cluster.wait(seconds(10), |c| c.current_masters().contains(&0)));
    open_udp(&mut cluster, &setup, 20_000, 100, SLOW);
    cluster.run_for(seconds(5));
    assert_eq!([cluster.table(0).len(), cluster.table(1).len()], [100, 100]);
    assert_eq!(cluster.table(2).len(), 0, "the intruder has learnt something");
    for machine in 0..3 {
        assert!(count(&cluster, machine, Counter::FrameAuthentication) > 0, "machine {machine}");
    }
    // Nor do the others know anything of it but that somebody has no key.
    let now = jsync_core::time::Time::from_millis(cluster.now() / 1000);
    let peers = |machine: usize| cluster.machines()[machine].node().unwrap().peers(now).count();
    assert_eq!([peers(0), peers(1), peers(2)], [1, 1, 0]);
}

#[test]
fn who_restarts_has_a_new_epoch_and_gets_everything_again() {
    let setup = Setup::new(2, 1);
    let mut cluster = running(&setup);
    open_udp(&mut cluster, &setup, 20_000, 200, SLOW);
    cluster.run_for(seconds(1));
    for _ in 0..3 {
        cluster.kill(1);
        // Sooner than anyone notices its death.
        cluster.run_for(millis(50));
        cluster.start(1).unwrap();
        assert!(!cluster.machines()[1].ready());
        assert!(cluster.wait(seconds(5), |c| c.machines()[1].ready()), "it never gets ready");
        assert_equal(&cluster, 200);
    }
    let starts = |line: &&jsync_sim::cluster::LogLine| line.text.starts_with("starts in epoch");
    let mut epochs: Vec<_> = cluster.log.iter().filter(starts).map(|line| &line.text).collect();
    epochs.sort();
    epochs.dedup();
    assert_eq!(epochs.len(), 5);
    // Frames of an earlier epoch are worth nothing.
    let frames: Vec<_> = cluster.network.recorded.iter().cloned().collect();
    let replayed = count(&cluster, 0, Counter::FrameReplayed);
    let recorded = frames.len() as u64;
    frames.into_iter().for_each(|frame| cluster.inject(0, frame));
    cluster.run_for(millis(1));
    assert!(count(&cluster, 0, Counter::FrameReplayed) > replayed);
    assert!(recorded > 20, "{recorded}");
    assert_equal(&cluster, 200);
}

#[test]
fn who_returns_is_not_master_before_it_has_the_sessions() {
    let setup = wide_pool(Setup::new(3, 4));
    let mut cluster = running(&setup);
    open_udp(&mut cluster, &setup, 10_000, 3000, SLOW);
    cluster.run_for(seconds(1));
    cluster.power_off(0);
    assert!(cluster.wait(seconds(5), |c| c.current_masters() == [1]));
    // Its way back is slow, so that the snapshot takes its time.
    cluster.network.links().for_each(|link| link.delay = millis(150)..=millis(150));
    cluster.power_on(0).unwrap();
    let mut was_ready: Option<Micros> = None;
    while cluster.current_masters() != [0] {
        assert!(cluster.now() < seconds(30), "it never takes over");
        assert_eq!(cluster.current_masters(), [1], "the virtual addresses were left alone");
        if cluster.machines()[0].ready() {
            was_ready.get_or_insert(cluster.now());
            assert_eq!(cluster.table(0).len(), 3000, "ready without all sessions");
        }
        cluster.run_for(millis(1));
    }
    assert!(was_ready.is_some_and(|at| at < cluster.now()));
    cluster.run_for(seconds(1));
    assert_equal(&cluster, 3000);
}

#[test]
fn both_halves_of_a_partition_agree_when_it_heals() {
    let setup = Setup::new(4, 2);
    let mut cluster = running(&setup);
    open_udp(&mut cluster, &setup, 20_000, 50, SLOW);
    cluster.run_for(seconds(1));
    let across = [(0, 2), (0, 3), (1, 2), (1, 3)];
    across.iter().for_each(|&(a, b)| cluster.network.cut(a, b, true));
    open_udp(&mut cluster, &setup, 21_000, 50, SLOW);
    cluster.run_for(seconds(5));
    let sizes: Vec<_> = (0..4).map(|machine| cluster.table(machine).len()).collect();
    assert_eq!(sizes, [100, 100, 50, 50]);
    // The half without the MASTER takes over, and makes sessions that the other doesn't hear of.
    cluster.kill(0);
    cluster.kill(1);
    assert!(cluster.wait(seconds(5), |c| c.current_masters() == [2]));
    cluster.run_for(millis(10));
    open_udp(&mut cluster, &setup, 22_000, 50, SLOW);
    cluster.run_for(seconds(5));
    across.iter().for_each(|&(a, b)| cluster.network.cut(a, b, false));
    cluster.start(0).unwrap();
    cluster.start(1).unwrap();
    cluster.run_for(seconds(5));
    assert_equal(&cluster, 100);
    assert_eq!(cluster.current_masters(), [0]);
}

/// Flows that both halves saw have two mappings, and with so few ports some of those exclude yet
/// others: one refused for a mapping that gives way itself a moment later mustn't be forgotten.
#[test]
fn both_halves_of_a_partition_agree_on_every_mapping() {
    let differs = |seed| {
        let mut setup = Setup { ecmp: true, ..Setup::new(2 + seed as usize % 2, seed) };
        setup.nat64.pool4[0].ports = "61001-61014".parse().unwrap();
        let mut cluster = Cluster::new(&setup).unwrap();
        cluster.start_all().unwrap();
        cluster.run_for(seconds(5));
        let nodes = setup.nodes;
        (1..nodes).for_each(|other| cluster.network.cut(0, other, true));
        cluster.run_for(seconds(3));
        for number in 0..12 {
            open_udp(&mut cluster, &setup, 30_000 + number, 1, BRISK);
            cluster.run_for(millis(20));
        }
        cluster.run_for(seconds(3));
        cluster.on_host(Side::Six, |host, _| host.pause());
        cluster.run_for(seconds(1));
        (1..nodes).for_each(|other| cluster.network.cut(0, other, false));
        cluster.run_for(seconds(10));
        (1..nodes).any(|machine| states(&cluster, machine) != states(&cluster, 0))
    };
    let differing: Vec<u64> = (0..100).filter(|&seed| differs(seed)).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

#[test]
fn a_long_flow_costs_no_update_per_packet() {
    let setup = Setup::new(2, 1);
    let mut cluster = running(&setup);
    open_udp(&mut cluster, &setup, 20_000, 10, Pace { interval: millis(10), chunk: 64 });
    cluster.run_for(seconds(1));
    let translated =
        |c: &Cluster| count(c, 0, Counter::Translated6to4) + count(c, 0, Counter::Translated4to6);
    let before = (translated(&cluster), count(&cluster, 0, Counter::UpdatesSent));
    cluster.run_for(seconds(600));
    let packets = translated(&cluster) - before.0;
    let updates = count(&cluster, 0, Counter::UpdatesSent) - before.1;
    // 10 flows, one refresh in 75 s each.
    assert_eq!(packets, 2 * 10 * 100 * 600);
    assert!((10..=90).contains(&updates), "{updates} updates for {packets} packets");
    // And the copies live as long as the flows do.
    assert_equal(&cluster, 10);
}

#[test]
fn sessions_end_everywhere_when_their_time_is_over() {
    let setup = Setup { skewed: true, ..Setup::new(3, 6) };
    let mut cluster = running(&setup);
    open_udp(&mut cluster, &setup, 20_000, 20, SLOW);
    let n4 = remote(&setup, 0).ip();
    cluster.on_host(Side::Six, |host, now| host.ping(now, IpAddr::from(N6), n4, 9, SLOW));
    cluster.run_for(seconds(59));
    assert_equal(&cluster, 21);
    cluster.run_for(seconds(3));
    assert_equal(&cluster, 20);
    // The owner dies: then the copies' own timers rule, with a quarter on top.
    cluster.kill(0);
    cluster.run_for(seconds(300 - 64));
    assert_eq!([1, 2].map(|machine| cluster.table(machine).len()), [20, 20]);
    cluster.run_for(seconds(80));
    assert_eq!([1, 2].map(|machine| cluster.table(machine).len()), [0, 0]);
}

#[test]
fn who_was_cut_off_learns_what_it_has_missed_before_it_takes_over() {
    for seed in 0..10 {
        let setup = Setup::new(2, seed);
        let mut cluster = running(&setup);
        cluster.unplug(0);
        assert!(cluster.wait(seconds(2), |c| c.current_masters() == [1]));
        cluster.run_for(seconds(2) + seed * millis(37));
        open_udp(&mut cluster, &setup, 20_000, 50, SLOW);
        cluster.run_for(seconds(1));
        assert_eq!([0, 1].map(|machine| cluster.table(machine).len()), [0, 50]);
        cluster.plug_in(0);
        assert!(cluster.wait(seconds(5), |c| c.current_masters() == [0]));
        assert_equal(&cluster, 50);
    }
}

/// An hour apart: what was missed is told again, and of connections that were idle all the while
/// only those are sent that share a bucket with one that differs.
#[test]
fn after_an_hours_partition_only_what_differs_travels() {
    let setup = Setup { skewed: true, ..Setup::new(3, 7) };
    let mut cluster = running(&setup);
    for port in 20_000..20_200 {
        open_tcp(&mut cluster, &setup, port);
    }
    cluster.run_for(seconds(2));
    for side in [Side::Six, Side::Four] {
        cluster.on_host(side, |host, _| host.pause());
    }
    // What came after they were told first is told when a quarter of their timeout is over.
    cluster.run_for(seconds(2000));
    assert_equal(&cluster, 200);
    [0, 1].into_iter().for_each(|other| cluster.network.cut(2, other, true));
    cluster.run_for(seconds(1800));
    for port in 30_000..30_020 {
        open_tcp(&mut cluster, &setup, port);
    }
    cluster.run_for(seconds(1800));
    assert_eq!([0, 1, 2].map(|machine| cluster.table(machine).len()), [220, 220, 200]);
    let counters = [Counter::SnapshotSent, Counter::UpdatesSent];
    let sent = |c: &Cluster| -> u64 {
        (0..3).flat_map(|machine| counters.map(|counter| count(c, machine, counter))).sum()
    };
    let before = sent(&cluster);
    [0, 1].into_iter().for_each(|other| cluster.network.cut(2, other, false));
    cluster.run_for(seconds(5));
    assert_equal(&cluster, 220);
    let sent = sent(&cluster) - before;
    assert!((20..100).contains(&sent), "{sent} records for 20 of 220 sessions");
}
