//! The usual forms of output scripts.

use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_CHECKSIG, OP_PUSHNUM_1, OP_PUSHNUM_16, OP_RETURN};
use bitcoin::script::Instruction;
use bitcoin::{Script, WitnessVersion};

/// No script beyond this length is ever run.
const MAX_SCRIPT_SIZE: usize = 10_000;
/// Most keys of a bare multisignature.
const MAX_MULTISIG_KEYS: usize = 20;

/// What an output's script is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Unknown,
    Key,
    KeyHash,
    ScriptHash,
    /// Required signatures and keys.
    Multisig(usize, usize),
    Data,
    WitnessKeyHash,
    WitnessScriptHash,
    Taproot,
    Anchor,
    /// A witness program without a meaning yet.
    FutureWitness,
}

/// Recognises a script.
pub(crate) fn form(script: &Script) -> Form {
    let bytes = script.as_bytes();
    if script.is_p2sh() {
        return Form::ScriptHash;
    }
    if let Some(version) = script.witness_version() {
        return match version {
            _ if script.is_p2wpkh() => Form::WitnessKeyHash,
            _ if script.is_p2wsh() => Form::WitnessScriptHash,
            _ if script.is_p2tr() => Form::Taproot,
            _ if is_anchor(script) => Form::Anchor,
            WitnessVersion::V0 => Form::Unknown,
            _ => Form::FutureWitness,
        };
    }
    if let Some((first, rest)) = bytes.split_first()
        && *first == OP_RETURN.to_u8()
        && Script::from_bytes(rest).is_push_only()
    {
        return Form::Data;
    }
    if let Some((last, key)) = bytes.split_last()
        && *last == OP_CHECKSIG.to_u8()
        && let Some((length, key)) = key.split_first()
        && usize::from(*length) == key.len()
        && is_key(key)
    {
        return Form::Key;
    }
    if script.is_p2pkh() {
        return Form::KeyHash;
    }
    multisig(script).map_or(Form::Unknown, |(required, keys)| Form::Multisig(required, keys))
}

/// Pay to anchor: anybody may spend it, without a witness.
pub(crate) fn is_anchor(script: &Script) -> bool {
    script.as_bytes() == [OP_PUSHNUM_1.to_u8(), 2, 0x4e, 0x73]
}

/// Can no input ever spend it?
pub(crate) fn is_unspendable(script: &Script) -> bool {
    script.as_bytes().first() == Some(&OP_RETURN.to_u8()) || script.len() > MAX_SCRIPT_SIZE
}

/// Does the first byte of a key announce the length that it has?
fn is_key(key: &[u8]) -> bool {
    match key.first() {
        Some(2 | 3) => key.len() == 33,
        Some(4 | 6 | 7) => key.len() == 65,
        _ => false,
    }
}

/// Required signatures and keys of a bare multisignature script.
fn multisig(script: &Script) -> Option<(usize, usize)> {
    let steps: Vec<Instruction<'_>> = script.instructions_minimal().collect::<Result<_, _>>().ok()?;
    let (first, rest) = steps.split_first()?;
    let (check, rest) = rest.split_last()?;
    let (count, keys) = rest.split_last()?;
    let (required, count) = (number(first)?, number(count)?);
    let all_keys = keys
        .iter()
        .all(|step| step.push_bytes().is_some_and(|key| is_key(key.as_bytes())));
    let well_formed = check.opcode() == Some(OP_CHECKMULTISIG)
        && all_keys
        && keys.len() == count
        && (1..=MAX_MULTISIG_KEYS).contains(&count)
        && (1..=count).contains(&required);
    well_formed.then_some((required, count))
}

/// A small number, as an operation of its own or in one byte.
fn number(step: &Instruction<'_>) -> Option<usize> {
    match step {
        Instruction::Op(op) => {
            let code = op.to_u8();
            (OP_PUSHNUM_1.to_u8()..=OP_PUSHNUM_16.to_u8())
                .contains(&code)
                .then(|| usize::from(code - OP_PUSHNUM_1.to_u8()) + 1)
        }
        Instruction::PushBytes(bytes) => match bytes.as_bytes() {
            [value @ 17..=20] => Some(usize::from(*value)),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::ScriptBuf;

    fn of(bytes: &[u8]) -> Form {
        form(&ScriptBuf::from_bytes(bytes.to_vec()))
    }

    fn join(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn every_form() {
        let key = join(&[&[33, 2], &[7; 32]]);
        let long = join(&[&[65, 4], &[7; 64]]);
        assert_eq!(of(&join(&[&key, &[0xac]])), Form::Key);
        assert_eq!(of(&join(&[&long, &[0xac]])), Form::Key);
        assert_eq!(of(&join(&[&[33, 5], &[7; 32], &[0xac]])), Form::Unknown);
        assert_eq!(of(&join(&[&[0x76, 0xa9, 20], &[7; 20], &[0x88, 0xac]])), Form::KeyHash);
        assert_eq!(of(&join(&[&[0xa9, 20], &[7; 20], &[0x87]])), Form::ScriptHash);
        assert_eq!(of(&join(&[&[0, 20], &[7; 20]])), Form::WitnessKeyHash);
        assert_eq!(of(&join(&[&[0, 32], &[7; 32]])), Form::WitnessScriptHash);
        assert_eq!(of(&join(&[&[0, 31], &[7; 31]])), Form::Unknown);
        assert_eq!(of(&join(&[&[0x51, 32], &[7; 32]])), Form::Taproot);
        assert_eq!(of(&join(&[&[0x51, 31], &[7; 31]])), Form::FutureWitness);
        assert_eq!(of(&join(&[&[0x52, 32], &[7; 32]])), Form::FutureWitness);
        assert_eq!(of(&[0x51, 2, 0x4e, 0x73]), Form::Anchor);
        assert_eq!(of(&[0x6a]), Form::Data);
        assert_eq!(of(&[0x6a, 2, 1, 2, 0x51]), Form::Data);
        assert_eq!(of(&[0x6a, 0x61]), Form::Unknown, "more than pushes");
        assert_eq!(of(&[0x6a, 5, 1]), Form::Unknown, "a broken push");
        assert_eq!(of(&[0x51]), Form::Unknown);
        assert_eq!(of(&[]), Form::Unknown);
    }

    #[test]
    fn multisignatures_are_read_exactly() {
        let key = join(&[&[33, 2], &[7; 32]]);
        let script = |m: u8, keys: usize, n: u8, end: u8| {
            let mut bytes = vec![0x50 + m];
            for _ in 0..keys {
                bytes.extend(&key);
            }
            bytes.extend([0x50 + n, end]);
            bytes
        };
        assert_eq!(of(&script(1, 2, 2, 0xae)), Form::Multisig(1, 2));
        assert_eq!(of(&script(3, 3, 3, 0xae)), Form::Multisig(3, 3));
        assert_eq!(of(&script(1, 2, 3, 0xae)), Form::Unknown);
        assert_eq!(of(&script(3, 2, 2, 0xae)), Form::Unknown);
        assert_eq!(of(&script(1, 2, 2, 0xaf)), Form::Unknown);
        assert_eq!(of(&script(0, 2, 2, 0xae)), Form::Unknown);
        let many = join(&[&[0x51], &key.repeat(20), &[1, 20, 0xae]]);
        assert_eq!(of(&many), Form::Multisig(1, 20));
    }
}
