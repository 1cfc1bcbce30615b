//! Partially signed transactions, version 0 (BIP 174) and version 2 (BIP 370), with the fields of taproot (BIP 371) and
//! MuSig2 (BIP 373), read and written byte for byte as Core does.
//!
//! What a transaction is made of stands in [`Psbt`], `Input` and `Output`; all else stays in the maps it came in.

mod combine;
pub(crate) mod fields;
mod reader;
mod values;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};

use fields::{Fields, Place, global, input, output, put};
use reader::{Reader, put_size};

const MAGIC: [u8; 5] = *b"psbt\xff";
/// At most this many inputs or outputs are reserved for on a claim.
const RESERVE: u64 = 64;

/// Why bytes are no PSBT, in Core's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) String);

impl Malformed {
    fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    fn stated_size() -> Self {
        Self::new("Size of value was not the stated size")
    }
}

/// A partially signed transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Psbt {
    /// 0 or 2.
    pub(crate) version: u32,
    pub(crate) tx_version: u32,
    /// The lock time where no input asks for one.
    pub(crate) fallback_locktime: Option<u32>,
    /// Bit 0: inputs may change; bit 1: outputs may; bit 2: a signature binds one output to its input.
    pub(crate) modifiable: Option<u8>,
    pub(crate) fields: Fields,
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<Output>,
}

/// What is known of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) previous: OutPoint,
    pub(crate) sequence: Option<u32>,
    pub(crate) time_locktime: Option<u32>,
    pub(crate) height_locktime: Option<u32>,
    pub(crate) fields: Fields,
}

/// What is known of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// In satoshi; not always one that can be.
    pub(crate) amount: i64,
    pub(crate) script: ScriptBuf,
    pub(crate) fields: Fields,
}

fn number(bytes: Option<Vec<u8>>) -> Option<u32> {
    bytes.and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
}

impl Psbt {
    /// A transaction about whose inputs nothing is known yet.
    pub(crate) fn of(tx: &Transaction, version: u32) -> Self {
        let inputs = tx.input.iter().map(|input| Input {
            previous: input.previous_output,
            sequence: Some(input.sequence.0),
            time_locktime: None,
            height_locktime: None,
            fields: Fields::default(),
        });
        let outputs = tx.output.iter().map(|output| Output {
            amount: output.value.to_sat().cast_signed(),
            script: output.script_pubkey.clone(),
            fields: Fields::default(),
        });
        Self {
            version,
            tx_version: tx.version.0.cast_unsigned(),
            fallback_locktime: Some(tx.lock_time.to_consensus_u32()),
            modifiable: None,
            fields: Fields::default(),
            inputs: inputs.collect(),
            outputs: outputs.collect(),
        }
    }

    /// Reads a PSBT and returns what stands behind it.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut reader = Reader(bytes);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(Malformed::new("Invalid PSBT magic bytes"));
        }
        let mut fields = Fields::read(&mut reader, Place::Global, 0)?;
        let version = number(fields.take(global::VERSION)).unwrap_or(0);
        let tx = fields
            .take(global::UNSIGNED_TX)
            .map(|bytes| unsigned(&bytes))
            .transpose()?;
        let counts = [global::INPUT_COUNT, global::OUTPUT_COUNT].map(|kind| fields.take(kind));
        let tx_version = number(fields.take(global::TX_VERSION));
        let fallback_locktime = number(fields.take(global::FALLBACK_LOCKTIME));
        let modifiable = fields
            .take(global::TX_MODIFIABLE)
            .and_then(|flags| flags.first().copied());
        let found = [
            (tx_version.is_some(), "PSBT_GLOBAL_TX_VERSION"),
            (fallback_locktime.is_some(), "PSBT_GLOBAL_FALLBACK_LOCKTIME"),
            (counts[0].is_some(), "PSBT_GLOBAL_INPUT_COUNT"),
            (counts[1].is_some(), "PSBT_GLOBAL_OUTPUT_COUNT"),
            (modifiable.is_some(), "PSBT_GLOBAL_TX_MODIFIABLE"),
        ];
        let mut psbt = match version {
            0 => {
                let tx = tx.ok_or_else(|| Malformed::new("No unsigned transaction was provided"))?;
                if let Some((_, name)) = found.iter().find(|(found, _)| *found) {
                    return Err(Malformed(format!("{name} is not allowed in PSBTv0")));
                }
                let mut psbt = Self::of(&tx, version);
                psbt.fields = fields;
                psbt
            }
            1 => return Err(Malformed::new("There is no PSBT version 1")),
            2 => {
                if let Some((_, name)) = [found[0], found[2], found[3]].iter().find(|(found, _)| !found) {
                    return Err(Malformed(format!("{name} is required in PSBTv2")));
                }
                if tx.is_some() {
                    return Err(Malformed::new("PSBT_GLOBAL_UNSIGNED_TX is not allowed in PSBTv2"));
                }
                Self {
                    version,
                    tx_version: tx_version.unwrap_or_default(),
                    fallback_locktime,
                    modifiable,
                    fields,
                    inputs: Vec::new(),
                    outputs: Vec::new(),
                }
            }
            _ => return Err(Malformed::new("Unsupported version number")),
        };
        let [inputs, outputs] = match version {
            0 => [psbt.inputs.len() as u64, psbt.outputs.len() as u64],
            _ => {
                let [inputs, outputs] = counts.map(|count| Reader(&count.unwrap_or_default()).size());
                [inputs?, outputs?]
            }
        };
        psbt.read_inputs(&mut reader, inputs)?;
        psbt.read_outputs(&mut reader, outputs)?;
        Ok((psbt, reader.0))
    }

    fn read_inputs(&mut self, reader: &mut Reader<'_>, count: u64) -> Result<(), Malformed> {
        let mut known = std::mem::take(&mut self.inputs).into_iter();
        self.inputs
            .reserve(usize::try_from(count.min(RESERVE)).unwrap_or_default());
        let mut left = count;
        while !reader.is_empty() && left > 0 {
            let fields = Fields::read(reader, Place::Input, self.version)?;
            let input = Input::of(fields, known.next())?;
            if let Some(tx) = input.non_witness_utxo() {
                if tx.compute_txid() != input.previous.txid {
                    return Err(Malformed::new("Non-witness UTXO does not match outpoint hash"));
                }
                if output_of(&tx, &input.previous).is_none() {
                    return Err(Malformed::new("Input specifies output index that does not exist"));
                }
            }
            self.inputs.push(input);
            left -= 1;
        }
        match left {
            0 => Ok(()),
            _ => Err(Malformed::new(
                "Inputs provided does not match the number of inputs in transaction.",
            )),
        }
    }

    fn read_outputs(&mut self, reader: &mut Reader<'_>, count: u64) -> Result<(), Malformed> {
        let mut known = std::mem::take(&mut self.outputs).into_iter();
        let mut left = count;
        while !reader.is_empty() && left > 0 {
            let fields = Fields::read(reader, Place::Output, self.version)?;
            self.outputs.push(Output::of(fields, known.next())?);
            left -= 1;
        }
        match left {
            0 => Ok(()),
            _ => Err(Malformed::new(
                "Outputs provided does not match the number of outputs in transaction.",
            )),
        }
    }

    /// The bytes of a PSBT.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        if self.version == 0 {
            let tx = self.unsigned_tx().map(|tx| without_inputs_marker(&tx));
            put(&mut bytes, global::UNSIGNED_TX, &[], &tx.unwrap_or_default());
        }
        self.fields.write_xpubs(&mut bytes);
        if self.version >= 2 {
            put(&mut bytes, global::TX_VERSION, &[], &self.tx_version.to_le_bytes());
            if let Some(time) = self.fallback_locktime {
                put(&mut bytes, global::FALLBACK_LOCKTIME, &[], &time.to_le_bytes());
            }
            for (kind, count) in [
                (global::INPUT_COUNT, self.inputs.len()),
                (global::OUTPUT_COUNT, self.outputs.len()),
            ] {
                let mut value = Vec::new();
                put_size(&mut value, count);
                put(&mut bytes, kind, &[], &value);
            }
            if let Some(flags) = self.modifiable {
                put(&mut bytes, global::TX_MODIFIABLE, &[], &[flags]);
            }
            put(&mut bytes, global::VERSION, &[], &self.version.to_le_bytes());
        }
        self.fields.write_foreign_global(&mut bytes);
        bytes.push(0);
        for input in &self.inputs {
            input.fields.write_input(&mut bytes, &input.own_fields(self.version));
        }
        for output in &self.outputs {
            output.fields.write_output(&mut bytes, &output.own_fields(self.version));
        }
        bytes
    }

    /// The lock time that suits all inputs; none when they contradict each other (BIP 370).
    pub(crate) fn lock_time(&self) -> Option<u32> {
        if self.version >= 2 {
            let (mut time, mut height) = (Some(0), Some(0));
            for input in &self.inputs {
                match (input.time_locktime, input.height_locktime) {
                    (Some(_), None) => {
                        height = None;
                        time?;
                    }
                    (None, Some(_)) => {
                        time = None;
                        height?;
                    }
                    _ => {}
                }
                time = time.map(|time: u32| time.max(input.time_locktime.unwrap_or(0)));
                height = height.map(|height: u32| height.max(input.height_locktime.unwrap_or(0)));
            }
            if let Some(lock) = [height, time].into_iter().flatten().find(|lock| *lock > 0) {
                return Some(lock);
            }
        }
        Some(self.fallback_locktime.unwrap_or(0))
    }

    /// The transaction without signatures; none when the inputs' lock times contradict each other.
    pub(crate) fn unsigned_tx(&self) -> Option<Transaction> {
        let lock_time = LockTime::from_consensus(self.lock_time()?);
        let input = self.inputs.iter().map(|input| TxIn {
            previous_output: input.previous,
            script_sig: ScriptBuf::new(),
            sequence: Sequence(input.sequence.unwrap_or(u32::MAX)),
            witness: Witness::new(),
        });
        let output = self.outputs.iter().map(|output| TxOut {
            value: Amount::from_sat(output.amount.cast_unsigned()),
            script_pubkey: output.script.clone(),
        });
        Some(Transaction {
            version: Version(self.tx_version.cast_signed()),
            lock_time,
            input: input.collect(),
            output: output.collect(),
        })
    }

    /// The output that each input spends, where it is told.
    pub(crate) fn spent(&self) -> Vec<Option<TxOut>> {
        self.inputs.iter().map(Input::utxo).collect()
    }
}

/// The transaction of version 0, which has neither signatures nor witnesses.
fn unsigned(bytes: &[u8]) -> Result<Transaction, Malformed> {
    let tx = crate::rpc::tx::old_form(bytes).ok_or_else(Malformed::stated_size)?;
    match tx.input.iter().all(|input| input.script_sig.is_empty()) {
        true => Ok(tx),
        false => Err(Malformed::new(
            "Unsigned tx does not have empty scriptSigs and scriptWitnesses.",
        )),
    }
}

/// Without inputs the form with witnesses would begin just so.
fn without_inputs_marker(tx: &Transaction) -> Vec<u8> {
    hex::decode(crate::rpc::tx::to_wire_hex(tx)).unwrap_or_default()
}

/// The output of a transaction that an outpoint names.
pub(crate) fn output_of<'a>(tx: &'a Transaction, outpoint: &OutPoint) -> Option<&'a TxOut> {
    tx.output.get(usize::try_from(outpoint.vout).ok()?)
}

impl Input {
    /// An input from its map, and from the transaction in version 0.
    fn of(mut fields: Fields, known: Option<Self>) -> Result<Self, Malformed> {
        if let Some(known) = known {
            return Ok(Self { fields, ..known });
        }
        let txid = fields.take(input::PREVIOUS_TXID);
        let txid = txid.and_then(|bytes| bytes.try_into().ok()).map(Txid::from_byte_array);
        let vout = number(fields.take(input::OUTPUT_INDEX));
        Ok(Self {
            previous: OutPoint {
                txid: txid.ok_or_else(|| Malformed::new("Previous TXID is required in PSBTv2"))?,
                vout: vout.ok_or_else(|| Malformed::new("Previous output's index is required in PSBTv2"))?,
            },
            sequence: number(fields.take(input::SEQUENCE)),
            time_locktime: number(fields.take(input::TIME_LOCKTIME)),
            height_locktime: number(fields.take(input::HEIGHT_LOCKTIME)),
            fields,
        })
    }

    /// What version 2 says in the map and version 0 in the transaction.
    fn own_fields(&self, version: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        if version < 2 {
            return bytes;
        }
        put(
            &mut bytes,
            input::PREVIOUS_TXID,
            &[],
            &self.previous.txid.to_byte_array(),
        );
        for (kind, value) in [
            (input::OUTPUT_INDEX, Some(self.previous.vout)),
            (input::SEQUENCE, self.sequence),
            (input::TIME_LOCKTIME, self.time_locktime),
            (input::HEIGHT_LOCKTIME, self.height_locktime),
        ] {
            if let Some(value) = value {
                put(&mut bytes, kind, &[], &value.to_le_bytes());
            }
        }
        bytes
    }

    /// The transaction whose output is spent, where it is told whole.
    pub(crate) fn non_witness_utxo(&self) -> Option<Transaction> {
        deserialize(self.fields.get(input::NON_WITNESS_UTXO)?).ok()
    }

    /// The output that is spent, where it is told by itself.
    pub(crate) fn witness_utxo(&self) -> Option<TxOut> {
        deserialize(self.fields.get(input::WITNESS_UTXO)?).ok()
    }

    /// Notes the output that is spent.
    pub(crate) fn set_witness_utxo(&mut self, output: &TxOut) {
        self.fields.set(input::WITNESS_UTXO, &[], serialize(output));
    }

    /// The output that is spent; a whole transaction is believed first, because its id is known.
    pub(crate) fn utxo(&self) -> Option<TxOut> {
        match self.non_witness_utxo() {
            Some(tx) => output_of(&tx, &self.previous).cloned(),
            None => self.witness_utxo(),
        }
    }

    pub(crate) fn script_sig(&self) -> ScriptBuf {
        ScriptBuf::from_bytes(self.fields.get(input::SCRIPT_SIG).unwrap_or_default().to_vec())
    }

    pub(crate) fn script_witness(&self) -> Witness {
        let bytes = self.fields.get(input::SCRIPT_WITNESS);
        bytes.and_then(|bytes| deserialize(bytes).ok()).unwrap_or_default()
    }

    /// The type of signature that is wanted.
    pub(crate) fn sighash(&self) -> Option<u32> {
        number(self.fields.get(input::SIGHASH).map(<[u8]>::to_vec))
    }

    /// Whether it is signed for good.
    pub(crate) fn is_final(&self) -> bool {
        self.fields.has(input::SCRIPT_SIG) || self.fields.has(input::SCRIPT_WITNESS)
    }
}

impl Output {
    /// An output from its map, and from the transaction in version 0.
    fn of(mut fields: Fields, known: Option<Self>) -> Result<Self, Malformed> {
        if let Some(known) = known {
            return Ok(Self { fields, ..known });
        }
        let amount = fields.take(output::AMOUNT).and_then(|bytes| bytes.try_into().ok());
        let script = fields.take(output::SCRIPT);
        Ok(Self {
            amount: amount
                .map(i64::from_le_bytes)
                .ok_or_else(|| Malformed::new("Output amount is required in PSBTv2"))?,
            script: script
                .map(ScriptBuf::from_bytes)
                .ok_or_else(|| Malformed::new("Output script is required in PSBTv2"))?,
            fields,
        })
    }

    fn own_fields(&self, version: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        if version >= 2 {
            put(&mut bytes, output::AMOUNT, &[], &self.amount.to_le_bytes());
            put(&mut bytes, output::SCRIPT, &[], self.script.as_bytes());
        }
        bytes
    }
}
