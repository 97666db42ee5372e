"""Define the flags of a CLIP backbone: where its weights come from, and their activation."""

from __future__ import annotations

from dataclasses import dataclass

from pmi_cl.options import option


@dataclass(frozen=True)
class ClipOptions:
    """The flags of every CLIP backbone."""

    clip_weights: str | None = option(
        None,
        "weights: a tag of open_clip's (openai, laion400m_e32 ...), a FILE, a folder, or random; "
        "none: the backbone's own, openai for those that OpenAI trained",
        source="PMI main tables: openai; Table 7: laion400m_e32",
        role="machine",  # where they lie; which they are is in the record, by tag and checksum
        binds="nothing",
        path=True,
    )
    clip_gelu: str = option(
        "auto",
        "activation that the weights were trained with: QuickGELU (OpenAI's) or the exact GELU; "
        "auto: as open_clip lists the tag, the file or what its name says",
        choices=("auto", "quick", "exact"),
    )
