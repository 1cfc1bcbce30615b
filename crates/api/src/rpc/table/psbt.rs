//! The methods about partially signed transactions, and about signing without a wallet, defined once.

use crate::rpc::method::{Arg, Kind, Method, Run};
use crate::rpc::{psbt, sign_tx};

const PSBT: Arg = Arg::required("psbt", Kind::Str, "The PSBT in base64.");
const VERSION: Arg = Arg::default(
    "psbt_version",
    Kind::Num,
    "2",
    "The version of the format: 0 (BIP 174) or 2 (BIP 370).",
);
const SIGHASH: Arg = Arg::default(
    "sighashtype",
    Kind::Str,
    "DEFAULT for Taproot, ALL otherwise",
    "What a signature covers: DEFAULT, ALL, NONE or SINGLE, the last three also with |ANYONECANPAY behind.",
);
const DESCRIPTORS: &str =
    "Output descriptors, or objects with desc and range: the last index or the first and the last.";

pub(super) static METHODS: &[Method] = &[
    Method {
        name: "analyzepsbt",
        group: "rawtransactions",
        about: "What a PSBT and each of its inputs still need, and who is next.",
        args: &[PSBT],
        result: "{...}    inputs, estimated_vsize, estimated_feerate, fee, next, error",
        run: Run::Blocking(psbt::analyzepsbt),
    },
    Method {
        name: "combinepsbt",
        group: "rawtransactions",
        about: "Puts together what several PSBTs of one transaction know.",
        args: &[Arg::required("txs", Kind::List, "The PSBTs in base64.")],
        result: "\"base64\"    (string) the PSBT",
        run: Run::Blocking(psbt::combinepsbt),
    },
    Method {
        name: "combinerawtransaction",
        group: "rawtransactions",
        about: "Puts together the signatures of several copies of one transaction.",
        args: &[Arg::required("txs", Kind::List, "The transactions in hex.")],
        result: "\"hex\"    (string) the transaction",
        run: Run::Blocking(sign_tx::combinerawtransaction),
    },
    Method {
        name: "converttopsbt",
        group: "rawtransactions",
        about: "Makes a PSBT of a transaction that nobody has signed.",
        args: &[
            Arg::required("hexstring", Kind::Hex, "The transaction."),
            Arg::default(
                "permitsigdata",
                Kind::Bool,
                "false",
                "Drop signatures that are there, instead of refusing.",
            ),
            Arg::optional(
                "iswitness",
                Kind::Bool,
                "Whether it is of the form with witnesses; found out when left out.",
            ),
            VERSION,
        ],
        result: "\"base64\"    (string) the PSBT",
        run: Run::Blocking(psbt::converttopsbt),
    },
    Method {
        name: "createpsbt",
        group: "rawtransactions",
        about: "Makes a PSBT of inputs and outputs.",
        args: &[
            Arg::required(
                "inputs",
                Kind::List,
                "Objects with txid, vout and, where wanted, sequence.",
            ),
            Arg::required(
                "outputs",
                Kind::Any,
                "Objects of an address and its amount in BTC, or of data and its bytes in hex.",
            ),
            Arg::default(
                "locktime",
                Kind::Num,
                "0",
                "Not to be mined before this height or time.",
            ),
            Arg::default(
                "replaceable",
                Kind::Bool,
                "true",
                "Whether inputs without a sequence signal BIP 125.",
            ),
            Arg::default("version", Kind::Num, "2", "The transaction's version, 1 to 3."),
            VERSION,
        ],
        result: "\"base64\"    (string) the PSBT",
        run: Run::Blocking(psbt::createpsbt),
    },
    Method {
        name: "decodepsbt",
        group: "rawtransactions",
        about: "What the bytes of a PSBT say.",
        args: &[PSBT],
        result: "{...}    tx or tx_version and more, global_xpubs, psbt_version, proprietary, unknown, inputs, outputs, fee",
        run: Run::Blocking(psbt::decodepsbt),
    },
    Method {
        name: "descriptorprocesspsbt",
        group: "rawtransactions",
        about: "Adds to a PSBT what the node and descriptors know, and signs with the private keys in them.",
        args: &[
            PSBT,
            Arg::required("descriptors", Kind::List, DESCRIPTORS),
            SIGHASH,
            Arg::default(
                "bip32derivs",
                Kind::Bool,
                "true",
                "Whether to add where keys come from.",
            ),
            Arg::default(
                "finalize",
                Kind::Bool,
                "true",
                "Whether to finalize inputs where possible.",
            ),
        ],
        result: "{...}    psbt, complete, and hex when it is",
        run: Run::Blocking(psbt::descriptorprocesspsbt),
    },
    Method {
        name: "finalizepsbt",
        group: "rawtransactions",
        about: "Finalizes the inputs of a PSBT, and takes the transaction out of it when all are.",
        args: &[
            PSBT,
            Arg::default(
                "extract",
                Kind::Bool,
                "true",
                "Whether to answer the transaction itself when it is complete.",
            ),
        ],
        result: "{...}    psbt or hex, complete",
        run: Run::Blocking(psbt::finalizepsbt),
    },
    Method {
        name: "joinpsbts",
        group: "rawtransactions",
        about: "Makes one PSBT of several of version 0 with different inputs, in an order by chance.",
        args: &[Arg::required("txs", Kind::List, "The PSBTs in base64.")],
        result: "\"base64\"    (string) the PSBT",
        run: Run::Blocking(psbt::joinpsbts),
    },
    Method {
        name: "signrawtransactionwithkey",
        group: "rawtransactions",
        about: "Signs the inputs of a transaction with private keys.",
        args: &[
            Arg::required("hexstring", Kind::Str, "The transaction in hex."),
            Arg::required("privkeys", Kind::List, "The private keys as wallets export them."),
            Arg::optional(
                "prevtxs",
                Kind::List,
                "Outputs that the node does not know: objects with txid, vout, scriptPubKey, and where needed \
                 redeemScript, witnessScript and amount.",
            ),
            SIGHASH,
        ],
        result: "{...}    hex, complete, errors",
        run: Run::Blocking(sign_tx::signrawtransactionwithkey),
    },
    Method {
        name: "utxoupdatepsbt",
        group: "rawtransactions",
        about: "Adds to a PSBT what the node and descriptors know of its inputs and outputs.",
        args: &[PSBT, Arg::optional("descriptors", Kind::List, DESCRIPTORS)],
        result: "\"base64\"    (string) the PSBT",
        run: Run::Blocking(psbt::utxoupdatepsbt),
    },
];
