"""Builds machines that have a real Jool, from Debian's packages alone.

A machine is a kernel and an initramfs of what Jool, jsync and the tests use. A suite's tree of
unpacked packages, never configured, is where the kernel modules are compiled and the files come
from; it and the initramfs are kept in the user's cache. jsync itself and the Python packages that
it uses are a second archive behind the first.
"""

import fcntl
import gzip
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from machine import NICE
from packaging.requirements import Requirement

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SUITES = {"bookworm": "4.1.9", "trixie": "4.1.13"}
"""Debian's suites, and their Jool."""

_BASE = """
    base-files bash coreutils dash findutils grep gzip libc-bin mawk sed xz-utils
"""
_BUILD = "linux-image-cloud-amd64 linux-headers-cloud-amd64 jool-dkms kmod make gcc libc6-dev"
_RUN = "jool-tools busybox-static iproute2 iputils-ping nftables tcpdump python3"
_PROGRAMS = "dash jool joold ip ping nft tcpdump tc ss"
_MODULES = """
    virtio_pci virtio_net virtio_console virtio_rng veth tun nf_conntrack nf_defrag_ipv4
    nf_defrag_ipv6 nf_tables nft_limit nft_numgen x_tables nlmon
"""
_LIBRARIES = """
    libpthread.so.0 librt.so.1 libdl.so.2 libutil.so.1 libgcc_s.so.1 libm.so.6
"""
"""What Python packages are linked with, and no program here."""
_UNUSED = """
    test idlelib tkinter turtledemo lib2to3 ensurepip __pycache__
"""
_MIRROR = "JSYNC_DEBIAN_MIRROR"


class CannotBuild(Exception):
    """Why there is no machine."""


def cache() -> Path:
    """Where machines are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jsync" / "interop"


def why_not() -> str:
    """Why no machine can be built or run here; empty if one can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [p for p in ("mmdebstrap", "qemu-system-x86_64", "cpio") if not shutil.which(p)]
    return f"needs {', '.join(missing)} (contrib/debian-packages)" if missing else ""


def machine(suite: str) -> tuple[Path, Path]:
    """Kernel and initramfs of a suite's machine, built unless they are in the cache.

    Raises CannotBuild.
    """
    cache().mkdir(parents=True, exist_ok=True)
    with open(cache() / f"{suite}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _machine(suite)


def _machine(suite: str) -> tuple[Path, Path]:
    tree = cache() / f"{suite}-tree-{_digest(_BASE, _BUILD, _RUN)}"
    if not tree.exists():
        _forget(f"{suite}-*")
        part = cache() / f"{suite}-part"
        _unpack(suite, part)
        part.rename(tree)
    sources = [Path(__file__), *sorted((HERE / "guest").iterdir())]
    home = cache() / f"{suite}-machine-{_digest(*(path.read_text() for path in sources))}"
    if not (home / "done").exists():
        _forget(f"{suite}-machine-*")
        home.mkdir()
        # /lib is a link to /usr/lib in later suites only.
        kernel = next(
            iter(
                [
                    *tree.glob("lib/modules/*-cloud-amd64"),
                    *tree.glob("usr/lib/modules/*-cloud-amd64"),
                ]
            )
        )
        modules = _compile_jool(tree, kernel.name)
        _collect(tree, home / "root", kernel, modules)
        _archive(home / "root", home / "base.gz")
        image = tree / "boot" / f"vmlinuz-{kernel.name}"
        shutil.copy(image if image.exists() else kernel / "vmlinuz", home / "vmlinuz")
        shutil.rmtree(home / "root")
        (home / "done").touch()
    _pack_jsync(tree, home)
    with open(home / "initrd.gz", "wb") as initrd:
        # The kernel unpacks one archive after the other.
        for part in (home / "base.gz", home / "jsync.gz"):
            initrd.write(part.read_bytes())
    return home / "vmlinuz", home / "initrd.gz"


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _forget(pattern: str) -> None:
    for old in cache().glob(pattern):
        if old.is_dir():
            shutil.rmtree(old)


def _run(argv: list[str], **options: object) -> str:
    done = subprocess.run(
        [*NICE, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-20:])
        raise CannotBuild(f"{' '.join(argv[:3])} … failed:\n{tail}")
    return str(done.stdout)


def _mirror() -> str:
    """The Debian archive that apt uses here."""
    if named := os.environ.get(_MIRROR):
        return named
    with suppress(FileNotFoundError):
        found = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
        for line in found.splitlines():
            if "security" not in line:
                return line
    raise CannotBuild(f"apt knows no Debian archive here; name one: {_MIRROR}")


def _unpack(suite: str, tree: Path) -> None:
    packages = [*_BASE.split(), *_BUILD.split(), *_RUN.split()]
    _run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=extract",
            "--mode=root",
            "--format=directory",
            f"--include={','.join(packages)}",
            suite,
            str(tree),
            _mirror(),
        ]
    )
    awk = tree / "usr/bin/awk"  # an alternative, which nothing here has set up
    if not awk.is_symlink():
        awk.symlink_to("mawk")


def _inside(tree: Path, *argv: str) -> str:
    """Run a program of the tree in the tree."""
    return _run(
        [
            *("unshare", "--mount", "sh", "-c"),
            'mount -t proc none "$0/proc" && exec chroot "$0" /usr/bin/env -i'
            ' PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ "$@"',
            str(tree),
            *argv,
        ]
    )


def _compile_jool(tree: Path, kernel: str) -> list[Path]:
    source = next((tree / "usr/src").glob("jool-*")) / "src" / "mod"
    headers = f"/usr/src/linux-headers-{kernel}"
    for part in ("common", "nat64"):
        there = f"/{(source / part).relative_to(tree)}"
        cores = str(os.cpu_count() or 1)
        # With what debuggers want to know a module is forty times as large.
        without = ("KCFLAGS=-g0", "CONFIG_DEBUG_INFO_BTF_MODULES=")
        _inside(tree, "make", "-s", "-j", cores, "-C", headers, f"M={there}", *without, "modules")
    return [source / "common/jool_common.ko", source / "nat64/jool.ko"]


def _collect(tree: Path, root: Path, kernel: Path, modules: list[Path]) -> None:
    """Copy what the machine needs out of the tree."""
    for name in ("proc", "sys", "dev", "tmp", "run", "root", "etc", "usr/bin", "usr/lib64"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    busybox = _program(tree, "busybox")
    shutil.copy(busybox, root / "usr/bin/busybox")
    for applet in _run([str(busybox), "--list"]).split():
        if applet != "busybox":
            (root / "usr/bin" / applet).symlink_to("busybox")
    # Where the kernel looks for it, when it wants a module itself.
    (root / "usr/sbin/modprobe").symlink_to("../bin/busybox")
    elves = [_program(tree, name) for name in _PROGRAMS.split()]
    for elf in elves:
        _replace(elf, root / "usr/bin" / elf.name)
    # busybox's own shell would prefer its applets to the programs.
    (root / "usr/bin/sh").unlink()
    (root / "usr/bin/sh").symlink_to("dash")
    python = _collect_python(tree, root)
    libraries = [
        next(tree.glob(f"usr/lib/x86_64-linux-gnu/{name}"), None)
        or next(tree.glob(f"lib/x86_64-linux-gnu/{name}"))
        for name in _LIBRARIES.split()
    ]
    dynamic = next((root / "usr/lib").glob("python3.*/lib-dynload"))
    inner = [
        python.parent.parent / "lib" / dynamic.parent.name / "lib-dynload" / path.name
        for path in dynamic.glob("*.so")
    ]
    _collect_libraries(tree, root, [*elves, python, *libraries, *inner])
    _collect_modules(tree, root, kernel, modules)
    shutil.copy(HERE / "guest/init", root / "init")
    (root / "init").chmod(0o755)
    shutil.copy(HERE / "guest/agent.py", root / "agent.py")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")


def _program(tree: Path, name: str) -> Path:
    for directory in ("usr/bin", "usr/sbin", "bin", "sbin"):
        if (path := tree / directory / name).exists():
            return path
    raise CannotBuild(f"the packages have no program {name}")


def _replace(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    shutil.copy(source, target)


def _collect_python(tree: Path, root: Path) -> Path:
    """Python with its standard library, as bytecode too: an emulated machine is slow at that."""
    python = (tree / "usr/bin" / os.readlink(tree / "usr/bin/python3")).resolve()
    shutil.copy(python, root / "usr/bin" / python.name)
    (root / "usr/bin/python3").symlink_to(python.name)
    library = root / "usr/lib" / python.name
    shutil.copytree(
        tree / "usr/lib" / python.name,
        library,
        symlinks=True,
        ignore=shutil.ignore_patterns(*_UNUSED.split(), "config-*", "*.a", "dist-packages"),
    )
    for link in library.rglob("*"):  # to files in /etc that make no difference
        if link.is_symlink() and not link.exists():
            link.unlink()
    (root / "usr/lib/python3/dist-packages").mkdir(parents=True)
    _compile_python(tree, library, f"/usr/lib/{python.name}")
    return python


def _compile_python(tree: Path, library: Path, name: str) -> None:
    """Write bytecode for a library, with the tree's Python."""
    work = tree / "tmp/library"
    shutil.rmtree(work, ignore_errors=True)
    shutil.move(library, work)
    try:
        _inside(
            tree,
            *("python3", "-I", "-m", "compileall", "-q", "-j0", "-s", "/tmp/library", "-p", name),
            *("--invalidation-mode", "unchecked-hash", "/tmp/library"),
        )
    finally:
        shutil.move(work, library)


def _collect_libraries(tree: Path, root: Path, elves: Iterable[Path]) -> None:
    """The shared libraries of programs and libraries, by the tree's own loader."""
    inside = [f"/{elf.relative_to(tree)}" for elf in elves]
    listed = _inside(
        tree,
        *("sh", "-c", 'for f; do /lib64/ld-linux-x86-64.so.2 --list "$f" || :; done', "sh"),
        *inside,
    )
    found = set(re.findall(r"(/\S+\.so[.\d]*) \(0x", listed))
    found |= {name for name in inside if re.search(r"/lib\w+\.so[.\d]*$", name)}
    for name in found | {"/lib64/ld-linux-x86-64.so.2"}:
        target = root / name.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(tree / name.removeprefix("/"), target)


def _collect_modules(tree: Path, root: Path, kernel: Path, modules: list[Path]) -> None:
    target = root / "usr/lib/modules" / kernel.name
    target.mkdir(parents=True)
    _inside(tree, "depmod", kernel.name)
    listed = _inside(
        tree,
        *("sh", "-c", 'v=$1; shift; for m; do modprobe -S "$v" --show-depends "$m" || :; done'),
        *("sh", kernel.name, *_MODULES.split()),
    )
    for name in set(re.findall(r"^insmod (\S+)", listed, re.MULTILINE)):
        source = tree / name.removeprefix("/")
        flat = target / source.name.removesuffix(".xz")
        if source.suffix == ".xz":
            with open(flat, "wb") as file:
                subprocess.run(["xz", "-dc", source], stdout=file, check=True)
        else:
            shutil.copy(source, flat)
    for module in modules:
        shutil.copy(module, target / module.name)
    for name in ("modules.builtin", "modules.builtin.modinfo"):
        with suppress(FileNotFoundError):
            shutil.copy(kernel / name, target / name)
    (target / "modules.order").touch()
    # The tree's depmod, which the tree's kernel fits.
    work = tree / "tmp/modules/lib/modules"
    shutil.rmtree(work.parents[1], ignore_errors=True)
    work.mkdir(parents=True)
    shutil.copytree(target, work / kernel.name)
    _inside(tree, "depmod", "-b", "/tmp/modules", kernel.name)
    shutil.rmtree(target)
    shutil.move(work / kernel.name, target)


def _pack_jsync(tree: Path, home: Path) -> None:
    """jsync as it is built here, and the packages that it uses, as an archive of their own."""
    version = re.sub(r"\D*(3)\.", r"\1.", os.readlink(tree / "usr/bin/python3"))
    packages = _packages(tree, home, version)
    target = home / "overlay"
    shutil.rmtree(target, ignore_errors=True)
    there = target / "usr/lib/python3/dist-packages"
    there.parent.mkdir(parents=True)
    shutil.copytree(packages, there)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "python/jsync", there / "jsync", ignore=ignore)
    _compile_python(tree, there / "jsync", "/usr/lib/python3/dist-packages/jsync")
    (target / "usr/bin").mkdir()
    script = target / "usr/bin/jsync"
    script.write_text(
        "#!/usr/bin/python3\nimport sys\nfrom jsync.cli import main\n\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    _archive(target, home / "jsync.gz")


def _packages(tree: Path, home: Path, python: str) -> Path:
    """The Python packages that jsync needs, in the versions of this environment."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [Requirement(text).name for text in project["dependencies"]]
    wanted = sorted(f"{name}=={importlib.metadata.version(name)}" for name in names)
    target = home / f"packages-{_digest(*wanted)}"
    if not target.exists():
        part = home / "packages.part"
        shutil.rmtree(part, ignore_errors=True)
        _run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(part)),
                *("--python-version", python, "--implementation", "cp", "--only-binary=:all:"),
                *("--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64"),
                *("--no-compile", "--disable-pip-version-check", *wanted),
            ]
        )
        _compile_python(tree, part, "/usr/lib/python3/dist-packages")
        part.rename(target)
    return target


def _archive(root: Path, target: Path) -> None:
    names = subprocess.run(["find", "."], cwd=root, capture_output=True, check=True).stdout
    archive = subprocess.run(
        ["cpio", "--create", "--format=newc", "--quiet"],
        cwd=root,
        input=names,
        capture_output=True,
        check=True,
    ).stdout
    target.write_bytes(gzip.compress(archive, compresslevel=3))


if __name__ == "__main__":
    for name in sys.argv[1:] or SUITES:
        print(*machine(name))
