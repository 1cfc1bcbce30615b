//! Several PSBTs made one: the combiner's part (BIP 174, BIP 370), and the join of different transactions.

use bitcoin::Txid;

use super::fields::input;
use super::{Input, Psbt};

impl Psbt {
    /// What says that two are of the same transaction: its id, in version 2 without the sequence numbers.
    fn unique_id(&self) -> Option<Txid> {
        let mut tx = self.unsigned_tx()?;
        if self.version >= 2 {
            for input in &mut tx.input {
                input.sequence = bitcoin::Sequence::ZERO;
            }
        }
        Some(tx.compute_txid())
    }

    /// Takes over what another one of the same transaction knows; `false` when it is of another transaction.
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        let id = self.unique_id();
        if id.is_none() || id != other.unique_id() || self.version != other.version {
            return false;
        }
        for (ours, theirs) in self.inputs.iter_mut().zip(&other.inputs) {
            ours.fields.merge(&theirs.fields, Some(input::SIGHASH));
            ours.sequence = ours.sequence.or(theirs.sequence);
            ours.time_locktime = ours.time_locktime.or(theirs.time_locktime);
            ours.height_locktime = ours.height_locktime.or(theirs.height_locktime);
        }
        for (ours, theirs) in self.outputs.iter_mut().zip(&other.outputs) {
            ours.fields.merge(&theirs.fields, None);
        }
        self.fields.merge(&other.fields, None);
        self.fallback_locktime = self.fallback_locktime.or(other.fallback_locktime);
        if self.modifiable.is_some() || other.modifiable.is_some() {
            let (ours, theirs) = (self.modifiable.unwrap_or(0), other.modifiable.unwrap_or(0));
            // What may change must be allowed by both; that an output is bound counts when one says so.
            self.modifiable = Some((ours & theirs) | ((ours | theirs) & 0b100));
        }
        true
    }

    /// Adds an input of another one, both of version 0, without its signatures; `false` when it is there.
    pub(crate) fn join_input(&mut self, input: &Input) -> bool {
        if self.inputs.iter().any(|known| known.previous == input.previous) {
            return false;
        }
        let mut input = input.clone();
        for kind in [input::PARTIAL_SIG, input::SCRIPT_SIG, input::SCRIPT_WITNESS] {
            input.fields.clear(kind);
        }
        self.inputs.push(input);
        true
    }
}
