"""Pictures laid out in space: inputs, spike maps and attention maps over time."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ..attention_maps import AttentionMap
from .plots import BLUE, GREY, GRID, RED, few_ticks, new_figure, new_grid, short_name, styled

__all__ = ["event_image", "image_for_display", "plot_attention", "plot_images", "plot_spike_maps"]


def event_image(frame: np.ndarray) -> np.ndarray:
    """Colour one event frame: red where it got brighter (ON), blue where darker (OFF), white where nothing happened.

    Args:
        frame: event counts `(2, H, W)`, OFF before ON.

    Returns:
        RGB in [0, 1], `(H, W, 3)`; the 99th percentile of the active pixels is the full colour.
    """
    counts = np.abs(np.asarray(frame, dtype=np.float32))
    active = counts[counts > 0]
    strength = np.clip(counts / (np.percentile(active, 99) if active.size else 1.0), 0, 1) ** 0.6
    off, on = strength[0][..., None], strength[1][..., None]
    ink = off * (1 - np.array(to_rgb(BLUE))) + on * (1 - np.array(to_rgb(RED)))
    return np.clip(1 - ink, 0, 1)


def image_for_display(image: np.ndarray, mean: Sequence[float] | None = None, std: Sequence[float] | None = None):
    """Turn a normalised image `(C, H, W)` into what `imshow` takes: `(H, W)` or `(H, W, 3)` in [0, 1].

    Args:
        mean: what normalisation subtracted, per channel; without it the image is stretched to its own range.
        std: what it divided by.
    """
    image = np.asarray(image, dtype=np.float32)
    if mean is not None and std is not None:
        image = image * np.asarray(std, dtype=np.float32)[:, None, None] + np.asarray(mean, np.float32)[:, None, None]
    else:
        image = (image - image.min()) / max(float(np.ptp(image)), 1e-8)
    image = np.clip(image, 0, 1)
    return image.transpose(1, 2, 0)[..., :3] if len(image) >= 3 else image[0]


@styled
def plot_spike_maps(
    inputs: Sequence[np.ndarray], maps: Mapping[str, np.ndarray], figure: Figure | None = None
) -> Figure:
    """Draw what goes in over time, and below it where each layer fires; of more than eight steps, some are shown.

    Args:
        inputs: one displayable picture per step, `(H, W)` or `(H, W, 3)`.
        maps: layer to firing rate averaged over channels, `(T, h, w)`.
    """
    return _draw_over_steps(inputs, {short_name(name, 22): rates for name, rates in maps.items()}, 0, figure)[0]


@styled
def plot_attention(inputs: Sequence[np.ndarray], maps: Sequence[AttentionMap], figure: Figure | None = None) -> Figure:
    """Draw attention maps below the input over time, the last of them over the input too, and say what is shown.

    Args:
        inputs: one displayable picture per step, `(H, W)` or `(H, W, 3)`.
        maps: at least one; heads are averaged.
    """
    lines = {f"{short_name(each.name, 16)}\n{each.label}": each.values.mean(1) for each in maps}
    figure, shown, axes = _draw_over_steps(inputs, lines, 1, figure)
    last = maps[-1].values.mean(1)
    strength = (last - last.min()) / max(float(np.ptp(last)), 1e-8)
    for step, ax in zip(shown, axes[0], strict=False):
        _draw_input(ax, inputs[step])
        _veil(ax, strength[step], inputs[step].shape[:2])
    axes[0, 0].set_ylabel("input behind\nthe last map", fontsize=7)
    facts = [f"{label}: {what}." for label, what in dict.fromkeys((each.label, each.what) for each in maps)]
    heads = " Maps are means over heads." if any(each.values.shape[1] > 1 for each in maps) else ""
    facts.append(f"Last line: the input shows through where the last map is strong.{heads}")
    wide = int(18 * figure.get_figwidth())
    figure.supxlabel("\n".join(line for fact in facts for line in textwrap.wrap(fact, wide)), fontsize=7.5,
                     x=0.02, ha="left")  # fmt: skip
    return figure


def _draw_over_steps(
    inputs: Sequence[np.ndarray], lines: Mapping[str, np.ndarray], spare: int, figure: Figure | None
) -> tuple[Figure, list[int], np.ndarray]:
    """Draw inputs and, below, a line of maps `(T, h, w)` for each name, or of what there is for fewer steps; return the
    shown steps and the spare axes."""
    shown = few_ticks(len(inputs))
    count = len(lines) + 1 + spare
    figure = figure or new_figure(1.35 * len(shown) + 0.9, 1.35 * count + 0.4)
    widths = [1.0] * len(shown) + [0.05]
    grid = figure.subplots(count, len(shown) + 1, squeeze=False, width_ratios=widths)
    for step, ax in zip(shown, grid[0], strict=False):
        _draw_input(ax, inputs[step])
        ax.set_title(f"step {step + 1}", fontsize=9, loc="center")
    for (name, maps), line in zip(lines.items(), grid[1:], strict=False):
        peak = float(np.max(maps)) or 1.0
        for step, ax in zip(shown, line, strict=False):
            if step < len(maps):
                drawn = ax.imshow(maps[step], cmap="magma", vmin=0, vmax=peak, interpolation="nearest")
            else:
                ax.set_axis_off()
        figure.colorbar(drawn, cax=line[-1]).outline.set_visible(False)
        line[-1].tick_params(labelsize=7, length=0)
        line[0].set_ylabel(name, fontsize=7)
    grid[0, 0].set_ylabel("input", fontsize=7)
    for ax in grid[:, :-1].flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color(GRID)  # white event frames need an edge
        ax.spines[:].set_visible(True)
    for ax in (grid[0, -1], *grid[count - spare :, -1]):
        ax.set_axis_off()
    return figure, shown, grid[count - spare :]


def _draw_input(ax: Axes, image: np.ndarray) -> None:
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _veil(ax: Axes, strength: np.ndarray, size: tuple[int, int]) -> None:
    """Hide a picture of `size` in grey, the less the higher `strength`, `(h, w)` in [0, 1], is there."""
    colour = np.broadcast_to(to_rgb(GREY), (*strength.shape, 3))
    veil = np.concatenate([colour, 0.95 * (1 - strength[..., None])], axis=-1)
    ax.imshow(veil, extent=(-0.5, size[1] - 0.5, size[0] - 0.5, -0.5), interpolation="nearest")


@styled
def plot_images(images: Sequence[np.ndarray], titles: Sequence[str] | None = None) -> Figure:
    """Draw displayable pictures in a grid.

    Args:
        images: `(H, W)` or `(H, W, 3)` each, in [0, 1].
        titles: one short line above each.
    """
    columns = min(8, max(1, int(np.ceil(np.sqrt(len(images) * 1.6)))))
    lines = -(-len(images) // columns)
    figure = new_figure(1.25 * columns, (1.45 if titles else 1.25) * lines)
    for place, ax in enumerate(new_grid(figure, lines, columns).flat):
        ax.set_axis_off()
        if place < len(images):
            ax.imshow(images[place], cmap="gray", vmin=0, vmax=1)
            if titles:
                ax.set_title(titles[place], fontsize=8, loc="center", pad=2)
    return figure
