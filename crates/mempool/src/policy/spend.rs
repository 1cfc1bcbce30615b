//! How coins may be spent: the forms and costs of what is unlocked, and the sizes of witnesses.

use bitcoin::opcodes::all::OP_PUSHNUM_16;
use bitcoin::script::Instruction;
use bitcoin::{Script, ScriptBuf, Transaction, TxIn, TxOut};
use dunlin_chain::rules::script_sigops;

use super::output::{Form, form, is_anchor};
use crate::PoolReject;

/// Signature operations in one redeem script.
const MAX_P2SH_SIGOPS: u64 = 15;
/// Signature operations outside of witnesses that a transaction may run (BIP 54).
const MAX_LEGACY_SIGOPS: u64 = 2500;
/// Limits of a version 0 script and what it is run with.
const MAX_P2WSH_SCRIPT: usize = 3600;
const MAX_P2WSH_ITEMS: usize = 100;
const MAX_P2WSH_ITEM: usize = 80;
/// Longest item that a tapscript is run with.
const MAX_TAPSCRIPT_ITEM: usize = 80;
/// First byte of an annex (BIP 341).
const ANNEX_TAG: u8 = 0x50;
/// The leaf version of tapscript (BIP 342), and the bits of a control block that hold it.
const TAPSCRIPT_LEAF: u8 = 0xc0;
const LEAF_MASK: u8 = 0xfe;

/// Checks what the inputs unlock, without witnesses. `spent` is in input order.
pub(crate) fn check_inputs(tx: &Transaction, spent: &[TxOut]) -> Result<(), PoolReject> {
    let reject = |detail: String| Err(PoolReject::policy("bad-txns-nonstandard-inputs", detail));
    let mut sigops = 0;
    for (input, coin) in tx.input.iter().zip(spent) {
        // Counted where they run: in the coin's script, or in the redeem script that it stands for.
        let unlocked = if coin.script_pubkey.is_p2sh() {
            counted_redeem(&input.script_sig).map_or(0, |redeem| script_sigops(&redeem, true))
        } else {
            script_sigops(&coin.script_pubkey, true)
        };
        sigops += script_sigops(&input.script_sig, true) + unlocked;
        if sigops > MAX_LEGACY_SIGOPS {
            return reject("non-witness sigops exceed bip54 limit".into());
        }
    }
    for (index, (input, coin)) in tx.input.iter().zip(spent).enumerate() {
        match form(&coin.script_pubkey) {
            Form::Unknown | Form::Data => return reject(format!("input {index} script unknown")),
            Form::FutureWitness => return reject(format!("input {index} witness program is undefined")),
            Form::ScriptHash => {
                let Some(redeem) = redeem_script(input) else {
                    return reject(format!("input {index} P2SH redeemscript missing"));
                };
                let sigops = script_sigops(&redeem, true);
                if sigops > MAX_P2SH_SIGOPS {
                    return reject(format!(
                        "p2sh redeemscript sigops exceed limit (input {index}: {sigops} > {MAX_P2SH_SIGOPS})"
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The redeem script as the signature operation count sees it: a number on top counts as an empty script.
fn counted_redeem(script_sig: &Script) -> Option<ScriptBuf> {
    let mut last = ScriptBuf::new();
    for step in script_sig.instructions() {
        last = match step.ok()? {
            Instruction::PushBytes(bytes) => ScriptBuf::from_bytes(bytes.as_bytes().to_vec()),
            Instruction::Op(op) if op.to_u8() <= OP_PUSHNUM_16.to_u8() => ScriptBuf::new(),
            Instruction::Op(_) => return None,
        };
    }
    Some(last)
}

/// What the last push of an input script leaves on the stack; the script is known to do nothing but push.
fn redeem_script(input: &TxIn) -> Option<ScriptBuf> {
    let last = input.script_sig.instructions().last()?.ok()?;
    match last {
        Instruction::PushBytes(bytes) => Some(ScriptBuf::from_bytes(bytes.as_bytes().to_vec())),
        Instruction::Op(op) => match op.to_u8() {
            // OP_RESERVED is no push when it is run.
            0x50 => None,
            0x4f => Some(ScriptBuf::from_bytes(vec![0x81])),
            code => Some(ScriptBuf::from_bytes(vec![code.checked_sub(0x50)?])),
        },
    }
}

/// Checks the witnesses. `spent` is in input order.
pub(crate) fn check_witnesses(tx: &Transaction, spent: &[TxOut]) -> Result<(), PoolReject> {
    let usual = tx
        .input
        .iter()
        .zip(spent)
        .all(|(input, coin)| input.witness.is_empty() || usual_witness(input, coin));
    if usual {
        Ok(())
    } else {
        Err(PoolReject::policy("bad-witness-nonstandard", ""))
    }
}

fn usual_witness(input: &TxIn, coin: &TxOut) -> bool {
    if is_anchor(&coin.script_pubkey) {
        return false;
    }
    let nested = coin.script_pubkey.is_p2sh();
    let redeem;
    let program: &Script = if nested {
        let Some(script) = redeem_script(input) else {
            return false;
        };
        redeem = script;
        &redeem
    } else {
        &coin.script_pubkey
    };
    if !program.is_witness_program() {
        return false;
    }
    let items: Vec<&[u8]> = input.witness.iter().collect();
    if program.is_p2wsh() {
        let Some((script, items)) = items.split_last() else {
            return false;
        };
        return script.len() <= MAX_P2WSH_SCRIPT
            && items.len() <= MAX_P2WSH_ITEMS
            && items.iter().all(|item| item.len() <= MAX_P2WSH_ITEM);
    }
    if program.is_p2tr() && !nested {
        return match items.as_slice() {
            [] => false,
            [_] => true,
            [.., last] if last.first() == Some(&ANNEX_TAG) => false,
            [stack @ .., _script, control] => match control.first() {
                None => false,
                Some(byte) if byte & LEAF_MASK == TAPSCRIPT_LEAF => {
                    stack.iter().all(|item| item.len() <= MAX_TAPSCRIPT_ITEM)
                }
                Some(_) => true,
            },
        };
    }
    true
}

/// Does the transaction spend a witness program other than an anchor? Without a witness its failure then says nothing
/// about the same transaction with one.
pub(crate) fn spends_witness_program(tx: &Transaction, spent: &[TxOut]) -> bool {
    tx.input.iter().zip(spent).any(|(input, coin)| {
        let script = &coin.script_pubkey;
        let native = script.is_witness_program() && !is_anchor(script);
        native || script.is_p2sh() && redeem_script(input).is_some_and(|redeem| redeem.is_witness_program())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, OutPoint, ScriptHash, Sequence, WScriptHash, Witness};

    fn spend(script_sig: Vec<u8>, witness: &[Vec<u8>]) -> Transaction {
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: ScriptBuf::from_bytes(script_sig),
                sequence: Sequence::MAX,
                witness: Witness::from_slice(witness),
            }],
            output: vec![],
        }
    }

    fn coin(script: Vec<u8>) -> [TxOut; 1] {
        [TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes(script),
        }]
    }

    fn p2sh() -> Vec<u8> {
        ScriptBuf::new_p2sh(&ScriptHash::all_zeros()).into_bytes()
    }

    fn inputs(script_sig: Vec<u8>, script: Vec<u8>) -> Result<(), String> {
        check_inputs(&spend(script_sig, &[]), &coin(script)).map_err(|reject| {
            assert_eq!(reject.reason, "bad-txns-nonstandard-inputs");
            reject.detail
        })
    }

    #[test]
    fn redeem_scripts_have_a_limit_of_their_own() {
        let push = |bytes: &[u8]| [vec![bytes.len() as u8], bytes.to_vec()].concat();
        assert_eq!(inputs(push(&[0xac; 15]), p2sh()), Ok(()));
        assert!(inputs(push(&[0xac; 16]), p2sh()).unwrap_err().contains("16 > 15"));
        assert!(inputs(vec![], p2sh()).unwrap_err().contains("missing"));
        assert_eq!(inputs(vec![0x51], p2sh()), Ok(()), "a number is a script too");
        assert!(inputs(vec![], vec![0x51]).unwrap_err().contains("unknown"));
        assert!(
            inputs(vec![], [vec![0x52, 32], vec![1; 32]].concat())
                .unwrap_err()
                .contains("undefined")
        );
        assert_eq!(inputs(vec![], vec![0x51, 2, 0x4e, 0x73]), Ok(()));
    }

    #[test]
    fn sigops_outside_of_witnesses_are_limited_where_they_run() {
        // 16 of 16 in a bare script: 157 such inputs run more than 2500 operations.
        let mut tx = spend(vec![], &[]);
        let key = [vec![33, 2], vec![7; 32]].concat();
        let script = [vec![0x51], key.repeat(16), vec![0x60, 0xae]].concat();
        tx.input = vec![tx.input[0].clone(); 157];
        let coins = vec![coin(script)[0].clone(); 157];
        assert!(check_inputs(&tx, &coins).unwrap_err().detail.contains("bip54"));
        tx.input.pop();
        assert_eq!(check_inputs(&tx, &coins[..156]), Ok(()));
    }

    fn witness(items: &[Vec<u8>], script: Vec<u8>) -> bool {
        check_witnesses(&spend(vec![], items), &coin(script)).is_ok()
    }

    #[test]
    fn version_0_scripts_and_their_items_are_bounded() {
        let wsh = || ScriptBuf::new_p2wsh(&WScriptHash::all_zeros()).into_bytes();
        assert!(witness(&[vec![0; 80], vec![0; 3600]], wsh()));
        assert!(!witness(&[vec![0; 81], vec![0; 3600]], wsh()));
        assert!(!witness(&[vec![0; 80], vec![0; 3601]], wsh()));
        let many = |count: usize| [vec![vec![1]; count], vec![vec![0x51]]].concat();
        assert!(witness(&many(100), wsh()));
        assert!(!witness(&many(101), wsh()));
        let nested = spend([vec![34], wsh()].concat(), &[vec![0; 81], vec![0x51]]);
        assert!(check_witnesses(&nested, &coin(p2sh())).is_err());
    }

    #[test]
    fn taproot_witnesses_have_no_annex_and_small_items() {
        let tr = || [vec![0x51, 32], vec![1; 32]].concat();
        assert!(witness(&[vec![0; 65]], tr()));
        assert!(!witness(&[vec![0; 64], vec![0x50, 1]], tr()), "an annex");
        assert!(witness(&[vec![0x50; 64]], tr()), "one item alone is a signature");
        let leaf = |item: usize, version: u8| vec![vec![0; item], vec![0x51], [vec![version], vec![1; 32]].concat()];
        assert!(witness(&leaf(80, 0xc1), tr()));
        assert!(!witness(&leaf(81, 0xc0), tr()));
        assert!(
            witness(&leaf(81, 0xc2), tr()),
            "other leaf versions are not judged here"
        );
        assert!(!witness(&[vec![0x51], vec![]], tr()), "an empty control block");
    }

    #[test]
    fn witnesses_where_none_belongs() {
        assert!(!witness(&[vec![1]], vec![0x51, 2, 0x4e, 0x73]), "an anchor");
        assert!(!witness(&[vec![1]], vec![0x51]));
        assert!(witness(&[], vec![0x51]));
    }
}
