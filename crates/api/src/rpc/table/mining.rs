//! The methods for miners, defined once.

use super::waits;
use crate::rpc::method::{Arg, Kind, Method, Run};
use crate::rpc::{block_template, mining, mining_info, submit};

pub(super) static METHODS: &[Method] = &[
    Method {
        name: "generatetoaddress",
        group: "hidden",
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
        name: "generatetodescriptor",
        group: "hidden",
        about: "Finds blocks that pay to a descriptor. Only of use where blocks are easy: on regtest.",
        args: &[
            Arg::required("num_blocks", Kind::Num, "How many."),
            Arg::required("descriptor", Kind::Str, "Whom the coinbase pays."),
            Arg::default(
                "maxtries",
                Kind::Num,
                "1000000",
                "After how many hashes in all to give up.",
            ),
        ],
        result: "[\"blockhash\",...]    those found",
        run: waits!(mining::generatetodescriptor),
    },
    Method {
        name: "generateblock",
        group: "hidden",
        about: "Finds a block with these transactions alone, whose fees nobody takes. Only of use on regtest.",
        args: &[
            Arg::required("output", Kind::Str, "The address or descriptor that the coinbase pays."),
            Arg::required(
                "transactions",
                Kind::List,
                "Transactions in hex, or ids of those in the memory pool.",
            ),
            Arg::default(
                "submit",
                Kind::Bool,
                "true",
                "False to be given the block instead of handing it in.",
            ),
        ],
        result: "{...}    hash, and hex when it is not handed in",
        run: waits!(mining::generateblock),
    },
    Method {
        name: "getblocktemplate",
        group: "mining",
        about: "What to mine (BIPs 22, 23, 145), at once or, with longpollid, when something changes.",
        args: &[Arg::required(
            "template_request",
            Kind::Object,
            "rules: segwit, and signet there; longpollid: of the template that is known. Or mode: proposal, and data: a \
             block in hex that is not solved yet, to hear what speaks against it.",
        )],
        result: "{...}    version, previousblockhash, transactions, coinbasevalue, longpollid, target, mintime, curtime, \
                 bits, height, default_witness_commitment and more; of a proposal null, or \"text\" why not",
        run: waits!(block_template::getblocktemplate),
    },
    Method {
        name: "getmininginfo",
        group: "mining",
        about: "How hard the last block was and the next will be.",
        args: &[],
        result: "{...}    blocks, currentblockweight, currentblocktx, bits, difficulty, target, networkhashps, pooledtx, \
                 blockmintxfee, chain, next, signet_challenge, warnings",
        run: Run::Blocking(mining_info::getmininginfo),
    },
    Method {
        name: "getnetworkhashps",
        group: "mining",
        about: "How many hashes a second all miners make together, as the last blocks show.",
        args: &[
            Arg::default(
                "nblocks",
                Kind::Num,
                "120",
                "Over how many blocks; -1 for those since the last retarget.",
            ),
            Arg::default("height", Kind::Num, "-1", "Up to which height; -1 for the tip."),
        ],
        result: "n    (numeric) hashes a second",
        run: Run::Blocking(mining_info::getnetworkhashps),
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
