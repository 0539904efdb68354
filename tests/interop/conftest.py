"""The machines, for all tests here: they boot once."""

from collections.abc import Iterator

import build
import pytest
from traffic import Server
from world import JoolNode, World


@pytest.fixture(scope="package")
def everything() -> Iterator[World]:
    """Two running machines, for all tests."""
    if reason := build.why_not():
        pytest.skip(f"no machine with Jool: {reason}")
    try:
        with World() as world:
            yield world
    except build.CannotBuild as error:
        pytest.skip(f"no machine with Jool: {error}")


@pytest.fixture
def world(everything: World) -> World:
    """The machines, with new and empty instances."""
    everything.reset()
    return everything


@pytest.fixture(params=["old", "new"])
def jool(world: World, request: pytest.FixtureRequest) -> JoolNode:
    """Each of the Jools."""
    node: JoolNode = getattr(world, request.param)
    return node


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    with Server(world) as made:
        yield made
