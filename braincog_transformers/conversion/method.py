"""What a method of conversion is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_type_hints

from torch import Tensor, nn

from ..errors import unknown
from ..models.arguments import check_types
from .converted import Converted

__all__ = ["Known", "Method"]


@dataclass(frozen=True)
class Known:
    """How a method treats an operator, and where.

    Args:
        how: "spiking": neurons compute it, or what it reads are spikes; "analog": it is evaluated at each step, on what
            enters in the step or on running sums, and the audit lists it.
        within: classes of the module whose own code asks for it, or of the one around that; any if there are none.
    """

    how: Literal["spiking", "analog"]
    within: tuple[type, ...] = ()

    def covers(self, network: nn.Module, path: str) -> bool:
        """Tell whether this is said of an operator at a path."""
        around = {path, path.rpartition(".")[0]}
        return not self.within or any(isinstance(network.get_submodule(one), self.within) for one in around)


@dataclass(frozen=True)
class Method:
    """One published method.

    Args:
        name: as in `convert(ann, name)`.
        paper: where it is from.
        options: frozen dataclass of its options, with defaults.
        limit: builds the network that the spiking one approaches from a copy of the source: maps the copy, the options
            and the calibration data (a list of inputs, or None) to it. The result may be trained where `trains` is set.
        spiking: builds the spiking network from a copy of the limit: maps the copy, T, the options, the calibration
            data (or None) and the settings for the file to a `Converted`. Without data it has the thresholds that the
            limit holds, or some that loading a file replaces.
        trains: whether the limit is meant to be trained.
        calibrates: whether it needs calibration data, for the limit or for the spiking network.
        knows: the operators that are not linear and that it treats, by the names that `survey` gives, with how and
            where; `prepare` refuses all others. None for a method that checks its networks by itself.
        networks: classes of networks that it takes; any if there are none.
    """

    name: str
    paper: str
    options: type
    limit: Callable[[nn.Module, Any, list[Tensor] | None], nn.Module]
    spiking: Callable[[nn.Module, int, Any, list[Tensor] | None, dict[str, Any]], Converted]
    trains: bool = False
    calibrates: bool = True
    knows: Mapping[str, tuple[Known, ...]] | None = None
    networks: tuple[type[nn.Module], ...] = ()

    def chosen(self, given: dict[str, Any]) -> Any:
        """Return the options, checked by name and type; their dataclass checks the values.

        Raises:
            UserError: for a name that this method does not have, or a value of another type.
        """
        names = [field.name for field in fields(self.options)]
        for name in given:
            if name not in names:
                raise unknown(f"option of {self.name}", name, names)
        hints = get_type_hints(self.options)
        try:
            options = self.options(**given)
        except TypeError:  # a comparison with a value of another type
            check_types(self.name, hints, given)
            raise
        check_types(self.name, hints, given)
        return options
