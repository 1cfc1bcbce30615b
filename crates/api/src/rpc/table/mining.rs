//! The methods for miners, defined once.

use super::waits;
use crate::rpc::method::{Arg, Kind, Method};
use crate::rpc::{mining, submit};

pub(super) static METHODS: &[Method] = &[
    Method {
        name: "generatetoaddress",
        group: "mining",
        about: "Finds blocks that pay to an address. Only of use where blocks are easy: on regtest.",
        args: &[
            Arg::required("nblocks", Kind::Num, "How many."),
            Arg::required("address", Kind::Str, "Whom the coinbase pays."),
            Arg::default(
                "maxtries",
                Kind::Num,
                "1000000",
                "After how many hashes in all to give up.",
            ),
        ],
        result: "[\"blockhash\",...]    those found",
        run: waits!(mining::generatetoaddress),
    },
    Method {
        name: "submitheader",
        group: "mining",
        about: "Hand in a block header.",
        args: &[Arg::required("hexdata", Kind::Hex, "The header in hex.")],
        result: "null",
        run: waits!(submit::submitheader),
    },
    Method {
        name: "submitblock",
        group: "mining",
        about: "Hands in a block, which is validated, stored and flooded (BIP 22).",
        args: &[
            Arg::required("hexdata", Kind::Hex, "The block's bytes."),
            Arg::optional("dummy", Kind::Str, "Ignored; BIP 22 has it."),
        ],
        result: "null, or \"text\"    (string) why it was not accepted",
        run: waits!(submit::submitblock),
    },
];
