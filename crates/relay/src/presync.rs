//! Headers presync: a peer's chain is believed to have enough work only once it was shown twice.
//!
//! Headers cost a peer little and us memory for good. So while a peer's chain has not reached the work that is asked
//! for, its headers are only counted: of every so many one secret bit is kept. Once the work is there, the same headers
//! are asked for again from the start, compared with the bits, and given to the chain when enough bits behind them have
//! agreed. Who shows one chain and then gives another is found out long before much of it was kept. Core does the same
//! (`headerssync.cpp`), and the two numbers for each network are Core's (`kernel/chainparams.cpp`).

use std::collections::VecDeque;

use bitcoin::block::Header;
use bitcoin::hashes::{Hash, siphash24};
use bitcoin::{BlockHash, Work};
use dunlin_chain::{Entry, Network, Params, rules};

/// No chain grows by more blocks in a second, since the median of eleven times must rise.
const MAX_BLOCKS_PER_SECOND: u64 = 6;

/// A peer that presyncs for longer than this no longer keeps us from asking others.
const PATIENCE_SECS: u64 = 10 * 60;

/// How many headers lie between two bits, and how many wait until those behind them have agreed.
#[derive(Clone, Copy, Debug)]
struct Pace {
    period: u32,
    buffer: usize,
}

impl Pace {
    const fn of(network: Network) -> Self {
        let (period, buffer) = match network {
            Network::Mainnet => (641, 15_218),
            Network::Testnet3 => (673, 14_460),
            Network::Testnet4 => (606, 16_092),
            Network::Signet => (620, 15_724),
            Network::Regtest => (275, 7_017),
        };
        Self { period, buffer }
    }
}

/// What is to be done after a batch of headers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// These may be given to the chain.
    pub(crate) accept: Vec<Header>,
    /// Ask for those behind this block; nothing means that the presync is over.
    pub(crate) ask_after: Option<BlockHash>,
}

/// Why a presync ended. Both may happen to an honest peer whose chain has just changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A header does not follow the one before, or not with that difficulty.
    Discontinuous,
    /// The second time other headers came, or more than can be.
    Mismatch,
}

/// A place in a chain of headers.
#[derive(Clone, Copy, Debug)]
struct Mark {
    hash: BlockHash,
    height: u32,
    bits: bitcoin::CompactTarget,
    work: Work,
}

impl Mark {
    fn advance(&mut self, params: &Params, header: &Header) -> Result<(), Broken> {
        let height = self.height.saturating_add(1);
        let follows = header.prev_blockhash == self.hash
            && rules::permitted_difficulty_transition(params, height, self.bits, header.bits);
        if !follows {
            return Err(Broken::Discontinuous);
        }
        *self = Self {
            hash: header.block_hash(),
            height,
            bits: header.bits,
            work: self.work + rules::work_of(header.bits),
        };
        Ok(())
    }
}

/// The presync of one peer's chain. It takes memory for one bit in hundreds of headers, and in the second phase for a
/// bounded number of headers.
#[derive(Clone, Debug)]
pub(crate) struct Presync {
    pace: Pace,
    minimum: Work,
    /// Unix time in seconds.
    begun: u64,
    start: Mark,
    /// How far the peer has shown its chain.
    shown: Mark,
    /// Heights with this remainder by the period have a bit; nobody else knows it.
    offset: u32,
    salt: (u64, u64),
    bits: VecDeque<bool>,
    max_bits: usize,
    /// In the second phase: how far the chain came again, and what waits.
    again: Option<Mark>,
    waiting: VecDeque<Header>,
    /// The second time the work was reached, too.
    proven: bool,
}

impl Presync {
    /// Begins at a header that we have. `minimum` is the work that the peer's chain must show; `random` is secret.
    pub(crate) fn new(params: &Params, start: &Entry, minimum: Work, now_unix: u64, random: [u64; 3]) -> Self {
        let pace = Pace::of(params.network);
        let seconds = now_unix
            .saturating_sub(u64::from(start.median_time_past))
            .saturating_add(rules::MAX_FUTURE_BLOCK_TIME);
        let blocks = seconds.saturating_mul(MAX_BLOCKS_PER_SECOND);
        let start = Mark {
            hash: start.hash,
            height: start.height,
            bits: start.header.bits,
            work: start.chain_work,
        };
        Self {
            pace,
            minimum,
            begun: now_unix,
            start,
            shown: start,
            offset: u32::try_from(random[0] % u64::from(pace.period)).unwrap_or(0),
            salt: (random[1], random[2]),
            bits: VecDeque::new(),
            max_bits: usize::try_from(blocks / u64::from(pace.period)).unwrap_or(usize::MAX),
            again: None,
            waiting: VecDeque::new(),
            proven: false,
        }
    }

    /// The header that we had before it.
    pub(crate) fn start(&self) -> BlockHash {
        self.start.hash
    }

    /// Whether it began so long ago that others should be asked besides this peer.
    pub(crate) fn is_slow(&self, now_unix: u64) -> bool {
        now_unix.saturating_sub(self.begun) > PATIENCE_SECS
    }

    /// The height up to which the peer has shown its chain the first time.
    pub(crate) fn height(&self) -> u32 {
        self.shown.height
    }

    /// Takes the next batch, whose proof of work was checked; `full` says that the peer has more. After an error, or
    /// when nothing is to be asked any more, the presync is of no use.
    pub(crate) fn take(&mut self, params: &Params, headers: &[Header], full: bool) -> Result<Next, Broken> {
        if self.again.is_none() {
            self.show(params, headers)?;
            if self.shown.work >= self.minimum {
                self.again = Some(self.start);
                return Ok(self.ask(Vec::new(), self.start.hash));
            }
            let last = self.shown.hash;
            return Ok(Next {
                accept: Vec::new(),
                ask_after: full.then_some(last),
            });
        }
        for header in headers {
            self.compare(params, header)?;
        }
        let keep = if self.proven { 0 } else { self.pace.buffer };
        let ready = self.waiting.len().saturating_sub(keep);
        let accept = self.waiting.drain(..ready).collect();
        match self.again {
            Some(again) if full && !self.proven => Ok(self.ask(accept, again.hash)),
            // What the peer has beyond is asked for as usual, from what the chain knows then.
            _ => Ok(Next {
                accept,
                ask_after: None,
            }),
        }
    }

    fn ask(&self, accept: Vec<Header>, after: BlockHash) -> Next {
        Next {
            accept,
            ask_after: Some(after),
        }
    }

    fn has_bit(&self, height: u32) -> bool {
        height % self.pace.period == self.offset
    }

    fn bit(&self, hash: &BlockHash) -> bool {
        siphash24::Hash::hash_to_u64_with_keys(self.salt.0, self.salt.1, hash.as_byte_array()) & 1 == 1
    }

    /// The first phase.
    fn show(&mut self, params: &Params, headers: &[Header]) -> Result<(), Broken> {
        for header in headers {
            self.shown.advance(params, header)?;
            if self.has_bit(self.shown.height) {
                self.bits.push_back(self.bit(&self.shown.hash));
                if self.bits.len() > self.max_bits {
                    return Err(Broken::Mismatch);
                }
            }
        }
        Ok(())
    }

    /// The second phase.
    fn compare(&mut self, params: &Params, header: &Header) -> Result<(), Broken> {
        let mut at = self.again.ok_or(Broken::Mismatch)?;
        at.advance(params, header)?;
        self.proven |= at.work >= self.minimum;
        // Beyond the work asked for the chain may have changed since.
        if !self.proven && self.has_bit(at.height) && self.bits.pop_front() != Some(self.bit(&at.hash)) {
            return Err(Broken::Mismatch);
        }
        self.again = Some(at);
        self.waiting.push_back(*header);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use dunlin_chain::Chain;

    const BATCH: usize = 2_000;

    /// Headers that follow each other; their proof of work is checked elsewhere.
    fn chain(count: usize, salt: u32) -> Vec<Header> {
        let mut last = Params::new(Network::Regtest).genesis.header;
        (0..count)
            .map(|_| {
                last = Header {
                    prev_blockhash: last.block_hash(),
                    time: last.time + 1,
                    nonce: salt,
                    ..last
                };
                last
            })
            .collect()
    }

    fn work(blocks: u64) -> Work {
        // Each block of regtest is worth two hashes, the genesis block too.
        let mut bytes = [0; 32];
        bytes[24..].copy_from_slice(&(2 * (blocks + 1)).to_be_bytes());
        Work::from_be_bytes(bytes)
    }

    fn presync(minimum: u64) -> (Params, Presync) {
        let params = Params::new(Network::Regtest);
        let genesis = Chain::in_memory(params.clone()).unwrap().view().tip();
        let presync = Presync::new(&params, &genesis, work(minimum), 1_900_000_000, [7, 8, 9]);
        (params, presync)
    }

    /// Answers the presync's questions out of `first`, then out of `second`; what it lets through, or why it broke.
    fn play(minimum: u64, first: &[Header], second: &[Header]) -> Result<(Vec<Header>, usize), Broken> {
        let (params, mut presync) = presync(minimum);
        let (mut accepted, mut most) = (Vec::new(), 0);
        let mut after = Some(params.genesis_hash);
        while let Some(hash) = after {
            let from = if presync.again.is_some() { second } else { first };
            let start = from
                .iter()
                .position(|header| header.block_hash() == hash)
                .map_or(0, |at| at + 1);
            let batch = &from[start..(start + BATCH).min(from.len())];
            let next = presync.take(&params, batch, batch.len() == BATCH)?;
            most = most.max(presync.waiting.len());
            accepted.extend(next.accept);
            after = next.ask_after;
        }
        Ok((accepted, most))
    }

    #[test]
    fn an_honest_chain_comes_through_whole() {
        let headers = chain(25_000, 0);
        let (accepted, most) = play(24_000, &headers, &headers).unwrap();
        assert!(accepted.len() >= 24_000, "{}", accepted.len());
        assert_eq!(accepted[..], headers[..accepted.len()]);
        assert!(most <= Pace::of(Network::Regtest).buffer + BATCH);
    }

    #[test]
    fn little_work_leaves_nothing_but_bits() {
        let headers = chain(25_000, 0);
        assert_eq!(play(26_000, &headers, &headers), Ok((Vec::new(), 0)));
        let (params, mut presync) = presync(1_000_000);
        for batch in headers.chunks(BATCH) {
            assert_eq!(presync.take(&params, batch, true).unwrap().accept, []);
        }
        assert_eq!(presync.height(), 25_000);
        assert!(presync.waiting.is_empty() && presync.bits.len() <= 25_000 / 275 + 1);
    }

    #[test]
    fn another_chain_the_second_time_is_found_out_before_any_of_it_is_kept() {
        let (shown, given) = (chain(25_000, 0), chain(25_000, 1));
        assert_eq!(play(24_000, &shown, &given), Err(Broken::Mismatch));
        // A shorter one that stops is simply over.
        assert_eq!(play(24_000, &shown, &shown[..9_500]).unwrap().0.len(), 9_500 - 7_017);
    }

    #[test]
    fn a_chain_longer_than_time_allows_ends_the_presync() {
        let params = Params::new(Network::Regtest);
        let genesis = Chain::in_memory(params.clone()).unwrap().view().tip();
        let now = u64::from(genesis.median_time_past);
        let mut presync = Presync::new(&params, &genesis, work(1 << 40), now, [7, 8, 9]);
        let most = 6 * rules::MAX_FUTURE_BLOCK_TIME as usize;
        let result = chain(most + 1_000, 0)
            .chunks(BATCH)
            .try_for_each(|batch| presync.take(&params, batch, true).map(drop));
        assert_eq!(result, Err(Broken::Mismatch));
    }

    #[test]
    fn headers_that_do_not_follow_end_the_presync() {
        let (params, mut presync) = presync(24_000);
        let headers = chain(10, 0);
        assert_eq!(presync.take(&params, &headers[1..], true), Err(Broken::Discontinuous));
    }
}
