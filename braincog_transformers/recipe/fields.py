"""How an option is declared: a dataclass field whose metadata the parser, the recipes, the checks and the runs read."""

from dataclasses import field
from typing import Any

__all__ = ["FACTS", "option"]

FACTS: dict[str, Any] = {
    "aliases": (),
    "choices": (),
    "low": None,
    "above": None,
    "high": None,
    "count": (),
    "repeats": False,
    "empty": False,
    "named": "",
    "saved": True,
    "kinds": (),
    "needs": "",
    "numbers": True,
    "refused": "",
}
"""What is known of an option beside its help text, with what holds where a declaration says nothing."""


def option(default: Any, text: str, *aliases: str, **facts: Any) -> Any:
    """Declare one option.

    Args:
        default: value when neither the recipe nor the command line sets it.
        text: help text; says what the option does.
        aliases: further spellings on the command line, dashes included.
        **facts: any of
            choices: allowed values; empty for any.
            low, above, high: smallest allowed value, bound that the value has to exceed, largest allowed value.
            count: allowed numbers of values of an option that takes several; empty for one or more.
            repeats: whether an option that takes several may be given several times on the command line.
            empty: whether an empty text means something, as it does wherever it is the default.
            named: what a text names ("name a recipe"); an empty one on the command line is then a mistake, since it is
                mostly a variable that a script has not set.
            saved: whether the option belongs into `args.yaml`, and counts when two sets of options are compared.
            kinds: kinds of data ("image", "event", "sequence") that the option is for; empty for all.
            needs: option without which this one has no effect.
            numbers: whether it may change a number of a training. What says where files lie, how fast results come or
                what is shown does not, so that a run may be resumed with another value of it.
            refused: why any value but the default is refused.

    Raises:
        TypeError: for a fact of another name.
    """
    if other := facts.keys() - FACTS.keys():
        raise TypeError(f"option() got unexpected facts: {', '.join(sorted(other))}")
    facts = {**FACTS, **facts, "help": text, "aliases": aliases}
    return field(default=default, metadata=facts, compare=facts["saved"])
