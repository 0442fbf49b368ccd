"""Give a network event frames one by one, as a camera does, and read its output after every step."""

import timm
import torch

import braincog_transformers  # noqa: F401 - registers the models with timm

STEPS = 4
torch.manual_seed(0)
model = timm.create_model("spikformer_ndigits", step=STEPS)
frames = torch.poisson(torch.rand(1, STEPS, 2, 16, 16) * 2)  # (B, T, polarity, H, W)

for module in model.modules():
    if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
        module.momentum = 1.0  # use the statistics of this one batch
with torch.no_grad():
    model(frames)  # in training mode: with its initial averages the network would hardly fire
model.eval()

model.output_steps = True
with torch.no_grad():
    at_once = model(frames)  # (T, B, classes): every layer sees all steps in one call

    model.set_streaming()  # now a call takes one frame, and nodes keep their state
    one_by_one = torch.stack([model(frame)[0] for frame in frames.unbind(1)])
    model.reset()  # before the next recording

print("first logit at each step:", [round(value, 4) for value in at_once[:, 0, 0].tolist()])
print("class after each step:", at_once.cumsum(0).argmax(-1).flatten().tolist())
print("largest difference between both ways:", (at_once - one_by_one).abs().max().item())
