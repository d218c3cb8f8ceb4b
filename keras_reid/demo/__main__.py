"""`keras-reid demo --gallery=people.db`: a local web page that searches a gallery.

`search.py enrol` fills the gallery. The embedder is --model, by default the pretrained model.
"""

import os
import signal
import tempfile
from dataclasses import dataclass
from typing import ClassVar

from keras_reid import checks
from keras_reid.cli.common import GalleryOptions
from keras_reid.cli.options import Command, option
from keras_reid.cli.terminal import say


@dataclass(frozen=True, kw_only=True)
class DemoOptions(GalleryOptions):
    """Options of `demo`: the gallery, and the address of the page."""

    unused: ClassVar[str] = "dataset protocol overwrite"

    images: str | None = option(
        "Folder of images to choose from, in addition to uploads.", topic="data"
    )
    host: str = option(
        "Address of the server: 127.0.0.1 for this machine only, 0.0.0.0 for all networks.",
        "127.0.0.1",
    )
    port: int = option("Port of the server.", 7860, least=0, most=65535)
    max_megabytes: int = option("Maximum size of an upload in megabytes.", 10, least=1, most=1000)


def demo(options: DemoOptions) -> None:
    """Serve the page until it is interrupted."""
    uri = options.uri
    # Gradio stores uploads in this folder, which is removed at the end; each is read once.
    with tempfile.TemporaryDirectory(prefix="search-") as uploads:
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False"}
        checks.installed("gradio", "demo")
        from keras_reid.demo.answers import Answers
        from keras_reid.demo.page import page

        embed, limits = options.embedder(), options.limits
        with Answers(uri, options.loaded, embed, limits, options.images) as answers:
            blocks = page(answers)
            _, url, _ = blocks.launch(
                server_name=options.host,
                server_port=options.port or None,
                max_file_size=f"{options.max_megabytes}mb",
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                footer_links=[],
            )
            say(f"searching {uri} at {url}")
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # removes the folder
            blocks.block_thread()


run = Command(demo, DemoOptions, "gallery model images host port max_megabytes")

if __name__ == "__main__":
    run()
