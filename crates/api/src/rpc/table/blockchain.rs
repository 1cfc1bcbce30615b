//! The methods about the chain, defined once.

use super::waits;
use crate::rpc::method::{Arg, Kind, Method, Run};
use crate::rpc::{activity, block_stats, chain, coins, deployments, index, mempool, operate, scan, snapshot, tx_proof};

const BLOCK_HASH: Arg = Arg::required("blockhash", Kind::Hex, "The block's hash.");

pub(super) static METHODS: &[Method] = &[
    Method {
        name: "dumptxoutset",
        group: "blockchain",
        about: "Write the unspent outputs to a file in Bitcoin Core's format, as they are or as they were at an earlier \
                block. The chain goes on meanwhile.",
        args: &[
            Arg::required(
                "path",
                Kind::Str,
                "The file; a relative path lies in the data directory.",
            ),
            Arg::default(
                "type",
                Kind::Str,
                "\"\"",
                "latest for the tip, rollback for the block that the rollback option names or else for the highest \
                 snapshot that this version can load.",
            ),
            Arg::optional(
                "options",
                Kind::Options(&["rollback", "in_memory"]),
                "rollback: the height or hash of the block. in_memory: taken and not needed.",
            ),
        ],
        result: "{...}    coins_written, base_hash, base_height, path, txoutset_hash, nchaintx",
        run: waits!(snapshot::dumptxoutset),
    },
    Method {
        name: "getbestblockhash",
        group: "blockchain",
        about: "The hash of the tip: the last block of the valid chain with the most work.",
        args: &[],
        result: "\"hex\"    (string) the hash",
        run: Run::Blocking(chain::getbestblockhash),
    },
    Method {
        name: "getblock",
        group: "blockchain",
        about: "A block: its bytes, or what it says, with its transactions from verbosity 2 on and the outputs that they \
                spend from 3 on.",
        args: &[
            BLOCK_HASH,
            Arg::default(
                "verbosity|verbose",
                Kind::NumOrBool,
                "1",
                "0 for the bytes in hex, 1 for a JSON object with the ids of its transactions, 2 with the transactions, \
                 3 with the outputs that they spend.",
            ),
        ],
        result: "\"hex\" or {...}    the header's fields as in getblockheader, strippedsize, size, weight, coinbase_tx, tx",
        run: Run::Blocking(chain::getblock),
    },
    Method {
        name: "getblockchaininfo",
        group: "blockchain",
        about: "Where the chain stands: height, headers, tip, difficulty, work and how far validation has come.",
        args: &[],
        result: "{...}    chain, blocks, headers, bestblockhash, bits, target, difficulty, time, mediantime, \
                 verificationprogress, initialblockdownload, chainwork, size_on_disk, pruned, pruneheight, \
                 automatic_pruning, prune_target_size, warnings",
        run: Run::Blocking(chain::getblockchaininfo),
    },
    Method {
        name: "getblockcount",
        group: "blockchain",
        about: "The height of the tip. The genesis block has height 0.",
        args: &[],
        result: "n    (numeric) the height",
        run: Run::Blocking(chain::getblockcount),
    },
    Method {
        name: "getblockfilter",
        group: "blockchain",
        about: "A block's compact filter (BIP 158), with `--index filter`.",
        args: &[
            BLOCK_HASH,
            Arg::default("filtertype", Kind::Str, "basic", "Which filter; there is one."),
        ],
        result: "{...}    filter, header",
        run: Run::Blocking(index::getblockfilter),
    },
    Method {
        name: "getblockfrompeer",
        group: "blockchain",
        about: "Asks one peer for a block whose header is known, such as one that was pruned or lies off the chain. \
                Earlier requests for it are forgotten; a peer that does not answer is disconnected. Where blocks are \
                pruned it may soon be pruned again.",
        args: &[
            BLOCK_HASH,
            Arg::required("peer_id", Kind::Num, "The peer's id in getpeerinfo."),
        ],
        result: "{}    the peer was asked",
        run: waits!(operate::getblockfrompeer),
    },
    Method {
        name: "getblockhash",
        group: "blockchain",
        about: "The hash of the block at a height of the active chain.",
        args: &[Arg::required("height", Kind::Num, "The height.")],
        result: "\"hex\"    (string) the hash",
        run: Run::Blocking(chain::getblockhash),
    },
    Method {
        name: "getblockheader",
        group: "blockchain",
        about: "A block's header: its 80 bytes, or what they say and where the block stands.",
        args: &[
            BLOCK_HASH,
            Arg::default("verbose", Kind::Bool, "true", "False for the bytes in hex."),
        ],
        result: "\"hex\" or {...}    hash, confirmations, height, version, versionHex, merkleroot, time, mediantime, \
                 nonce, bits, target, difficulty, chainwork, nTx, previousblockhash, nextblockhash",
        run: Run::Blocking(chain::getblockheader),
    },
    Method {
        name: "getchaintips",
        group: "blockchain",
        about: "The ends of all branches of the block tree: the tip, and those off its chain.",
        args: &[],
        result: "[{...},...]    height, hash, branchlen, status (active, valid-fork, valid-headers, headers-only, invalid)",
        run: Run::Blocking(operate::getchaintips),
    },
    Method {
        name: "getblockstats",
        group: "blockchain",
        about: "What the transactions of a block pay, weigh and change in the set of unspent outputs. Amounts are in satoshi, rates in satoshi for a virtual byte.",
        args: &[
            Arg::required("hash_or_height", Kind::NumOrBool, "The block's hash, or its height."),
            Arg::optional("stats", Kind::List, "Which of them; all when left out."),
        ],
        result: "{...}    avgfee, avgfeerate, avgtxsize, feerate_percentiles, maxfee, medianfee, minfee, subsidy, totalfee, utxo_increase and more",
        run: Run::Blocking(block_stats::getblockstats),
    },
    Method {
        name: "getchaintxstats",
        group: "blockchain",
        about: "How many transactions the chain has, and how many a second over its last blocks.",
        args: &[
            Arg::optional("nblocks", Kind::Num, "Over how many blocks; a month when left out."),
            Arg::optional("blockhash", Kind::Hex, "The last of them; the tip when left out."),
        ],
        result: "{...}    time, txcount, window_final_block_hash, window_final_block_height, window_block_count, window_interval, window_tx_count, txrate",
        run: Run::Blocking(chain::getchaintxstats),
    },
    Method {
        name: "getdeploymentinfo",
        group: "blockchain",
        about: "Which rules hold since when, as seen from a block.",
        args: &[Arg::optional(
            "blockhash",
            Kind::Hex,
            "The block; the tip when left out.",
        )],
        result: "{...}    hash, height, script_flags, deployments",
        run: Run::Blocking(deployments::getdeploymentinfo),
    },
    Method {
        name: "getchainstates",
        group: "blockchain",
        about: "The sets of unspent outputs: that of the tip last, and before it the one that is validated in the \
                background when the chain goes on from a snapshot.",
        args: &[],
        result: "{...}    headers, chainstates: blocks, bestblockhash, bits, target, difficulty, verificationprogress, \
                 coins_db_cache_bytes, coins_tip_cache_bytes, snapshot_blockhash, validated",
        run: Run::Blocking(snapshot::getchainstates),
    },
    Method {
        name: "getdifficulty",
        group: "blockchain",
        about: "How much harder than the easiest block the tip was to find.",
        args: &[],
        result: "n    (numeric) the difficulty",
        run: Run::Blocking(chain::getdifficulty),
    },
    Method {
        name: "loadtxoutset",
        group: "blockchain",
        about: "Go on from a snapshot of the unspent outputs that this version knows; the blocks below it are validated \
                in the background.",
        args: &[Arg::required(
            "path",
            Kind::Str,
            "The file; a relative path lies in the data directory.",
        )],
        result: "{...}    coins_loaded, tip_hash, base_height, path",
        run: waits!(snapshot::loadtxoutset),
    },
    Method {
        name: "getmempoolentry",
        group: "blockchain",
        about: "What the memory pool knows of one of its transactions.",
        args: &[Arg::required("txid", Kind::Hex, "The transaction's id.")],
        result: "{...}    vsize, weight, time, height, descendantcount, descendantsize, ancestorcount, ancestorsize, \
                 wtxid, chunkweight, fees, depends, spentby, unbroadcast",
        run: Run::Blocking(mempool::getmempoolentry),
    },
    Method {
        name: "getmempoolinfo",
        group: "blockchain",
        about: "How full the memory pool is and what it asks for.",
        args: &[],
        result: "{...}    loaded, size, bytes, usage, total_fee, maxmempool, mempoolminfee, minrelaytxfee, \
                 incrementalrelayfee, unbroadcastcount, permitbaremultisig, maxdatacarriersize, limitclustercount, \
                 limitclustersize, optimal",
        run: Run::Blocking(mempool::getmempoolinfo),
    },
    Method {
        name: "getrawmempool",
        group: "blockchain",
        about: "The ids of the memory pool's transactions, or all that is known of them.",
        args: &[
            Arg::default(
                "verbose",
                Kind::Bool,
                "false",
                "True for an object with an entry as in getmempoolentry for each.",
            ),
            Arg::default(
                "mempool_sequence",
                Kind::Bool,
                "false",
                "True to get the pool's change counter with the ids.",
            ),
        ],
        result: "[\"txid\",...] or {...}",
        run: Run::Blocking(mempool::getrawmempool),
    },
    Method {
        name: "gettxspendingprevout",
        group: "blockchain",
        about: "Who spends outputs: transactions of the memory pool, and with `--index spender` of any block.",
        args: &[
            Arg::required("outputs", Kind::List, "Objects with txid and vout."),
            Arg::optional(
                "options",
                Kind::Object,
                "mempool_only: leave the index out; return_spending_tx: show the transactions too.",
            ),
        ],
        result: "[{...},...]    txid, vout, spendingtxid, spendingtx, blockhash",
        run: Run::Blocking(index::gettxspendingprevout),
    },
    Method {
        name: "gettxoutproof",
        group: "blockchain",
        about: "A proof that a block holds transactions.",
        args: &[
            Arg::required("txids", Kind::List, "Their ids."),
            Arg::optional(
                "blockhash",
                Kind::Hex,
                "The block; when left out, found by an unspent output of theirs or with `--index tx`.",
            ),
        ],
        result: "\"hex\"    (string) a block header with a partial merkle tree (BIP 37)",
        run: Run::Blocking(tx_proof::gettxoutproof),
    },
    Method {
        name: "gettxout",
        group: "blockchain",
        about: "An unspent output; null when there is none.",
        args: &[
            Arg::required("txid", Kind::Str, "The transaction's id."),
            Arg::required("n", Kind::Num, "Which of its outputs."),
            Arg::default(
                "include_mempool",
                Kind::Bool,
                "true",
                "Whether what the memory pool makes and spends counts.",
            ),
        ],
        result: "{...}    bestblock, confirmations, value, scriptPubKey, coinbase",
        run: Run::Blocking(chain::gettxout),
    },
    Method {
        name: "gettxoutsetinfo",
        group: "blockchain",
        about: "What all unspent outputs come to: at the tip, or with `--index stats` after any block, and what it added.",
        args: &[
            Arg::default(
                "hash_type",
                Kind::Str,
                "hash_serialized_3",
                "Which hash of the set: hash_serialized_3, muhash or none.",
            ),
            Arg::optional(
                "hash_or_height",
                Kind::NumOrBool,
                "The block's hash, or its height; the tip when left out.",
            ),
            Arg::default(
                "use_index",
                Kind::Bool,
                "true",
                "Answer from the index, if there is one.",
            ),
        ],
        result: "{...}    height, bestblock, txouts, bogosize, hash_serialized_3 or muhash, total_amount; with the index \
                 total_unspendable_amount, block_info; else transactions, disk_size",
        run: waits!(coins::gettxoutsetinfo),
    },
    Method {
        name: "invalidateblock",
        group: "hidden",
        about: "Treats a block as if it broke a rule, for good, and follows the best chain without it.",
        args: &[BLOCK_HASH],
        result: "null",
        run: waits!(operate::invalidateblock),
    },
    Method {
        name: "preciousblock",
        group: "blockchain",
        about: "Prefers a block to others with the same work, as if it had come first. A later call may prefer another.",
        args: &[BLOCK_HASH],
        result: "null",
        run: waits!(operate::preciousblock),
    },
    Method {
        name: "pruneblockchain",
        group: "blockchain",
        about: "Deletes block files up to a height, as far as nothing in them is needed any more. Needs --prune.",
        args: &[Arg::required(
            "height",
            Kind::Num,
            "The height, or a time in Unix seconds: then blocks at least two hours older.",
        )],
        result: "n    (numeric) the height of the last block pruned, -1 when none is",
        run: waits!(operate::pruneblockchain),
    },
    Method {
        name: "reconsiderblock",
        group: "hidden",
        about: "Forgets that a block, its ancestors and its descendants were invalid, and judges them anew; undoes \
                invalidateblock.",
        args: &[BLOCK_HASH],
        result: "null",
        run: waits!(operate::reconsiderblock),
    },
    Method {
        name: "verifytxoutproof",
        group: "blockchain",
        about: "Checks a proof of gettxoutproof against the chain.",
        args: &[Arg::required("proof", Kind::Hex, "The proof.")],
        result: "[\"txid\",...]    what it proves; empty when it proves nothing",
        run: Run::Blocking(tx_proof::verifytxoutproof),
    },
    Method {
        name: "getdescriptoractivity",
        group: "blockchain",
        about: "What blocks and the memory pool spend of, and pay to, descriptors.",
        args: &[
            Arg::required("blockhashes", Kind::List, "Blocks of the main chain, in any order."),
            Arg::required(
                "scanobjects",
                Kind::List,
                "Descriptors, or objects with desc and range: the last index or the first and the last.",
            ),
            Arg::default(
                "include_mempool",
                Kind::Bool,
                "true",
                "Whether to look into the memory pool, too.",
            ),
        ],
        result: "{...}    activity: for each spend and receive the amount, the output and where it happened",
        run: Run::Blocking(activity::getdescriptoractivity),
    },
    Method {
        name: "scanblocks",
        group: "blockchain",
        about: "Finds by their filters the blocks that have to do with descriptors; needs `--index filter`.",
        args: &[
            Arg::required("action", Kind::Str, "start, status or abort."),
            Arg::optional(
                "scanobjects",
                Kind::List,
                "Descriptors, or objects with desc and range: the last index or the first and the last.",
            ),
            Arg::default("start_height", Kind::Num, "0", "The first block looked at."),
            Arg::optional("stop_height", Kind::Num, "The last one; the tip when left out."),
            Arg::default("filtertype", Kind::Str, "basic", "The type of filter."),
            Arg::optional(
                "options",
                Kind::Options(&["filter_false_positives"]),
                "filter_false_positives: look into each block that is found, whether it is really one.",
            ),
        ],
        result: "{...}    from_height, to_height, relevant_blocks, completed; or how far a scan is",
        run: Run::Blocking(activity::scanblocks),
    },
    Method {
        name: "scantxoutset",
        group: "blockchain",
        about: "Looks through all unspent outputs for those that pay to descriptors.",
        args: &[
            Arg::required(
                "action",
                Kind::Str,
                "start; or status or abort, while another call has started one.",
            ),
            Arg::optional(
                "scanobjects",
                Kind::List,
                "Descriptors, or objects with desc and range: the last index (1000) or both ends.",
            ),
        ],
        result: "{...}    success, txouts, height, bestblock, unspents, total_amount; for status progress or null, for abort \
                 whether one was under way",
        run: waits!(scan::scantxoutset),
    },
    Method {
        name: "verifychain",
        group: "blockchain",
        about: "Checks the stored blocks, undo records and coins of the last blocks against each other. The log names \
                what is damaged.",
        args: &[
            Arg::default(
                "checklevel",
                Kind::Num,
                "3",
                "0: blocks can be read; 1: and follow their own rules; 2: undo records can be read; 3: the coins are those \
                 of the blocks; 4: the blocks can be connected again.",
            ),
            Arg::default("nblocks", Kind::Num, "6", "How many blocks; 0 for all."),
        ],
        result: "true|false    (boolean) whether all was checked and is well",
        run: waits!(operate::verifychain),
    },
];
