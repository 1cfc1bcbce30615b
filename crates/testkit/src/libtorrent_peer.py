"""A libtorrent session driven by JSON lines: one request a line on stdin, one answer a line on stdout.

The session talks plain TCP on loopback only: no DHT, no local discovery, no port mapping, no uTP, no encryption unless
asked for. It ends when stdin does.
"""

import json
import sys
import time

import libtorrent as lt


class Peer:
    def __init__(self, port, settings):
        base = {
            "listen_interfaces": f"127.0.0.1:{port}",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "enable_incoming_utp": False,
            "enable_outgoing_utp": False,
            "in_enc_policy": 2,  # disabled
            "out_enc_policy": 2,
            "allow_multiple_connections_per_ip": True,
            "ssrf_mitigation": False,  # trackers of tests are on loopback
            "upload_rate_limit": 0,
            "download_rate_limit": 0,
            "unchoke_slots_limit": -1,
            "min_reconnect_time": 1,
            "connection_speed": 100,
            "peer_connect_timeout": 5,
            "tracker_completion_timeout": 10,
            "tracker_receive_timeout": 5,
            "alert_mask": lt.alert.category_t.error_notification
            | lt.alert.category_t.status_notification
            | lt.alert.category_t.peer_notification
            | lt.alert.category_t.connect_notification
            | lt.alert.category_t.storage_notification,
            "user_agent": "libtorrent-testkit",
        }
        base.update(settings)
        self.session = lt.session(base)
        self.handles = {}
        self.alerts = []

    def collect(self):
        flushed = False
        for alert in self.session.pop_alerts():
            flushed = flushed or isinstance(alert, lt.cache_flushed_alert)
            self.alerts.append(f"{type(alert).__name__}: {alert.message()}")
        del self.alerts[:-500]
        return flushed

    def add(self, request):
        if "magnet" in request:
            params = lt.parse_magnet_uri(request["magnet"])
        else:
            params = lt.load_torrent_file(request["torrent"])
        params.save_path = request["save_path"]
        flags = params.flags
        flags &= ~lt.torrent_flags.auto_managed
        flags &= ~lt.torrent_flags.paused
        if request.get("seed_mode"):
            flags |= lt.torrent_flags.seed_mode
        params.flags = flags
        if request.get("upload_limit"):
            params.upload_limit = request["upload_limit"]
        handle = self.session.add_torrent(params)
        hashes = handle.info_hashes()
        hash_hex = str(hashes.v1 if hashes.has_v1() else hashes.v2)
        self.handles[hash_hex] = handle
        for address in request.get("peers", []):
            self.dial(handle, address)
        return {"info_hash": hash_hex}

    def dial(self, handle, address):
        ip, port = address.rsplit(":", 1)
        handle.connect_peer((ip, int(port)))

    def connect(self, request):
        self.dial(self.handles[request["info_hash"]], request["peer"])
        return {}

    def limit(self, request):
        handle = self.handles[request["info_hash"]]
        handle.set_upload_limit(request.get("upload", 0))
        handle.set_download_limit(request.get("download", 0))
        return {}

    def status(self, request):
        handle = self.handles[request["info_hash"]]
        status = handle.status()
        return {
            "state": str(status.state),
            "progress": status.progress,
            "total": status.total_wanted,
            "done": status.total_wanted_done,
            "downloaded": status.all_time_download,
            "uploaded": status.all_time_upload,
            "failed_bytes": status.total_failed_bytes,
            "seeding": status.is_seeding,
            "has_metadata": status.has_metadata,
            "peers": status.num_peers,
            "error": status.errc.message() if status.errc.value() else "",
        }

    def peers(self, request):
        handle = self.handles[request["info_hash"]]
        list_of = []
        for peer in handle.get_peer_info():
            client = peer.client
            list_of.append(
                {
                    "address": f"{peer.ip[0]}:{peer.ip[1]}",
                    "client": client.decode("utf-8", "replace") if isinstance(client, bytes) else client,
                    "downloaded": peer.total_download,
                    "uploaded": peer.total_upload,
                    "progress": peer.progress,
                }
            )
        return {"peers": list_of}

    def flush(self, request):
        """Writes everything that is still in memory into the files."""
        self.collect()
        self.handles[request["info_hash"]].flush_cache()
        deadline = time.monotonic() + 30
        while not self.collect():
            if time.monotonic() > deadline:
                raise TimeoutError("the cache was not flushed")
            time.sleep(0.02)
        return {}

    def recheck(self, request):
        self.handles[request["info_hash"]].force_recheck()
        return {}

    def remove(self, request):
        self.session.remove_torrent(self.handles.pop(request["info_hash"]))
        return {}

    def create(self, request):
        storage = lt.file_storage()
        lt.add_files(storage, request["content"])
        made = lt.create_torrent(storage, request.get("piece_length", 0), lt.create_torrent.v1_only)
        if request.get("tracker"):
            made.add_tracker(request["tracker"])
        parent = request["content"].rstrip("/").rsplit("/", 1)[0]
        lt.set_piece_hashes(made, parent)
        data = lt.bencode(made.generate())
        with open(request["output"], "wb") as file:
            file.write(data)
        return {"info_hash": str(lt.torrent_info(lt.bdecode(data)).info_hashes().v1)}

    def settings(self, request):
        self.session.apply_settings(request["settings"])
        return {}

    def log(self, _request):
        self.collect()
        return {"alerts": self.alerts}

    def version(self, _request):
        return {"version": lt.version, "port": self.session.listen_port()}


COMMANDS = {
    "add",
    "connect",
    "create",
    "flush",
    "limit",
    "log",
    "peers",
    "recheck",
    "remove",
    "settings",
    "status",
    "version",
}


def main():
    peer = Peer(int(sys.argv[1]), json.loads(sys.argv[2]))
    deadline = time.monotonic() + 20
    while peer.session.listen_port() == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    for line in sys.stdin:
        peer.collect()
        try:
            request = json.loads(line)
            name = request["do"]
            if name not in COMMANDS:
                raise ValueError(f"no command {name}")
            answer = {"ok": getattr(peer, name)(request)}
        except Exception as error:  # the test decides what an error means
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
