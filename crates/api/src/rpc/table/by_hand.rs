//! The methods that make and read transactions, scripts, addresses and messages without the chain, defined once.

use crate::rpc::method::{Arg, Kind, Method, Run};
use crate::rpc::{address, create_tx, derive, message};

pub(super) static METHODS: &[Method] = &[
    Method {
        name: "createrawtransaction",
        group: "rawtransactions",
        about: "Makes a transaction that nobody has signed, and keeps it nowhere.",
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
        ],
        result: "\"hex\"    (string) the transaction",
        run: Run::Blocking(create_tx::createrawtransaction),
    },
    Method {
        name: "decoderawtransaction",
        group: "rawtransactions",
        about: "What the bytes of a transaction say.",
        args: &[
            Arg::required("hexstring", Kind::Hex, "The bytes."),
            Arg::optional(
                "iswitness",
                Kind::Bool,
                "Whether they are of the form with witnesses; found out when left out.",
            ),
        ],
        result: "{...}    txid, hash, version, size, vsize, weight, locktime, vin, vout",
        run: Run::Blocking(create_tx::decoderawtransaction),
    },
    Method {
        name: "decodescript",
        group: "rawtransactions",
        about: "What a script says, and the addresses that it has when it is wrapped.",
        args: &[Arg::required("hexstring", Kind::Hex, "The script.")],
        result: "{...}    asm, desc, type, address, p2sh, segwit",
        run: Run::Blocking(create_tx::decodescript),
    },
    Method {
        name: "createmultisig",
        group: "util",
        about: "The address of several keys, some of which have to sign.",
        args: &[
            Arg::required("nrequired", Kind::Num, "How many have to sign."),
            Arg::required("keys", Kind::List, "The public keys in hex."),
            Arg::default("address_type", Kind::Str, "legacy", "legacy, p2sh-segwit or bech32."),
        ],
        result: "{...}    address, redeemScript, descriptor, warnings",
        run: Run::Blocking(address::createmultisig),
    },
    Method {
        name: "deriveaddresses",
        group: "util",
        about: "The addresses that a descriptor stands for.",
        args: &[
            Arg::required("descriptor", Kind::Str, "The descriptor, with its checksum."),
            Arg::optional(
                "range",
                Kind::Any,
                "Of one with a range: the last index, or the first and the last.",
            ),
        ],
        result: "[\"address\",...]    or a list of such for each path",
        run: Run::Blocking(derive::deriveaddresses),
    },
    Method {
        name: "getdescriptorinfo",
        group: "util",
        about: "What a descriptor is.",
        args: &[Arg::required("descriptor", Kind::Str, "The descriptor.")],
        result: "{...}    descriptor (without private keys), multipath_expansion, checksum, isrange, issolvable, hasprivatekeys",
        run: Run::Blocking(derive::getdescriptorinfo),
    },
    Method {
        name: "signmessagewithprivkey",
        group: "util",
        about: "Signs a message with a private key.",
        args: &[
            Arg::required("privkey", Kind::Str, "The key as wallets export it."),
            Arg::required("message", Kind::Str, "The message."),
        ],
        result: "\"base64\"    (string) the signature",
        run: Run::Blocking(message::signmessagewithprivkey),
    },
    Method {
        name: "validateaddress",
        group: "util",
        about: "Whether a text is an address of this network, and what it says.",
        args: &[Arg::required("address", Kind::Str, "The text.")],
        result: "{...}    isvalid, address, scriptPubKey, isscript, iswitness, witness_version, witness_program, error",
        run: Run::Blocking(address::validateaddress),
    },
    Method {
        name: "verifymessage",
        group: "util",
        about: "Whether a message was signed by the key of an address.",
        args: &[
            Arg::required("address", Kind::Str, "The address: one of a key's hash (P2PKH)."),
            Arg::required("signature", Kind::Str, "The signature in base64."),
            Arg::required("message", Kind::Str, "The message."),
        ],
        result: "true or false",
        run: Run::Blocking(message::verifymessage),
    },
];
