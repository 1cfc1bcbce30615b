//! An unspent output, and how it is written down.

use bitcoin::{Amount, OutPoint, Script, ScriptBuf, TxOut};

/// An unspent output with what the rules ask of its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coin {
    /// Amount and script.
    pub output: TxOut,
    /// The height of the block that created it.
    pub height: u32,
    /// Whether a coinbase created it.
    pub coinbase: bool,
}

impl Coin {
    /// A place to read coins into.
    pub(crate) fn nothing() -> Self {
        Self {
            output: TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::new(),
            },
            height: 0,
            coinbase: false,
        }
    }
}

/// Scripts beyond this length can never be satisfied, so their outputs are not kept.
pub(crate) const MAX_SCRIPT_SIZE: usize = 10_000;

/// Whether an output with this script can ever be spent: neither `OP_RETURN` at its front nor a script that is too long to run.
pub(crate) fn is_spendable(script: &Script) -> bool {
    let script = script.as_bytes();
    script.first() != Some(&bitcoin::opcodes::all::OP_RETURN.to_u8()) && script.len() <= MAX_SCRIPT_SIZE
}

/// Indexes below this take one byte of a key.
const LONG_VOUT: u8 = 0xf0;

/// A coin's key: the transaction id in wire order, then the index, so that the outputs of one transaction lie together
/// and in order. An index below 240 is one byte; for others a byte 240 + n goes before their n bytes, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    bytes: [u8; 37],
    len: usize,
}

impl std::ops::Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The key of a coin.
pub(crate) fn key(outpoint: &OutPoint) -> Key {
    let mut bytes = [0; 37];
    bytes[..32].copy_from_slice(outpoint.txid.as_ref());
    let vout = outpoint.vout.to_be_bytes();
    let skipped = (outpoint.vout.leading_zeros() / 8) as usize;
    let len = if outpoint.vout < u32::from(LONG_VOUT) {
        bytes[32] = vout[3];
        33
    } else {
        let len = vout.len() - skipped;
        bytes[32] = LONG_VOUT + len as u8;
        bytes[33..33 + len].copy_from_slice(&vout[skipped..]);
        33 + len
    };
    Key { bytes, len }
}

/// Reads a key back; `None` when the bytes are none that [`key`] makes.
pub(crate) fn outpoint(bytes: &[u8]) -> Option<OutPoint> {
    let (txid, index) = bytes.split_first_chunk::<32>()?;
    let vout = match index {
        [vout] => u32::from(*vout),
        [_, rest @ ..] if rest.len() <= 4 => rest.iter().fold(0, |vout, byte| vout << 8 | u32::from(*byte)),
        _ => return None,
    };
    let outpoint = OutPoint {
        txid: bitcoin::hashes::Hash::from_byte_array(*txid),
        vout,
    };
    (*key(&outpoint) == *bytes).then_some(outpoint)
}

/// The form of a script that is no known one: it stands as it is.
const OTHER: u8 = 0;
/// The known forms, numbered from 1: what stands before the hash or key, its length, what stands behind it.
const FORMS: [(&[u8], usize, &[u8]); 5] = [
    (&[0x76, 0xa9, 20], 20, &[0x88, 0xac]),
    (&[0xa9, 20], 20, &[0x87]),
    (&[0, 20], 20, &[]),
    (&[0, 32], 32, &[]),
    (&[0x51, 32], 32, &[]),
];

/// A script's form, and what of it has to be written.
fn compress(script: &[u8]) -> (u8, &[u8]) {
    let known = (1u8..).zip(FORMS).find_map(|(form, (before, len, after))| {
        if script.len() != before.len() + len + after.len() {
            return None;
        }
        let middle = script.strip_prefix(before)?.strip_suffix(after)?;
        Some((form, middle))
    });
    known.unwrap_or((OTHER, script))
}

/// Appends the script of a form; `None` when there is no such form or the bytes have another length.
fn expand(form: u8, bytes: &[u8], script: &mut Vec<u8>) -> Option<()> {
    let Some(form) = form.checked_sub(1) else {
        script.extend_from_slice(bytes);
        return Some(());
    };
    let (before, len, after) = FORMS.get(usize::from(form))?;
    [*before, bytes, *after]
        .into_iter()
        .for_each(|part| script.extend_from_slice(part));
    (bytes.len() == *len).then_some(())
}

/// Appends a coin: `height * 2 + coinbase` as a LEB128 number; a byte with the number of zeros at the end of the
/// amount (at most nine) times 16 and the script's form; the amount without those zeros as a LEB128 number; what has to
/// be known of the script.
pub(crate) fn encode(coin: &Coin, out: &mut Vec<u8>) {
    let Coin {
        output,
        height,
        coinbase,
    } = coin;
    encode_parts(
        *height,
        *coinbase,
        output.value.to_sat(),
        output.script_pubkey.as_bytes(),
        out,
    );
}

/// [`encode`] from what a coin consists of.
pub(crate) fn encode_parts(height: u32, coinbase: bool, value: u64, script: &[u8], out: &mut Vec<u8>) {
    put_number(out, (u64::from(height) << 1) | u64::from(coinbase));
    let (form, script) = compress(script);
    let (mut amount, mut zeros) = (value, 0);
    while zeros < 9 && amount != 0 && amount.is_multiple_of(10) {
        amount /= 10;
        zeros += 1;
    }
    out.push(zeros << 4 | form);
    put_number(out, amount);
    out.extend_from_slice(script);
}

/// Reads what [`encode`] wrote; `None` when the bytes are damaged.
pub(crate) fn decode(bytes: &[u8]) -> Option<Coin> {
    let mut coin = Coin::nothing();
    decode_into(bytes, &mut coin).map(|()| coin)
}

/// [`decode`] into the place of another coin, whose script's memory is used again.
pub(crate) fn decode_into(mut bytes: &[u8], coin: &mut Coin) -> Option<()> {
    let code = number(&mut bytes)?;
    let (&kind, mut bytes) = bytes.split_first()?;
    let value = number(&mut bytes)?.checked_mul(10u64.checked_pow(u32::from(kind >> 4))?)?;
    let mut script = std::mem::take(&mut coin.output.script_pubkey).into_bytes();
    script.clear();
    expand(kind & 15, bytes, &mut script)?;
    coin.output.script_pubkey = ScriptBuf::from_bytes(script);
    coin.output.value = Amount::from_sat(value);
    coin.height = u32::try_from(code >> 1).ok()?;
    coin.coinbase = code & 1 == 1;
    Some(())
}

/// Appends a LEB128 number.
pub(crate) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a LEB128 number off the front.
pub(crate) fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn coins_survive_writing() {
        for (height, coinbase, value, len) in [
            (0, true, 0, 0),
            (1, false, 1, 25),
            (u32::MAX, true, u64::MAX, 10_000),
            (840_000, false, 21_000_000 * 100_000_000, 34),
            (1, false, 10_000_000_000_000_000_000, 1),
        ] {
            survives(coin(height, coinbase, value, vec![7; len]));
        }
    }

    fn coin(height: u32, coinbase: bool, value: u64, script: Vec<u8>) -> Coin {
        Coin {
            output: TxOut {
                value: Amount::from_sat(value),
                script_pubkey: ScriptBuf::from_bytes(script),
            },
            height,
            coinbase,
        }
    }

    fn survives(coin: Coin) -> usize {
        let mut bytes = Vec::new();
        encode(&coin, &mut bytes);
        assert_eq!(decode(&bytes), Some(coin));
        bytes.len()
    }

    #[test]
    fn known_scripts_are_written_as_their_hash_or_key_alone() {
        use bitcoin::hashes::Hash;
        let short = bitcoin::PubkeyHash::from_byte_array([3; 20]);
        let long = bitcoin::WScriptHash::from_byte_array([4; 32]);
        let taproot = bitcoin::WitnessProgram::new(bitcoin::WitnessVersion::V1, &[5; 32]).unwrap();
        for (script, len) in [
            (ScriptBuf::new_p2pkh(&short), 20),
            (ScriptBuf::new_p2sh(&bitcoin::ScriptHash::from_byte_array([3; 20])), 20),
            (
                ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array([3; 20])),
                20,
            ),
            (ScriptBuf::new_p2wsh(&long), 32),
            (ScriptBuf::new_witness_program(&taproot), 32),
        ] {
            let script = script.into_bytes();
            assert_eq!(survives(coin(5, false, 700_000, script.clone())), 3 + len);
            // One byte more, one less, one other: as it is.
            for change in 0..3 {
                let mut other = script.clone();
                match change {
                    0 => other.push(0),
                    1 => drop(other.pop()),
                    _ => other[1] ^= 1,
                }
                let len = other.len();
                assert_eq!(survives(coin(5, false, 700_000, other)), 3 + len);
            }
        }
    }

    #[test]
    fn damaged_coins_are_refused() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0x80]), None);
        assert_eq!(decode(&[0xff; 20]), None);
        // A form that is not there, a length that is not its own, an amount beyond all numbers.
        assert_eq!(decode(&[2, 6, 1]), None);
        assert_eq!(decode(&[2, 3, 1, 9, 9]), None);
        assert_eq!(
            decode(&[2, 0x90, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            None
        );
        assert_eq!(decode(&[2, 0xf0, 0xff, 0xff, 0x7f]), None);
        for len in [0, 32, 34, 38] {
            assert_eq!(outpoint(&vec![0; len]), None);
        }
        assert_eq!(outpoint(&[0xff; 33]), None);
    }

    #[test]
    fn keys_sort_by_index_within_a_transaction() {
        let at = |vout| OutPoint {
            txid: bitcoin::hashes::Hash::all_zeros(),
            vout,
        };
        let indexes = [
            0,
            1,
            239,
            240,
            241,
            255,
            256,
            65_535,
            65_536,
            1 << 24,
            u32::MAX - 1,
            u32::MAX,
        ];
        for pair in indexes.windows(2) {
            assert!(*key(&at(pair[0])) < *key(&at(pair[1])), "{pair:?}");
        }
        for vout in indexes {
            assert_eq!(outpoint(&key(&at(vout))), Some(at(vout)));
        }
    }
}
