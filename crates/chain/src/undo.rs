//! What takes a block off the tip again: the coins that it spent.

use bitcoin::OutPoint;

use crate::coin;
use crate::{Coin, ParsedBlock};

/// The coins that a block's transactions spent: for each transaction but the coinbase, in input order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockUndo {
    /// One list for each transaction after the coinbase.
    pub spent: Vec<Vec<Coin>>,
}

impl BlockUndo {
    /// How it is written down.
    pub(crate) fn record(&self) -> SpentRecord {
        let mut record = SpentRecord::new(self.spent.len());
        let mut one = Vec::new();
        for coins in &self.spent {
            record.begin(coins.len());
            for coin in coins {
                one.clear();
                coin::encode(coin, &mut one);
                record.append(&one);
            }
        }
        record
    }

    /// The memory that it takes, roughly.
    pub fn bytes(&self) -> usize {
        let coins = self.spent.iter().flatten();
        coins
            .map(|coin| size_of::<Coin>() + coin.output.script_pubkey.len())
            .sum()
    }

    /// The record of a block, from the coins that it spends; `None` when one is not found.
    pub(crate) fn of(block: &ParsedBlock, mut find: impl FnMut(&OutPoint) -> Option<Coin>) -> Option<Self> {
        let coins = |tx: crate::TxRef<'_>| tx.previous_outputs().map(|outpoint| find(&outpoint)).collect();
        let spent: Option<Vec<Vec<Coin>>> = block.transactions().skip(1).map(coins).collect();
        spent.map(|spent| Self { spent })
    }

    /// Reads what a [`SpentRecord`] holds; `None` when the bytes are damaged. Nothing is allocated on a claim.
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

/// What a block spends, as it is written down: counts and lengths as LEB128 numbers, each coin as in the table. It grows
/// while the block is connected, and the coins of each transaction can be read from it.
#[derive(Debug, Default)]
pub(crate) struct SpentRecord {
    bytes: Vec<u8>,
    /// For each transaction after the coinbase, where its count of coins begins.
    rows: Vec<usize>,
    coins: usize,
}

impl SpentRecord {
    /// For a block with so many transactions after the coinbase.
    pub(crate) fn new(transactions: usize) -> Self {
        let mut bytes = Vec::new();
        coin::put_number(&mut bytes, transactions as u64);
        Self {
            bytes,
            rows: Vec::with_capacity(transactions),
            coins: 0,
        }
    }

    /// Goes on to the next transaction, which spends so many coins.
    pub(crate) fn begin(&mut self, coins: usize) {
        self.rows.push(self.bytes.len());
        coin::put_number(&mut self.bytes, coins as u64);
    }

    /// The next coin that is spent, as in the table.
    pub(crate) fn append(&mut self, coin: &[u8]) {
        coin::put_number(&mut self.bytes, coin.len() as u64);
        self.bytes.extend_from_slice(coin);
        self.coins += 1;
    }

    /// The bytes for the disk.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many transactions there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// How many coins there are.
    pub(crate) fn coins(&self) -> usize {
        self.coins
    }

    /// Reads the coins of the transaction number `row`; memory of those that `coins` held is used again. `None` when
    /// there is no such transaction, or a coin is none.
    pub(crate) fn read<'a>(&self, row: usize, coins: &'a mut Vec<Coin>) -> Option<&'a [Coin]> {
        let mut bytes = self.bytes.get(*self.rows.get(row)?..)?;
        let count = usize::try_from(coin::number(&mut bytes)?).ok()?;
        while coins.len() < count {
            coins.push(Coin::nothing());
        }
        let read = coins.get_mut(..count)?;
        for coin in &mut *read {
            let len = usize::try_from(coin::number(&mut bytes)?).ok()?;
            let (one, rest) = bytes.split_at_checked(len)?;
            coin::decode_into(one, coin)?;
            bytes = rest;
        }
        Some(read)
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
        let record = undo.record();
        assert_eq!((record.len(), record.coins()), (3, 3));
        let mut coins = Vec::new();
        for row in [2, 0, 1] {
            assert_eq!(record.read(row, &mut coins), Some(&undo.spent[row][..]));
        }
        assert_eq!(record.read(3, &mut coins), None);
        let bytes = record.bytes();
        assert_eq!(BlockUndo::decode(bytes), Some(undo));
        for len in 0..bytes.len() {
            assert_eq!(BlockUndo::decode(&bytes[..len]), None);
        }
        assert_eq!(BlockUndo::decode(&[0]), Some(BlockUndo::default()));
    }
}
