"""How a run may end other than well: stopped by the user, or by numbers that are no longer finite."""

__all__ = ["Interrupted", "NonFiniteLoss"]


class Interrupted(Exception):
    """The user asked to stop; the run is saved and the message says how to go on.

    The command line prints the message and exits with status 130.
    """


class NonFiniteLoss(ArithmeticError):
    """An input, a weight, a gradient or the loss is infinite or not a number; the message names it.

    The command line prints the message and exits with status 1.
    """
