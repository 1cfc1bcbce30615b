//! The methods about transactions, defined once.

use super::waits;
use crate::rpc::method::{Arg, Kind, Method, Run};
use crate::rpc::{raw_tx, submit};

pub(super) static METHODS: &[Method] = &[
    Method {
        name: "getrawtransaction",
        group: "rawtransactions",
        about: "A transaction of the memory pool, of a block that is named, or with `--index tx` of any block.",
        args: &[
            Arg::required("txid", Kind::Hex, "The transaction's id."),
            Arg::default(
                "verbosity|verbose",
                Kind::NumOrBool,
                "0",
                "0 for the bytes in hex, 1 for a JSON object, 2 with the fee and the outputs spent.",
            ),
            Arg::optional(
                "blockhash",
                Kind::Hex,
                "The block to look into; without it the memory pool is searched, and the index where it is on.",
            ),
        ],
        result: "\"hex\" or {...}    txid, hash, version, size, vsize, weight, locktime, vin, vout, hex and its place in \
                 the chain",
        run: Run::Blocking(raw_tx::getrawtransaction),
    },
    Method {
        name: "sendrawtransaction",
        group: "rawtransactions",
        about: "Hands in a transaction: into the memory pool and to all peers.",
        args: &[
            Arg::required("hexstring", Kind::Hex, "The transaction's bytes."),
            Arg::default(
                "maxfeerate",
                Kind::Amount,
                "0.10",
                "Refuse it when it pays more than this, in BTC per 1000 virtual bytes; 0 for no bound.",
            ),
            Arg::default(
                "maxburnamount",
                Kind::Amount,
                "0.00",
                "Refuse it when an output that nobody can spend holds more than this, in BTC.",
            ),
        ],
        result: "\"hex\"    (string) the transaction's id",
        run: waits!(submit::sendrawtransaction),
    },
];
