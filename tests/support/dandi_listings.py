"""Manifests of real dandisets from their bundled ``assets.json``."""

import json
from pathlib import Path

from neuromill.catalog.cards import Card
from neuromill.records import Digest, Manifest, SourceFile


def assets_manifest(folder: Path, card: Card) -> Manifest:
    """Manifest of the version that a card pins, as the mirror of the archive listed it."""
    assets = json.loads((folder / "metadata" / "assets.json").read_text())
    files = (
        SourceFile(asset["path"], asset["size"], Digest("sha256", asset["metadata"]["digest"]["dandi:sha2-256"]))
        for asset in assets
    )
    return Manifest(card.dataset_version, tuple(sorted(files, key=lambda file: file.path)))
