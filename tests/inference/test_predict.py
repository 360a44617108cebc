"""From files to files: what is found, and what is written."""

import io
import json
import signal
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rmiseg.cli import main
from rmiseg.config import CRFConfig, TilingConfig
from rmiseg.data import ClassTable
from rmiseg.data.sets import cityscapes, voc
from rmiseg.inference import sources
from rmiseg.inference.checkpoint import load_checkpoint
from rmiseg.inference.outputs import picture_formats, png_writer
from rmiseg.inference.predictor import Predictor
from rmiseg.inference.sources import Source, ahead, find_sources, read_frames
from rmiseg.inference.writer import Writer
from support.checkpoints import save_untrained
from support.launch import Forked


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp("checkpoint") / "model.pt", ("a", "b", "c"), align_corners=True)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for name, seed in (("one.png", 0), ("deep/two.jpg", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (45, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_align_corners_is_remembered(checkpoint, photos):
    predictor = Predictor.from_run(checkpoint)
    assert predictor.model.align_corners
    content = torch.load(checkpoint, weights_only=True)
    del content["align_corners"]  # as older checkpoints are
    old = checkpoint.parent / "old.pt"
    torch.save(content, old)
    assert not load_checkpoint(old).align_corners
    a, b = (Predictor.from_run(path).probabilities(photos / "one.png") for path in (checkpoint, old))
    assert abs(a - b).max() > 1e-4


def test_predictor_takes_any_kind_of_image(checkpoint, photos):
    predictor = Predictor.from_run(checkpoint)
    path = photos / "one.png"
    pixels = np.array(Image.open(path))
    expected = predictor(path)
    assert (expected.shape, expected.dtype) == ((45, 60), np.uint8)
    for image in (
        str(path),
        Image.open(path),
        pixels,
        torch.from_numpy(pixels).permute(2, 0, 1),
        pixels[:, ::-1][:, ::-1],
    ):
        assert np.array_equal(predictor(image), expected)
    assert predictor(pixels[..., 0]).shape == (45, 60)
    shares = predictor.probabilities(path)
    assert (shares.shape, shares.dtype) == ((3, 45, 60), np.float32)
    assert np.allclose(shares.sum(axis=0), 1, atol=1e-5)
    for bad, error in (
        (pixels / 255, "must be uint8"),
        (pixels[..., :2], r"must have the shape \(H, W, 3\)"),
        (torch.zeros(1, 3, 4, 4), r"must have the shape \(3, H, W\)"),
    ):
        with pytest.raises(ValueError, match=error):
            predictor(bad)
    with pytest.raises(TypeError, match="not list"):
        predictor([1])
    with pytest.raises(FileNotFoundError):
        predictor("nowhere.png")


@pytest.mark.slow
def test_results_are_not_read_as_images(checkpoint, photos, monkeypatch):
    for out in ("results", "deep/more"):
        before = [source.name for source in find_sources([str(photos)]).sources]
        assert main(["predict", str(checkpoint), str(photos), "--out", str(photos / out)]) == 0
        assert [source.name for source in find_sources([str(photos)]).sources] == before
        assert len(find_sources([str(photos / "**" / "*.*g")]).sources) == 2
    assert len(find_sources([str(photos / "results" / "index")]).sources) == 2  # unless they are asked for
    about = json.loads((photos / "results" / "predictions.json").read_text())
    assert about["checkpoint"] == str(checkpoint)
    assert about["classes"] == ["a", "b", "c"]


@pytest.mark.slow
def test_results_beside_their_images_are_not_read_as_images(checkpoint, photos, capsys):
    for number in range(2):
        options = ["--write", "index,coco" if number else "color", "--overwrite"]
        assert main(["predict", str(checkpoint), str(photos), "--out", str(photos), *options]) == 0
        assert "2 images: " in capsys.readouterr().out
    assert sorted(str(source.name) for source in find_sources([str(photos)]).sources) == ["deep/two", "one"]
    assert len(find_sources([str(photos / "color")]).sources) == 2
    (photos / "predictions.json").write_text('[{"image_id": 1}]')  # of another program
    assert len(find_sources([str(photos)]).sources) == 6


def test_files_that_are_left_out_are_told(photos):
    for name in ("a.HEIC", "deep/b.heic", "c.cr2", "Thumbs.db", "deep/.d.heic"):
        (photos / name).write_bytes(b"")
    (photos / "@eaDir").mkdir()
    (photos / "@eaDir" / "small.png").write_bytes(b"")
    found = find_sources([str(photos)])
    assert len(found.sources) == 2
    assert "1 .cr2, 2 .heic, such as " in found.left_out
    assert "1 .cr2, 1 .heic, " in find_sources([str(photos / "*")]).left_out
    assert find_sources([str(photos / "one.png")]).left_out == ""


def test_names_on_standard_input_are_as_find_and_ls_write_them(photos, monkeypatch):
    for name in (" a.png", "b .png", "c\nd.png"):
        (photos / name).write_bytes(b"")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{photos}/ a.png\0{photos}/c\nd.png\0"))
    assert [str(source.name) for source in find_sources(["-"]).sources] == [" a", "c\nd"]
    monkeypatch.chdir(photos)
    monkeypatch.setattr(sys, "stdin", io.StringIO(" a.png\nb .png\n"))
    assert [str(source.name) for source in find_sources(["-"]).sources] == [" a", "b "]


def test_list_on_standard_input(photos, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{photos / 'one.png'}\n\n{photos / 'deep'}\n"))
    assert [str(source.name) for source in find_sources(["-"]).sources] == ["one", "two"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(ValueError, match="standard input"):
        find_sources(["-"])


def test_every_format(checkpoint, photos, tmp_path):
    out = tmp_path / "out"
    names = "index,gray,color,overlay,probabilities"
    assert main(["predict", str(checkpoint), str(photos), "--out", str(out), "--write", names]) == 0
    predictor = Predictor.from_run(checkpoint)
    for name in ("one", "deep/two"):
        image = next(photos.glob(f"{name}.*"))
        ids, pixels = predictor(image), np.array(Image.open(image))
        colors = np.array(predictor.classes.palette, np.uint8)[ids]
        for kind, mode, expected in (
            ("index", "P", ids),
            ("gray", "L", ids),
            ("color", "RGB", colors),
            ("overlay", "RGB", (0.5 * pixels + 0.5 * colors).round().astype(np.uint8)),
        ):
            with Image.open(out / kind / f"{name}.png") as picture:
                assert picture.mode == mode
                assert np.array_equal(np.array(picture), expected)
        content = np.load(out / "probabilities" / f"{name}.npz")
        assert content["probabilities"].dtype == np.float16
        assert content["classes"].tolist() == ["a", "b", "c"]
        assert np.allclose(content["probabilities"], predictor.probabilities(image), atol=1e-3)
    assert not list(out.rglob("*.tmp"))


def test_layouts_of_the_test_servers():
    ids = np.arange(19, dtype=np.uint8)[None]
    city = picture_formats(["cityscapes"], cityscapes.CLASSES["labelTrainIds"], 0.5)["cityscapes"]
    assert city.render(None, ids)[0].tolist() == list(cityscapes.CLASSES["labelIds"].values)
    path = city.path(Path("test/berlin/berlin_000000_000019"))
    assert str(path) == "cityscapes/berlin_000000_000019_labelIds.png"
    pascal = picture_formats(["voc"], voc.CLASSES, 0.5)["voc"]
    assert np.array_equal(pascal.render(None, ids), ids)
    assert str(pascal.path(Path("2008_000006"))) == "results/VOC2012/Segmentation/comp6_test_cls/2008_000006.png"
    for name in ("voc", "cityscapes"):
        with pytest.raises(ValueError, match=f"--write {name} is for models of the"):
            picture_formats([name], ClassTable(("a",), (0,), (), ((0, 0, 0),)), 0.5)


@pytest.mark.slow
def test_large_images_are_written_in_strips(checkpoint, photos, tmp_path, monkeypatch, capsys):
    """The same files as in one piece, and a clear answer where that cannot be."""
    big = tmp_path / "big.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 130, 3), dtype=np.uint8)).save(big)
    window = ["--window", "64"]
    assert main(["predict", str(checkpoint), str(big), "--out", str(tmp_path / "whole"), *window]) == 0
    monkeypatch.setattr(sources, "LARGE", 1000)
    monkeypatch.setattr("rmiseg.inference.segment.STRIP_ELEMENTS", 3 * 130 * 20)
    assert main(["predict", str(checkpoint), str(big), "--out", str(tmp_path / "strips"), *window]) == 0
    for kind in ("index", "overlay"):
        pictures = [np.array(Image.open(tmp_path / out / kind / "big.png")) for out in ("whole", "strips")]
        assert np.array_equal(*pictures)
    capsys.readouterr()
    assert main(["predict", str(checkpoint), str(big), "--out", str(tmp_path / "a")]) == 1
    assert "use --window 1024" in capsys.readouterr().err
    arguments = ["--write", "probabilities", "--out", str(tmp_path / "b"), *window]
    assert main(["predict", str(checkpoint), str(big), *arguments]) == 1
    assert "too many for probabilities" in capsys.readouterr().err


@pytest.mark.slow
def test_video(checkpoint, tmp_path, capsys):
    av = pytest.importorskip("av")
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for shade in (0, 100, 200):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    out = ["--out", str(tmp_path / "out"), "--write", "index"]
    assert main(["predict", str(checkpoint), str(path), *out]) == 0
    found = sorted((tmp_path / "out" / "index" / "film").iterdir())
    assert [file.name for file in found] == ["000000.png", "000001.png", "000002.png"]
    expected = Predictor.from_run(checkpoint)(np.full((48, 64, 3), 200, np.uint8))
    assert np.array_equal(np.array(Image.open(found[2])), expected)
    assert main(["predict", str(checkpoint), str(path), *out]) == 1
    assert "film exists" in capsys.readouterr().err
    path.write_bytes(b"no video")
    assert main(["predict", str(checkpoint), str(path), *out, "--overwrite"]) == 1
    assert f"cannot read video {path}" in capsys.readouterr().err


def test_a_video_is_turned_as_players_show_it(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        pixels = np.zeros((48, 64, 3), np.uint8)
        pixels[:24, :32] = 255
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44  # where a telephone writes that it was held upright
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    path.write_bytes(content)
    (frame,) = read_frames(find_sources([str(path)]).sources, windows=False)
    shown = frame.pixels()
    assert shown.shape == (64, 48, 3)
    np.testing.assert_allclose(shown, np.rot90(pixels, -1), atol=30)  # what was top left is top right


def test_video_without_its_package(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "film.mp4").write_bytes(b"")
    assert main(["predict", str(checkpoint), str(tmp_path / "film.mp4"), "--out", str(tmp_path / "out")]) == 1
    assert 'pip install ".[video]"' in capsys.readouterr().err


def test_an_unfinished_picture_does_not_appear(tmp_path):
    path = tmp_path / "a.png"

    def write_rows(error=None):
        with png_writer(path, (4, 5), "L") as write:
            write(np.zeros((2, 5), np.uint8))
            if error is not None:
                raise error

    with pytest.raises(KeyboardInterrupt):
        write_rows(KeyboardInterrupt())
    with pytest.raises(ValueError, match="2 of 4 rows"):
        write_rows()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_pictures_written_row_by_row_are_read_back(tmp_path, mode):
    shape = (23, 17, 3) if mode == "RGB" else (23, 17)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    palette = bytes(range(256)) * 3
    with png_writer(tmp_path / "a.png", (23, 17), mode, palette) as write:
        for top in range(0, 23, 5):
            write(pixels[top : top + 5])
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == mode
        assert np.array_equal(np.array(image), pixels)
        if mode == "P":
            assert bytes(image.getpalette()) == palette


@pytest.mark.usefixtures("interruptible")
@pytest.mark.slow
def test_interrupted_prediction_leaves_whole_files_only(checkpoint, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(300):
        Image.fromarray(np.full((64, 64, 3), index % 256, np.uint8)).save(folder / f"{index:03d}.png")
    out = tmp_path / "out"
    process = Forked(["predict", str(checkpoint), str(folder), "--out", str(out)], tmp_path / "log.txt")
    deadline = time.monotonic() + 120
    while not list(out.glob("index/*.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
    assert not list(out.rglob(".*"))
    for path in out.glob("*/*.png"):
        with Image.open(path) as image:
            image.load()


def test_items_made_ahead_are_the_same_and_errors_pass():
    assert list(ahead(iter(range(20)))) == list(range(20))

    def failing():
        yield 1
        raise ValueError("late")

    iterator = ahead(failing())
    assert next(iterator) == 1
    with pytest.raises(ValueError, match="late"):
        next(iterator)
    endless = ahead(iter(int, 1))
    next(endless)
    endless.close()  # ends its thread


def test_two_images_of_one_result(checkpoint, tmp_path):
    predictor = Predictor.from_run(checkpoint)
    predictor.classes = voc.CLASSES
    writer = Writer(predictor, tmp_path, ["voc"])
    both = [Source(tmp_path / "a.png", Path("x/a")), Source(tmp_path / "b.png", Path("y/a"))]
    with pytest.raises(ValueError, match="would both be written to"):
        writer.check(both, overwrite=True)


def test_options_with_commas_and_switches(checkpoint, photos, tmp_path):
    out = tmp_path / "out"
    arguments = ["--scales", "0.5,1", "--flip", "--write=index", "--out", str(out)]
    assert main(["predict", str(checkpoint), str(photos), *arguments]) == 0
    settings = json.loads((out / "predictions.json").read_text())["settings"]
    assert settings == {"scales": [0.5, 1.0], "flip": True, "window": None, "overlap": 0.25}
    tiling = TilingConfig(scales=[0.5, 1.0], flip=True)
    expected = Predictor.from_run(checkpoint, tiling=tiling)(photos / "one.png")
    assert np.array_equal(np.array(Image.open(out / "index" / "one.png")), expected)


@pytest.mark.slow
def test_dense_crf_follows_the_colors(tmp_path):
    pytest.importorskip("pydensecrf")
    from rmiseg.inference.crf import DenseCRF
    from rmiseg.inference.mean_field import refine

    rng = np.random.default_rng(0)
    truth = np.zeros((40, 60), np.uint8)
    truth[:, 30:] = 1
    image = np.where(truth[..., None] == 1, [200, 60, 40], [30, 90, 160]).astype(np.uint8)
    noisy = np.where(truth == 1, 0.65, 0.35) + rng.normal(0, 0.2, truth.shape)
    share = np.clip(noisy, 0.05, 0.95).astype(np.float32)
    probabilities = np.stack([1 - share, share])
    before = (probabilities.argmax(0) != truth).mean()
    assert before > 0.1
    refined = refine(image, probabilities, [5, 1], CRFConfig())
    errors = [(ids != truth).mean() for ids in refined.ids]
    assert errors[0] < 0.01 < before
    assert errors[0] <= errors[1] < before
    with DenseCRF([1], CRFConfig(workers=1)) as crf:  # in another process
        assert np.array_equal(crf(image, probabilities).ids[0], refined.ids[1])


def test_dense_crf_refuses(monkeypatch):
    from rmiseg.inference.crf import DenseCRF

    with pytest.raises(ValueError, match=r"at least 1, not \[0\]"):
        DenseCRF([0], CRFConfig())
    with pytest.raises(ValueError, match=r"dense_crf\.bilateral_srgb must be positive, not 0"):
        DenseCRF([1], CRFConfig(bilateral_srgb=0))
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(ModuleNotFoundError, match=r"\.\[crf\]"):
        DenseCRF([1], CRFConfig())
