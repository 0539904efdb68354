import pytest

from jsync.failover import Failover, Instance, parse_fifo_line


def test_a_node_of_a_cluster_is_backup_until_keepalived_says_master() -> None:
    seen: list[Instance] = []
    failover = Failover(alone=False, changed=seen.append)
    assert failover.role == "backup"
    failover.notify("GROUP", "jsync", "MASTER", 200)
    assert failover.role == "primary"
    failover.notify("GROUP", "jsync", "FAULT", 200)
    assert failover.role == "backup"
    assert [instance.state for instance in seen] == ["MASTER", "FAULT"]


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
