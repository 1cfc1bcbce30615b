//! What takes a block off the tip again: the coins that it spent.

use crate::Coin;
use crate::coin;

/// The coins that a block's transactions spent: for each transaction but the coinbase, in input order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockUndo {
    /// One list for each transaction after the coinbase.
    pub spent: Vec<Vec<Coin>>,
}

impl BlockUndo {
    /// The memory that it takes, roughly.
    pub fn bytes(&self) -> usize {
        let coins = self.spent.iter().flatten();
        coins
            .map(|coin| size_of::<Coin>() + coin.output.script_pubkey.len())
            .sum()
    }

    /// Counts and lengths as LEB128 numbers, each coin as in the table.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut one = Vec::new();
        coin::put_number(out, self.spent.len() as u64);
        for coins in &self.spent {
            coin::put_number(out, coins.len() as u64);
            for spent in coins {
                one.clear();
                coin::encode(spent, &mut one);
                coin::put_number(out, one.len() as u64);
                out.extend_from_slice(&one);
            }
        }
    }

    /// Reads what [`BlockUndo::encode`] wrote; `None` when the bytes are damaged. Nothing is allocated on a claim.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut spent = Vec::new();
        for _ in 0..coin::number(&mut bytes)? {
            let mut coins = Vec::new();
            for _ in 0..coin::number(&mut bytes)? {
                let len = usize::try_from(coin::number(&mut bytes)?).ok()?;
                let (one, rest) = bytes.split_at_checked(len)?;
                coins.push(coin::decode(one)?);
                bytes = rest;
            }
            spent.push(coins);
        }
        bytes.is_empty().then_some(Self { spent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::{Amount, ScriptBuf, TxOut};

    #[test]
    fn undo_records_survive_writing_and_cuts_are_noticed() {
        let coin = |n: u8| Coin {
            output: TxOut {
                value: Amount::from_sat(u64::from(n) * 1_000_000),
                script_pubkey: ScriptBuf::from_bytes(vec![n; usize::from(n)]),
            },
            height: u32::from(n) * 999,
            coinbase: n == 0,
        };
        let undo = BlockUndo {
            spent: vec![vec![coin(0), coin(1)], vec![], vec![coin(200)]],
        };
        let mut bytes = Vec::new();
        undo.encode(&mut bytes);
        assert_eq!(BlockUndo::decode(&bytes), Some(undo));
        for len in 0..bytes.len() {
            assert_eq!(BlockUndo::decode(&bytes[..len]), None);
        }
        assert_eq!(BlockUndo::decode(&[0]), Some(BlockUndo::default()));
    }
}
