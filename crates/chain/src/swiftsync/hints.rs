//! The hints file (BIP 456, version 0): which outputs of each block are unspent at a height.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `UTXO` |
//! | 1 | version: 0 |
//! | 4 | the height, little-endian |
//! | | for each block from height 1 up to it, the places of its unspent outputs in the Elias-Fano form |
//!
//! An output's place is its number among all outputs of its block, in block order, from 0; those that cannot be spent
//! count, too. The Elias-Fano form of n ascending numbers up to m: n and m as `CompactSize`, then two strings of
//! bits, each filled up to whole bytes. In the first stand the l low bits of each number, the least first, where
//! l = floor(log2((m + 1) / n)); in the second, for each number, as many zeros as its other bits exceed those of the
//! number before it, and a one. Bytes are filled from their greatest bit. No numbers at all are the byte 0.

use std::io::{Read, Write};

use bitcoin::hashes::{Hash, sha256};

/// How the file begins.
const MAGIC: [u8; 4] = *b"UTXO";
/// The version that is read and written.
const VERSION: u8 = 0;
/// Bytes before the first block's hints.
const HEADER_BYTES: usize = 9;
/// A file for 930,000 blocks has 119 MB; nothing beyond this is read.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// A block has at most a million bytes without witnesses, and an output at least nine.
const MAX_OUTPUTS: u32 = 1_000_000 / 9;

/// Why hints cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HintsError {
    /// Reading failed.
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is something else.
    #[error("it is no hints file")]
    Magic,
    /// Nobody has defined this version yet.
    #[error("it has version {0}, and only version {VERSION} is known")]
    Version(u8),
    /// The file is too large to be one.
    #[error("it has more than {} MiB", MAX_FILE_BYTES >> 20)]
    TooLarge,
    /// The file ends early.
    #[error("it ends before the hints for block {0}")]
    Ends(u32),
    /// What is written for a block cannot be.
    #[error("the hints for block {height} are damaged: {what}")]
    Damaged {
        /// The block's height.
        height: u32,
        /// What cannot be.
        what: &'static str,
    },
    /// Bytes are left over behind the last block.
    #[error("{0} bytes follow the hints for the last block")]
    Trailing(usize),
}

/// A hints file in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Hints {
    bytes: Vec<u8>,
    /// Where the hints of each block begin, from height 1, and where the last end.
    starts: Vec<usize>,
    id: [u8; 32],
}

impl std::fmt::Debug for Hints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hints")
            .field("height", &self.height())
            .finish_non_exhaustive()
    }
}

impl Hints {
    /// Reads a whole file. The place of each block's hints is found; what they say is looked at by [`Hints::unspent`].
    ///
    /// # Errors
    /// [`HintsError`]; memory is bounded whatever the file says.
    pub fn read(input: impl Read) -> Result<Self, HintsError> {
        let mut bytes = Vec::new();
        input.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        Self::parse(bytes)
    }

    /// [`Hints::read`] from memory.
    ///
    /// # Errors
    /// As there.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, HintsError> {
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(HintsError::TooLarge);
        }
        let mut rest = bytes.strip_prefix(&MAGIC).ok_or(HintsError::Magic)?;
        let (&version, after) = rest.split_first().ok_or(HintsError::Magic)?;
        if version != VERSION {
            return Err(HintsError::Version(version));
        }
        let (height, after) = after.split_first_chunk::<4>().ok_or(HintsError::Magic)?;
        rest = after;
        let height = u32::from_le_bytes(*height);
        let mut starts = vec![HEADER_BYTES];
        for height in 1..=height {
            rest = Numbers::split(rest).map_err(|fault| fault.at(height))?.1;
            starts.push(bytes.len() - rest.len());
        }
        if !rest.is_empty() {
            return Err(HintsError::Trailing(rest.len()));
        }
        let id = sha256::Hash::hash(&bytes).to_byte_array();
        Ok(Self { bytes, starts, id })
    }

    /// The height at which the outputs are unspent.
    pub fn height(&self) -> u32 {
        // There is one more start than blocks, and a file cannot have more blocks than its height says.
        u32::try_from(self.starts.len() - 1).unwrap_or(u32::MAX)
    }

    /// The file's SHA-256: which hints these are.
    pub fn id(&self) -> [u8; 32] {
        self.id
    }

    /// The places of the outputs of the block at `height` that are unspent in the end, ascending; none for the genesis
    /// block and for those above the hinted height.
    ///
    /// # Errors
    /// [`HintsError::Damaged`] when what is written there are no ascending numbers.
    pub fn unspent(&self, height: u32) -> Result<Vec<u32>, HintsError> {
        let index = height as usize;
        let (Some(start), Some(end)) = (
            index.checked_sub(1).and_then(|i| self.starts.get(i)),
            self.starts.get(index),
        ) else {
            return Ok(Vec::new());
        };
        let bytes = self.bytes.get(*start..*end).unwrap_or_default();
        let (numbers, _) = Numbers::split(bytes).map_err(|fault| fault.at(height))?;
        numbers.decode().map_err(|fault| fault.at(height))
    }
}

/// Writes a hints file, block after block.
pub struct HintsWriter<W> {
    out: W,
    left: u32,
}

impl<W: Write> HintsWriter<W> {
    /// Begins the file for a height.
    ///
    /// # Errors
    /// Those of writing.
    pub fn new(mut out: W, height: u32) -> std::io::Result<Self> {
        out.write_all(&MAGIC)?;
        out.write_all(&[VERSION])?;
        out.write_all(&height.to_le_bytes())?;
        Ok(Self { out, left: height })
    }

    /// Adds the next block, from height 1 on: the places of its unspent outputs, ascending.
    ///
    /// # Errors
    /// Those of writing, and when the places do not ascend, are beyond what a block can hold, or belong to no block.
    pub fn push(&mut self, unspent: &[u32]) -> std::io::Result<()> {
        let refuse = |what| Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, what));
        if !unspent.is_sorted_by(|one, next| one < next) || unspent.last().is_some_and(|last| *last >= MAX_OUTPUTS) {
            return refuse("places of outputs that do not ascend or that no block has");
        }
        let Some(left) = self.left.checked_sub(1) else {
            return refuse("more blocks than the height of the hints");
        };
        self.left = left;
        self.out.write_all(&encode(unspent))
    }

    /// Ends the file and gives what it was written to.
    ///
    /// # Errors
    /// Those of writing, and when blocks are missing.
    pub fn finish(mut self) -> std::io::Result<W> {
        if self.left != 0 {
            return Err(std::io::Error::other("blocks are missing from the hints"));
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

/// What is wrong with the hints of one block.
enum Fault {
    Ends,
    Damaged(&'static str),
}

impl Fault {
    fn at(self, height: u32) -> HintsError {
        match self {
            Self::Ends => HintsError::Ends(height),
            Self::Damaged(what) => HintsError::Damaged { height, what },
        }
    }
}

/// Takes a number in its shortest form off the front.
fn compact_size(bytes: &[u8]) -> Result<(u32, &[u8]), Fault> {
    let (&first, rest) = bytes.split_first().ok_or(Fault::Ends)?;
    let (value, rest, least) = match first {
        0xff => return Err(Fault::Damaged("a number is too large")),
        0xfe => {
            let (value, rest) = rest.split_first_chunk().ok_or(Fault::Ends)?;
            (u32::from_le_bytes(*value), rest, 0x1_0000)
        }
        0xfd => {
            let (value, rest) = rest.split_first_chunk().ok_or(Fault::Ends)?;
            (u32::from(u16::from_le_bytes(*value)), rest, 0xfd)
        }
        small => (u32::from(small), rest, 0),
    };
    match value < least {
        true => Err(Fault::Damaged("a number is not written in its shortest form")),
        false => Ok((value, rest)),
    }
}

fn put_compact_size(out: &mut Vec<u8>, value: u32) {
    match value {
        0..0xfd => out.push(value as u8),
        0xfd..0x1_0000 => {
            out.push(0xfd);
            out.extend_from_slice(&(value as u16).to_le_bytes());
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// How many low bits of each of `count` numbers up to `greatest` stand by themselves. There are no more numbers than
/// fit below the greatest, and at least one.
fn low_bits(count: u32, greatest: u32) -> u32 {
    ((greatest + 1) / count).ilog2()
}

/// Ascending numbers in the Elias-Fano form.
struct Numbers<'a> {
    count: u32,
    greatest: u32,
    low: &'a [u8],
    high: &'a [u8],
}

impl<'a> Numbers<'a> {
    /// Takes them off the front.
    fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Fault> {
        let (count, rest) = compact_size(bytes)?;
        if count == 0 {
            let none = Self {
                count,
                greatest: 0,
                low: &[],
                high: &[],
            };
            return Ok((none, rest));
        }
        let (greatest, rest) = compact_size(rest)?;
        if greatest >= MAX_OUTPUTS {
            return Err(Fault::Damaged("no block has so many outputs"));
        }
        if count > greatest + 1 {
            return Err(Fault::Damaged("there are more of them than outputs"));
        }
        let low = low_bits(count, greatest);
        // Both are far below 32 bits, because the greatest is.
        let low_len = (count * low).div_ceil(8) as usize;
        let high_len = (count + (greatest >> low)).div_ceil(8) as usize;
        let (low, rest) = rest.split_at_checked(low_len).ok_or(Fault::Ends)?;
        let (high, rest) = rest.split_at_checked(high_len).ok_or(Fault::Ends)?;
        let numbers = Self {
            count,
            greatest,
            low,
            high,
        };
        Ok((numbers, rest))
    }

    fn decode(&self) -> Result<Vec<u32>, Fault> {
        let mut numbers = Vec::with_capacity(self.count as usize);
        if self.count == 0 {
            return Ok(numbers);
        }
        let width = low_bits(self.count, self.greatest);
        let (mut low, mut high) = (bits(self.low), bits(self.high));
        let mut upper = 0;
        let mut before = None;
        for _ in 0..self.count {
            while !high.next().ok_or(Fault::Damaged("the greater bits end early"))? {
                upper += 1;
            }
            let mut number = upper << width;
            for shift in 0..width {
                number |= u32::from(low.next().unwrap_or(false)) << shift;
            }
            if before.is_some_and(|before| number <= before) {
                return Err(Fault::Damaged("the numbers do not ascend"));
            }
            before = Some(number);
            numbers.push(number);
        }
        if before != Some(self.greatest) {
            return Err(Fault::Damaged("the last number is not the greatest"));
        }
        if high.any(|bit| bit) || low.any(|bit| bit) {
            return Err(Fault::Damaged("bits are set behind the last number"));
        }
        Ok(numbers)
    }
}

/// Bits from each byte's greatest.
fn bits(bytes: &[u8]) -> impl Iterator<Item = bool> {
    bytes
        .iter()
        .flat_map(|byte| (0..8).map(move |bit| byte & (0x80 >> bit) != 0))
}

/// Bits on their way into bytes.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if let (true, Some(last)) = (bit, self.bytes.last_mut()) {
            *last |= 0x80 >> (self.len % 8);
        }
        self.len += 1;
    }
}

/// The Elias-Fano form of ascending numbers.
fn encode(numbers: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(&greatest) = numbers.last() else {
        out.push(0);
        return out;
    };
    // They ascend, so there are no more of them than the greatest plus one.
    let count = numbers.len() as u32;
    let width = low_bits(count, greatest);
    let (mut low, mut high) = (Bits::default(), Bits::default());
    let mut upper = 0;
    for number in numbers {
        for shift in 0..width {
            low.push(number >> shift & 1 == 1);
        }
        for _ in upper..number >> width {
            high.push(false);
        }
        upper = number >> width;
        high.push(true);
    }
    put_compact_size(&mut out, count);
    put_compact_size(&mut out, greatest);
    out.append(&mut low.bytes);
    out.append(&mut high.bytes);
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(blocks: &[&[u32]]) -> Vec<u8> {
        let mut writer = HintsWriter::new(Vec::new(), blocks.len() as u32).unwrap();
        for block in blocks {
            writer.push(block).unwrap();
        }
        writer.finish().unwrap()
    }

    fn decode(bytes: &[u8]) -> Result<Vec<u32>, HintsError> {
        let whole = [&MAGIC[..], &[VERSION, 1, 0, 0, 0], bytes].concat();
        Hints::parse(whole)?.unspent(1)
    }

    /// The vectors of BIP 456.
    #[test]
    fn the_vectors_of_the_bip() {
        let text = include_str!("../../tests/data/elias_fano.json");
        let vectors: Vec<(Vec<u32>, String)> = serde_json::from_str(text).unwrap();
        assert_eq!(vectors.len(), 3);
        for (numbers, encoded) in vectors {
            assert_eq!(hex::encode(encode(&numbers)), encoded);
            assert_eq!(decode(&encode(&numbers)).unwrap(), numbers);
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let top = MAX_OUTPUTS - 1;
        let all: Vec<u32> = (0..300).collect();
        let blocks: [&[u32]; 8] = [&[], &[0], &[top], &[0, top], &all, &[3, 7, 12], &[5, 6, 7, 70_000], &[]];
        let hints = Hints::read(&file(&blocks)[..]).unwrap();
        assert_eq!(hints.height(), 8);
        for (height, block) in (1..).zip(blocks) {
            assert_eq!(hints.unspent(height).unwrap(), block);
        }
        for outside in [0, 9, u32::MAX] {
            assert!(hints.unspent(outside).unwrap().is_empty());
        }
        let mut dice = 7u64;
        for _ in 0..500 {
            let mut numbers: Vec<u32> = Vec::new();
            let mut at = 0u32;
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let (count, step) = ((dice >> 60) * 9 + 1, (dice >> 40) % 300 + 1);
            for _ in 0..count {
                dice = dice
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                at += 1 + ((dice >> 33) % step) as u32;
                numbers.push(at);
            }
            assert_eq!(decode(&encode(&numbers)).unwrap(), numbers);
        }
    }

    #[test]
    fn damaged_files_are_refused_in_words() {
        let whole = file(&[&[3, 7, 12], &[], &[1]]);
        let error = |bytes: &[u8]| Hints::parse(bytes.to_vec()).unwrap_err().to_string();
        assert_eq!(error(b"UTX"), "it is no hints file");
        assert_eq!(
            error(&[&whole[..4], &[1], &whole[5..]].concat()),
            "it has version 1, and only version 0 is known"
        );
        assert_eq!(
            error(&[&whole[..], &[0, 0]].concat()),
            "2 bytes follow the hints for the last block"
        );
        for len in 9..whole.len() {
            assert!(
                error(&whole[..len]).starts_with("it ends before the hints for block "),
                "{len}"
            );
        }
        let mut taller = whole.clone();
        taller[5..9].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(error(&taller), "it ends before the hints for block 4");
        for (bytes, what) in [
            (&[0xff][..], "a number is too large"),
            (&[0xfd, 1, 0, 5, 0x80], "a number is not written in its shortest form"),
            (&[1, 0xfe, 0, 0, 2, 0], "no block has so many outputs"),
            (&[9, 7], "there are more of them than outputs"),
            (&[2, 4, 0x40, 0xc0], "the last number is not the greatest"),
            (&[2, 4, 0x00, 0xc0], "the numbers do not ascend"),
            (&[2, 4, 0x00, 0x00], "the greater bits end early"),
            (&[1, 0, 0x81], "bits are set behind the last number"),
        ] {
            let error = decode(bytes).unwrap_err().to_string();
            assert_eq!(error, format!("the hints for block 1 are damaged: {what}"), "{bytes:?}");
        }
    }

    #[test]
    fn no_other_bytes_mean_the_same() {
        // Whatever can be read is what would be written.
        let mut read = 0;
        for one in 0..=u16::MAX {
            let bytes = [2, 5, (one >> 8) as u8, one as u8];
            if let Ok(numbers) = decode(&bytes) {
                assert_eq!(encode(&numbers), bytes);
                read += 1;
            }
        }
        assert_eq!(read, 5, "two numbers up to five, the greater of which is five");
    }

    #[test]
    fn the_writer_keeps_to_its_word() {
        let writer = || HintsWriter::new(Vec::new(), 1).unwrap();
        assert!(writer().push(&[2, 2]).is_err());
        assert!(writer().push(&[MAX_OUTPUTS]).is_err());
        assert!(writer().finish().is_err());
        let mut full = writer();
        full.push(&[]).unwrap();
        assert!(full.push(&[]).is_err());
    }
}
