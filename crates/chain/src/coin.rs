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

/// Scripts beyond this length can never be satisfied, so their outputs are not kept.
pub(crate) const MAX_SCRIPT_SIZE: usize = 10_000;

/// Whether an output with this script can ever be spent: neither `OP_RETURN` at its front nor a script that is too long to run.
pub(crate) fn is_spendable(script: &Script) -> bool {
    let script = script.as_bytes();
    script.first() != Some(&bitcoin::opcodes::all::OP_RETURN.to_u8()) && script.len() <= MAX_SCRIPT_SIZE
}

/// A coin's key in the table: the transaction id in wire order, then the index big-endian, so that the outputs of one
/// transaction lie together and in order.
pub(crate) fn key(outpoint: &OutPoint) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(outpoint.txid.as_ref());
    key[32..].copy_from_slice(&outpoint.vout.to_be_bytes());
    key
}

/// Reads a key back.
pub(crate) fn outpoint(key: &[u8]) -> Option<OutPoint> {
    let (txid, vout) = key.split_first_chunk::<32>()?;
    Some(OutPoint {
        txid: bitcoin::hashes::Hash::from_byte_array(*txid),
        vout: u32::from_be_bytes(vout.try_into().ok()?),
    })
}

/// Appends `height * 2 + coinbase` and the amount as LEB128 numbers, then the script as it is.
pub(crate) fn encode(coin: &Coin, out: &mut Vec<u8>) {
    put_number(out, (u64::from(coin.height) << 1) | u64::from(coin.coinbase));
    put_number(out, coin.output.value.to_sat());
    out.extend_from_slice(coin.output.script_pubkey.as_bytes());
}

/// Reads what [`encode`] wrote; `None` when the bytes are damaged.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Coin> {
    let code = number(&mut bytes)?;
    let value = number(&mut bytes)?;
    Some(Coin {
        output: TxOut {
            value: Amount::from_sat(value),
            script_pubkey: ScriptBuf::from_bytes(bytes.to_vec()),
        },
        height: u32::try_from(code >> 1).ok()?,
        coinbase: code & 1 == 1,
    })
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
        ] {
            let coin = Coin {
                output: TxOut {
                    value: Amount::from_sat(value),
                    script_pubkey: ScriptBuf::from_bytes(vec![7; len]),
                },
                height,
                coinbase,
            };
            let mut bytes = Vec::new();
            encode(&coin, &mut bytes);
            assert_eq!(decode(&bytes), Some(coin));
        }
    }

    #[test]
    fn damaged_coins_are_refused() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0x80]), None);
        assert_eq!(decode(&[0xff; 20]), None);
        assert_eq!(outpoint(&[0; 35]), None);
    }

    #[test]
    fn keys_sort_by_index_within_a_transaction() {
        let at = |vout| OutPoint {
            txid: bitcoin::hashes::Hash::all_zeros(),
            vout,
        };
        assert!(key(&at(255)) < key(&at(256)));
        assert_eq!(outpoint(&key(&at(70_000))), Some(at(70_000)));
    }
}
