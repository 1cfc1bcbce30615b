#!/usr/bin/env python3
"""Makes the .torrent files in this folder with libtorrent (see README.md). Needs its Python binding, 2.0 or newer."""
import json
import os
import sys
import tempfile
import warnings

import libtorrent as lt

warnings.simplefilter("ignore", DeprecationWarning)
here = os.path.dirname(os.path.abspath(__file__))


def content(seed, length):
    """Bytes that are the same everywhere: a 64-bit linear congruential generator, its top byte each step."""
    state, out = seed, bytearray()
    for _ in range(length):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append(state >> 56)
    return bytes(out)


CASES = {
    "single": dict(flags=lt.create_torrent.v1_only, piece=16384, files={"single.bin": 50_000}),
    "folder": dict(flags=lt.create_torrent.v1_only, piece=32768, private=True, files={
        "a.txt": 10, "b/empty": 0, "b/long.bin": 100_000, "b/c/\u00fcml\u00e4ut \u20ac.bin": 33_333, "z": 1}),
    "padded": dict(flags=lt.create_torrent.v1_only | lt.create_torrent.canonical_files, piece=16384, files={
        "one": 20_000, "three": 7, "two": 40_000}),
    "hybrid": dict(flags=0, piece=16384, files={"x/one": 20_000, "x/two": 16_384, "y": 5}),
    "v2": dict(flags=lt.create_torrent.v2_only, piece=16384, files={"one": 20_000}),
}

expected = {}
for name, case in CASES.items():
    with tempfile.TemporaryDirectory() as folder:
        for index, (path, length) in enumerate(case["files"].items()):
            full = os.path.join(folder, *([] if name == "single" else [name]), path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "wb") as out:
                out.write(content(index + 1, length))
        storage = lt.file_storage()
        lt.add_files(storage, os.path.join(folder, "single.bin" if name == "single" else name))
        creator = lt.create_torrent(storage, case["piece"], case["flags"])
        creator.set_creator("libtorrent")
        creator.set_comment("made for tests")
        creator.add_tracker("http://one.example/announce", 0)
        creator.add_tracker("udp://two.example:6969/announce", 0)
        creator.add_tracker("http://three.example/announce", 1)
        creator.add_url_seed("http://seed.example/files/")
        creator.set_priv(case.get("private", False))
        lt.set_piece_hashes(creator, folder)
        torrent = creator.generate()
        torrent[b"creation date"] = 1700000000
    raw = lt.bencode(torrent)
    with open(os.path.join(here, name + ".torrent"), "wb") as out:
        out.write(raw)
    info = lt.torrent_info(raw)
    hashes = info.info_hashes()
    files = info.files()
    expected[name] = dict(
        info_hash=str(hashes.v1) if hashes.has_v1() else None,
        name=info.name(),
        piece_length=info.piece_length(),
        pieces=[info.hash_for_piece(i).hex() for i in range(info.num_pieces())] if hashes.has_v1() else [],
        private=info.priv(),
        total=info.total_size(),
        files=[
            dict(path=files.file_path(i), length=files.file_size(i), offset=files.file_offset(i),
                 pad=bool(files.file_flags(i) & lt.file_storage.flag_pad_file))
            for i in range(info.num_files())
        ],
    )
with open(os.path.join(here, "expected.json"), "w") as out:
    json.dump(expected, out, indent=1, sort_keys=True)
    out.write("\n")
print("made with libtorrent", lt.__version__, file=sys.stderr)
