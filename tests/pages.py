"""The data of a page, read as the page reads it."""

import gzip
import json
import re
from base64 import b64decode

import numpy as np


def unpacked(text):
    """Read a packed document as the page does."""
    document = json.loads(text)
    content = gzip.decompress(b64decode(document["blob"]))

    def filled(node):
        if isinstance(node, list):
            return [filled(part) for part in node]
        if not isinstance(node, dict):
            return node
        if "array" in node:
            assert node["start"] % 4 == 0
            return np.frombuffer(content, np.dtype(node["array"]).newbyteorder("<"), node["length"], node["start"])
        return {name: filled(part) for name, part in node.items()}

    return filled(document["tree"])


def data_of(html):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    return unpacked(text)
