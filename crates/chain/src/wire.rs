//! Reading a block's bytes once: where each transaction lies in them, and each of its inputs, outputs and witnesses.
//! Nothing is copied, and what is kept grows with the bytes that were read, never with what they claim.
//!
//! The encoding is BIP 144's; lengths must be written in their shortest form, as everywhere in Core.

use std::ops::Range;

use bitcoin::Script;

use crate::BlockDecodeError;
use crate::rules::script_sigops;

/// Bytes of a block's header.
pub(crate) const HEADER_BYTES: usize = 80;
/// Bytes of an output's name: transaction id and index.
const OUTPOINT_BYTES: usize = 36;

/// Where one transaction lies. All places are offsets into the block, and the spans of inputs and outputs are numbered
/// through the whole block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TxSpan {
    /// The whole transaction.
    pub(crate) bytes: Range<u32>,
    /// From the count of the inputs to the last output.
    pub(crate) body: Range<u32>,
    /// Its inputs' spans.
    pub(crate) inputs: Range<u32>,
    /// Its outputs' spans.
    pub(crate) outputs: Range<u32>,
    /// Whether any input has a witness.
    pub(crate) witness: bool,
    /// What [`legacy_sigops`](crate::rules::legacy_sigops) counts; fewer than twenty for each byte of a block.
    pub(crate) sigops: u32,
}

/// Where one input lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InputSpan {
    /// The outpoint, 36 bytes.
    pub(crate) outpoint: u32,
    /// The script, followed by the sequence number.
    pub(crate) script: Range<u32>,
    /// The witness, its count of elements included; empty for a transaction that is written without.
    pub(crate) witness: Range<u32>,
}

/// Where one output lies: eight bytes of amount, the script's length, and this script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutputSpan {
    /// The amount, 8 bytes.
    pub(crate) value: u32,
    /// The script.
    pub(crate) script: Range<u32>,
}

/// The places of everything in a block.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans {
    pub(crate) txs: Vec<TxSpan>,
    pub(crate) inputs: Vec<InputSpan>,
    pub(crate) outputs: Vec<OutputSpan>,
}

/// Bytes that are read from the front.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: u64) -> Result<&'a [u8], BlockDecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let taken = taken.ok_or(BlockDecodeError::Ends)?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BlockDecodeError> {
        let taken = self.take(N as u64)?;
        taken.try_into().map_err(|_| BlockDecodeError::Ends)
    }

    /// A count or length: one, three, five or nine bytes, the fewest that hold it.
    pub(crate) fn number(&mut self) -> Result<u64, BlockDecodeError> {
        let [first] = self.array()?;
        let (number, least) = match first {
            0xfd => (u64::from(u16::from_le_bytes(self.array()?)), 0xfd),
            0xfe => (u64::from(u32::from_le_bytes(self.array()?)), 0x1_0000),
            0xff => (u64::from_le_bytes(self.array()?), 0x1_0000_0000),
            small => (u64::from(small), 0),
        };
        if number < least {
            return Err(BlockDecodeError::NotMinimal);
        }
        Ok(number)
    }

    /// Where the next byte is. Blocks are far shorter than four gigabytes.
    fn place(&self) -> Result<u32, BlockDecodeError> {
        u32::try_from(self.at).map_err(|_| BlockDecodeError::TooLarge(self.bytes.len()))
    }

    /// The place of the next `len` bytes, which are skipped.
    fn skip(&mut self, len: u64) -> Result<Range<u32>, BlockDecodeError> {
        let start = self.place()?;
        self.take(len)?;
        Ok(start..self.place()?)
    }

    /// The place of a script, whose signature operations are added to `sigops`.
    fn script(&mut self, len: u64, sigops: &mut u64) -> Result<Range<u32>, BlockDecodeError> {
        let start = self.place()?;
        *sigops += script_sigops(Script::from_bytes(self.take(len)?), false);
        Ok(start..self.place()?)
    }
}

impl Spans {
    /// Reads a block. A transaction without inputs is noted like any other when it is written in the form with
    /// witnesses, in which alone it can be read. A claim of more than `max` transactions is not believed.
    pub(crate) fn read(raw: &[u8], max: u64) -> Result<Self, BlockDecodeError> {
        let mut cursor = Cursor::new(raw);
        cursor.take(HEADER_BYTES as u64)?;
        let count = cursor.number()?;
        if count > max {
            return Err(BlockDecodeError::TooMany {
                count,
                bytes: raw.len(),
            });
        }
        let mut spans = Self::default();
        for _ in 0..count {
            spans.read_tx(&mut cursor)?;
        }
        match raw.len() - cursor.at {
            0 => Ok(spans),
            left => Err(BlockDecodeError::Trailing(left)),
        }
    }

    fn read_tx(&mut self, cursor: &mut Cursor<'_>) -> Result<(), BlockDecodeError> {
        let start = cursor.place()?;
        cursor.take(4)?; // version
        let (first_input, first_output) = (index(self.inputs.len()), index(self.outputs.len()));
        let mut body = cursor.place()?;
        let mut count = cursor.number()?;
        let extended = count == 0;
        if extended {
            // No inputs is the marker of the form with witnesses; the flag follows.
            match cursor.array()? {
                [1] => {}
                [flag] => return Err(BlockDecodeError::UnknownFlag(flag)),
            }
            body = cursor.place()?;
            count = cursor.number()?;
        }
        let mut sigops = 0;
        for _ in 0..count {
            let outpoint = cursor.skip(OUTPOINT_BYTES as u64)?.start;
            let length = cursor.number()?;
            let script = cursor.script(length, &mut sigops)?;
            cursor.take(4)?; // sequence
            self.inputs.push(InputSpan {
                outpoint,
                script,
                witness: 0..0,
            });
        }
        for _ in 0..cursor.number()? {
            let value = cursor.skip(8)?.start;
            let length = cursor.number()?;
            let script = cursor.script(length, &mut sigops)?;
            self.outputs.push(OutputSpan { value, script });
        }
        let body = body..cursor.place()?;
        let mut witness = false;
        if extended {
            for input in &mut self.inputs[first_input as usize..] {
                let start = cursor.place()?;
                let elements = cursor.number()?;
                for _ in 0..elements {
                    let length = cursor.number()?;
                    cursor.take(length)?;
                }
                witness |= elements > 0;
                input.witness = start..cursor.place()?;
            }
            if count > 0 && !witness {
                return Err(BlockDecodeError::NoWitnesses);
            }
        }
        cursor.take(4)?; // lock time
        self.txs.push(TxSpan {
            bytes: start..cursor.place()?,
            body,
            inputs: first_input..index(self.inputs.len()),
            outputs: first_output..index(self.outputs.len()),
            witness,
            sigops: u32::try_from(sigops).unwrap_or(u32::MAX),
        });
        Ok(())
    }
}

/// The number of a span. There are fewer than bytes, whose places fit, too.
fn index(count: usize) -> u32 {
    u32::try_from(count).expect("each span has several bytes whose places fit into 32 bits")
}

/// The bytes at a place that was noted when the same block was read.
pub(crate) fn at<'a>(raw: &'a [u8], place: &Range<u32>) -> &'a [u8] {
    &raw[place.start as usize..place.end as usize]
}

/// [`at`] for a field of `N` bytes.
pub(crate) fn field<const N: usize>(raw: &[u8], start: u32) -> [u8; N] {
    let found = raw.get(start as usize..).and_then(<[u8]>::first_chunk::<N>);
    *found.expect("the field was read at this place before")
}
