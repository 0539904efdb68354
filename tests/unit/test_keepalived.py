import pytest

from jsync import config
from jsync.errors import Failure
from jsync.keepalived import KeepalivedSection, VirtualAddresses, generate

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
    return generate(section, router_id="J", device="jsync0", command="/bin/jsync", control=control)


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
    text = generate(section(), router_id="J", device=None, command="/bin/jsync")
    assert "track_interface" not in text
    assert "    track_script {\n        jsync_check\n    }\n" in text
