//! The methods of our own, defined once.

use super::waits;
use crate::rpc::method::{Arg, Kind, Method};
use crate::rpc::{operate, own, snapshot};

pub(super) static METHODS: &[Method] = &[
    Method {
        name: "dunlin.hints",
        group: "dunlin",
        about: "Write hints for a SwiftSync to a file (BIP 456): which outputs are unspent at a height. The chain goes \
                on meanwhile.",
        args: &[
            Arg::required(
                "path",
                Kind::Str,
                "The file; a relative path lies in the data directory.",
            ),
            Arg::required("height", Kind::Num, "The height, not above the tip's."),
        ],
        result: "{...}    base_hash, base_height, coins, path",
        run: waits!(snapshot::hints),
    },
    Method {
        name: "dunlin.status",
        group: "dunlin",
        about: "Everything that the dashboard shows, at this moment.",
        args: &[],
        result: "{...}    as /api/status of the dashboard",
        run: waits!(own::status),
    },
    Method {
        name: "dunlin.verify",
        group: "dunlin",
        about: "As verifychain, and tells what is damaged, record by record.",
        args: &[
            Arg::default("nblocks", Kind::Num, "6", "How many blocks; 0 for all."),
            Arg::default("checklevel", Kind::Num, "3", "As in verifychain."),
            Arg::default(
                "repair",
                Kind::Bool,
                "false",
                "Repair what is damaged: blocks from peers, undo records and coins from blocks.",
            ),
        ],
        result: "{...}    checked, blocks_missing, coins_skipped, faults with height, hash, what, repaired",
        run: waits!(operate::verify),
    },
];
