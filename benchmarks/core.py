"""The cost of readings, as ratios to the bare forward pass, compared with other packages.

    python benchmarks/core.py                    # batch 1 and 8 on the CPU
    python benchmarks/core.py --device cuda --batches 1 8 64
    python benchmarks/core.py --peers            # also ViT-Prisma and nnsight, if they are installed
    python benchmarks/core.py --memory           # peak memory over the bare pass, each in its own process

Every round times every method once, so that slow phases of the machine affect all of them; ratios are computed within a round,
and their median over rounds is printed.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

import torch

MODEL = "vit_base_patch16_224"


def make(device):
    import timm

    from classspace_widgets import ClassSpace

    torch.manual_seed(0)
    model = timm.create_model(MODEL).eval()
    # New heads have a bias of 0, for which the lens would be a little cheaper than for trained ones.
    torch.nn.init.normal_(model.head.bias)
    return ClassSpace(model, device=device, check=False)


def bare(space, pixels, labels):
    with torch.inference_mode():
        return space.model(pixels)


def readings(space, pixels, labels):
    return space.stream_readings(pixels, labels)


def readings_bf16(space, pixels, labels):
    return space.stream_readings(pixels, labels, precision="bfloat16")


def readings_tf32(space, pixels, labels):
    return space.stream_readings(pixels, labels, precision="tf32")


def trace(space, pixels, labels):
    return space.trace(pixels)


def direct(space, pixels, labels):
    from classspace_widgets.metrics import contributions

    return contributions(space.trace(pixels), int(labels[0, 0]))


def attention_and_heads(space, pixels, labels):
    return space.trace(pixels, attention=True, heads=True)


def plain_hooks(space, pixels, labels):
    """Hooks that keep all four streams, then project each, count ranks and take the best five."""
    found, x, model = [], None, space.model

    def first(_m, args):
        nonlocal x
        x = args[0]

    def added(_m, _a, out):
        nonlocal x
        x = x + out
        for v in (out, x):
            logits = model.head(model.norm(v))
            own = logits.gather(2, labels.unsqueeze(1).expand(-1, logits.shape[1], -1))
            found.append((own, (logits > own).sum(dim=-1), logits.topk(5, dim=-1)))

    handles = [model.blocks[0].register_forward_pre_hook(first)]
    handles += [d.register_forward_hook(added) for b in model.blocks for d in (b.drop_path1, b.drop_path2)]
    try:
        with torch.inference_mode():
            model(pixels)
    finally:
        for handle in handles:
            handle.remove()
    return found


def authors_method(space, pixels, labels):
    """The paper's extractor restated: three streams (attention, MLP, block output) kept, projected and argsorted."""
    kept, model = [], space.model
    taps = [m for b in model.blocks for m in (b.attn, b.mlp, b)]
    handles = [m.register_forward_hook(lambda _m, _a, out: kept.append(out)) for m in taps]
    try:
        with torch.inference_mode():
            model(pixels)
            ranks = []
            for vectors in kept:
                order = model.head(model.norm(vectors)).argsort(dim=-1, descending=True)
                ranks.append((order == labels.unsqueeze(1)).int().argmax(dim=-1))
    finally:
        for handle in handles:
            handle.remove()
    return ranks


def nnsight(space, pixels, labels):
    """nnsight, three streams projected and counted in its tracing context."""
    import nnsight as nn

    wrapped = space.__dict__.setdefault("nnsight", nn.NNsight(space.model))
    model = space.model
    with torch.inference_mode():
        with wrapped.trace(pixels):
            kept = nn.save([])
            for block in wrapped.blocks:
                kept.append(block.attn.output)
                kept.append(block.mlp.output)
                kept.append(block.output)
        out = []
        for vectors in kept:
            logits = model.head(model.norm(vectors))
            own = logits.gather(2, labels.unsqueeze(1).expand(-1, logits.shape[1], -1))
            out.append((logits > own).sum(dim=-1))
    return out


def prisma(space, pixels, labels):
    """ViT-Prisma: the cache of all activations, and from it the logits of three streams (no ranks)."""
    from vit_prisma.configs.HookedViTConfig import HookedViTConfig
    from vit_prisma.models.base_vit import HookedViT

    hooked = space.__dict__.get("prisma")
    if hooked is None:
        # Sizes of ViT-B/16 with fresh weights: its own loader needs the network even without pretrained weights.
        config = HookedViTConfig(
            n_layers=12, d_model=768, d_head=64, d_mlp=3072, n_heads=12, activation_name="gelu", patch_size=16,
            image_size=224, n_classes=1000, n_channels=3, normalization_type="LN", eps=1e-6, return_type="class_logits",
            device=str(space.device),
        )  # fmt: skip
        hooked = space.__dict__["prisma"] = HookedViT(config).eval()
    with torch.inference_mode():
        _, cache = hooked.run_with_cache(pixels)
        names = ("hook_attn_out", "hook_mlp_out", "hook_resid_post")
        return [
            hooked.ln_final(cache[f"blocks.{i}.{n}"]) @ hooked.head.W_H + hooked.head.b_H
            for i in range(12)
            for n in names
        ]


METHODS = {
    "bare forward pass": bare,
    "stream_readings: 4 streams, logit + rank + top-5": readings,
    "stream_readings, bfloat16 projection": readings_bf16,
    "trace": trace,
    "trace + direct contributions of one class": direct,
    "trace with attention and heads": attention_and_heads,
    "plain hooks: 4 streams, logit + rank + top-5": plain_hooks,
    "authors' method restated: 3 streams, argsort": authors_method,
}
CUDA = {"stream_readings, TF32 projection": readings_tf32}
PEERS = {"nnsight: 3 streams, count": nnsight, "ViT-Prisma: cache, logits of 3 streams": prisma}


def inputs(space, batch):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(batch, 3, 224, 224, generator=generator).to(space.device)
    return pixels, torch.randint(1000, (batch, 1), generator=generator).to(space.device)


def clock(space, cpu_time):
    if space.device.type == "cuda":
        torch.cuda.synchronize()
    return time.process_time() if cpu_time else time.perf_counter()


def measure(space, methods, batch, rounds, cpu_time):
    """Seconds of every method in every round."""
    pixels, labels = inputs(space, batch)
    for name in list(methods):
        try:
            methods[name](space, pixels, labels)
        except ImportError as error:
            print(f"left out: {name} ({error})")
            del methods[name]
    seconds = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            start = clock(space, cpu_time)
            method(space, pixels, labels)
            seconds[name].append(clock(space, cpu_time) - start)
    return seconds


def rank_error(space):
    """How far ranks from low precision are off, over all tokens and streams."""
    pixels, labels = inputs(space, 2)
    exact = space.stream_readings(pixels, labels).ranks.float()
    for precision in ("bfloat16", "tf32") if space.device.type == "cuda" else ("bfloat16",):
        off = (space.stream_readings(pixels, labels, precision=precision).ranks - exact).abs()
        print(
            f"rank error, {precision}: mean {off.mean():.3f}, largest {int(off.max())}, exact {(off == 0).float().mean():.1%}"
        )


def peak(name, batch, device):
    """Peak memory of one method in this process, in MiB."""
    space = make(device)
    method = (METHODS | CUDA | PEERS)[name]
    arguments = inputs(space, batch)
    method(space, *arguments)
    if space.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(batch, device):
    """Peak memory over the bare pass, every method in a process of its own."""
    print(f"\npeak memory over the bare pass, batch {batch}, MiB")
    base = None
    for name in METHODS:
        command = [sys.executable, __file__, "--peak", name, "--batches", str(batch), "--device", device]
        used = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        base = used if base is None else base
        print(f"  {used - base:8.0f}  {name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="process time, for a busy machine; use --threads 1")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--only", nargs="+", help="words; only methods whose name holds one of them, and the bare pass")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(peak(options.peak, options.batches[0], options.device))
        return
    space = make(options.device)
    if space.device.type == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    else:
        load = os.getloadavg()[0]
        how = "process time" if options.cpu_time else "wall clock"
        print(f"{platform.processor() or platform.machine()}, {options.threads} threads, {how}, load {load:.1f}")
        print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    chosen = METHODS | (CUDA if space.device.type == "cuda" else {}) | (PEERS if options.peers else {})
    if options.only:
        chosen = {n: f for n, f in chosen.items() if f is bare or any(word in n for word in options.only)}
    for batch in options.batches:
        seconds = measure(space, dict(chosen), batch, options.rounds, options.cpu_time)
        base = seconds["bare forward pass"]
        print(f"\n{MODEL}, batch {batch}, {options.rounds} rounds: median ratio, quickest ratio, median ms")
        for name, taken in seconds.items():
            ratio = statistics.median(a / b for a, b in zip(taken, base, strict=True))
            print(f"  {ratio:6.2f} {min(taken) / min(base):6.2f} {statistics.median(taken) * 1e3:9.1f}  {name}")
    rank_error(space)
    if options.memory:
        memory(max(options.batches), options.device)


if __name__ == "__main__":
    main()
