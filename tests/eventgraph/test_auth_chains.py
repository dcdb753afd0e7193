"""Walks over auth chains: what the definitions say, and no further than the conflict reaches."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from homeserver.eventgraph.auth_chains import auth_difference, conflicted_subgraph

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Graph = dict[int, list[int]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """What each event cites: events with lower numbers."""
    size = draw(st.integers(2, 30))
    return {
        number: draw(st.lists(st.integers(max(1, number - 8), number - 1), max_size=3, unique=True))
        if number > 1
        else []
        for number in range(1, size)
    }


@st.composite
def conflicts(draw: st.DrawFn) -> tuple[Graph, list[set[int]], set[int]]:
    """A graph, the conflicted events of some states, and what all states have."""
    graph = draw(graphs())
    numbers = st.sampled_from(sorted(graph))
    unconflicted = draw(st.sets(numbers, max_size=6))
    states = draw(st.lists(st.sets(numbers, max_size=4), min_size=2, max_size=4))
    return graph, [state - unconflicted for state in states], unconflicted


def run(walk: Any, graph: Mapping[int, Sequence[int]]) -> tuple[set[int], int, int]:
    """The outcome of a walk, the number of its questions, and the number of events that it asked for."""
    questions = asked = 0
    try:
        question = next(walk)
        while True:
            questions += 1
            asked += len(question.numbers)
            question = walk.send({number: graph[number] for number in question.numbers})
    except StopIteration as finished:
        return finished.value, questions, asked


def chain(graph: Mapping[int, Sequence[int]], numbers: set[int]) -> set[int]:
    """By definition: the events and all that they rest on."""
    found: set[int] = set()
    ahead = list(numbers)
    while ahead:
        number = ahead.pop()
        if number not in found:
            found.add(number)
            ahead += graph[number]
    return found


@given(conflicts())
def test_the_auth_difference_is_what_is_in_some_chains_but_not_in_all(conflict):
    graph, states, unconflicted = conflict
    chains = [chain(graph, state | unconflicted) for state in states]
    expected = reduce(set.union, chains) - reduce(set.intersection, chains)
    assert run(auth_difference(states, unconflicted), graph)[0] == expected


@given(graphs(), st.data())
def test_the_subgraph_is_what_lies_on_the_paths_between_conflicted_events(graph, data):
    conflicted = data.draw(st.sets(st.sampled_from(sorted(graph)), min_size=1, max_size=5))
    below = chain(graph, conflicted)
    expected = {number for number in below if chain(graph, {number}) & conflicted}
    assert run(conflicted_subgraph(conflicted), graph)[0] == expected


def test_the_walk_ends_where_the_branches_meet():
    # A member list of 50,000 on one long chain; two events on top of it, of which one cites something new.
    size = 50_000
    graph = {number: [number - 1] if number > 1 else [] for number in range(1, size)}
    graph[size] = [size - 1]
    graph[size + 1] = [size]
    unconflicted = set(range(1, size, 2))
    difference, questions, asked = run(auth_difference([{size + 1}, {size - 2}], unconflicted), graph)
    assert difference == {size, size + 1}
    assert questions < 10
    assert asked < 500


def test_long_chains_are_walked_once():
    for size in (2_000, 20_000):
        graph = {number: [number - 1] if number > 1 else [] for number in range(1, size)}
        difference, _, asked = run(auth_difference([{size - 1}, {1}], set()), graph)
        assert len(difference) == size - 2
        assert asked <= size
        between, _, asked = run(conflicted_subgraph({1, size - 1}), graph)
        assert len(between) == size - 1
        assert asked <= size


def test_wide_graphs_are_asked_for_in_few_batches():
    size = 20_000
    graph: Graph = {1: []}
    graph |= {number: [1] for number in range(2, size)}
    difference, questions, asked = run(auth_difference([set(range(2, size)), {1}], set()), graph)
    assert len(difference) == size - 2
    assert questions <= 2 * size // 128
    assert asked <= size
