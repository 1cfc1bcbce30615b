//! A transaction as the rules read it, whether it is a structure or lies in the bytes of a block.

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Script, Transaction, Txid, Witness};

use crate::rules::legacy_sigops;
use crate::wire::{self, Cursor, InputSpan, OutputSpan, TxSpan};

/// One input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The output that it spends.
    pub previous_output: OutPoint,
    /// What it says to spend it.
    pub script_sig: &'a Script,
    /// The sequence number.
    pub sequence: u32,
    /// What else it says to spend it.
    pub witness: Stack<'a>,
}

/// One output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output<'a> {
    /// The amount in satoshi, as it is written: any number.
    pub value: u64,
    /// Who may spend it.
    pub script_pubkey: &'a Script,
}

/// The witness of one input.
#[derive(Clone, Copy, Debug)]
pub enum Stack<'a> {
    /// As a structure.
    Parsed(&'a Witness),
    /// In wire encoding; nothing at all stands for an empty one.
    Wire(&'a [u8]),
}

impl<'a> Stack<'a> {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Parsed(witness) => witness.len(),
            Self::Wire(bytes) => {
                let count = Cursor::new(bytes).number().unwrap_or(0);
                usize::try_from(count).unwrap_or(usize::MAX)
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last element.
    pub fn last(&self) -> Option<&'a [u8]> {
        match self {
            Self::Parsed(witness) => witness.last(),
            Self::Wire(bytes) => {
                let mut cursor = Cursor::new(bytes);
                let mut last = None;
                for _ in 0..cursor.number().ok()? {
                    let length = cursor.number().ok()?;
                    last = Some(cursor.take(length).ok()?);
                }
                last
            }
        }
    }
}

/// What the rules ask of a transaction.
pub trait TxParts {
    /// The version, signed as on the wire.
    fn version(&self) -> i32;
    /// The lock time: a height or a time.
    fn lock_time(&self) -> u32;
    /// Bytes without witnesses.
    fn base_size(&self) -> usize;
    /// The identifier; a structure computes it anew.
    fn txid(&self) -> Txid;
    /// The inputs in order.
    fn inputs(&self) -> impl ExactSizeIterator<Item = Input<'_>>;
    /// The outputs in order.
    fn outputs(&self) -> impl DoubleEndedIterator<Item = Output<'_>> + ExactSizeIterator;

    /// Whether it has the form of a coinbase: one input, which spends nothing.
    fn is_coinbase(&self) -> bool {
        let mut inputs = self.inputs();
        inputs.len() == 1 && inputs.next().is_some_and(|input| input.previous_output.is_null())
    }

    /// Whether any input has a witness.
    fn has_witness(&self) -> bool {
        self.inputs().any(|input| !input.witness.is_empty())
    }

    /// Signature operations as they were counted before BIP 16.
    fn legacy_sigops(&self) -> u64 {
        legacy_sigops(self)
    }
}

impl TxParts for Transaction {
    fn version(&self) -> i32 {
        self.version.0
    }

    fn lock_time(&self) -> u32 {
        self.lock_time.to_consensus_u32()
    }

    fn base_size(&self) -> usize {
        Transaction::base_size(self)
    }

    fn txid(&self) -> Txid {
        self.compute_txid()
    }

    fn inputs(&self) -> impl ExactSizeIterator<Item = Input<'_>> {
        self.input.iter().map(|input| Input {
            previous_output: input.previous_output,
            script_sig: &input.script_sig,
            sequence: input.sequence.0,
            witness: Stack::Parsed(&input.witness),
        })
    }

    fn outputs(&self) -> impl DoubleEndedIterator<Item = Output<'_>> + ExactSizeIterator {
        self.output.iter().map(|output| Output {
            value: output.value.to_sat(),
            script_pubkey: &output.script_pubkey,
        })
    }
}

/// A transaction in the bytes of a block that was read; see [`ParsedBlock::transaction`](crate::ParsedBlock).
#[derive(Clone, Copy, Debug)]
pub struct TxRef<'a> {
    /// The whole block.
    pub(crate) raw: &'a [u8],
    pub(crate) span: &'a TxSpan,
    pub(crate) inputs: &'a [InputSpan],
    pub(crate) outputs: &'a [OutputSpan],
    pub(crate) txid: &'a Txid,
}

impl<'a> TxRef<'a> {
    /// The transaction in wire encoding, with its witnesses.
    pub fn raw(&self) -> &'a [u8] {
        wire::at(self.raw, &self.span.bytes)
    }

    /// The outputs that it spends, in input order.
    pub fn previous_outputs(&self) -> impl ExactSizeIterator<Item = OutPoint> + use<'a> {
        let raw = self.raw;
        self.inputs.iter().map(move |span| outpoint(raw, span.outpoint))
    }

    /// One output.
    pub(crate) fn output(&self, vout: u32) -> Option<Output<'a>> {
        let span = self.outputs.get(usize::try_from(vout).ok()?)?;
        Some(output(self.raw, span))
    }
}

fn output<'a>(raw: &'a [u8], span: &OutputSpan) -> Output<'a> {
    Output {
        value: u64::from_le_bytes(wire::field(raw, span.value)),
        script_pubkey: Script::from_bytes(wire::at(raw, &span.script)),
    }
}

fn outpoint(raw: &[u8], at: u32) -> OutPoint {
    let bytes: [u8; 36] = wire::field(raw, at);
    let (txid, vout) = bytes.split_at(32);
    OutPoint {
        txid: Txid::from_byte_array(txid.try_into().expect("32 of 36 bytes")),
        vout: u32::from_le_bytes(vout.try_into().expect("the other 4")),
    }
}

impl TxParts for TxRef<'_> {
    fn version(&self) -> i32 {
        i32::from_le_bytes(wire::field(self.raw, self.span.bytes.start))
    }

    fn lock_time(&self) -> u32 {
        u32::from_le_bytes(wire::field(self.raw, self.span.bytes.end - 4))
    }

    fn base_size(&self) -> usize {
        self.span.body.len() + 8
    }

    fn txid(&self) -> Txid {
        *self.txid
    }

    fn inputs(&self) -> impl ExactSizeIterator<Item = Input<'_>> {
        self.inputs.iter().map(|span| Input {
            previous_output: outpoint(self.raw, span.outpoint),
            script_sig: Script::from_bytes(wire::at(self.raw, &span.script)),
            sequence: u32::from_le_bytes(wire::field(self.raw, span.script.end)),
            witness: Stack::Wire(wire::at(self.raw, &span.witness)),
        })
    }

    fn outputs(&self) -> impl DoubleEndedIterator<Item = Output<'_>> + ExactSizeIterator {
        self.outputs.iter().map(|span| output(self.raw, span))
    }

    fn has_witness(&self) -> bool {
        self.span.witness
    }

    fn legacy_sigops(&self) -> u64 {
        self.span.sigops.into()
    }
}
