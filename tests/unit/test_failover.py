import pytest

from jsync.failover import WHOLE, Failover, Instance, parse_fifo_line


def test_a_node_of_a_cluster_is_backup_until_keepalived_says_master() -> None:
    seen: list[Instance] = []
    failover = Failover(alone=False, changed=seen.append)
    assert failover.role == "backup"
    failover.notify("GROUP", "jsync", "MASTER", 200)
    assert failover.role == "primary"
    failover.notify("GROUP", "jsync", "FAULT", 200)
    assert failover.role == "backup"
    assert [instance.state for instance in seen] == ["MASTER", "FAULT"]


def test_a_script_that_was_overtaken_tells_nothing() -> None:
    failover = Failover(alone=False)
    failover.notify("GROUP", "jsync", "BACKUP", 200, (500, 41))
    failover.notify("GROUP", "jsync", "MASTER", 200, (500, 40))
    assert failover.role == "backup"
    # It was newer than all that is known of another group.
    failover.notify("GROUP", "other", "MASTER", 200, (500, 40))
    assert failover.role == "primary"
    failover.notify("GROUP", "other", "FAULT", 200, (501, 3))
    assert failover.role == "backup"
    # One that doesn't say when it began is taken as it comes.
    failover.notify("GROUP", "jsync", "MASTER", 200)
    assert failover.role == "primary"


def test_a_node_alone_is_primary_unless_keepalived_speaks() -> None:
    failover = Failover(alone=True)
    assert failover.role == "primary"
    failover.notify("INSTANCE", "VI_1", "BACKUP", 100)
    assert failover.role == "backup"


def test_one_master_among_several_instances_is_enough() -> None:
    failover = Failover(alone=False)
    failover.notify("INSTANCE", "VI_4", "MASTER", 100)
    failover.notify("INSTANCE", "VI_6", "BACKUP", 100)
    assert failover.is_primary


def test_each_slice_has_its_master() -> None:
    failover = Failover(alone=False, slices=[2, 1])
    assert failover.slices == {1: None, 2: None}
    failover.notify("GROUP", "jsync-1", "MASTER", 250)
    failover.notify("GROUP", "jsync-2", "BACKUP", 225)
    assert failover.slices == {1: "MASTER", 2: "BACKUP"}
    assert failover.held == {1}
    assert failover.role == "primary"
    failover.notify("GROUP", "jsync-2", "MASTER", 225)
    failover.notify("GROUP", "jsync-1", "FAULT", 250)
    assert failover.held == {2}
    failover.notify("GROUP", "jsync-2", "BACKUP", 225)
    assert failover.held == frozenset()
    assert failover.role == "backup"


def test_a_slice_is_held_when_one_ip_version_has_come() -> None:
    failover = Failover(alone=False, slices=[1, 2])
    failover.notify("INSTANCE", "jsync6-1", "MASTER", 250)
    failover.notify("INSTANCE", "jsync4-1", "BACKUP", 250)
    assert failover.held == {1}


@pytest.mark.parametrize("name", ["jsync-3", "jsync", "jsync4", "VI_1", "jsync-1x", "-1"])
def test_what_moves_no_slice_of_ours_gives_none(name: str) -> None:
    failover = Failover(alone=False, slices=[1, 2])
    failover.notify("GROUP", name, "MASTER", 250)
    assert failover.held == frozenset()


def test_without_slices_pool4_is_held_as_a_whole() -> None:
    failover = Failover(alone=False)
    assert failover.held == frozenset()
    failover.notify("GROUP", "jsync-1", "MASTER", 250)
    assert failover.held == {WHOLE}
    assert failover.slices == {}


@pytest.mark.parametrize("state", ["MASTER_RX_LOWER_PRI", "MASTER_PRIORITY", "BACKUP_PRIORITY"])
def test_news_that_are_no_states_change_nothing(state: str) -> None:
    failover = Failover(alone=False)
    failover.notify("INSTANCE", "VI_1", "MASTER", 100)
    before = failover.instances
    failover.notify("INSTANCE", "VI_1", state, 90)
    assert failover.instances == before


def test_an_instance_that_is_deleted_holds_nothing() -> None:
    failover = Failover(alone=False)
    failover.notify("INSTANCE", "VI_1", "MASTER", 100)
    failover.notify("INSTANCE", "VI_1", "DELETED", 100)
    assert not failover.is_primary


def test_repeating_a_state_is_no_change() -> None:
    seen: list[Instance] = []
    failover = Failover(alone=False, changed=seen.append)
    for _ in range(3):
        failover.notify("INSTANCE", "VI_1", "BACKUP", 100)
    assert len(seen) == 1


@pytest.mark.parametrize("told", [("VRRP", "VI_1", "MASTER", 1), ("INSTANCE", "VI_1", "KING", 1)])
def test_refuses_what_keepalived_never_says(told: tuple[str, str, str, int]) -> None:
    failover = Failover(alone=False)
    with pytest.raises(ValueError, match=r"neither|none of"):
        failover.notify(*told)
    assert failover.instances == []


def test_reads_lines_of_the_fifo() -> None:
    assert parse_fifo_line('INSTANCE "VI 1" MASTER 100\n') == ("INSTANCE", "VI 1", "MASTER", 100)
    assert parse_fifo_line("VS [192.0.2.1]:tcp:80 UP\n") is None
    assert parse_fifo_line("") is None
