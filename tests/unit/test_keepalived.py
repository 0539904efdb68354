import pytest

from jsync import config
from jsync.errors import Failure
from jsync.keepalived import KeepalivedSection, VirtualAddresses, generate, slice_priority

BASE = """\
[nat64]
pool6 = "64:ff9b::/96"
[[nat64.pool4]]
prefix = "192.0.2.1"
"""


def read(section: str) -> KeepalivedSection:
    settings = config.parse(BASE + section, "jsync.toml")
    assert settings.keepalived is not None
    return settings.keepalived


def conf(section: KeepalivedSection, control: str | None = None) -> str:
    return generate(
        section, node=1, router_id="J", device="jsync0", command="/bin/jsync", control=control
    )


def section(fifo: str | None = None) -> KeepalivedSection:
    return KeepalivedSection(
        priority=250,
        ipv6=VirtualAddresses("to6", ["fe80::64/64", "2001:db8::1/96"]),
        ipv4=VirtualAddresses("to4", ["192.0.2.1/24"]),
        fifo=fifo,
    )


def test_reads_the_section() -> None:
    found = read(
        """
        [keepalived]
        priority = 250
        [keepalived.ipv6]
        interface = "to6"
        addresses = ["fe80::64/64", "2001:db8::1/96"]
        [keepalived.ipv4]
        interface = "to4"
        addresses = ["192.0.2.1/24"]
        """
    )
    assert found == section()


def test_one_group_moves_both_versions_and_tracks_daemon_and_readiness() -> None:
    text = conf(section())
    assert "group {\n        jsync6\n        jsync4\n    }" in text
    assert "        jsync0\n" in text
    assert 'script "/bin/jsync check"' in text
    assert "    init_fail\n" in text
    assert 'notify "/bin/jsync notify"' in text
    assert "enable_script_security" in text


def test_one_version_alone() -> None:
    text = conf(KeepalivedSection(priority=1, ipv4=VirtualAddresses("to4", ["192.0.2.1/24"])))
    assert "jsync4" in text
    assert "jsync6" not in text


def test_scripts_find_a_daemon_elsewhere() -> None:
    text = conf(section(), control="/run/other.sock")
    assert 'script "/bin/jsync check --control /run/other.sock"' in text
    assert 'notify "/bin/jsync notify --control /run/other.sock"' in text


def test_a_fifo_replaces_the_notify_script() -> None:
    text = conf(section(fifo="/run/jsync/keepalived.fifo"))
    assert "    vrrp_notify_fifo /run/jsync/keepalived.fifo\n" in text
    assert "    notify " not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("priority = 255", "jsync.toml:6: keepalived.priority: .*254"),
        ("priority = 1", "jsync.toml:5: keepalived: name virtual addresses"),
        ("priority = 1\nadvert-int = 41", "jsync.toml:7: keepalived.advert-int: .*40.95"),
        ("priority = 1\nadvert_int = 1", "jsync.toml:7: .*did you mean 'advert-int'"),
        (
            'priority = 1\n[keepalived.ipv4]\ninterface = "a"\naddresses = ["fe80::1/64"]',
            r"jsync.toml:9: keepalived.ipv4.addresses\[0\]: .*not an IPv4 address",
        ),
        (
            'priority = 1\n[keepalived.ipv6]\ninterface = "a"\naddresses = ["2001:db8::1/64"]',
            r"jsync.toml:9: keepalived.ipv6.addresses\[0\]: the first .* link-local",
        ),
        (
            'priority = 1\n[keepalived.ipv6]\ninterface = "a"\naddresses = []',
            "jsync.toml:9: keepalived.ipv6.addresses: name at least one",
        ),
        (
            'priority = 1\n[keepalived.ipv4]\ninterface = "a"\naddresses = ["192.0.2.1/33"]',
            r"keepalived.ipv4.addresses\[0\]: '192.0.2.1/33' is not an IP address",
        ),
    ],
)
def test_names_line_and_remedy_of_a_mistake(text: str, message: str) -> None:
    with pytest.raises(Failure, match=message):
        read(f"[keepalived]\n{text}\n")


def test_where_the_kernel_translates_there_is_no_device_to_track() -> None:
    text = generate(section(), node=1, router_id="J", device=None, command="/bin/jsync")
    assert "track_interface" not in text
    assert "    track_script {\n        jsync_check\n    }\n" in text


ACTIVE = """\
[node]
name = "J"
id = 1
[nat64]
[[nat64.pool4]]
prefix = "192.0.2.1"
node = 1
[[nat64.pool4]]
prefix = "192.0.2.2"
node = 2
[sync]
cluster = "c"
plaintext = true
interface = "priv"
[keepalived]
[[keepalived.slice]]
node = 1
ipv6 = { interface = "to6", addresses = ["fe80::64/64", "2001:db8::1/96"] }
ipv4 = { interface = "to4", addresses = ["192.0.2.1/24"] }
[[keepalived.slice]]
node = 2
ipv6 = { interface = "to6", addresses = ["fe80::65/64", "2001:db8::2/96"] }
ipv4 = { interface = "to4", addresses = ["192.0.2.2/24"] }
"""


def active(node: int) -> str:
    settings = config.parse(ACTIVE.replace("id = 1", f"id = {node}"), "jsync.toml")
    assert settings.keepalived is not None
    return generate(
        settings.keepalived, node=node, router_id="J", device="jsync0", command="/bin/jsync"
    )


def blocks(text: str, kind: str) -> dict[str, str]:
    """The blocks of a kind, by name."""
    parts = text.split(f"\n{kind} ")[1:]
    return {part.split(" ", 1)[0]: part.partition("\n}")[0] for part in parts}


def test_each_slice_moves_by_itself_in_opposite_priorities() -> None:
    one, two = active(1), active(2)
    for text in (one, two):
        groups = blocks(text, "vrrp_sync_group")
        assert list(groups) == ["jsync-1", "jsync-2"]
        assert "        jsync6-2\n        jsync4-2\n" in groups["jsync-2"]
        assert all("        jsync0\n" in group for group in groups.values())
        assert all('notify "/bin/jsync notify"' in group for group in groups.values())
        instances = blocks(text, "vrrp_instance")
        for name, id in (("6-1", 64), ("4-1", 64), ("6-2", 65), ("4-2", 65)):
            assert f"virtual_router_id {id}\n" in instances[f"jsync{name}"]
        assert "2001:db8::2/96\n" in instances["jsync6-2"]
    for text, high, low in ((one, "1", "2"), (two, "2", "1")):
        instances = blocks(text, "vrrp_instance")
        for version in "64":
            assert "priority 250\n" in instances[f"jsync{version}-{high}"]
            assert "priority 225\n" in instances[f"jsync{version}-{low}"]
    assert "belongs to node 1, this one" in one
    assert "belongs to node 2. If that dies, node 1 takes" in one


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 50, 192])
def test_every_node_has_another_priority_for_a_slice(count: int) -> None:
    nodes = [7 * n + 3 for n in range(count)]
    for owner in nodes:
        priorities = [slice_priority(owner, node, nodes) for node in nodes]
        assert len(set(priorities)) == count
        assert max(priorities) == slice_priority(owner, owner, nodes) == 250
        assert min(priorities) >= 50
    first_heirs = [sorted(nodes, key=lambda n: -slice_priority(o, n, nodes))[1:2] for o in nodes]
    assert len({tuple(heir) for heir in first_heirs}) == count


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[keepalived]",
            "[keepalived]\npriority = 1",
            r"jsync.toml:16: keepalived.priority: .*rem",
        ),
        (
            "[keepalived]",
            '[keepalived]\nipv4 = { interface = "a", addresses = ["192.0.2.1/24"] }',
            r"jsync.toml:16: keepalived.ipv4: stands in each",
        ),
        (
            "[keepalived]",
            "[keepalived]\nvirtual-router-id = 255",
            "jsync.toml:16: keepalived.virtual-router-id: .*would have 256",
        ),
        (
            "[[keepalived.slice]]\nnode = 2",
            "[[keepalived.slice]]\nnode = 1",
            r"jsync.toml:21: keepalived.slice\[1\].node: node 1 has a slice already",
        ),
        (
            "[[keepalived.slice]]\nnode = 2",
            "[[keepalived.slice]]\nnode = 3",
            r"jsync.toml:10: nat64.pool4\[1\].node: there is no .* of node 2",
        ),
        ("id = 1", "id = 3", "jsync.toml:5: nat64.pool4: .*give node 3 a slice too"),
        (
            'prefix = "192.0.2.2"\nnode = 2',
            'prefix = "192.0.2.2"',
            r"jsync.toml:8: nat64.pool4\[1\]: needs node = N",
        ),
        (
            "fe80::65/64",
            "fe80::64/64",
            r"slice\[1\].ipv6.addresses\[0\]: .*slice of node 1 already",
        ),
        (
            '"192.0.2.2/24"',
            '"192.0.2.3/24", "192.0.2.1/24"',
            r"slice\[1\].ipv4.addresses\[1\]: 192.0.2.1 moves with the slice of node 1",
        ),
        ("fe80::65/64", "2001:db8::9/64", r"slice\[1\].ipv6.addresses\[0\]: .*link-local"),
        (
            'ipv4 = { interface = "to4", addresses = ["192.0.2.2/24"] }',
            "ipv5 = 1",
            r"keepalived.slice\[1\].ipv5: unknown key; did you mean 'ipv6'",
        ),
        ('{ interface = "to4",', '{ face = "to4",', r"slice\[0\].ipv4.*'interface'"),
        (
            '[sync]\ncluster = "c"\nplaintext = true\ninterface = "priv"\n',
            "",
            r"keepalived.slice: needs \[sync\]",
        ),
    ],
)
def test_names_line_and_remedy_of_a_mistake_about_slices(old: str, new: str, message: str) -> None:
    assert old in ACTIVE
    with pytest.raises(Failure, match=message):
        config.parse(ACTIVE.replace(old, new, 1), "jsync.toml")


def test_a_slice_has_the_addresses_that_its_ports_are_of() -> None:
    text = ACTIVE.replace('prefix = "192.0.2.1"', 'prefix = "192.0.2.7"').replace(
        'prefix = "192.0.2.2"', 'prefix = "192.0.2.1"'
    )
    with pytest.raises(Failure, match=r"slice\[0\].ipv4.*: 192.0.2.1 is in the slice of node 2"):
        config.parse(text, "jsync.toml")


def test_a_kernel_module_has_no_slices() -> None:
    text = ACTIVE.replace("id = 1", 'id = 1\nbackend = "jool"', 1)
    begin, end = text.index("[nat64]"), text.index("[sync]")
    with pytest.raises(Failure, match=r"keepalived\.slice: has no meaning with backend"):
        config.parse(text[:begin] + text[end:], "jsync.toml")
