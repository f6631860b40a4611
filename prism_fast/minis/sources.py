"""Where the minis' pictures come from: pinned npm packages, their checksums and their licences."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from prism_fast.errors import InputError, RunError


@dataclass(frozen=True)
class Source:
    """One drawing style: an npm package of emoji pictures."""

    style: str
    package: str
    version: str
    sha256: str
    licence: str
    author: str
    url: str

    @property
    def archive(self) -> str:
        """File name that ``npm pack`` gives the package."""
        return f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


STYLES: tuple[Source, ...] = (
    Source(
        "noto",
        "@iconify-json/noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Apache-2.0",
        "Google Inc",
        "https://github.com/googlefonts/noto-emoji",
    ),
    Source(
        "blob",
        "@iconify-json/noto-v1",
        "1.2.5",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        "Apache-2.0",
        "Google Inc",
        "https://github.com/googlefonts/noto-emoji",
    ),
    Source(
        "twemoji",
        "@iconify-json/twemoji",
        "1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        "CC-BY-4.0",
        "Twitter",
        "https://github.com/jdecked/twemoji",
    ),
    Source(
        "emojione",
        "@iconify-json/emojione",
        "1.2.3",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        "CC-BY-4.0",
        "Emoji One",
        "https://github.com/EmojiTwo/emojitwo",
    ),
    Source(
        "fluent",
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "MIT",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    Source(
        "fluent 3d",
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        "MIT",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    Source(
        "openmoji",
        "@iconify-json/openmoji",
        "1.2.29",
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
        "CC-BY-SA-4.0",
        "OpenMoji",
        "https://github.com/hfg-gmuend/openmoji",
    ),
    Source(
        "firefox",
        "@iconify-json/fxemoji",
        "1.2.2",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
        "Apache-2.0",
        "Mozilla",
        "https://github.com/mozilla/fxemoji",
    ),
    Source(
        "emojione legacy",
        "@iconify-json/emojione-v1",
        "1.2.3",
        "6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3",
        "CC-BY-SA-4.0",
        "Emoji One",
        "https://github.com/joypixels/emojione-legacy",
    ),
)
NAMES = Source(
    "names",
    "openmoji",
    "17.0.0",
    "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
    "CC-BY-SA-4.0",
    "OpenMoji",
    "https://github.com/hfg-gmuend/openmoji",
)


def fetch(source: Source, cache: Path) -> Path:
    """Return the package's archive, downloading it with ``npm pack`` when it is not in ``cache``.

    Raises:
        InputError: ``npm`` is not installed.
        RunError: the download failed, or the archive is not the pinned one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / source.archive
    if not path.exists():
        spec = f"{source.package}@{source.version}"
        try:
            subprocess.run(["npm", "pack", "--silent", spec], cwd=cache, check=True, capture_output=True, timeout=600)
        except FileNotFoundError:
            raise InputError("npm is not installed; it fetches the emoji packages: install Node.js and npm") from None
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise RunError(f"npm could not fetch {spec}; check the network and run the command again") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != source.sha256:
        path.unlink()
        raise RunError(f"{path.name} has SHA-256 {digest}, expected {source.sha256}; it was removed, run again")
    return path
