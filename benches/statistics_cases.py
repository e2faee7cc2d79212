"""Models, losses and precisions for `statistics_models.py`: one line each."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from statistics_networks import (
    Assigned,
    Attention,
    Autocast,
    Branch,
    Calls,
    Cell,
    Checkpointed,
    Complex,
    Cube,
    Experts,
    Fused,
    Gated,
    Graph,
    Hyper,
    Lora,
    Masked,
    Mixer,
    Ode,
    Packed,
    Recurrent,
    Residual,
    SoftExperts,
    Spectral,
    Square,
    Tied,
    UNet,
    layers,
)
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

COUNT = 6
seq, lin = nn.Sequential, nn.Linear


@dataclass
class Case:
    """A model, a loss, and samples; `around` is what the call is made in."""

    name: str
    model: Callable[[], nn.Module]
    loss: Callable[..., Any]
    inputs: Any
    targets: Any
    around: Callable[[], Any] = nullcontext
    mixes: bool = False


def numbers(*shape):
    return torch.randn(COUNT, *shape)


def tokens(*shape, most=9):
    return torch.randint(1, most, (COUNT, *shape))


def padded():
    found = tokens(7)
    for row, length in enumerate((7, 5, 6, 3, 7, 4)):
        found[row, length:] = 0
    return found


cross_entropy = nn.CrossEntropyLoss(reduction="none")


def squared(outputs, targets):
    return (outputs - targets).square().flatten(1).mean(1)


def of_tokens(outputs, targets):
    """The mean over each sample's own tokens, of those that are not padding."""
    losses = functional.cross_entropy(
        outputs.transpose(1, 2), targets, reduction="none", ignore_index=0
    )
    return losses.sum(1) / (targets != 0).sum(1).clamp(min=1)


def next_tokens(outputs, batch):
    """Of a Hugging Face model: each sample's own mean, of labels in the batch."""
    labels = batch["labels"][:, 1:]
    logits = outputs.logits[:, :-1].transpose(1, 2)
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return losses.sum(1) / (labels != -100).sum(1).clamp(min=1)


def of_logits(outputs, targets):
    return cross_entropy(outputs.logits, targets)


def flat(*shape):
    """A classifier over what flattens to (batch, features)."""
    features = 1
    for size in shape:
        features *= size
    return nn.Flatten(), lin(features, 5)


def convolution(*modules, size):
    return seq(*modules, nn.ReLU(), *flat(*size))


def mlp(*between, dtype=torch.float32):
    return seq(lin(10, 8), *between, nn.Tanh(), lin(8, 5)).to(dtype)


def residual_batch_norm():
    model = seq(
        nn.Conv2d(3, 4, 3, padding=1),
        Residual(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        *flat(4, 8, 8),
    )
    model(torch.randn(20, 3, 8, 8))  # running statistics
    return model.eval()


def converged():
    """Trained until its losses are rounding."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    x, y = CLASSES
    for _ in range(600):
        optimizer.zero_grad()
        cross_entropy(model(x), y).mean().backward()
        optimizer.step()
    return model


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=9,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=5,
    )
    return BertForSequenceClassification(config).eval()


def causal(kind):
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    if kind == "gpt2":
        config = GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    else:
        config = LlamaConfig(
            vocab_size=9,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
    return AutoModelForCausalLM.from_config(config).eval()


def language():
    ids = padded()
    labels = ids.masked_fill(ids == 0, -100)
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


def bfloat16_around():
    return torch.autocast("cpu", torch.bfloat16)


def seeded(function):
    """The same numbers at each call, and none from the global generator."""

    @wraps(function)
    def run():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return function()

    return run


@seeded
def _samples():
    labels = torch.randint(5, (COUNT,))
    features = numbers(10), numbers(3, 8, 8), numbers(7, 6), padded()
    return [(values, labels) for values in features]


CLASSES, IMAGES, STEPS, TOKENS = _samples()


def of(samples, dtype):
    inputs, targets = samples
    return inputs.to(dtype), targets


def on(samples, *rows):
    """Cases of (name, model), or with a loss and targets of their own."""
    x, y = samples
    for name, model, *rest in rows:
        loss, targets = rest or (cross_entropy, y)
        yield Case(name, model, loss, x, targets)


@seeded
def right() -> list[Case]:
    """Cases whose samples do not mix."""
    signs = torch.randint(2, (COUNT, 5)).float()
    low, half, double = torch.bfloat16, torch.float16, torch.float64
    return [
        *on(
            CLASSES,
            ("MLP", mlp),
            ("MLP without biases, MSE", lambda: lin(10, 5, bias=False), squared,
             numbers(5)),
            ("MLP, Huber", mlp, lambda o, t: functional.huber_loss(
                o, t, reduction="none").sum(1), numbers(5)),
            ("MLP, binary cross-entropy", mlp, lambda o, t:
             functional.binary_cross_entropy_with_logits(
                 o, t, reduction="none").mean(1), signs),
            ("MLP, focal", mlp, lambda o, t: (
                1 - o.softmax(1).gather(1, t[:, None])[:, 0]) ** 2
                * cross_entropy(o, t), CLASSES[1]),
            ("MLP, smoothed labels", mlp, nn.CrossEntropyLoss(
                reduction="none", label_smoothing=0.1), CLASSES[1]),
            ("MLP, hinge", mlp, lambda o, t: (1 - o * t).relu().sum(1), 2 * signs - 1),
            ("MLP, KL divergence", mlp, lambda o, t: functional.kl_div(
                o.log_softmax(1), t, reduction="none").sum(1), numbers(5).softmax(1)),
            ("MLP, quantile", mlp, lambda o, t: torch.maximum(
                0.9 * (t - o), 0.1 * (o - t)).mean(1), numbers(5)),
            ("MLP, Poisson", mlp, lambda o, t: functional.poisson_nll_loss(
                o, t, reduction="none").mean(1), signs + 1),
            ("MLP, converged", converged),
            ("MLP, 30 layers", lambda: seq(*(Residual(lin(10, 10), nn.Tanh())
                                             for _ in range(30)), lin(10, 5))),
            ("MLP, LayerNorm", lambda: mlp(nn.LayerNorm(8))),
            ("MLP, RMSNorm", lambda: mlp(nn.RMSNorm(8))),
            ("MLP, PReLU", lambda: mlp(nn.PReLU())),
            ("MLP, weight norm", lambda: seq(
                parametrizations.weight_norm(lin(10, 5)))),
            ("MLP, spectral norm, eval", lambda: seq(
                parametrizations.spectral_norm(lin(10, 5))).eval()),
            ("MLP, frozen half", lambda: seq(
                lin(10, 8).requires_grad_(requires_grad=False), lin(8, 5))),
            ("MLP in DataParallel", lambda: nn.DataParallel(mlp())),
            ("MLP under torch.compile", lambda: torch.compile(mlp(nn.LayerNorm(8)))),
            ("LoRA", Lora),
            ("maxout", lambda: Calls(
                lambda s, x: s.a(x).unflatten(1, (5, 3)).amax(2), a=lin(10, 15))),
            ("hypernetwork", Hyper),
            ("experts, all of them", lambda: seq(SoftExperts(10), lin(10, 5))),
            ("experts by nonzero", lambda: seq(Experts(10), lin(10, 5))),
            ("ODE, midpoint", Ode),
            ("layers twice", lambda: Calls(
                lambda s, x: s.b(s.a(s.a(x).tanh())), a=lin(10, 10), b=lin(10, 5))),
            ("checkpoint", lambda: Checkpointed(reentrant=False)),
            ("checkpoint, reentrant", lambda: Checkpointed(reentrant=True)),
            ("autograd function, older form", lambda: seq(
                *layers(10, 8), Calls(lambda _, x: Square.apply(x)), lin(8, 5))),
            ("autograd function, newer form", lambda: seq(
                *layers(10, 8), Calls(lambda _, x: Cube.apply(x)), lin(8, 5))),
            ("branch by .item()", Branch),
            ("writes in place", Assigned),
            ("complex weights", Complex),
            ("autoencoder", lambda: seq(lin(10, 3), nn.Tanh(), lin(3, 10)), squared,
             CLASSES[0]),
            ("autocast inside", lambda: Autocast(lin(10, 8), nn.Tanh(), lin(8, 5))),
            ("autocast inside, LayerNorm", lambda: Autocast(
                *layers(10, 8), nn.Tanh(), lin(8, 5))),
        ),
        *on(of(CLASSES, double), ("MLP, float64", lambda: mlp(dtype=double)),
            ("MLP, LayerNorm, float64", lambda: mlp(nn.LayerNorm(8), dtype=double))),
        *on(of(CLASSES, low), ("MLP, bfloat16", lambda: mlp(dtype=low)),
            ("MLP, LayerNorm, bfloat16", lambda: mlp(nn.LayerNorm(8), dtype=low))),
        *on(of(CLASSES, half), ("MLP, float16", lambda: mlp(dtype=half))),
        Case("autocast around", mlp, cross_entropy, *CLASSES, bfloat16_around),
        Case("autocast around, LayerNorm", lambda: mlp(nn.LayerNorm(8)), cross_entropy,
             *CLASSES, bfloat16_around),
        *on(
            IMAGES,
            ("convolutions", lambda: seq(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(
                4, 4, 3, stride=2), *flat(4, 2, 2))),
            ("convolution, dilated", lambda: convolution(
                nn.Conv2d(3, 4, 3, dilation=2, padding=2), size=(4, 8, 8))),
            ("convolution, grouped", lambda: convolution(
                nn.Conv2d(3, 6, 3, groups=3), size=(6, 6, 6))),
            ("convolution, separable", lambda: convolution(
                nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 4, 1), size=(4, 6, 6))),
            ("convolution, transposed", lambda: convolution(
                nn.ConvTranspose2d(3, 2, 2, stride=2), size=(2, 16, 16))),
            ("convolution, GroupNorm", lambda: convolution(
                nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), size=(4, 6, 6))),
            ("convolution, InstanceNorm", lambda: convolution(
                nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True), size=(4, 6, 6))),
            ("ResNet, batch norm in eval", residual_batch_norm),
            ("squeeze and excitation", Gated),
            ("U-Net, per pixel", UNet, lambda o, t: functional.cross_entropy(
                o, t, reduction="none").mean((1, 2)), torch.randint(2, (COUNT, 8, 8))),
            ("super resolution", lambda: seq(nn.Conv2d(3, 12, 3, padding=1),
                                             nn.PixelShuffle(2)), squared,
             numbers(3, 16, 16)),
            ("convolution, autocast inside", lambda: Autocast(
                nn.Conv2d(3, 4, 3), nn.ReLU(), *flat(4, 6, 6))),
        ),
        *on((numbers(4, 4, 4)[:, None], IMAGES[1]), ("convolution, 3-d", lambda:
            convolution(nn.Conv3d(1, 3, 2), size=(3, 3, 3, 3)))),
        *on(
            STEPS,
            ("convolution, 1-d", lambda: convolution(nn.Conv1d(7, 4, 3), size=(4, 4))),
            ("linear over steps", lambda: seq(lin(6, 4), nn.Tanh(), *flat(7, 4))),
            ("deep sets", lambda: Calls(lambda s, x: s.b(s.a(x).relu().sum(1)),
                                        a=lin(6, 8), b=lin(8, 5))),
            ("MLP-Mixer", Mixer),
            ("attention", Attention),
            ("attention, causal", lambda: Attention(causal=True)),
            ("attention, fused", Fused),
            ("transformer", lambda: seq(nn.TransformerEncoderLayer(
                6, 2, 8, 0.0, batch_first=True), *flat(7, 6))),
            ("transformer, eval", lambda: seq(nn.TransformerEncoderLayer(
                6, 2, 8, batch_first=True), *flat(7, 6)).eval()),
            ("GRU", lambda: Recurrent(nn.GRU, batch_first=True)),
            ("LSTM", lambda: Recurrent(nn.LSTM, batch_first=True)),
            ("RNN", lambda: Recurrent(nn.RNN, batch_first=True)),
            ("GRU, two layers, both ways", lambda: Recurrent(
                nn.GRU, batch_first=True, num_layers=2, bidirectional=True)),
            ("GRU cell", lambda: Cell(nn.GRUCell)),
            ("LSTM cell", lambda: Cell(nn.LSTMCell)),
            ("packed LSTM", Packed),
            ("Fourier layer", Spectral),
        ),
        *on(
            TOKENS,
            ("embedding bag", lambda: seq(nn.EmbeddingBag(9, 5))),
            ("embedding, mean", lambda: Calls(lambda s, x: s.a(x).mean(1),
                                              a=nn.Embedding(9, 5, padding_idx=0))),
            ("transformer, mask only where padded", Masked),
            ("tied language model", Tied, of_tokens, TOKENS[0]),
        ),
        Case("two inputs: graph", Graph, cross_entropy,
             (numbers(4, 6), numbers(4, 4).sigmoid()), STEPS[1]),
        Case("two inputs: siamese, cosine", lambda: Calls(
            lambda s, a, b: functional.cosine_similarity(s.a(a), s.a(b)), a=lin(10, 4)),
            lambda o, t: (o - t).square(), (numbers(10), numbers(10)), numbers()),
        Case("BERT with a mask", bert, of_logits, {
            "input_ids": TOKENS[0], "attention_mask": (TOKENS[0] != 0).long()},
            TOKENS[1]),
        Case("GPT-2, labels within", lambda: causal("gpt2"), next_tokens, language(),
             None),
        Case("Llama, labels within", lambda: causal("llama"), next_tokens, language(),
             None),
    ]  # fmt: skip


def contrastive(outputs, targets):
    logits = functional.normalize(outputs, dim=1) @ functional.normalize(targets).T
    return functional.cross_entropy(
        logits / 0.1, torch.arange(len(outputs)), reduction="none"
    )


def balanced(outputs, targets):
    """Weights by the classes' counts in the batch."""
    counts = torch.bincount(targets, minlength=5).clamp(min=1)
    weights = counts.sum() / counts[targets]
    return cross_entropy(outputs, targets) * weights / weights.sum() * len(targets)


def by_all_tokens(outputs, targets):
    losses = functional.cross_entropy(
        outputs.transpose(1, 2), targets, reduction="none", ignore_index=0
    )
    return losses.sum(1) / (targets != 0).sum() * len(targets)


@seeded
def mixing() -> list[Case]:
    """Cases whose samples mix: each is to be refused."""
    cases = [
        *on(
            CLASSES,
            ("in-batch negatives", mlp, contrastive, numbers(5)),
            ("in-batch negatives, LayerNorm", lambda: mlp(nn.LayerNorm(8)), contrastive,
             numbers(5)),
            ("weights normalised over the batch", lambda: mlp(nn.LayerNorm(8)),
             balanced, CLASSES[1]),
            ("x - x.mean(0)", lambda: mlp(nn.LayerNorm(8), Calls(
                lambda _, x: x - x.mean(0)))),
            ("division by the batch's deviation", lambda: mlp(nn.LayerNorm(8), Calls(
                lambda _, x: x / (1 + x.std(0, correction=0))))),
            ("the same, unbiased", lambda: mlp(nn.LayerNorm(8), Calls(
                lambda _, x: x / x.std(0)))),
            ("softmax over the batch", lambda: mlp(nn.LayerNorm(8), nn.Softmax(0))),
            ("x - x.mean(0) behind dropout", lambda: mlp(
                nn.LayerNorm(8), nn.Dropout(), Calls(lambda _, x: x - x.mean(0)))),
            ("mixup by a permutation", lambda: mlp(nn.LayerNorm(8), Calls(
                lambda _, x: (x + x[torch.randperm(len(x))]) / 2))),
            ("outputs (batch, 1), targets (batch,)", lambda: seq(*layers(10, 8), lin(
                8, 1)), lambda o, t: (o - t).square().mean(1), numbers()),
            ("hardest negative", lambda: mlp(nn.LayerNorm(8)), lambda o, t: (
                torch.cdist(o, o) + 9 * (t[:, None] == t)).amin(1), CLASSES[1]),
            ("decorrelation", lambda: mlp(nn.LayerNorm(8)), lambda o, _: (
                o @ (o.T @ o)).square().mean(1), CLASSES[1]),
            ("batch norm, training", lambda: mlp(nn.BatchNorm1d(8))),
            ("a detached loss", mlp, lambda o, t: cross_entropy(o.detach(), t),
             CLASSES[1]),
        ),
        *on(
            of(CLASSES, torch.bfloat16),
            ("x - x.mean(0), bfloat16", lambda: mlp(nn.LayerNorm(8), Calls(
                lambda _, x: x - x.mean(0)), dtype=torch.bfloat16)),
        ),
        *on(
            STEPS,
            ("attention without batch_first", lambda: Attention(batch_first=False)),
            ("GRU without batch_first", lambda: Recurrent(nn.GRU)),
            ("LSTM without batch_first", lambda: Recurrent(nn.LSTM)),
        ),
        *on(
            TOKENS,
            ("divided by the batch's tokens", Tied, by_all_tokens, TOKENS[0]),
        ),
        Case("GPT-2's own loss", lambda: causal("gpt2"), lambda o, b: o.loss.expand(
            len(b["labels"])), language(), None),
    ]  # fmt: skip
    for case in cases:
        case.mixes = True
    return cases
