"""In which order a chain of rectangular factors is multiplied at least cost.

A chain of L factors is a convex polygon: its L + 1 interfaces are the vertices, weighted by their
widths, its factors and the product are the sides, and each way to parenthesise is a triangulation,
where a triangle costs the product of its three widths (Hu and Shing, Computation of matrix chain
products, parts I and II, SIAM J. Comput. 11, 1982 and 13, 1984; Schwartz and Weiss, Revisiting
"Computation of matrix chain products", SIAM J. Comput. 48, 2019, repair a proof).  What is used of
it: an optimal triangulation exists that consists of fans, each with its apex at the narrowest
vertex of its part, and the arcs between fans join vertices to the next narrower ones on either
side, so that they are the nodes of a tree.
"""

from heapq import heappop, heappush
from itertools import pairwise

NEVER = 1 << 200


def least_cost_order(widths, call_cost):
    """Least number of multiply-adds for a chain's product, and an order that takes no more.

    The order is given by `splits`: for each product (i, j) to be formed, F_{j-1} ... F_i, the
    interface k where it is split.  `call_cost` counts for each arc between fans, which is a product
    that does not continue another one by a factor at its end.  Widths are positive.

    Takes O(L log(L)^2) time at most.
    """
    n = len(widths)
    apex = narrowest(widths)
    order = [*range(apex, n), *range(apex), apex]
    arcs = _Arcs([int(widths[v]) for v in order], call_cost)
    splits = {}
    for path in arcs.fans():
        at, *rest = (order[v] for v in path)
        for pair in pairwise(rest):
            if at not in pair:
                i, k, j = sorted((at, *pair))
                splits[i, j] = k
    return arcs.least, splits


def fan_splits(n_layers, apex):
    """The order that joins layer after layer to what lies at one interface, in both directions."""
    splits = {(apex, j): j - 1 for j in range(apex + 2, n_layers + 1)}
    splits |= {(i, apex): i + 1 for i in range(apex - 1)}
    if 0 < apex < n_layers:
        splits[0, n_layers] = apex
    return splits


def narrowest(widths):
    """The narrowest interface: an end of the chain where there is a choice."""
    least = min(widths)
    if widths[0] == least:
        return 0
    return len(widths) - 1 if widths[-1] == least else widths.index(least)


class _Arcs:
    """The tree of arcs over a sequence of widths whose first and last are the least.

    An arc (l, r) has only wider vertices beneath it; the narrowest of these cut it into its
    children, other arcs or sides (None).  For an apex of width x outside of the arc, the part
    beneath and the fan from the apex cost

        G(x) = min(F + x w_l w_r, sum over the children of their G(x)),

    where F is the least cost of the part beneath by itself.  G is concave and piecewise linear, and
    x only falls on the way up the tree, so each arc holds the piece of its G that is valid at the
    largest x still of interest, and a heap of the points where the next pieces begin.
    """

    def __init__(self, widths, call_cost):
        self.widths = widths
        self.call_cost = call_cost
        self.cost: list = []  # F of each arc
        self.limit: list = []  # for apexes up to this wide the fan goes through the arc
        self.apex: list = []  # l or r
        self.points: list = []  # l, the narrowest vertices beneath, r
        self.children: list = []
        self._line: list = []  # intercept and slope of the current piece of G
        self._heap: list = []  # (-x, change of the intercept, change of the slope) at smaller x
        last = len(widths) - 1
        # Groups of equal vertices, ever wider: the child before them, the vertices, the children
        # between them.
        stack: list = [(None, [0], [])]
        for v in range(1, last + 1):
            child = None
            while widths[stack[-1][1][-1]] > widths[v]:
                before, vertices, between = stack.pop()
                child = self._add(
                    [stack[-1][1][-1], *vertices, v], [before, *between, child], v == last
                )
            if widths[stack[-1][1][-1]] == widths[v]:
                stack[-1][1].append(v)
                stack[-1][2].append(child)
            else:
                stack.append((child, [v], []))
        _, points, children = stack[0]
        if len(children) == 1:  # the arc from the narrowest vertex around to itself
            points, children = self.points[children[0]], self.children[children[0]]
        self.root = (points, children)
        # The cost of the whole: what lies beside the apex by itself, the rest seen from there.
        x = widths[0]
        self.least = 0
        for i, child in enumerate(children):
            if 0 < i < len(children) - 1:
                a, b = self._seen_from(child, x, points[i], points[i + 1])
                self.least += a + b * x
            elif child is not None:
                self.least += self.cost[child]

    def _add(self, points, children, is_last):
        """Enter the arc over `points`, whose children are all entered; its number."""
        widths = self.widths
        left, right = widths[points[0]], widths[points[-1]]
        x, own_slope = min(left, right), left * right
        # The first and the last vertex are one: the root's apex, kept where widths are equal.
        apex = points[0] if left < right or (left == right and not is_last) else points[-1]
        beside_apex = {0} if apex == points[0] else {len(children) - 1}
        if is_last and points[0] == 0:
            beside_apex = {0, len(children) - 1}
        cost = intercept = slope = 0
        heap: list = []
        for i, child in enumerate(children):
            a, b = self._seen_from(child, x, points[i], points[i + 1])
            if i not in beside_apex:
                cost += a + b * x
            if child is not None:
                if i in beside_apex:
                    cost += self.cost[child]
                other = self._heap[child]
                self._heap[child] = None
                if len(other) > len(heap):
                    heap, other = other, heap
                for point in other:
                    heappush(heap, point)
            intercept += a
            slope += b
        with_call = cost + self.call_cost
        while heap:  # points that lie beyond where this arc begins to pay are not seen any more
            at = 1 - heap[0][0]
            if intercept + slope * at <= with_call + own_slope * at:
                break
            _, a, b = heappop(heap)
            intercept, slope = intercept + a, slope + b
        # Sides of a triangle are wider than what it spans: slope > own_slope.
        limit = (with_call - intercept) // (slope - own_slope)
        if limit < x:
            heappush(heap, (-limit, intercept - with_call, slope - own_slope))
            intercept, slope = with_call, own_slope
        else:
            limit = NEVER
        self.cost.append(cost)
        self.limit.append(limit)
        self.apex.append(apex)
        self.points.append(points)
        self.children.append(children)
        self._line.append((intercept, slope))
        self._heap.append(heap)
        return len(self.cost) - 1

    def _seen_from(self, arc, x, left, right):
        """Intercept and slope of the G of an arc or side where it is valid at x."""
        if arc is None:
            return 0, self.widths[left] * self.widths[right]
        a, b = self._line[arc]
        heap = self._heap[arc]
        while heap and -heap[0][0] >= x:
            _, da, db = heappop(heap)
            a, b = a + da, b + db
        self._line[arc] = (a, b)
        return a, b

    def fans(self):
        """Apex and path of each fan of the least triangulation; the path begins or ends at it."""
        last = len(self.widths) - 1
        points, children = self.root
        waiting = [(0, points, children)]
        while waiting:
            apex, points, children = waiting.pop()
            path = [points[0]]
            parts = list(zip(children, points[1:], strict=True))[::-1]
            while parts:
                child, right = parts.pop()
                is_beside_apex = apex in (path[-1], right) or (apex, right) == (0, last)
                if child is None:
                    path.append(right)
                elif is_beside_apex or self.widths[apex] > self.limit[child]:
                    path.append(right)
                    waiting.append((self.apex[child], self.points[child], self.children[child]))
                else:
                    parts.extend(
                        zip(self.children[child][::-1], self.points[child][:0:-1], strict=True)
                    )
            yield apex, *path
