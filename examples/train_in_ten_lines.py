"""Train in a plain PyTorch loop: no reset between batches, no wrapper, no special optimizer."""

import timm
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import braincog_transformers  # noqa: F401 - registers the models with timm

torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16  # (1797, 1, 8, 8)
y = torch.tensor(digits.target)
train, test = torch.arange(1437), torch.arange(1437, 1797)

model = timm.create_model("spikformer_digits", step=2, threshold=0.5)
optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.05)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=3 * 23)
for epoch in range(3):
    for batch in train[torch.randperm(len(train))].split(64):
        loss = cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        right = (model.eval()(x[test]).argmax(1) == y[test]).float().mean()
    model.train()
    print(f"epoch {epoch + 1}: loss {loss:.3f}, accuracy on {len(test)} test digits {right:.1%}")
