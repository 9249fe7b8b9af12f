"""Training on photographs: reading, augmentation, and runs that can be interrupted."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from classspace_widgets.training.photos.augment import augment, mix, normalise
from classspace_widgets.training.photos.data import pack, read
from classspace_widgets.training.photos.train import Recipe, Run, accuracy, build, class_logits, main, mean_weights

TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
TINY = replace(Recipe(), timm=TIMM, batch=4, warm_up=2, held_back=2)

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="the optimizer Muon came with torch 2.9")


@pytest.fixture
def folder(tmp_path):
    """Three classes of eight 32-pixel pictures of one colour each, one of them greyscale."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("n01", "n02", "n03")):
        (tmp_path / name).mkdir()
        for i in range(8):
            pixels = np.clip(rng.normal(60 + 80 * number, 8, (32, 32, 3)), 0, 255).astype(np.uint8)
            picture = Image.fromarray(pixels)
            (picture.convert("L") if i == 0 else picture).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_folders_are_read_in_order_and_split_by_class(folder):
    photographs = read(folder)
    assert photographs.pixels.shape == (24, 3, 32, 32)
    assert photographs.folders == ("n01", "n02", "n03")
    training, validation = photographs.split(2)
    assert np.bincount(training.labels).tolist() == [6, 6, 6]
    assert np.bincount(validation.labels).tolist() == [2, 2, 2]
    with Image.open(folder / "n02" / "7.png") as last:
        assert (validation.pixels[3] == np.asarray(last).transpose(2, 0, 1)).all()


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected class folders with pictures"):
        read(tmp_path)


def test_a_packed_file_holds_the_same_photographs(folder, tmp_path):
    size = pack(folder, tmp_path / "all.npz", quality=90)
    packed, whole = read(tmp_path / "all.npz"), read(folder)
    assert size == (tmp_path / "all.npz").stat().st_size
    assert (packed.labels == whole.labels).all()
    assert packed.folders == whole.folders
    assert np.abs(packed.pixels.mean((1, 2, 3)) - whole.pixels.mean((1, 2, 3))).max() < 2
    pack(folder, tmp_path / "some.npz", per_class=3)
    assert np.bincount(read(tmp_path / "some.npz").labels).tolist() == [3, 3, 3]


def test_augmentation_is_random_and_finite():
    pixels = normalise(torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8))
    one, same, other = (augment(pixels, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert one.shape == pixels.shape
    assert torch.isfinite(one).all()
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("seed", range(8))
def test_mixing_follows_the_area(seed):
    """Black and white pictures: the share of white is the target's."""
    pixels = torch.cat([torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)])
    mixed, targets = mix(pixels, torch.eye(2), torch.Generator().manual_seed(seed), share=1.0)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), targets[:, 1])
    assert targets.sum(1).tolist() == pytest.approx([1, 1])


def test_a_share_of_zero_mixes_nothing():
    pixels, targets = torch.rand(2, 3, 8, 8), torch.eye(2)
    kept = mix(pixels, targets, torch.Generator().manual_seed(0), share=0.0)
    torch.testing.assert_close(kept, (pixels, targets))


def test_keeping_all_tokens_is_the_model_s_own_pass():
    torch.manual_seed(0)
    model = build(TINY, 3).eval()
    pixels = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(class_logits(model, pixels, 1.0, torch.Generator()), model(pixels))


def test_accuracy_counts_pictures(folder):
    photographs = read(folder)
    model = build(TINY, 3)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([1.0, 2.0, 0.0]))
    assert accuracy(model, photographs, "cpu") == {"top1": round(1 / 3, 4), "top5": 1.0}


def test_an_interrupted_run_gives_the_same_model(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    photographs = read(folder)
    whole = Run(TINY, photographs, out)
    whole.train(5, "run", cool_down=False)
    first = Run(TINY, photographs, out)
    first.train(2, "part", cool_down=False)
    second = Run(TINY, photographs, out)
    second.load(out / "part.pt")
    second.train(3, "run", cool_down=False)
    for a, b in zip(whole.averaged.parameters(), second.averaged.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert second.step == 5


def test_the_rate_falls_to_zero_in_a_cool_down(folder, tmp_path):
    run = Run(TINY, read(folder), tmp_path)
    run.train(4, "cooled", cool_down=True)
    assert [group["lr"] for optimizer in run.optimizers for group in optimizer.param_groups] == pytest.approx(
        [rate / 4 for rates in run.highest for rate in rates]
    )


def test_a_cool_down_can_start_from_the_mean_of_checkpoints(tmp_path, monkeypatch):
    """By the command; the pictures seen, the hardware and the recipe are written down for the card."""
    files, runs = [tmp_path / f"{name}.pt" for name in ("one", "other")], []
    for seed, file in enumerate(files):
        torch.manual_seed(seed)
        runs.append(dict(build(Recipe(), 3).state_dict()))
        torch.save({"averaged": runs[-1]}, file)
    mean = mean_weights([files[0], files[0], files[1]])
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, (2 * runs[0][name] + runs[1][name]) / 3)
    for name in ("n01", "n02", "n03"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(42):  # of which 40 are held back
            Image.new("RGB", (64, 64), (6 * number, 0, 0)).save(tmp_path / "data" / name / f"{number:02}.png")
    steps = []
    monkeypatch.setattr(Run, "take_step", lambda run, *settings: steps.append(settings) or torch.zeros(()))
    monkeypatch.setattr(Run, "epoch_steps", property(lambda run: 4))
    given = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--start", str(files[0]), str(files[1])]
    monkeypatch.setattr(Run, "step", property(lambda run: len(steps), lambda run, step: None), raising=False)
    main([*given, "--batch", "2", "--rate", "3e-4", "--cool-down", "1", "--device", "cpu"])
    assert [share for share, _, _ in steps] == [1, 0.75, 0.5, 0.25]
    assert {keep for _, keep, _ in steps} == {1.0}
    saved = torch.load(tmp_path / "out/cooled.pt", weights_only=True)
    torch.testing.assert_close(saved["averaged"]["head.bias"], (runs[0]["head.bias"] + runs[1]["head.bias"]) / 2)
    report = json.loads((tmp_path / "out/cooled.json").read_text())
    assert report["recipe"]["rate"] == 3e-4
    assert "of a CPU" in report["hardware"]
    assert report["pictures"] == 6


@pytest.mark.parametrize("given", [[], ["--cool-down", "1"]])
def test_a_start_that_would_be_passed_over_is_refused(given, tmp_path, capsys):
    (tmp_path / "run.pt").touch()
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path), "--out", str(tmp_path), "--start", "one.pt", *given])
    assert ("holds a run" if given else "--start is for a cool-down") in capsys.readouterr().err


def test_a_cool_down_within_minutes_takes_as_many_steps_as_its_pace_allows(tmp_path, folder, monkeypatch):
    run = Run(TINY, read(folder), tmp_path)
    asked = {}
    monkeypatch.setattr(
        Run, "train", lambda run, steps, name, **options: asked.update(steps=steps, name=name, **options)
    )
    run.cool_down_within(0.5, measure_every=2)
    assert asked["name"] == "cooled"
    assert asked["cool_down"]
    assert asked["steps"] > 20  # thirty seconds of steps of milliseconds
    assert 0 < asked["minutes"] < 0.5
    assert asked["measure_every"] == 2
