"""When servers gather, and how long a learning step is."""

from typing import Self

from byzsgd.cluster import Cluster


def learning_rate(cluster: Cluster, step: int) -> float:
    """eta_t: constant, or eta / (1 + t / tau) with a decay of tau steps."""
    tau = cluster.learning_rate_decay_steps
    return cluster.learning_rate / (1 + step / tau) if tau else cluster.learning_rate


class Gathers:
    """The steps that begin with a gather: the multiples of T, where there are peers to gather."""

    def __init__(self, period: int, n_servers: int) -> None:
        self.period = period
        """T: learning steps between two gathers, at least 1."""
        self._alone = n_servers == 1

    @classmethod
    def of(cls, cluster: Cluster, estimate: int | None) -> Self:
        """Those of a cluster.

        Args:
            cluster: The cluster file's content.
            estimate: T, where the cluster file says "auto".
        """
        period = cluster.gather_period if estimate is None else estimate
        assert isinstance(period, int), "gather_period is auto: the caller estimates it"
        return cls(period, cluster.n_servers)

    def __contains__(self, step: int) -> bool:
        return step > 0 and step % self.period == 0 and not self._alone

    def after(self, step: int) -> int:
        """The first gather step after a step."""
        return (step // self.period + 1) * self.period
