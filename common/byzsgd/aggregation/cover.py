"""Small vertex covers of small graphs, exactly: sets of vertices are the bits of an int.

A vertex cover is a set of vertices that touches every edge. A subset of vectors has a diameter of
at most t exactly if the rest covers every pair farther apart than t, so finding a subset of small
diameter is finding a small cover. That is hard in general and easy here: what can be said of a
vertex by its degree, and of all of them by a linear program, leaves little to try.
"""

from collections.abc import Iterator, Sequence


def vertex_cover(adjacent: Sequence[int], alive: int, budget: int) -> int | None:
    """A vertex cover of at most ``budget`` vertices, or None if there is none.

    Args:
        adjacent: For each vertex the set of its neighbours; symmetric, no vertex its own.
        alive: The vertices that remain in the graph.
        budget: How many vertices the cover may have.

    Complexity: exponential in ``budget`` at worst; milliseconds for a hundred random vectors.
    """
    cover = 0
    while True:
        forced, alive = _forced(adjacent, alive, budget)
        cover |= forced
        budget -= forced.bit_count()
        if budget < 0:
            return None
        if not alive:
            return cover
        degrees = {vertex: (adjacent[vertex] & alive).bit_count() for vertex in bits(alive)}
        top = max(degrees, key=degrees.__getitem__)
        if sum(degrees.values()) > 2 * budget * degrees[top]:
            return None  # So many edges cannot be touched by so few vertices.
        if degrees[top] == 2:
            # Cycles alone are left, and every vertex of a cycle is in some smallest cover of it.
            taken = 1 << top
        else:
            matched, taken, undecided = _half_integral(adjacent, alive)
            if matched > 2 * budget:
                return None
            if undecided == alive:
                with_top = vertex_cover(adjacent, alive & ~(1 << top), budget - 1)
                if with_top is not None:
                    return cover | 1 << top | with_top
                taken = adjacent[top] & alive
            alive &= undecided
        cover |= taken
        budget -= taken.bit_count()
        alive &= ~taken


def bits(mask: int) -> Iterator[int]:
    """The members of a set, ascending."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _forced(adjacent: Sequence[int], alive: int, budget: int) -> tuple[int, int]:
    """Vertices that a cover within the budget may be taken to hold, and those still undecided.

    More than ``budget`` forced vertices say that there is no such cover.
    """
    forced = 0
    settled = False
    while not settled:
        settled = True
        for vertex in bits(alive):
            if not alive >> vertex & 1:
                continue  # Decided earlier in this round.
            near = adjacent[vertex] & alive
            degree = near.bit_count()
            if degree == 0:
                alive ^= 1 << vertex
                continue
            if degree > budget - forced.bit_count():
                taken = 1 << vertex  # Or else all its neighbours, which are too many.
            elif degree == 1:
                taken = near  # Touches whatever the vertex itself would.
            else:
                continue
            forced |= taken
            alive &= ~taken
            settled = False
    return forced, alive


def _half_integral(adjacent: Sequence[int], alive: int) -> tuple[int, int, int]:
    """Twice the least fractional cover, its vertices at one, and its vertices at a half.

    A fractional cover gives each vertex a number so that the two of every edge sum to at least 1.
    No cover is smaller than the least fractional one; that takes only 0, 1/2 and 1, and some
    smallest cover holds all its ones and none of its zeros (Nemhauser and Trotter). It is found
    as a smallest cover of the bipartite graph that has each vertex once on the left and once on
    the right, by a largest matching (Koenig).
    """
    left_of: dict[int, int] = {}
    right_of: dict[int, int] = {}

    def search(start: int) -> tuple[int | None, dict[int, int], list[int]]:
        """Breadth first along alternating paths: an unmatched right vertex, and what was met."""
        reached_from: dict[int, int] = {}
        lefts = [start]
        unseen = alive
        for left in lefts:
            fresh = adjacent[left] & unseen
            unseen ^= fresh
            for right in bits(fresh):
                reached_from[right] = left
                if right not in left_of:
                    return right, reached_from, lefts
                lefts.append(left_of[right])
        return None, reached_from, lefts

    for start in bits(alive):
        right, reached_from, _ = search(start)
        while right is not None:
            left = reached_from[right]
            following = right_of.get(left)
            left_of[right], right_of[left] = left, right
            right = following
    reached_left = reached_right = 0
    for start in bits(alive):
        if start not in right_of:
            _, reached_from, lefts = search(start)
            reached_left |= sum(1 << vertex for vertex in lefts)
            reached_right |= sum(1 << vertex for vertex in reached_from)
    ones = reached_right & ~reached_left
    zeros = reached_left & ~reached_right
    return len(left_of), ones, alive & ~ones & ~zeros
