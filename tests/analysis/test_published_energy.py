"""The energy columns of the papers, row by row: what comes out of our counts, and what cannot.

Firing rates were published for no network layer by layer. What was: Spikingformer's totals of accumulates (its tool's
logs), Spikformer's operations, and for Spike-driven Transformer and its second version the mean rates that their
columns imply. With these, our own counts must give the column.

Not reproducible: Spikformer's energies recomputed by Spikingformer's authors (12.43, 18.82, 32.07 mJ: the weights were
never released); QKFormer's column and SGLFormer's plot (no rates, no operations); SpikingResformer's column is 0.9 pJ
times its accumulates, the first layer left out, which neither method does.
"""

from dataclasses import replace
from functools import cache

import pytest
import timm
import torch

from braincog_transformers.analysis.energy import EnergyRules, charge, count_by
from braincog_transformers.analysis.operations import Values

T = 4


@cache
def _counted(name, method):
    """Count one block and one step of a network for ImageNet; the rest are repetitions."""
    model = timm.create_model(name, step=1, **({} if name.startswith("sdt_v2") else {"depth": 1}))
    return count_by(method, model, [torch.rand(1, 3, 224, 224)])


def _with_rate(counted, rate, *, depth, steps):
    """Return what would be counted with more blocks and steps, and one rate at every input but the first layer's."""

    def at_rate(call):
        values = tuple(Values("binary", rate, rate, 1.0) for _ in call.operands)
        return replace(call, rows=call.rows * steps, macs=call.macs * steps, operands=values)

    def of_means(call):  # the classifier reads the mean of all steps, once
        return replace(call, operands=(Values("real", 1.0, rate, 1.0),))

    rows = []
    for row in counted.rows:
        changed = of_means if row.name in counted.classifier else at_rate
        times = depth if row.name.startswith("blocks.") else 1
        rows += [row if row is counted.first else replace(row, calls=[changed(call) for call in row.calls])] * times
    return replace(counted, rows=rows, steps=steps, first_calls=1)


@pytest.mark.parametrize(
    ("name", "depth", "steps", "rate", "published"),
    [
        ("sdt_8_512", 8, 1, 0.0995, 1.13),
        ("sdt_8_512", 8, T, 0.0988, 4.50),
        ("sdt_8_384", 8, T, 0.163, 3.90),
        ("sdt_6_512", 6, T, 0.079, 3.56),
        ("sdt_10_512", 10, T, 0.116, 5.53),
        ("sdt_8_768", 8, T, 0.056, 6.09),
    ],
)
def test_spike_driven_transformer(name, depth, steps, rate, published):
    counted = _with_rate(_counted(name, "sdt"), rate, depth=depth, steps=steps)
    found = charge(counted, EnergyRules(method="sdt")).energy
    # the rates are known to three digits
    assert found == pytest.approx(published, rel=0.006)
    # charged once, the same rate would give another column: the papers charge the first layer T times
    once = charge(counted, EnergyRules(method="sdt", first_layer_times_steps=False)).energy
    assert (once == pytest.approx(published, rel=0.006)) == (steps == 1)


@pytest.mark.parametrize(
    ("name", "rate", "published"),
    [
        ("sdt_v2_15m", 0.29, 16.7),
        ("sdt_v2_31m", 0.27, 32.8),
        pytest.param("sdt_v2_55m", 0.24, 52.4, marks=pytest.mark.slow),
    ],
)
def test_spike_driven_transformer_v2(name, rate, published):
    """Stacks of convolutions count as the one convolution that they are; counted apart, the rates would be 0.6."""
    counted = _with_rate(_counted(name, "sdt"), rate, depth=1, steps=T)
    found = charge(counted, EnergyRules(method="sdt")).energy
    # a rate of two digits leaves one in 50
    assert found == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(
    ("name", "width", "mac", "accumulates", "published", "digits"),
    [
        ("spikingformer_8_384", 384, 0.260497384, 3.88, 4.69, 0.005),
        ("spikingformer_8_512", 512, 0.347329512, 6.517540941, 7.463502602, 1e-8),
        # the README prints 13.68 for the 12.54 G that its own log does not hold
        ("spikingformer_8_768", 768, 0.520993768, 12.513659577, 13.658864952, 1e-8),
        ("spikingformer_8_768", 768, 0.520993768, 12.54, 13.68, 0.005),
        ("spikingformer_cml_8_768", 768, 0.520993768, 15.455129803, 16.306188155, 1e-8),
    ],
)
def test_spikingformer(name, width, mac, accumulates, published, digits):
    """Multiply-accumulates and dense operations from our counts, accumulates from the logs."""
    counted = _with_rate(_counted(name, "spikingformer"), 0.1, depth=8, steps=T)
    analysis = charge(counted, EnergyRules())
    assert analysis.mac == pytest.approx(mac * 1e9, abs=0.5)
    assert 4.6 * analysis.mac / 1e9 + 0.9 * accumulates == pytest.approx(published, abs=digits)
    stem = [row.macs for row in analysis.rows if row.name.startswith("patch_embed") and row.name != counted.first.name]
    step = T * 112**2 * 9 * width // 8 * width // 4
    assert stem[:4] == [step, step, step, step / 2]
    block = sum(row.macs for row in analysis.rows if row.name.startswith("blocks.") and row.type != "product")
    assert block == 8 * T * 196 * (4 + 8) * width**2


@pytest.mark.parametrize(
    ("name", "operations", "published", "ours"),
    [
        ("spikformer_8_384", 6.82, 7.734, 7.335),
        ("spikformer_6_512", 8.69, 9.417, 9.417),
        ("spikformer_8_512", 11.09, 11.577, 11.577),
        ("spikformer_10_512", 13.67, 13.899, 13.899),
        ("spikformer_8_768", 22.09, 21.477, 22.274),
    ],
)
def test_spikformer(name, operations, published, ours):
    """The paper adds the first layer of the 512 wide network to every row; that of 384 and 768 is another."""
    counted = _counted(name, "spikingformer")
    first = T * sum(call.macs for call in counted.first.calls)
    found = 4.6 * first / 1e9 + 0.9 * operations
    assert found == pytest.approx(ours, abs=1.1e-3)
    assert (found == pytest.approx(published, abs=1.1e-3)) == ("512" in name)
