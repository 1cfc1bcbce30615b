//! How a script can be wrapped in others, for `decodescript`.

use bitcoin::{Script, ScriptBuf};

use super::create_tx::{p2wpkh, p2wpkh_of_hash};
use super::script::{Kind, classify, has_valid_ops, is_unspendable, steps, with_checksum};

/// What a script can be wrapped in.
#[derive(Debug, Default)]
pub(crate) struct Wrapping {
    /// In P2SH.
    pub(crate) in_p2sh: bool,
    /// In this witness program.
    pub(crate) in_segwit: Option<ScriptBuf>,
    /// The descriptor of that, where the script tells more than an address does.
    pub(crate) descriptor: Option<String>,
}

/// Whether tapscript gives the opcode a meaning that no other script may count on.
fn is_op_success(opcode: u8) -> bool {
    matches!(opcode, 80 | 98 | 126..=129 | 131..=134 | 137..=138 | 141..=142 | 149..=153 | 187..=254)
}

/// How `script` can be wrapped.
pub(crate) fn wrapping(script: &Script) -> Wrapping {
    let kind = classify(script);
    let fit = matches!(
        kind,
        Kind::Multisig(..)
            | Kind::NonStandard
            | Kind::PubKey(_)
            | Kind::PubKeyHash
            | Kind::WitnessV0KeyHash
            | Kind::WitnessV0ScriptHash
    );
    let plain = || {
        let mut steps = steps(script.as_bytes());
        steps.all(|step| step.is_ok_and(|step| step.opcode != 0xba && !is_op_success(step.opcode)))
    };
    if !fit || !has_valid_ops(script) || is_unspendable(script) || !plain() {
        return Wrapping::default();
    }
    let in_segwit = match &kind {
        Kind::PubKey(key) if key.len() == 33 => p2wpkh(key),
        Kind::Multisig(_, keys) if keys.iter().all(|key| key.len() == 33) => Some(script.to_p2wsh()),
        Kind::PubKeyHash => script.as_bytes().get(3..23).and_then(p2wpkh_of_hash),
        Kind::NonStandard => Some(script.to_p2wsh()),
        _ => None,
    };
    let descriptor = match &kind {
        Kind::Multisig(required, keys) => {
            let keys: Vec<String> = keys.iter().map(hex::encode).collect();
            Some(with_checksum(&format!("wsh(multi({required},{}))", keys.join(","))))
        }
        _ => None,
    };
    Wrapping {
        in_p2sh: true,
        in_segwit,
        descriptor,
    }
}
