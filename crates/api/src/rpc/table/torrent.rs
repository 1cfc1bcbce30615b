//! The methods about torrents, which are our own, defined once.

use super::waits;
use crate::rpc::method::{Arg, Kind, Method};
use crate::rpc::torrents;

const INFO_HASH: Arg = Arg::required("info_hash", Kind::Hex, "Which torrent: 40 hex digits.");

pub(super) static METHODS: &[Method] = &[
    Method {
        name: "torrent.add",
        group: "torrent",
        about: "Adds a torrent.",
        args: &[
            Arg::required(
                "torrent",
                Kind::Str,
                "A magnet link, an http address, or a .torrent file's bytes in base64.",
            ),
            Arg::optional(
                "dir",
                Kind::Str,
                "The folder to put it in, instead of the configured one.",
            ),
            Arg::optional("peers", Kind::List, "Addresses of peers to dial."),
            Arg::default("paused", Kind::Bool, "false", "Add it without starting."),
            Arg::default("seed_only", Kind::Bool, "false", "Only serve what is there already."),
        ],
        result: "{...}    info_hash",
        run: waits!(torrents::add),
    },
    Method {
        name: "torrent.info",
        group: "torrent",
        about: "Everything about one torrent, with its files.",
        args: &[INFO_HASH],
        result: "{...}    as in torrent.list, and files (null while they are unknown)",
        run: waits!(torrents::info),
    },
    Method {
        name: "torrent.limit",
        group: "torrent",
        about: "Limits rates, of one torrent or of all together, in KiB a second; 0 or nothing is no limit.",
        args: &[
            Arg::optional("download", Kind::Num, "From peers."),
            Arg::optional("upload", Kind::Num, "To peers."),
            Arg::optional("info_hash", Kind::Hex, "Only this torrent: 40 hex digits."),
        ],
        result: "null",
        run: waits!(torrents::limit),
    },
    Method {
        name: "torrent.list",
        group: "torrent",
        about: "Every torrent with its peers.",
        args: &[],
        result: "[{...},...]    info_hash, name, state, total_bytes, done_bytes, download_rate, upload_rate, peers and more",
        run: waits!(torrents::list),
    },
    Method {
        name: "torrent.pause",
        group: "torrent",
        about: "Stops a torrent until it is resumed.",
        args: &[INFO_HASH],
        result: "null",
        run: waits!(torrents::pause),
    },
    Method {
        name: "torrent.prioritise",
        group: "torrent",
        about: "Says how much files are wanted.",
        args: &[
            INFO_HASH,
            Arg::required("files", Kind::Object, "For each index of a file: skip, normal or high."),
        ],
        result: "null",
        run: waits!(torrents::prioritise),
    },
    Method {
        name: "torrent.recheck",
        group: "torrent",
        about: "Hashes everything that is on disk again.",
        args: &[INFO_HASH],
        result: "null",
        run: waits!(torrents::recheck),
    },
    Method {
        name: "torrent.remove",
        group: "torrent",
        about: "Forgets a torrent.",
        args: &[
            INFO_HASH,
            Arg::default("delete_files", Kind::Bool, "false", "Delete its files too."),
        ],
        result: "null",
        run: waits!(torrents::remove),
    },
    Method {
        name: "torrent.resume",
        group: "torrent",
        about: "Starts a paused torrent, or one that ran into an error.",
        args: &[INFO_HASH],
        result: "null",
        run: waits!(torrents::resume),
    },
    Method {
        name: "torrent.stream",
        group: "torrent",
        about: "Where a player finds a torrent's files, also while they download.",
        args: &[INFO_HASH],
        result: "{...}    playlist and files, each with index, path, length, type and url (null while they are unknown)",
        run: waits!(torrents::stream),
    },
];
