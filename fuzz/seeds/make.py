#!/usr/bin/env python3
"""Writes the seed corpora beside it, see README.md. Needs nothing but Python; the same bytes come out every time."""

import json
import pathlib
import shutil
import struct

HERE = pathlib.Path(__file__).parent
TESTS = HERE.parent.parent / "crates"


def seed(target, name, data):
    folder = HERE / target
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    pairs = sorted((key.encode(), item) for key, item in value.items())
    return b"d" + b"".join(bencode(key) + bencode(item) for key, item in pairs) + b"e"


def torrent_message(number, body=b""):
    return struct.pack(">IB", len(body) + 1, number) + body


def frame(command, payload=b""):
    """A frame of the relay_wire target; the number is the command's place in the target's list."""
    return struct.pack(">BH", command, len(payload)) + payload


# The torrent files that libtorrent made for the torrent crate's tests.
for file in (TESTS / "torrent/tests/data").glob("*.torrent"):
    for target in ("metainfo", "bencode"):
        (HERE / target).mkdir(exist_ok=True)
        shutil.copyfile(file, HERE / target / file.name)
seed("bencode", "all-kinds", bencode({"int": -7, "list": [1, "two", []], "dict": {"": {}}, "text": "\u00e9"}))
seed("bencode", "repeated-key", b"d1:ai01e1:ai2ee")
seed("metainfo", "everything", bencode({
    "announce": "http://a.example/announce",
    "announce-list": [["http://a.example/announce", "udp://b.example:80"], ["http://c.example/announce"]],
    "comment": "c", "created by": "b", "creation date": 1, "nodes": [["192.0.2.1", 6881]],
    "url-list": ["http://d.example/"],
    "info": {"name": "folder", "piece length": 16384, "pieces": b"\x07" * 40, "private": 1, "files": [
        {"path": ["a", "b"], "length": 16385, "attr": "x"}, {"path": [".pad", "3"], "length": 3, "attr": "p"}]},
}))

HASH = "c12fe1c06bba254a9dc9f519b335aa7c1367a88a"
seed("magnet", "full", (
    f"magnet:?xt=urn:btih:{HASH}&dn=a+b%20%c3%a9&tr=http%3A%2F%2Ft.example%2Fa%3Fx%3D1&tr.1=udp://t.example:80"
    "&x.pe=[::1]:6881&x.pe=192.0.2.1:6881&ws=http://w.example/&xl=5").encode())
seed("magnet", "base32", b"magnet:?xt=urn:btih:YEX6DQDLXISUVHOJ6UM3GNNKPQJWPKEK&xt=urn:btmh:1220")

seed("resume", "small", bencode({
    "info hash": b"\x01" * 20, "dir": "/d", "name": "n", "trackers": [["http://t.example/"]], "pieces": 9,
    "have": b"\x80\x80", "files": b"\x01" + struct.pack(">QqI", 5, 6, 7), "paused": 1, "uploaded": 2,
    "downloaded": 3, "added": 4, "info": bencode({"name": "n", "length": 9, "piece length": 1, "pieces": b"h" * 180})}))

block = struct.pack(">III", 1, 16384, 16384)
ext = bencode({"m": {"ut_metadata": 3, "ut_pex": 2, "lt_donthave": 7}, "v": "x 1", "p": 6881, "reqq": 250,
               "metadata_size": 31235, "yourip": b"\x7f\0\0\1", "upload_only": 1})
data = bencode({"msg_type": 1, "piece": 0, "total_size": 5}) + b"hello"
pex = bencode({"added": b"\x7f\0\0\1\x1a\xe1", "added.f": b"\x10", "added6": b"\x20" * 18, "added6.f": b"\0",
               "dropped": b"\x7f\0\0\2\x1a\xe1", "dropped6": b""})
seed("torrent_wire", "plain", b"\x05" + bytes(4) + b"".join(
    [torrent_message(number) for number in (0, 1, 2, 3, 14, 15)] + [torrent_message(4, bytes(4))]
    + [torrent_message(number, block) for number in (6, 8, 16)] + [torrent_message(number, bytes(4)) for number in (13, 17)]
    + [torrent_message(5, b"\xf0"), torrent_message(7, bytes(8) + b"data"), torrent_message(9, b"\x1a\xe1")]
    + [torrent_message(99, b"what")]))
seed("torrent_wire", "extensions", b"\x09" + torrent_message(20, b"\0" + ext) + torrent_message(20, b"\x02" + data)
     + torrent_message(20, b"\x02" + bencode({"msg_type": 0, "piece": 1}))
     + torrent_message(20, b"\x01" + pex) + torrent_message(20, b"\x07" + bytes(4)))

seed("tracker_http", "compact", bencode({
    "interval": 900, "min interval": 60, "complete": 5, "incomplete": 7, "peers": b"\x7f\0\0\1\x1a\xe1",
    "peers6": b"\x20" * 18, "tracker id": "i", "warning message": "w"}))
seed("tracker_http", "list", bencode({"interval": 1, "peers": [{"ip": "192.0.2.1", "port": 1, "peer id": "p" * 20}]}))
seed("tracker_http", "refusal", bencode({"failure reason": "no"}))
seed("tracker_http", "url", b"https://t.example/a?b=c#d")
seed("tracker_http", "udp-url", b"udp://[::1]:80/a?b")

# The first block of regtest, from which Bitcoin's other formats are cut.
header = (struct.pack("<I", 1) + bytes(32)
          + bytes.fromhex("3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a")
          + struct.pack("<III", 1296688602, 0x207FFFFF, 2))
coinbase = bytes.fromhex(
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d0104455468652054"
    "696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420"
    "666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61"
    "deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000")
witness_tx = (bytes.fromhex("02000000" "0001" "01") + b"\x11" * 32 + bytes.fromhex("00000000" "00" "fdffffff" "01")
              + struct.pack("<Q", 1000) + b"\x02\x00\x51" + b"\x01\x01\x51" + bytes(4))
seed("block", "genesis", header + b"\x01" + coinbase)
seed("block", "no-inputs", header + b"\x01" + bytes.fromhex("020000000001000000000000"))
seed("block", "witness", header + b"\x02" + coinbase + witness_tx)
address = struct.pack("<QI", 9, 0)
v1 = bytes(10) + b"\xff\xff\x7f\0\0\1" + struct.pack(">H", 8333)
version = (struct.pack("<iQq", 70016, 9, 1800000000) + struct.pack("<Q", 9) + v1 + struct.pack("<Q", 9) + v1
           + struct.pack("<Q", 77) + b"\x03/x/" [:4] + struct.pack("<i", 5) + b"\x01")
item = struct.pack("<I", 0x40000002) + b"\x22" * 32
addrv2 = b"\x02" + struct.pack("<I", 5) + b"\x09\x01\x04\x7f\0\0\1" + struct.pack(">H", 8333) + (
    struct.pack("<I", 6) + b"\xfd\x00\x04\x04\x20" + b"\x33" * 32 + struct.pack(">H", 1))
seed("relay_wire", "handshake", b"\x03" + frame(0, version) + b"".join(frame(number) for number in (1, 2, 3, 4, 8, 19)))
seed("relay_wire", "lists", b"\x07" + frame(9, b"\x01" + struct.pack("<IQ", 5, 9) + v1) + frame(10, addrv2)
     + b"".join(frame(number, b"\x01" + item) for number in (11, 12, 13))
     + frame(14, struct.pack("<I", 70016) + b"\x01" + bytes(64)) + frame(16, b"\x01" + header + b"\0"))
seed("relay_wire", "bulk", b"\x09" + frame(17, witness_tx) + frame(18, header + b"\x01" + coinbase)
     + frame(5, bytes(8)) + frame(6, bytes(8)) + frame(7, bytes(8)) + frame(21, b"x") + frame(255, b"\xfa\xbf\xb5\xda"))

for name, body in {
    "named": {"jsonrpc": "2.0", "method": "getblock", "id": "a",
              "params": {"blockhash": "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206", "verbosity": 3}},
    "positions": {"method": "gettxout", "params": {"args": ["00" * 32, 0], "include_mempool": False}},
    "batch": [{"method": "help", "params": ["getblock"]}, {"method": "uptime", "jsonrpc": "2.0"}, 1],
    "transaction": {"method": "getrawtransaction", "params": ["11" * 32, 2, "00" * 32]},
    "send": {"method": "sendrawtransaction", "params": [witness_tx.hex(), "0.10", 1e-3], "id": 1},
    "submit": {"method": "submitblock", "params": [(header + b"\x01" + coinbase).hex()]},
    "height": {"method": "getblockhash", "params": [0]},
    "mine": {"method": "generatetoaddress", "params": [1, "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", 100]},
    "ban": {"method": "setban", "params": ["192.0.2.0/24", "add", 3600, True]},
    "node": {"method": "addnode", "params": ["192.0.2.1:8333", "onetry"]},
    "magnet": {"method": "torrent.add", "params": [f"magnet:?xt=urn:btih:{HASH}"]},
    "pool": {"method": "getrawmempool", "params": [True, False]},
}.items():
    seed("rpc", name, json.dumps(body).encode())
