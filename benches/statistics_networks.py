"""Small networks of many kinds, for `statistics_models.py`."""

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


class Calls(nn.Module):
    """Modules, and a function of them and of the inputs."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


class Residual(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.inner = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.inner(x)


class Autocast(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.inner = nn.Sequential(*layers)

    def forward(self, x):
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.inner(x)


class Square(torch.autograd.Function):
    """In the older form, which vmap does not run."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(context, gradient):
        return 2 * context.saved_tensors[0] * gradient


class Cube(torch.autograd.Function):
    """In the newer form, with a rule for vmap."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(context, inputs, output):  # noqa: ARG004
        context.save_for_backward(*inputs)

    @staticmethod
    def backward(context, gradient):
        return 3 * context.saved_tensors[0] ** 2 * gradient


class Experts(nn.Module):
    """Each sample goes to the expert that its gate prefers, found by `nonzero`."""

    def __init__(self, size, count=3):
        super().__init__()
        self.gate = nn.Linear(size, count)
        self.experts = nn.ModuleList(nn.Linear(size, size) for _ in range(count))

    def forward(self, x):
        weights = self.gate(x).softmax(-1)
        best = weights.argmax(-1)
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            chosen = (best == index).nonzero().squeeze(-1)
            given = expert(x[chosen]) * weights[chosen, index, None]
            out = out.index_add(0, chosen, given)
        return out


class SoftExperts(Experts):
    def forward(self, x):
        given = torch.stack([expert(x) for expert in self.experts], -1)
        return (given * self.gate(x).softmax(-1)[:, None]).sum(-1)


class Recurrent(nn.Module):
    """The last step of a recurrent network over (batch, steps, features)."""

    def __init__(self, kind, size=4, **options):
        super().__init__()
        self.inner = kind(6, size, **options)
        self.head = nn.LazyLinear(5)

    def forward(self, x):
        return self.head(self.inner(x)[0][:, -1])


class Cell(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell, self.head = kind(6, 4), nn.Linear(4, 5)

    def forward(self, x):
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Packed(nn.Module):
    """An LSTM over sequences whose lengths are read from their zeros."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 5)

    def forward(self, x):
        lengths = (x.abs().sum(-1) > 0).sum(1).clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        return self.head(self.inner(packed)[1][0][-1])


class Attention(nn.Module):
    def __init__(self, size=6, heads=2, *, causal=False, batch_first=True):
        super().__init__()
        self.causal = causal
        self.inner = nn.MultiheadAttention(size, heads, batch_first=batch_first)
        self.head = nn.Linear(size, 5)

    def forward(self, x):
        steps = x.shape[1]
        mask = None
        if self.causal:
            mask = nn.Transformer.generate_square_subsequent_mask(steps).to(x)
        out = self.inner(x, x, x, attn_mask=mask, need_weights=False)[0]
        return self.head(x + out).mean(1)


class Fused(nn.Module):
    """`scaled_dot_product_attention`, with the projections by hand."""

    def __init__(self):
        super().__init__()
        self.project, self.head = nn.Linear(6, 18), nn.Linear(6, 5)

    def forward(self, x):
        parts = self.project(x).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        out = functional.scaled_dot_product_attention(*parts, is_causal=True)
        return self.head(out.transpose(1, 2).flatten(2)).mean(1)


class Masked(nn.Module):
    """Attention whose padding mask is built only where something is padded."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True)
        self.embed, self.head = nn.Embedding(9, 6), nn.Linear(6, 5)

    def forward(self, tokens):
        padded = tokens == 0
        mask = padded if padded.any() else None
        out = self.layer(self.embed(tokens), src_key_padding_mask=mask)
        keep = (~padded)[..., None].to(out)
        return self.head((out * keep).sum(1) / keep.sum(1).clamp(min=1))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps, self.features = nn.Linear(7, 7), nn.Linear(6, 6)
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x):
        x = x + self.steps(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.features(x).relu()).mean(1))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.out = nn.Conv2d(7, 2, 1)

    def forward(self, x):
        return self.out(torch.cat([x, self.up(self.down(x).relu())], 1))


class Tied(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self):
        super().__init__()
        self.embed, self.inner = nn.Embedding(9, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(self.inner(self.embed(tokens)).tanh())


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(10, 6, dtype=torch.complex64)
        self.second = nn.Parameter(torch.randn(6, 5, dtype=torch.complex64) / 3)

    def forward(self, x):
        return (self.first(x.to(self.second.dtype)).tanh() @ self.second).abs()


class Spectral(nn.Module):
    """A Fourier layer: complex weights between a transform and its inverse."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6, 3, dtype=torch.complex64) / 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        modes = torch.fft.rfft(x.transpose(1, 2))[..., :3]
        mixed = torch.einsum("bim,iom->bom", modes, self.weight)
        out = torch.fft.irfft(mixed, n=x.shape[1]).relu().transpose(1, 2)
        return self.head(out).mean(1)


class Ode(nn.Module):
    def __init__(self):
        super().__init__()
        self.field, self.head = nn.Linear(10, 10), nn.Linear(10, 5)

    def forward(self, x):
        for _ in range(4):
            middle = x + 0.1 * self.field(x).tanh()
            x = x + 0.2 * self.field(middle).tanh()
        return self.head(x)


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.first, self.inner = nn.Linear(10, 8), nn.Linear(8, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        hidden = checkpoint(
            lambda h: self.norm(self.inner(h)).relu(),
            self.first(x),
            use_reentrant=self.reentrant,
        )
        return self.head(hidden)


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = *layers(10, 8), nn.Linear(8, 5)

    def forward(self, x):
        hidden = self.first(x)
        scale = 2.0 if hidden.abs().max().item() > 0 else 1.0
        return self.head(self.norm(hidden) * scale)


def layers(inputs, outputs):
    return nn.Linear(inputs, outputs), nn.LayerNorm(outputs)


class Assigned(nn.Module):
    """Writes into a new tensor, which vmap forbids."""

    def __init__(self):
        super().__init__()
        self.first, self.scale = nn.Linear(10, 5), nn.Parameter(torch.ones(5))

    def forward(self, x):
        out = torch.zeros(len(x), 5, dtype=x.dtype)
        out[:, :] = self.first(x) * self.scale
        return out


class Graph(nn.Module):
    """Message passing over each sample's own dense adjacency."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, nodes, adjacency):
        hidden = (adjacency @ self.first(nodes)).relu()
        return (adjacency @ self.second(hidden)).mean(1)


class Gated(nn.Module):
    """Squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.first, self.gate = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        hidden = self.first(x).relu()
        gate = self.gate(hidden.mean((2, 3))).sigmoid()
        return self.head((hidden * gate[..., None, None]).mean((2, 3)))


class Hyper(nn.Module):
    """One network gives another's weights, for each sample."""

    def __init__(self):
        super().__init__()
        self.maker = nn.Linear(10, 50)

    def forward(self, x):
        weights = self.maker(x).unflatten(1, (5, 10))
        return torch.einsum("boi,bi->bo", weights, x).tanh()


class Lora(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(10, 5).requires_grad_(requires_grad=False)
        self.down = nn.Linear(10, 2, bias=False)
        self.up = nn.Linear(2, 5, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))
