//! What each field of a PSBT may hold: the length of its key, and its value as it is kept.

use bitcoin::bip32::Xpub;
use bitcoin::consensus::Decodable;
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::{PublicKey, ScriptBuf, Transaction, TxIn, TxOut};

use super::Malformed;
use super::fields::{Place, global, input, output, tap_origin};
use super::reader::Reader;
use crate::rpc::script::sighash_name;

/// Whether the key of a field has the length that its type asks for.
pub(super) fn check_key(place: Place, kind: u8, key: &[u8]) -> Result<(), Malformed> {
    let wrong = |text: &str| Err(Malformed::new(text));
    let (length, name) = match place {
        Place::Global => match kind {
            global::UNSIGNED_TX => (1, "Global Unsigned TX"),
            global::XPUB => (79, "Global XPUB"),
            global::TX_VERSION => (1, "Global Transaction Version"),
            global::FALLBACK_LOCKTIME => (1, "Global Fallback Locktime"),
            global::INPUT_COUNT => (1, "Global Input Count"),
            global::OUTPUT_COUNT => (1, "Global Output Count"),
            global::TX_MODIFIABLE => (1, "Global TX Modifiable Flags"),
            _ => (1, "Global PSBT Version"),
        },
        Place::Input => match kind {
            input::PARTIAL_SIG if !matches!(key.len(), 34 | 66) => {
                return wrong("Size of key was not the expected size for the type partial signature pubkey");
            }
            input::BIP32_DERIVATION if !matches!(key.len(), 34 | 66) => {
                return wrong("Size of key was not the expected size for the type BIP32 keypath");
            }
            input::PARTIAL_SIG | input::BIP32_DERIVATION => return Ok(()),
            input::TAP_LEAF_SCRIPT if key.len() < 34 => {
                return wrong("Input Taproot leaf script key is not at least 34 bytes");
            }
            input::TAP_LEAF_SCRIPT if !(key.len() - 2).is_multiple_of(32) => {
                return wrong("Input Taproot leaf script key's control block size is not valid");
            }
            input::TAP_LEAF_SCRIPT => return Ok(()),
            input::MUSIG2_PUB_NONCE if !matches!(key.len(), 67 | 99) => {
                return wrong("Input musig2 pubnonce key is not expected size of 67 or 99 bytes");
            }
            input::MUSIG2_PARTIAL_SIG if !matches!(key.len(), 67 | 99) => {
                return wrong("Input musig2 partial sig key is not expected size of 67 or 99 bytes");
            }
            input::MUSIG2_PUB_NONCE | input::MUSIG2_PARTIAL_SIG => return Ok(()),
            input::NON_WITNESS_UTXO => (1, "Input Non-witness UTXO"),
            input::WITNESS_UTXO => (1, "Input Witness UTXO"),
            input::SIGHASH => (1, "Input Sighash Type"),
            input::REDEEM_SCRIPT => (1, "Input redeemScript"),
            input::WITNESS_SCRIPT => (1, "Input witnessScript"),
            input::SCRIPT_SIG => (1, "Input Final scriptSig"),
            input::SCRIPT_WITNESS => (1, "Input Final scriptWitness"),
            input::RIPEMD160 => (21, "Input RIPEMD160 Preimage"),
            input::SHA256 => (33, "Input SHA256 Preimage"),
            input::HASH160 => (21, "Input Hash160 Preimage"),
            input::HASH256 => (33, "Input Hash256 Preimage"),
            input::PREVIOUS_TXID => (1, "Input Previous TXID"),
            input::OUTPUT_INDEX => (1, "Input Previous Output's Index"),
            input::SEQUENCE => (1, "Input Sequence"),
            input::TIME_LOCKTIME => (1, "Input Required Time Based Locktime"),
            input::HEIGHT_LOCKTIME => (1, "Input Required Height Based Locktime"),
            input::TAP_KEY_SIG => (1, "Input Taproot Key Path Signature"),
            input::TAP_SCRIPT_SIG => (65, "Input Taproot Script Path Signature"),
            input::TAP_BIP32_DERIVATION => (33, "Input Taproot BIP32 Keypath"),
            input::TAP_INTERNAL_KEY => (1, "Input Taproot Internal Key"),
            input::TAP_MERKLE_ROOT => (1, "Input Taproot Merkle Root"),
            _ => (34, "Input MuSig2 Participants Pubkeys"),
        },
        Place::Output => match kind {
            output::BIP32_DERIVATION if !matches!(key.len(), 34 | 66) => {
                return wrong("Size of key was not the expected size for the type BIP32 keypath");
            }
            output::BIP32_DERIVATION => return Ok(()),
            output::REDEEM_SCRIPT => (1, "Output redeemScript"),
            output::WITNESS_SCRIPT => (1, "Output witnessScript"),
            output::AMOUNT => (1, "Output Amount"),
            output::SCRIPT => (1, "Output Script"),
            output::TAP_INTERNAL_KEY => (1, "Output Taproot Internal Key"),
            output::TAP_TREE => (1, "Output Taproot Tree Key"),
            output::TAP_BIP32_DERIVATION => (33, "Output Taproot BIP32 Keypath"),
            _ => (34, "Output MuSig2 Participants Pubkeys"),
        },
    };
    if key.len() == length {
        return Ok(());
    }
    Err(Malformed(format!("Size of key was not {length} for the type {name}")))
}

/// Why a field of version 2 may not stand in version 0, where the transaction says the same.
pub(super) fn only_in_v2(place: Place, kind: u8) -> Option<&'static str> {
    match (place, kind) {
        (Place::Input, input::PREVIOUS_TXID) => Some("Previous txid"),
        (Place::Input, input::OUTPUT_INDEX) => Some("Previous output's index"),
        (Place::Input, input::SEQUENCE) => Some("Sequence"),
        (Place::Input, input::TIME_LOCKTIME) => Some("Required time based locktime"),
        (Place::Input, input::HEIGHT_LOCKTIME) => Some("Required height based locktime"),
        (Place::Output, output::AMOUNT) => Some("Output amount"),
        (Place::Output, output::SCRIPT) => Some("Output script"),
        _ => None,
    }
}

/// A value whose inner parts say for themselves where they end: they are read first, and must then come to the size that
/// stands before them.
fn sized<'a>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<(), Malformed>,
) -> Result<&'a [u8], Malformed> {
    let size = reader.size()?;
    let start = reader.0;
    read(reader)?;
    let length = start.len() - reader.0.len();
    let value = start.get(..length).unwrap_or_default();
    match length as u64 == size {
        true => Ok(value),
        false => Err(Malformed::stated_size()),
    }
}

/// A value of this many bytes.
fn fixed<'a>(reader: &mut Reader<'a>, length: usize) -> Result<&'a [u8], Malformed> {
    sized(reader, |reader| reader.take(length).map(drop))
}

/// Where a key comes from, in so many bytes.
fn origin<'a>(reader: &mut Reader<'a>, length: u64) -> Result<&'a [u8], Malformed> {
    if length == 0 || !length.is_multiple_of(4) {
        return Err(Malformed::new("Invalid length for HD key path"));
    }
    reader.take(usize::try_from(length).unwrap_or(usize::MAX))
}

/// Reads a value as it is kept; none when it counts as left out.
pub(super) fn value(place: Place, kind: u8, key: &[u8], reader: &mut Reader<'_>) -> Result<Option<Vec<u8>>, Malformed> {
    let rest = key.get(1..).unwrap_or_default();
    let wrong = |text: &str| Err(Malformed::new(text));
    let in_size = |value: &[u8], name: &str| match value.len() {
        ..64 => Err(Malformed(format!(
            "Input Taproot {name} path signature is shorter than 64 bytes"
        ))),
        66.. => Err(Malformed(format!(
            "Input Taproot {name} path signature is longer than 65 bytes"
        ))),
        _ => Ok(()),
    };
    let read = match (place, kind) {
        // It has no witnesses, whose form would begin as one without inputs does.
        (Place::Global, global::UNSIGNED_TX) => sized(reader, |reader| {
            let mut skip = || {
                <i32>::consensus_decode(&mut reader.0)?;
                <Vec<TxIn>>::consensus_decode(&mut reader.0)?;
                <Vec<TxOut>>::consensus_decode(&mut reader.0)?;
                <u32>::consensus_decode(&mut reader.0).map(drop)
            };
            skip().map_err(|_: bitcoin::consensus::encode::Error| Malformed::new("SpanReader::read(): end of data"))
        })?,
        (Place::Global, global::XPUB) => {
            if Xpub::decode(rest).is_err() && !is_foreign_xpub(rest) {
                return wrong("Invalid pubkey");
            }
            let length = reader.size()?;
            origin(reader, length)?
        }
        (Place::Global, global::TX_VERSION | global::FALLBACK_LOCKTIME | global::VERSION) => fixed(reader, 4)?,
        (Place::Global, global::TX_MODIFIABLE) => fixed(reader, 1)?,
        (Place::Global, global::INPUT_COUNT | global::OUTPUT_COUNT) => sized(reader, |reader| reader.size().map(drop))?,
        (Place::Input, input::NON_WITNESS_UTXO) => sized(reader, |reader| {
            let decoded = Transaction::consensus_decode(&mut reader.0);
            decoded
                .map(drop)
                .map_err(|_| Malformed::new("SpanReader::read(): end of data"))
        })?,
        (Place::Input, input::WITNESS_UTXO) => {
            let value = sized(reader, |reader| {
                reader.take(8)?;
                reader.bytes().map(drop)
            })?;
            // An amount of -1 says that there is none.
            if value.get(..8) == Some(&[0xff; 8]) {
                return Ok(None);
            }
            value
        }
        (Place::Input, input::PARTIAL_SIG) => {
            check_public_key(rest)?;
            let signature = reader.bytes()?;
            if sighash_name(signature).is_none() {
                return wrong("Signature is not a valid encoding");
            }
            signature
        }
        (Place::Input, input::BIP32_DERIVATION) | (Place::Output, output::BIP32_DERIVATION) => {
            check_public_key(rest)?;
            let length = reader.size()?;
            origin(reader, length)?
        }
        (Place::Input, input::REDEEM_SCRIPT | input::WITNESS_SCRIPT | input::SCRIPT_SIG)
        | (Place::Output, output::REDEEM_SCRIPT | output::WITNESS_SCRIPT) => {
            let script = reader.bytes()?;
            if script.is_empty() {
                return Ok(None);
            }
            script
        }
        (Place::Input, input::SCRIPT_WITNESS) => {
            let value = sized(reader, |reader| {
                for _ in 0..reader.size()? {
                    reader.bytes()?;
                }
                Ok(())
            })?;
            if value == [0] {
                return Ok(None);
            }
            value
        }
        (Place::Input, input::PREVIOUS_TXID) => fixed(reader, 32)?,
        (Place::Input, input::MUSIG2_PARTIAL_SIG) => {
            check_participant(rest)?;
            fixed(reader, 32)?
        }
        (Place::Input, input::SIGHASH | input::OUTPUT_INDEX | input::SEQUENCE) => fixed(reader, 4)?,
        (Place::Input, input::TIME_LOCKTIME | input::HEIGHT_LOCKTIME) => {
            let value = fixed(reader, 4)?;
            let number = value.try_into().map(u32::from_le_bytes).unwrap_or_default();
            match (kind, number) {
                (input::TIME_LOCKTIME, ..500_000_000) => {
                    return wrong("Required time based locktime is invalid (less than 500000000)");
                }
                (input::HEIGHT_LOCKTIME, 500_000_000..) => {
                    return wrong("Required height based locktime is invalid (greater than or equal to 500000000)");
                }
                (input::HEIGHT_LOCKTIME, 0) => return wrong("Required height based locktime is invalid (0)"),
                _ => value,
            }
        }
        (Place::Input, input::TAP_KEY_SIG) => {
            let signature = reader.bytes()?;
            in_size(signature, "key")?;
            signature
        }
        (Place::Input, input::TAP_SCRIPT_SIG) => {
            let signature = reader.bytes()?;
            in_size(signature, "script")?;
            signature
        }
        (Place::Input, input::TAP_LEAF_SCRIPT) => {
            let script = reader.bytes()?;
            if script.is_empty() {
                return wrong("Input Taproot leaf script must be at least 1 byte");
            }
            script
        }
        (Place::Input, input::TAP_BIP32_DERIVATION) | (Place::Output, output::TAP_BIP32_DERIVATION) => {
            return tap_derivation(place, reader).map(Some);
        }
        (Place::Input, input::TAP_INTERNAL_KEY | input::TAP_MERKLE_ROOT)
        | (Place::Output, output::TAP_INTERNAL_KEY) => {
            let value = fixed(reader, 32)?;
            if value == [0; 32] {
                return Ok(None);
            }
            value
        }
        (Place::Input, input::MUSIG2_PARTICIPANTS) => participants("Input", rest, reader)?,
        (Place::Output, output::MUSIG2_PARTICIPANTS) => participants("Output", rest, reader)?,
        (Place::Input, input::MUSIG2_PUB_NONCE) => {
            check_participant(rest)?;
            let nonce = reader.bytes()?;
            if nonce.len() != 66 {
                return wrong("Input musig2 pubnonce value is not 66 bytes");
            }
            nonce
        }
        (Place::Output, output::AMOUNT) => fixed(reader, 8)?,
        (Place::Output, output::TAP_TREE) => {
            let tree = reader.bytes()?;
            check_tree(tree)?;
            tree
        }
        (Place::Global | Place::Input | Place::Output, _) => reader.bytes()?,
    };
    Ok(Some(read.to_vec()))
}

/// Reads the leaves of a key and where it comes from.
fn tap_derivation(place: Place, reader: &mut Reader<'_>) -> Result<Vec<u8>, Malformed> {
    let size = reader.size()?;
    let before = reader.0.len();
    let mut hashes = Vec::new();
    for _ in 0..reader.size()? {
        hashes.push(reader.array()?);
    }
    let read = (before - reader.0.len()) as u64;
    let left = size.checked_sub(read).ok_or_else(|| {
        let name = if place == Place::Input { "Input" } else { "Output" };
        Malformed(format!("{name} Taproot BIP32 keypath has an invalid length"))
    })?;
    Ok(tap_origin(hashes, origin(reader, left)?))
}

/// Extended keys of any network count; the crate knows two.
fn is_foreign_xpub(bytes: &[u8]) -> bool {
    let mut bytes = bytes.to_vec();
    match bytes.first_chunk_mut::<4>() {
        Some(version) => *version = [0x04, 0x88, 0xb2, 0x1e],
        None => return false,
    }
    Xpub::decode(&bytes).is_ok()
}

fn check_public_key(bytes: &[u8]) -> Result<(), Malformed> {
    let key = PublicKey::from_slice(bytes);
    key.map(drop).map_err(|_| Malformed::new("Invalid pubkey"))
}

fn check_participant(rest: &[u8]) -> Result<(), Malformed> {
    let mut reader = Reader(rest);
    let (part, whole) = (reader.take(33)?, reader.take(33)?);
    check_public_key(whole).map_err(|_| Malformed::new("musig2 aggregate pubkey is invalid"))?;
    check_public_key(part).map_err(|_| Malformed::new("musig2 participant pubkey is invalid"))
}

fn participants<'a>(place: &str, whole: &[u8], reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    check_public_key(whole).map_err(|_| Malformed(format!("{place} musig2 aggregate pubkey is invalid")))?;
    let value = reader.bytes()?;
    let (keys, rest) = value.as_chunks::<33>();
    for key in keys {
        check_public_key(key).map_err(|_| Malformed(format!("{place} musig2 participant pubkey is invalid")))?;
    }
    match rest.is_empty() {
        true => Ok(value),
        false => Err(Malformed(format!(
            "{place} musig2 participants pubkeys value size is not a multiple of 33"
        ))),
    }
}

fn check_tree(value: &[u8]) -> Result<(), Malformed> {
    if value.is_empty() {
        return Err(Malformed::new("Output Taproot tree must not be empty"));
    }
    let mut builder = Some(TaprootBuilder::new());
    let mut reader = Reader(value);
    while !reader.is_empty() {
        let (depth, version, script) = (reader.byte()?, reader.byte()?, reader.bytes()?);
        if depth > 128 {
            return Err(Malformed::new(
                "Output Taproot tree has as leaf greater than Taproot maximum depth",
            ));
        }
        if version & 1 != 0 {
            return Err(Malformed::new(
                "Output Taproot tree has a leaf with an invalid leaf version",
            ));
        }
        let script = ScriptBuf::from_bytes(script.to_vec());
        builder = LeafVersion::from_consensus(version)
            .ok()
            .zip(builder)
            .and_then(|(version, builder)| builder.add_leaf_with_ver(depth, script, version).ok());
    }
    match builder.is_some_and(|builder| builder.is_finalizable()) {
        true => Ok(()),
        false => Err(Malformed::new("Output Taproot tree is malformed")),
    }
}
