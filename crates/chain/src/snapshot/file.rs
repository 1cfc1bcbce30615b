//! The snapshot file, byte for byte as Bitcoin Core 31 writes it (version 2).
//!
//! | bytes | |
//! |---|---|
//! | 5 | `utxo` and 0xff |
//! | 2 | version, little-endian |
//! | 4 | the network's magic |
//! | 32 | the hash of the base block: the one up to which the coins are |
//! | 8 | number of coins, little-endian |
//! | | for each transaction with unspent outputs: its id, how many (CompactSize), the outputs |
//!
//! An output is its index (CompactSize), `height * 2 + coinbase` as a number, the amount and the script in their short
//! forms. Transactions stand in the order of their ids, outputs in the order in which Core's database keeps them.

use std::io::{self, Read, Write};

use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash, OutPoint, TxOut, Txid};

use super::compress::{array, compress_amount, decompress_amount, put_script, put_varint, script, varint};
use crate::{Coin, MAX_BLOCK_BYTES, Network, Params};

const MAGIC: [u8; 5] = *b"utxo\xff";
const VERSION: u16 = 2;

/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 51;

/// A transaction has at most this many outputs: each takes nine bytes of a block without witnesses, a megabyte.
const MAX_OUTPUTS: u64 = 1_000_000 / 9;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The block up to which the coins are.
    pub base: BlockHash,
    /// How many coins follow.
    pub coins: u64,
}

impl SnapshotHeader {
    /// The header's bytes for a network.
    pub(crate) fn encode(&self, params: &Params) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..5].copy_from_slice(&MAGIC);
        out[5..7].copy_from_slice(&VERSION.to_le_bytes());
        out[7..11].copy_from_slice(&params.magic);
        out[11..43].copy_from_slice(self.base.as_byte_array());
        out[43..].copy_from_slice(&self.coins.to_le_bytes());
        out
    }

    /// Reads the header; the text of an error is meant for the one who gave the file.
    pub(crate) fn read(params: &Params, input: &mut impl Read) -> Result<Self, String> {
        let mut read = || -> io::Result<_> {
            Ok((
                array(input)?,
                array(input)?,
                array(input)?,
                array(input)?,
                array(input)?,
            ))
        };
        let (magic, version, network, base, coins): ([u8; 5], _, [u8; 4], _, _) =
            read().map_err(|error| format!("the file ends within its header ({error})"))?;
        if magic != MAGIC {
            return Err(
                "Invalid UTXO set snapshot magic bytes. Please check if this is indeed a snapshot file or if you are \
                 using an outdated snapshot format."
                    .to_owned(),
            );
        }
        let version = u16::from_le_bytes(version);
        if version != VERSION {
            return Err(format!(
                "Version of snapshot {version} does not match any of the supported versions."
            ));
        }
        if network != params.magic {
            let known = Network::ALL
                .into_iter()
                .find(|other| Params::new(*other).magic == network);
            return Err(match known {
                Some(other) => format!(
                    "The network of the snapshot ({}) does not match the network of this node ({}).",
                    other.chain_name(),
                    params.network.chain_name()
                ),
                None => "This snapshot has been created for an unrecognized network. This could be a custom signet, a \
                         new testnet or possibly caused by data corruption."
                    .to_owned(),
            });
        }
        Ok(Self {
            base: BlockHash::from_byte_array(base),
            coins: u64::from_le_bytes(coins),
        })
    }
}

fn malformed(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn put_compact_size(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0xfc => out.push(value as u8),
        0xfd..=0xffff => {
            out.push(0xfd);
            out.extend_from_slice(&(value as u16).to_le_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xfe);
            out.extend_from_slice(&(value as u32).to_le_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

fn compact_size(input: &mut impl Read) -> io::Result<u64> {
    let [first] = array(input)?;
    let (value, least) = match first {
        0xfd => (u64::from(u16::from_le_bytes(array(input)?)), 0xfd),
        0xfe => (u64::from(u32::from_le_bytes(array(input)?)), 0x1_0000),
        0xff => (u64::from_le_bytes(array(input)?), 0x1_0000_0000),
        small => (u64::from(small), 0),
    };
    if value < least {
        return Err(malformed("a number is not in its shortest form"));
    }
    Ok(value)
}

/// Reads the coins of one transaction after the other; memory is bounded by one transaction.
pub(crate) struct CoinReader<R> {
    input: R,
    left: u64,
    last: Option<Txid>,
}

impl<R: Read> CoinReader<R> {
    /// Goes on behind a header that promised `coins`.
    pub(crate) fn new(input: R, coins: u64) -> Self {
        Self {
            input,
            left: coins,
            last: None,
        }
    }

    /// Puts the next transaction's coins into `coins`, by index; `false` at the end of the file.
    ///
    /// # Errors
    /// When the file is cut, malformed, holds more or fewer coins than promised, or is not in order.
    pub(crate) fn next(&mut self, coins: &mut Vec<(OutPoint, Coin)>) -> io::Result<bool> {
        coins.clear();
        if self.left == 0 {
            return match self.input.read(&mut [0])? {
                0 => Ok(false),
                _ => Err(malformed("coins left over after the number that the header promises")),
            };
        }
        let txid = Txid::from_byte_array(array(&mut self.input)?);
        if self
            .last
            .is_some_and(|last| last.as_byte_array() >= txid.as_byte_array())
        {
            return Err(malformed(format!("transaction {txid} is not in order")));
        }
        self.last = Some(txid);
        let count = compact_size(&mut self.input)?;
        if count == 0 || count > self.left || count > MAX_OUTPUTS {
            return Err(malformed(format!(
                "transaction {txid} cannot have {count} unspent outputs"
            )));
        }
        let mut bytes = 0;
        for _ in 0..count {
            let (vout, coin) = self.coin()?;
            bytes += coin.output.script_pubkey.len();
            if bytes > MAX_BLOCK_BYTES {
                return Err(malformed(format!("transaction {txid} is larger than a block")));
            }
            coins.push((OutPoint { txid, vout }, coin));
        }
        self.left -= count;
        // Core's order differs for indexes from 16,512 on.
        coins.sort_by_key(|(outpoint, _)| outpoint.vout);
        match coins.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(malformed(format!("output {} stands there twice", pair[0].0))),
            None => Ok(true),
        }
    }

    fn coin(&mut self) -> io::Result<(u32, Coin)> {
        let vout = u32::try_from(compact_size(&mut self.input)?)
            .ok()
            .filter(|vout| *vout < u32::MAX)
            .ok_or_else(|| malformed("an output's index is too large"))?;
        let code = u32::try_from(varint(&mut self.input)?).map_err(|_| malformed("a height is too large"))?;
        let value = decompress_amount(varint(&mut self.input)?)
            .filter(|value| *value <= Amount::MAX_MONEY.to_sat())
            .ok_or_else(|| malformed("bad tx out value"))?;
        let output = TxOut {
            value: Amount::from_sat(value),
            script_pubkey: script(&mut self.input)?,
        };
        let coin = Coin {
            output,
            height: code >> 1,
            coinbase: code & 1 == 1,
        };
        Ok((vout, coin))
    }
}

/// Writes coins in the order of [`CoinWriter::put`], which is that of their keys.
pub(crate) struct CoinWriter<W> {
    output: W,
    txid: Option<Txid>,
    coins: Vec<(u32, Coin)>,
}

impl<W: Write> CoinWriter<W> {
    pub(crate) fn new(output: W) -> Self {
        Self {
            output,
            txid: None,
            coins: Vec::new(),
        }
    }

    /// Adds a coin.
    pub(crate) fn put(&mut self, outpoint: OutPoint, coin: Coin) -> io::Result<()> {
        if self.txid != Some(outpoint.txid) {
            self.write_transaction()?;
            self.txid = Some(outpoint.txid);
        }
        self.coins.push((outpoint.vout, coin));
        Ok(())
    }

    /// Writes what is left and gives the output back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.write_transaction()?;
        Ok(self.output)
    }

    fn write_transaction(&mut self) -> io::Result<()> {
        let Some(txid) = self.txid else { return Ok(()) };
        let mut out = txid.to_byte_array().to_vec();
        put_compact_size(&mut out, self.coins.len() as u64);
        // Core's database keeps them in the order of the bytes of the index as a number of its own form.
        self.coins.sort_by_cached_key(|(vout, _)| {
            let mut key = Vec::new();
            put_varint(&mut key, u64::from(*vout));
            key
        });
        for (vout, coin) in self.coins.drain(..) {
            put_compact_size(&mut out, u64::from(vout));
            put_varint(&mut out, (u64::from(coin.height) << 1) | u64::from(coin.coinbase));
            put_varint(&mut out, compress_amount(coin.output.value.to_sat()));
            put_script(&mut out, coin.output.script_pubkey.as_bytes());
        }
        self.output.write_all(&out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bitcoin::ScriptBuf;

    fn coin(height: u32) -> Coin {
        Coin {
            output: TxOut {
                value: Amount::from_sat(u64::from(height) * 1000),
                script_pubkey: ScriptBuf::from_bytes(vec![0x51; height as usize % 50]),
            },
            height,
            coinbase: height.is_multiple_of(2),
        }
    }

    fn file() -> (Vec<u8>, Vec<(OutPoint, Coin)>) {
        let mut coins = Vec::new();
        for (byte, vouts) in [(1, vec![0, 3, 128, 16_511, 16_512, 70_000]), (2, vec![5])] {
            let txid = Txid::from_byte_array([byte; 32]);
            coins.extend(vouts.into_iter().map(|vout| (OutPoint { txid, vout }, coin(vout))));
        }
        let mut writer = CoinWriter::new(Vec::new());
        for (outpoint, coin) in &coins {
            writer.put(*outpoint, coin.clone()).unwrap();
        }
        (writer.finish().unwrap(), coins)
    }

    fn read(bytes: &[u8], promised: u64) -> io::Result<Vec<(OutPoint, Coin)>> {
        let mut reader = CoinReader::new(bytes, promised);
        let (mut all, mut some) = (Vec::new(), Vec::new());
        while reader.next(&mut some)? {
            all.append(&mut some);
        }
        Ok(all)
    }

    #[test]
    fn coins_come_back_by_index_and_stand_in_cores_order() {
        let (bytes, coins) = file();
        assert_eq!(read(&bytes, 7).unwrap(), coins);
        // 16,512 has the bytes 80 80 00 and so stands before 16,511 and 70,000, after 128 (80 00).
        let order: Vec<u32> = {
            let mut input = &bytes[33..];
            let mut reader = CoinReader::new(&mut input, 7);
            (0..6).map(|_| reader.coin().unwrap().0).collect()
        };
        assert_eq!(order, [0, 3, 128, 16_512, 70_000, 16_511]);
    }

    #[test]
    fn every_cut_and_every_wrong_number_is_noticed() {
        let (bytes, _) = file();
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len], 7).is_err(), "{len}");
        }
        for promised in [0, 1, 6, 8, u64::MAX] {
            assert!(read(&bytes, promised).is_err(), "{promised}");
        }
        let twice = [&bytes[..], &bytes[..]].concat();
        assert!(read(&twice, 14).unwrap_err().to_string().contains("not in order"));
    }

    #[test]
    fn headers_say_what_is_wrong_with_them() {
        let params = Params::new(Network::Regtest);
        let header = SnapshotHeader {
            base: BlockHash::from_byte_array([9; 32]),
            coins: 77,
        };
        let bytes = header.encode(&params);
        assert_eq!(SnapshotHeader::read(&params, &mut &bytes[..]), Ok(header));
        let error = |at: usize, byte: u8| {
            let mut bytes = bytes;
            bytes[at] = byte;
            SnapshotHeader::read(&params, &mut &bytes[..]).unwrap_err()
        };
        assert!(error(0, 0).contains("magic bytes"));
        assert!(error(5, 1).contains("Version of snapshot 1"));
        assert!(error(7, 0).contains("unrecognized network"));
        let signet = Params::new(Network::Signet);
        let text = SnapshotHeader::read(&signet, &mut &bytes[..]).unwrap_err();
        assert!(text.contains("(regtest) does not match the network of this node (signet)"));
        assert!(SnapshotHeader::read(&params, &mut &bytes[..50]).is_err());
    }
}
