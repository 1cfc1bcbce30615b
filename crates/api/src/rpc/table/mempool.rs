//! The methods of the memory pool, defined once.

use crate::rpc::method::{Arg, Kind, Method, Run};
use crate::rpc::{fees, mempool, mempool_file, packages};

const TXID: Arg = Arg::required("txid", Kind::Hex, "The transaction's id.");
const VERBOSE: Arg = Arg::default(
    "verbose",
    Kind::Bool,
    "false",
    "True for an object with an entry as in getmempoolentry for each.",
);
const MAX_FEE_RATE: Arg = Arg::default(
    "maxfeerate",
    Kind::Amount,
    "0.10",
    "Refuse what pays more than this, in BTC per 1000 virtual bytes; 0 for no bound.",
);

pub(super) static METHODS: &[Method] = &[
    Method {
        name: "getmempoolancestors",
        group: "blockchain",
        about: "Everything in the memory pool that a transaction of it descends from.",
        args: &[TXID, VERBOSE],
        result: "[\"txid\",...] or {...}",
        run: Run::Blocking(mempool::getmempoolancestors),
    },
    Method {
        name: "getmempooldescendants",
        group: "blockchain",
        about: "Everything in the memory pool that descends from a transaction of it.",
        args: &[TXID, VERBOSE],
        result: "[\"txid\",...] or {...}",
        run: Run::Blocking(mempool::getmempooldescendants),
    },
    Method {
        name: "getmempoolcluster",
        group: "blockchain",
        about: "The relatives of a transaction of the memory pool, in the groups in which they would be mined.",
        args: &[TXID],
        result: "{...}    clusterweight, txcount, chunks (chunkfee, chunkweight, txs)",
        run: Run::Blocking(mempool::getmempoolcluster),
    },
    Method {
        name: "importmempool",
        group: "blockchain",
        about: "Offers the transactions of a file in Bitcoin Core's mempool.dat format to the memory pool.",
        args: &[
            Arg::required("filepath", Kind::Str, "The file."),
            Arg::optional(
                "options",
                Kind::Object,
                "use_current_time (true): as if the transactions came now; apply_fee_delta_priority (false): take \
                 priorities over; apply_unbroadcast_set (false).",
            ),
        ],
        result: "{}",
        run: Run::Blocking(mempool_file::importmempool),
    },
    Method {
        name: "savemempool",
        group: "blockchain",
        about: "Writes the memory pool to mempool.dat, in Bitcoin Core's format.",
        args: &[],
        result: "{...}    filename",
        run: Run::Blocking(mempool_file::savemempool),
    },
    Method {
        name: "getprioritisedtransactions",
        group: "mining",
        about: "All priorities given with prioritisetransaction.",
        args: &[],
        result: "{...}    by txid: fee_delta, in_mempool, modified_fee",
        run: Run::Blocking(mempool::getprioritisedtransactions),
    },
    Method {
        name: "prioritisetransaction",
        group: "mining",
        about: "Mines, keeps and replaces a transaction as if it paid more, or less.",
        args: &[
            TXID,
            Arg::optional("dummy", Kind::Num, "Zero or null."),
            Arg::required("fee_delta", Kind::Num, "Satoshi to add to its fee; not a fee rate."),
        ],
        result: "true",
        run: Run::Blocking(mempool::prioritisetransaction),
    },
    Method {
        name: "submitpackage",
        group: "rawtransactions",
        about: "Hands in a transaction with its unconfirmed parents, for which it may pay, parents first.",
        args: &[
            Arg::required("package", Kind::List, "The transactions' bytes in hex."),
            MAX_FEE_RATE,
            Arg::default(
                "maxburnamount",
                Kind::Amount,
                "0.00",
                "Refuse when an output that nobody can spend holds more than this, in BTC.",
            ),
        ],
        result: "{...}    package_msg, tx-results, replaced-transactions",
        run: Run::Async(|call| Box::pin(packages::submitpackage(call))),
    },
    Method {
        name: "testmempoolaccept",
        group: "rawtransactions",
        about: "What the memory pool would say of transactions, parents first, without taking them in.",
        args: &[
            Arg::required("rawtxs", Kind::List, "The transactions' bytes in hex."),
            MAX_FEE_RATE,
        ],
        result: "[{...},...]    txid, wtxid, package-error, allowed, vsize, fees, reject-reason, reject-details",
        run: Run::Blocking(packages::testmempoolaccept),
    },
    Method {
        name: "estimatesmartfee",
        group: "util",
        about: "What to pay, in BTC per 1000 virtual bytes, to be in a block within some blocks.",
        args: &[
            Arg::required("conf_target", Kind::Num, "Within how many blocks: 1 to 1008."),
            Arg::default(
                "estimate_mode",
                Kind::Str,
                "economical",
                "economical, or conservative: slower to follow falling fees.",
            ),
        ],
        result: "{...}    feerate, errors, blocks",
        run: Run::Blocking(fees::estimatesmartfee),
    },
];
