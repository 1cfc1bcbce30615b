//! What Core's mempool asks of scripts beyond consensus, by flags of its interpreter, as far as the form of an input
//! shows it. The kernel library takes the consensus flags only, and we write no interpreter.
//!
//! What is refused here is refused by Core, too, under the same name. What only a run of the script would show is let
//! in: what stands in a conditional branch, signatures and keys that come to a check by another way than directly or in
//! one of the usual forms, numbers that are not minimal, failed checks of signatures that are not empty, stacks that
//! are not clean after an unusual P2SH script, and arguments of conditions but the first.

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::taproot::LeafVersion;
use bitcoin::{Script, ScriptBuf, Transaction, TxOut, Witness};

use super::output::{Form, form};

const OP_PUSHDATA1: u8 = 0x4c;
const OP_PUSHDATA2: u8 = 0x4d;
const OP_PUSHDATA4: u8 = 0x4e;
const OP_1NEGATE: u8 = 0x4f;
const OP_1: u8 = 0x51;
const OP_16: u8 = 0x60;
const OP_IF: u8 = 0x63;
const OP_NOTIF: u8 = 0x64;
const OP_ENDIF: u8 = 0x68;
const OP_CODESEPARATOR: u8 = 0xab;
const OP_CHECKSIG: u8 = 0xac;
const OP_CHECKSIGVERIFY: u8 = 0xad;
const OP_CHECKSIGADD: u8 = 0xba;

/// A flag's rule that an input breaks, in the words of Core's script errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("Data push larger than necessary")]
    MinimalData,
    #[error("Non-canonical signature: S value is unnecessarily high")]
    HighS,
    #[error("Signature hash type missing or not understood")]
    HashType,
    #[error("Public key is neither compressed or uncompressed")]
    PubkeyType,
    #[error("Using non-compressed keys in segwit")]
    WitnessPubkeyType,
    #[error("Stack size must be exactly one after execution")]
    CleanStack,
    #[error("OP_IF/NOTIF argument must be minimal")]
    MinimalIf,
    #[error("NOPx reserved for soft-fork upgrades")]
    UpgradableNops,
    #[error("Witness version reserved for soft-fork upgrades")]
    UpgradableWitnessProgram,
    #[error("Taproot version reserved for soft-fork upgrades")]
    UpgradableTaprootVersion,
    #[error("OP_SUCCESSx reserved for soft-fork upgrades")]
    OpSuccess,
    #[error("Public key version reserved for soft-fork upgrades")]
    UpgradablePubkeyType,
    #[error("Using OP_CODESEPARATOR in non-witness script")]
    OpCodeSeparator,
}

/// Under whose rules a script runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Base,
    Witness0,
    Tapscript,
}

/// The first input that breaks a rule, and which. `spent` is in input order.
pub(crate) fn check(tx: &Transaction, spent: &[TxOut]) -> Result<(), (usize, Broken)> {
    for (index, (input, coin)) in tx.input.iter().zip(spent).enumerate() {
        check_input(&input.script_sig, &input.witness, &coin.script_pubkey).map_err(|broken| (index, broken))?;
    }
    Ok(())
}

fn check_input(script_sig: &Script, witness: &Witness, script: &Script) -> Result<(), Broken> {
    let mut stack = Vec::new();
    for step in steps(script_sig) {
        // What is more than pushes, or no script at all, is refused by other rules.
        let Some(Step { code, push: Some(push) }) = step else {
            return Ok(());
        };
        if !is_minimal(code, push) {
            return Err(Broken::MinimalData);
        }
        stack.push(pushed(code, push));
    }
    if script.is_p2sh() {
        let Some(redeem) = stack.pop().map(ScriptBuf::from_bytes) else {
            return Ok(());
        };
        return match redeem.witness_version() {
            None => check_script(&redeem, &stack, Version::Base),
            Some(bitcoin::WitnessVersion::V0) => check_witness_0(&redeem, witness),
            Some(_) => Err(Broken::UpgradableWitnessProgram),
        };
    }
    match form(script) {
        Form::WitnessKeyHash | Form::WitnessScriptHash => check_witness_0(script, witness),
        Form::Taproot => check_taproot(witness),
        // Without a meaning, or met by other rules.
        Form::Anchor | Form::FutureWitness | Form::Data => Ok(()),
        _ => check_script(script, &stack, Version::Base),
    }
}

fn check_witness_0(program: &Script, witness: &Witness) -> Result<(), Broken> {
    let mut stack: Vec<Vec<u8>> = witness.iter().map(<[u8]>::to_vec).collect();
    if program.is_p2wpkh() {
        return match stack.as_slice() {
            [signature, key] => check_signature(signature).and_then(|()| check_key(key, Version::Witness0)),
            _ => Ok(()),
        };
    }
    match stack.pop() {
        Some(script) => check_script(Script::from_bytes(&script), &stack, Version::Witness0),
        None => Ok(()),
    }
}

/// The key path has no rule beyond consensus.
fn check_taproot(witness: &Witness) -> Result<(), Broken> {
    let items: Vec<&[u8]> = witness.iter().collect();
    let [stack @ .., script, control] = items.as_slice() else {
        return Ok(());
    };
    let Some(leaf) = control.first().map(|first| first & 0xfe) else {
        return Ok(());
    };
    if leaf != LeafVersion::TapScript.to_consensus() {
        return Err(Broken::UpgradableTaprootVersion);
    }
    let script = Script::from_bytes(script);
    for step in steps(script) {
        match step {
            Some(step) if is_success(step.code) => return Err(Broken::OpSuccess),
            Some(_) => {}
            None => return Ok(()),
        }
    }
    let stack: Vec<Vec<u8>> = stack.iter().map(|item| item.to_vec()).collect();
    check_script(script, &stack, Version::Tapscript)
}

/// Checks a script that runs on `stack`: all of it that every successful run comes by, and, where the form is a usual
/// one, what it takes from the stack.
fn check_script(script: &Script, stack: &[Vec<u8>], version: Version) -> Result<(), Broken> {
    check_steps(script, stack, version)?;
    if version == Version::Tapscript {
        return Ok(());
    }
    let taken = match form(script) {
        Form::Key => {
            check_signatures(stack.last())?;
            1
        }
        Form::KeyHash => {
            check_signatures(stack.iter().rev().nth(1))?;
            stack.last().map_or(Ok(()), |key| check_key(key, version))?;
            2
        }
        Form::Multisig(required, _) => {
            check_signatures(stack.iter().rev().take(required))?;
            // The last keys are compared first, and as many as there are signatures at least.
            let keys: Vec<&[u8]> = steps(script)
                .filter_map(|step| step?.push)
                .filter(|push| push.len() > 1)
                .collect();
            keys.iter()
                .rev()
                .take(required)
                .try_for_each(|key| check_key(key, version))?;
            required.saturating_add(1)
        }
        _ => return Ok(()),
    };
    if version == Version::Base && stack.len() > taken {
        return Err(Broken::CleanStack);
    }
    Ok(())
}

fn check_steps(script: &Script, stack: &[Vec<u8>], version: Version) -> Result<(), Broken> {
    let mut depth = 0_usize;
    let mut before: Option<&[u8]> = None;
    for (place, step) in steps(script).enumerate() {
        let Some(Step { code, push }) = step else { return Ok(()) };
        if code == OP_CODESEPARATOR && version == Version::Base {
            // Also where it does not run.
            return Err(Broken::OpCodeSeparator);
        }
        match code {
            OP_IF | OP_NOTIF => {
                let argument = stack.last().filter(|_| place == 0 && version == Version::Witness0);
                if argument.is_some_and(|argument| !matches!(argument.as_slice(), [] | [1])) {
                    return Err(Broken::MinimalIf);
                }
                depth += 1;
            }
            OP_ENDIF => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            OP_CHECKSIG | OP_CHECKSIGVERIFY | OP_CHECKSIGADD => {
                before.map_or(Ok(()), |key| check_key(key, version))?;
            }
            // OP_NOP1 and OP_NOP4 to OP_NOP10.
            0xb0 | 0xb3..=0xb9 => return Err(Broken::UpgradableNops),
            _ if push.is_some_and(|push| !is_minimal(code, push)) => return Err(Broken::MinimalData),
            _ => {}
        }
        before = push.filter(|_| depth == 0 && code <= OP_PUSHDATA4);
    }
    Ok(())
}

fn check_signatures<'a>(signatures: impl IntoIterator<Item = &'a Vec<u8>>) -> Result<(), Broken> {
    signatures
        .into_iter()
        .try_for_each(|signature| check_signature(signature))
}

/// Checks a signature that is not in a tapscript. One that is no DER fails by consensus.
fn check_signature(signature: &[u8]) -> Result<(), Broken> {
    let Some((hash_type, der)) = signature.split_last() else {
        return Ok(());
    };
    if let Ok(parsed) = Signature::from_der_lax(der) {
        let mut low = parsed;
        low.normalize_s();
        if low != parsed {
            return Err(Broken::HighS);
        }
    }
    // Each of the three, alone or with ANYONECANPAY.
    match hash_type & 0x7f {
        1..=3 => Ok(()),
        _ => Err(Broken::HashType),
    }
}

fn check_key(key: &[u8], version: Version) -> Result<(), Broken> {
    let compressed = key.len() == 33 && matches!(key.first(), Some(2 | 3));
    let uncompressed = key.len() == 65 && key.first() == Some(&4);
    match version {
        // A key of 32 bytes is one, an empty one fails by consensus.
        Version::Tapscript if !matches!(key.len(), 0 | 32) => Err(Broken::UpgradablePubkeyType),
        Version::Tapscript => Ok(()),
        _ if !compressed && !uncompressed => Err(Broken::PubkeyType),
        Version::Witness0 if !compressed => Err(Broken::WitnessPubkeyType),
        _ => Ok(()),
    }
}

/// One operation; `push` holds the bytes that follow it, for those up to OP_16 but OP_RESERVED.
#[derive(Clone, Copy)]
struct Step<'a> {
    code: u8,
    push: Option<&'a [u8]>,
}

/// The operations of a script; the last is `None` where the script ends in the middle of a push.
fn steps(script: &Script) -> impl Iterator<Item = Option<Step<'_>>> {
    let mut rest = script.as_bytes();
    std::iter::from_fn(move || {
        let (code, after) = rest.split_first()?;
        let step = step(*code, after);
        rest = step.map_or(&[][..], |(_, rest)| rest);
        Some(step.map(|(step, _)| step))
    })
}

fn step(code: u8, rest: &[u8]) -> Option<(Step<'_>, &[u8])> {
    let (length, rest) = match code {
        0..OP_PUSHDATA1 => (usize::from(code), rest),
        OP_PUSHDATA1 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        OP_PUSHDATA2 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        OP_PUSHDATA4 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u32::from_le_bytes(*length)).ok()?, rest)
        }
        OP_1NEGATE | OP_1..=OP_16 => return Some((Step { code, push: Some(&[]) }, rest)),
        _ => return Some((Step { code, push: None }, rest)),
    };
    let (push, rest) = rest.split_at_checked(length)?;
    Some((Step { code, push: Some(push) }, rest))
}

/// What a push leaves on the stack.
fn pushed(code: u8, push: &[u8]) -> Vec<u8> {
    match code {
        OP_1NEGATE => vec![0x81],
        OP_1..=OP_16 => vec![code - OP_1 + 1],
        _ => push.to_vec(),
    }
}

/// Whether no shorter push leaves the same on the stack.
fn is_minimal(code: u8, push: &[u8]) -> bool {
    match (code, push) {
        (OP_1NEGATE.., _) => true,
        (_, []) => code == 0,
        (_, [1..=16 | 0x81]) => false,
        (OP_PUSHDATA1, _) => push.len() >= usize::from(OP_PUSHDATA1),
        (OP_PUSHDATA2, _) => push.len() > usize::from(u8::MAX),
        (OP_PUSHDATA4, _) => push.len() > usize::from(u16::MAX),
        _ => true,
    }
}

/// The operations that let a tapscript succeed at once (BIP 342).
fn is_success(code: u8) -> bool {
    matches!(code, 80 | 98 | 126..=129 | 131..=134 | 137..=138 | 141..=142 | 149..=153 | 187..=254)
}

#[cfg(test)]
#[path = "script_flags_tests.rs"]
mod tests;
