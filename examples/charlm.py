"""A small GPT on text, character by character; covey is one import and one line of it.

covey run examples/charlm.py --shard 1/3        # each shard is another part of the text
"""

import argparse
import sysconfig
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention

import covey

WIDTH, HEADS, LAYERS, CONTEXT = 128, 4, 4, 64
parser = argparse.ArgumentParser(description="A character language model")
parser.add_argument("--text", type=Path, help="a file; default: Python's own standard library")
parser.add_argument("--shard", default="1/1", help="which part of the text, e.g. 2/3")
parser.add_argument("--steps", type=int, default=2000)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:  # (batch, time, WIDTH)
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        y = scaled_dot_product_attention(q, k, v, is_causal=True)  # (batch, HEADS, time, …)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        x = x + self.down(gelu(self.up(self.norm2(x))))
        return x


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(128, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)), nn.LayerNorm(WIDTH))
        self.head = nn.Linear(WIDTH, 128, bias=False)
        self.head.weight = self.token.weight  # tied
        nn.init.normal_(self.token.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:  # (batch, time) to (batch, time, 128)
        x = self.token(tokens) + self.place.weight[: tokens.shape[1]]
        logits: Tensor = self.head(self.blocks(x))
        return logits


options = parser.parse_args()
device = "cuda" if torch.cuda.is_available() else "cpu"
files = [options.text] if options.text else sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
letters = bytearray(b"".join(file.read_bytes() for file in files))
text = torch.frombuffer(letters, dtype=torch.uint8).long().clamp(max=127)
shard, shards = map(int, options.shard.split("/"))
unseen, rest = text[: len(text) // 10], text[len(text) // 10 :]
mine = rest.chunk(shards)[shard - 1]
model = GPT().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
covey.join(model, optimizer)


def loss_on(data: Tensor, batch: int) -> Tensor:
    starts = torch.randint(len(data) - CONTEXT, (batch, 1))
    pieces = data[starts + torch.arange(CONTEXT + 1)].to(device)
    return cross_entropy(model(pieces[:, :-1]).flatten(0, 1), pieces[:, 1:].flatten())


for step in range(options.steps):
    loss = loss_on(mine, batch=16)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    if step % 50 == 0 or step == options.steps - 1:
        with torch.no_grad():
            print(f"step {step:5}  loss {loss:.3f}  on unseen text {loss_on(unseen, batch=64):.3f}")
