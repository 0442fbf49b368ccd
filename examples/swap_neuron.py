"""Change the neuron, its surrogate gradient, threshold or time constant in any model."""

import timm
import torch

import braincog_transformers  # noqa: F401 - registers the models with timm
from braincog_transformers.analysis.firing import firing_rates, overall_rate

images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
choices = [
    {"node_type": "LIFNode", "threshold": 1.0},  # the paper's
    {"node_type": "LIFNode", "threshold": 0.5},
    {"node_type": "LIFNode", "threshold": 0.5, "tau": 1.25, "act_fun": "AtanGrad", "alpha": 2.0},
    {"node_type": "PLIFNode", "threshold": 0.5},
    {"node_type": "IFNode", "threshold": 0.5},
]

print("parameters  spikes per neuron and step  neuron")
for choice in choices:
    torch.manual_seed(0)
    model = timm.create_model("spikformer_digits", **choice)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0  # use the statistics of this one batch
    with torch.no_grad():
        model(images)  # in training mode: with its initial averages the network would hardly fire
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rate = overall_rate(firing_rates(model, [images]))
    print(f"{parameters:10,}  {rate:26.3f}  " + ", ".join(f"{name}={value}" for name, value in choice.items()))
