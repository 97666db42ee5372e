"""Define the flags of ``pmi-cl invert``, which makes pictures of a text."""

from __future__ import annotations

from dataclasses import dataclass

from pmi_cl.options import option

RECORD = "invert.json"  # lies beside the pictures
MOST_ROWS = 16  # of a picture: as many images are shown


@dataclass(frozen=True)
class InvertOptions:
    """The options of the command. Those of the backbone come on top.

    Defaults are those of the appendix for CLIP (I.2), if it has one.
    """

    prompt: str | None = option(None, 'the text, in quotes: "a photo of the digit 5."; required')
    output: str | None = option(
        None, "folder of the pictures, made where it lacks; none: runs/invert/ and the text", path=True
    )
    backbone: str = option("clip-tiny", "a CLIP: clip-tiny, clip-vit-b-16 or another that --list names")
    images: int = option(
        4, "pictures of the text, inverted together; the first 16 are shown", unit="images", low=1, high=1000
    )
    steps: int = option(600, "full-model steps after PMI", unit="steps", source="App. I.2", low=1, high=1_000_000)
    pmi_steps: int = option(200, "PMI steps of each layer", unit="steps", source="App. I.2", low=1, high=1_000_000)
    lr: float = option(0.1, "rate of both stages", source="App. I.2", above=0, high=1000)
    statistics_weight: float = option(0.002, "weight of the layers' statistics", source="App. I.2", low=0, high=1000)
    smoothness_weight: float = option(0.005, "weight of the total variation", source="App. C.3", low=0, high=1000)
    spectrum: float = option(
        1.0, "frequencies are damped by 1 / f^spectrum; 0: plain pixels, as in the paper", source="ours", low=0, high=3
    )
    roll: int | None = option(
        None,
        "at every step the pictures are shifted by up to so many pixels; none: a sixteenth of the side",
        source="ours",
        low=0,
        high=256,
    )
    noise: float = option(0.1, "deviation of the noise added at every step", source="ours", low=0, high=10)
    pictures: int = option(8, "shown of each image, evenly spread over its full-model steps", low=2, high=50)
    data_dir: str | None = option(None, "folder of any images to measure statistics and colours on", path=True)
    dataset: str | None = option(
        None, "data set to measure them on instead; none: no statistics; not given: seq-digits for clip-tiny"
    )
    data_images: int = option(500, "images measured at the most", unit="images", low=2, high=1_000_000)
    seed: int = option(0, "seed of every random number", low=0, high=4294967295)

    base_path: str = option("./data", "folder of data sets and downloaded weights", path=True)
    offline: bool = option(False, "1: fetch nothing")
    device: str = option("auto", "auto, cpu, cuda, cuda:N or N; auto: the first GPU where there is one, else the CPU")
    num_threads: int | None = option(None, "CPU threads; none: as PyTorch chooses", unit="threads", low=1, high=1024)
    precision: str = option(
        "auto", "arithmetic; auto: bf16 where the processor has native instructions", choices=("auto", "fp32", "bf16")
    )
    progress: str = option("auto", "progress bars: 0, 1 or auto (on a terminal)", choices=("auto", "0", "1"))
