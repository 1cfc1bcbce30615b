//! The coins that a block spent (BIP 455): the question `getbspent` and the answer `bspent`.

use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash, ScriptBuf, TxOut};
use dunlin_chain::snapshot::{compress_amount, decompress_amount};
use dunlin_chain::{BlockUndo, Coin};

use super::payload::{Malformed, Reader, put_compact};

/// The feature (BIP 434) that says that its sender answers `getbspent`.
pub const SPENT_COINS_FEATURE: &str = "blockspentcoinsv1";
/// An input takes at least 41 of a million bytes.
const MAX_COINS: usize = 1_000_000 / 41;
/// What is longer can never be spent.
const MAX_SCRIPT: usize = 10_000;
/// A coin takes at least its place, its height, a form with the length of an empty script, and an amount.
const MIN_COIN: usize = 4 + 4 + 2 + 1;

/// A script that is written as it is.
const PLAIN: u8 = 0;
/// The known forms of scripts, numbered from 1: what stands before the bytes that are written, how many those are, what
/// stands behind them.
const FORMS: [(&[u8], usize, &[u8]); 8] = [
    (&[0x76, 0xa9, 20], 20, &[0x88, 0xac]),
    (&[33, 2], 32, &[0xac]),
    (&[33, 3], 32, &[0xac]),
    (&[65, 4], 64, &[0xac]),
    (&[0xa9, 20], 20, &[0x87]),
    (&[0, 32], 32, &[]),
    (&[0, 20], 20, &[]),
    (&[0x51, 32], 32, &[]),
];

/// `getbspent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpentRequest {
    /// The block whose spent coins are wanted.
    pub block: BlockHash,
    /// Above zero: only coins that were created below this height.
    pub cutoff: u32,
}

impl SpentRequest {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.block.as_byte_array());
        out.extend_from_slice(&self.cutoff.to_le_bytes());
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            block: BlockHash::from_byte_array(reader.array()?),
            cutoff: reader.u32()?,
        })
    }
}

/// `bspent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpentCoins {
    /// The block that spent them.
    pub block: BlockHash,
    /// The coins, each with the place of its input among all of the block but the coinbase's.
    pub coins: Vec<(u32, Coin)>,
}

impl SpentCoins {
    /// What a block spent of the coins that were asked for.
    pub fn of(request: &SpentRequest, undo: BlockUndo) -> Self {
        let wanted = |coin: &Coin| request.cutoff == 0 || coin.height < request.cutoff;
        let coins = (0u32..).zip(undo.spent.into_iter().flatten());
        Self {
            block: request.block,
            coins: coins.filter(|(_, coin)| wanted(coin)).collect(),
        }
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.block.to_byte_array().to_vec();
        put_compact(&mut out, self.coins.len() as u64);
        for (place, coin) in &self.coins {
            out.extend_from_slice(&place.to_le_bytes());
            out.extend_from_slice(&((coin.height << 1) | u32::from(coin.coinbase)).to_le_bytes());
            put_script(&mut out, coin.output.script_pubkey.as_bytes());
            put_compact(&mut out, compress_amount(coin.output.value.to_sat()));
        }
        out
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let block = BlockHash::from_byte_array(reader.array()?);
        let count = reader.count(MAX_COINS, MIN_COIN, "spent coins")?;
        let mut coins = Vec::with_capacity(count);
        for _ in 0..count {
            let place = reader.u32()?;
            let code = reader.u32()?;
            let script_pubkey = script(reader)?;
            let value = decompress_amount(reader.compact_u64()?).ok_or(Malformed("amount"))?;
            let coin = Coin {
                output: TxOut {
                    value: Amount::from_sat(value),
                    script_pubkey,
                },
                height: code >> 1,
                coinbase: code & 1 == 1,
            };
            coins.push((place, coin));
        }
        Ok(Self { block, coins })
    }
}

fn put_script(out: &mut Vec<u8>, script: &[u8]) {
    let known = (1u8..).zip(FORMS).find_map(|(form, (before, len, after))| {
        let middle = script.strip_prefix(before)?.strip_suffix(after)?;
        (middle.len() == len).then_some((form, middle))
    });
    match known {
        Some((form, middle)) => {
            out.push(form);
            out.extend_from_slice(middle);
        }
        None => {
            out.push(PLAIN);
            put_compact(out, script.len() as u64);
            out.extend_from_slice(script);
        }
    }
}

fn script(reader: &mut Reader<'_>) -> Result<ScriptBuf, Malformed> {
    let Some(form) = reader.u8()?.checked_sub(1) else {
        return Ok(reader.var_bytes(MAX_SCRIPT, "script length")?.to_vec().into());
    };
    let (before, len, after) = FORMS.get(usize::from(form)).ok_or(Malformed("form of a script"))?;
    let middle = reader.take(*len)?;
    Ok([before, middle, after].concat().into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn coin(height: u32, value: u64, script: Vec<u8>) -> Coin {
        Coin {
            output: TxOut {
                value: Amount::from_sat(value),
                script_pubkey: script.into(),
            },
            height,
            coinbase: height % 2 == 1,
        }
    }

    /// The vectors of BIP 455.
    #[test]
    fn the_vectors_of_the_bip() {
        let text = include_str!("../../tests/data/reconstructable_script.json");
        let vectors: Vec<(String, String)> = serde_json::from_str(text).unwrap();
        assert_eq!(vectors.len(), 9);
        for (plain, short) in vectors {
            let plain = hex::decode(plain).unwrap();
            let mut out = Vec::new();
            put_script(&mut out, &plain);
            assert_eq!(hex::encode(&out), short);
            assert_eq!(script(&mut Reader::new(&out)).unwrap().as_bytes(), plain);
        }
        for (amount, short) in [
            (0, 0),
            (1, 1),
            (1_000_000, 7),
            (100_000_000, 9),
            (5_000_000_000, 0x32),
            (2_100_000_000_000_000, 0x140_6f40),
        ] {
            assert_eq!(compress_amount(amount), short);
            assert_eq!(decompress_amount(short), Some(amount));
        }
    }

    #[test]
    fn coins_survive_the_way_and_the_cutoff_leaves_the_younger_ones_out() {
        let block = BlockHash::from_byte_array([5; 32]);
        let undo = BlockUndo {
            spent: vec![
                vec![coin(7, 50, vec![0x51; 3]), coin(200, 0, vec![])],
                vec![],
                vec![coin(0, 2_100_000_000_000_000, vec![0xac; MAX_SCRIPT])],
            ],
        };
        let all = SpentCoins::of(&SpentRequest { block, cutoff: 0 }, undo.clone());
        let places: Vec<u32> = all.coins.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [0, 1, 2]);
        let bytes = all.encode();
        assert_eq!(SpentCoins::decode(&mut Reader::new(&bytes)).unwrap(), all);
        for len in 0..bytes.len() {
            assert!(SpentCoins::decode(&mut Reader::new(&bytes[..len])).is_err(), "{len}");
        }
        let old = SpentCoins::of(&SpentRequest { block, cutoff: 200 }, undo.clone());
        let places: Vec<u32> = old.coins.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [0, 2]);
        assert_eq!(
            SpentCoins::of(&SpentRequest { block, cutoff: 201 }, undo).coins.len(),
            3
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let payload = |rest: &[u8]| {
            let bytes = [&[5; 32][..], rest].concat();
            SpentCoins::decode(&mut Reader::new(&bytes)).map_err(|Malformed(what)| what)
        };
        let coin = [0; 8];
        assert!(payload(&[0]).is_ok());
        assert_eq!(payload(&[0xfe, 0, 0, 1, 0]), Err("spent coins"));
        assert_eq!(payload(&[1]), Err("end of payload"));
        assert_eq!(
            payload(&[&[1], &coin[..], &[9, 0, 0]].concat()),
            Err("form of a script")
        );
        assert_eq!(
            payload(&[&[1], &coin[..], &[0, 0xfd, 0x11, 0x27, 0]].concat()),
            Err("script length")
        );
        let huge = [&[1], &coin[..], &[0, 0, 0xff], &[0xff; 8]].concat();
        assert_eq!(payload(&huge), Err("amount"));
    }
}
