"""Ray for whoever runs trials first: started, or joined, once."""

from contextlib import ExitStack

from orchestrator.sweep.resources import Machine


class RaySession:
    """A Ray that is there from its first use to the end of an exit stack.

    A cluster is joined at once, since it may not be there; one of this machine is started when
    there is something to run.
    """

    def __init__(self, stack: ExitStack, address: str | None) -> None:
        self._stack, self._address = stack, address
        self._machine = None if address is None else self._enter()

    def joined(self) -> Machine:
        """Return what there is to run on, in the cluster that was joined."""
        assert self._machine is not None  # an address was given
        return self._machine

    def start(self) -> None:
        """Have a Ray to run on."""
        if self._machine is None:
            self._machine = self._enter()

    def _enter(self) -> Machine:
        from orchestrator.sweep.sweep import ray_session

        return self._stack.enter_context(ray_session(self._address))
