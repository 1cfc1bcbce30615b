//! Bitcoin Core's short forms of numbers, amounts and scripts, as its snapshot files hold them.
//!
//! * A number: base 128, most significant digit first, bit 7 set on all but the last; each digit but the last counts
//!   one more than it says, so that every number has one form only.
//! * An amount: trailing decimal zeros taken off and counted.
//! * A script: 0 and 20 bytes for P2PKH, 1 and 20 bytes for P2SH, 2 or 3 and 32 bytes for P2PK with a compressed key,
//!   4 or 5 and 32 bytes for P2PK with an uncompressed one, else its length plus 6 and its bytes.

use std::io::{self, Read};

use bitcoin::ScriptBuf;
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_DUP, OP_EQUAL, OP_EQUALVERIFY, OP_HASH160};
use bitcoin::secp256k1::PublicKey;

use crate::coin::MAX_SCRIPT_SIZE;

/// First number that stands for a length and not for a form of script.
const SPECIAL_SCRIPTS: u64 = 6;

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads exactly `N` bytes.
pub(crate) fn array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Appends a number.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 10];
    let mut at = digits.len() - 1;
    digits[at] = (value & 0x7f) as u8;
    while value > 0x7f {
        value = (value >> 7) - 1;
        at -= 1;
        digits[at] = (value & 0x7f) as u8 | 0x80;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Reads a number.
pub(crate) fn varint(input: &mut impl Read) -> io::Result<u64> {
    let mut value = 0u64;
    loop {
        let [digit] = array(input)?;
        if value > u64::MAX >> 7 {
            return Err(malformed("a number is too large"));
        }
        value = (value << 7) | u64::from(digit & 0x7f);
        if digit & 0x80 == 0 {
            return Ok(value);
        }
        value = value.checked_add(1).ok_or_else(|| malformed("a number is too large"))?;
    }
}

/// The short form of an amount in satoshi; BIP 455 uses the same. Amounts stay below 2^60.
pub fn compress_amount(mut amount: u64) -> u64 {
    if amount == 0 {
        return 0;
    }
    let mut zeros = 0;
    while amount.is_multiple_of(10) && zeros < 9 {
        amount /= 10;
        zeros += 1;
    }
    if zeros < 9 {
        let digit = amount % 10;
        1 + ((amount / 10) * 9 + digit - 1) * 10 + zeros
    } else {
        1 + (amount - 1) * 10 + 9
    }
}

/// The amount of a short form; `None` when it does not fit.
pub fn decompress_amount(short: u64) -> Option<u64> {
    let Some(rest) = short.checked_sub(1) else {
        return Some(0);
    };
    let zeros = u32::try_from(rest % 10).ok()?;
    let rest = rest / 10;
    let amount = if zeros < 9 {
        (rest / 9).checked_mul(10)?.checked_add(rest % 9 + 1)?
    } else {
        rest.checked_add(1)?
    };
    amount.checked_mul(10u64.pow(zeros))
}

/// Appends a script.
pub(crate) fn put_script(out: &mut Vec<u8>, script: &[u8]) {
    const DUP: u8 = OP_DUP.to_u8();
    const HASH160: u8 = OP_HASH160.to_u8();
    const EQUAL: u8 = OP_EQUAL.to_u8();
    const EQUALVERIFY: u8 = OP_EQUALVERIFY.to_u8();
    const CHECKSIG: u8 = OP_CHECKSIG.to_u8();
    match script {
        [DUP, HASH160, 20, hash @ .., EQUALVERIFY, CHECKSIG] if hash.len() == 20 => {
            out.push(0);
            out.extend_from_slice(hash);
        }
        [HASH160, 20, hash @ .., EQUAL] if hash.len() == 20 => {
            out.push(1);
            out.extend_from_slice(hash);
        }
        [33, parity @ (2 | 3), x @ .., CHECKSIG] if x.len() == 32 => {
            out.push(*parity);
            out.extend_from_slice(x);
        }
        [65, key @ .., CHECKSIG] if key.len() == 65 && key[0] == 4 && PublicKey::from_slice(key).is_ok() => {
            out.push(4 | (key[64] & 1));
            out.extend_from_slice(&key[1..33]);
        }
        _ => {
            put_varint(out, script.len() as u64 + SPECIAL_SCRIPTS);
            out.extend_from_slice(script);
        }
    }
}

/// Reads a script.
///
/// # Errors
/// Also when it is longer than any that can be spent; nothing is allocated beyond that length.
pub(crate) fn script(input: &mut impl Read) -> io::Result<ScriptBuf> {
    let mut bytes = Vec::new();
    match varint(input)? {
        0 => {
            bytes.extend_from_slice(&[OP_DUP.to_u8(), OP_HASH160.to_u8(), 20]);
            bytes.extend_from_slice(&array::<20>(input)?);
            bytes.extend_from_slice(&[OP_EQUALVERIFY.to_u8(), OP_CHECKSIG.to_u8()]);
        }
        1 => {
            bytes.extend_from_slice(&[OP_HASH160.to_u8(), 20]);
            bytes.extend_from_slice(&array::<20>(input)?);
            bytes.push(OP_EQUAL.to_u8());
        }
        parity @ (2 | 3) => {
            bytes.extend_from_slice(&[33, parity as u8]);
            bytes.extend_from_slice(&array::<32>(input)?);
            bytes.push(OP_CHECKSIG.to_u8());
        }
        parity @ (4 | 5) => {
            let mut key = vec![parity as u8 - 2];
            key.extend_from_slice(&array::<32>(input)?);
            let key = PublicKey::from_slice(&key).map_err(|_| malformed("a public key is no point of the curve"))?;
            bytes.push(65);
            bytes.extend_from_slice(&key.serialize_uncompressed());
            bytes.push(OP_CHECKSIG.to_u8());
        }
        length => {
            let length = usize::try_from(length - SPECIAL_SCRIPTS)
                .ok()
                .filter(|length| *length <= MAX_SCRIPT_SIZE)
                .ok_or_else(|| malformed("a script is longer than any that can be spent"))?;
            bytes.resize(length, 0);
            input.read_exact(&mut bytes)?;
        }
    }
    Ok(ScriptBuf::from_bytes(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_form_that_core_documents() {
        // The examples in Core's serialize.h.
        for (value, bytes) in [
            (0, vec![0x00]),
            (1, vec![0x01]),
            (127, vec![0x7f]),
            (128, vec![0x80, 0x00]),
            (255, vec![0x80, 0x7f]),
            (256, vec![0x81, 0x00]),
            (16383, vec![0xfe, 0x7f]),
            (16384, vec![0xff, 0x00]),
            (16511, vec![0xff, 0x7f]),
            (65535, vec![0x82, 0xfe, 0x7f]),
            (1 << 32, vec![0x8e, 0xfe, 0xfe, 0xff, 0x00]),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(varint(&mut &bytes[..]).unwrap(), value);
        }
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        assert_eq!(varint(&mut &out[..]).unwrap(), u64::MAX);
        assert!(varint(&mut &[0xff; 11][..]).is_err());
    }

    #[test]
    fn amounts_are_those_of_core_and_of_bip_455() {
        // From Core's compress_tests.cpp.
        for (amount, short) in [
            (0, 0),
            (1, 1),
            (1_000_000, 7),
            (100_000_000, 9),
            (5_000_000_000, 0x32),
            (2_100_000_000_000_000, 0x1406f40),
        ] {
            assert_eq!(compress_amount(amount), short, "{amount}");
            assert_eq!(decompress_amount(short), Some(amount), "{short}");
        }
        for short in 0..100_000 {
            assert_eq!(compress_amount(decompress_amount(short).unwrap()), short);
        }
        assert_eq!(decompress_amount(u64::MAX), None);
    }

    #[test]
    fn scripts_survive_and_common_ones_are_short() {
        let point = PublicKey::from_slice(
            &hex::decode("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798").unwrap(),
        )
        .unwrap();
        let wrap = |parts: &[&[u8]]| parts.concat();
        let cases = [
            (wrap(&[&[0x76, 0xa9, 20], &[7; 20], &[0x88, 0xac]]), 21),
            (wrap(&[&[0xa9, 20], &[7; 20], &[0x87]]), 21),
            (wrap(&[&[33], &point.serialize(), &[0xac]]), 33),
            (wrap(&[&[65], &point.serialize_uncompressed(), &[0xac]]), 33),
            // No point of the curve: kept as it is.
            (wrap(&[&[65, 4], &[5; 64], &[0xac]]), 68),
            (wrap(&[&[0, 20], &[7; 20]]), 23),
            (vec![], 1),
            (vec![1; 10_000], 10_002),
        ];
        for (bytes, length) in cases {
            let mut out = Vec::new();
            put_script(&mut out, &bytes);
            assert_eq!(out.len(), length, "{bytes:02x?}");
            assert_eq!(script(&mut &out[..]).unwrap().into_bytes(), bytes);
        }
        let mut long = Vec::new();
        put_script(&mut long, &[0; 10_001]);
        assert!(script(&mut &long[..]).is_err());
        assert!(script(&mut &wrap(&[&[4], &[0xff; 32]])[..]).is_err());
    }
}
