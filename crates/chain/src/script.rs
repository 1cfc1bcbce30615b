//! Script verification through `bitcoinkernel`, Core's own interpreter: which flags a block's scripts are checked with,
//! and the check of one transaction with everything it spends.
//!
//! The kernel takes consensus flags only and answers yes or no: the policy flags of Core's mempool and the name of the
//! script error are not available through it.

use bitcoin::{Amount, BlockHash, Script, Transaction, TxOut, consensus};
use bitcoinkernel as kernel;
use bitcoinkernel::prelude::*;

use crate::{Coin, Params, Reject, RejectKind};

/// A set of script verification flags, numbered as in Core.
pub type Flags = u32;

/// No flag: the scripts of 2009.
pub const VERIFY_NONE: Flags = kernel::VERIFY_NONE;
/// BIP 16.
pub const VERIFY_P2SH: Flags = kernel::VERIFY_P2SH;
/// BIP 66.
pub const VERIFY_DERSIG: Flags = kernel::VERIFY_DERSIG;
/// BIP 147.
pub const VERIFY_NULLDUMMY: Flags = kernel::VERIFY_NULLDUMMY;
/// BIP 65.
pub const VERIFY_CHECKLOCKTIMEVERIFY: Flags = kernel::VERIFY_CHECKLOCKTIMEVERIFY;
/// BIP 112.
pub const VERIFY_CHECKSEQUENCEVERIFY: Flags = kernel::VERIFY_CHECKSEQUENCEVERIFY;
/// BIPs 141 and 143.
pub const VERIFY_WITNESS: Flags = kernel::VERIFY_WITNESS;
/// BIPs 341 and 342.
pub const VERIFY_TAPROOT: Flags = kernel::VERIFY_TAPROOT;
/// Every consensus rule known: what a new transaction must pass.
pub const VERIFY_ALL: Flags = kernel::VERIFY_ALL;

/// The flags for the scripts of the block `hash` at `height`.
///
/// Pay-to-script-hash, witness and taproot rules hold for the whole history but for the blocks that the parameters
/// name as exceptions; the others start at their height.
pub fn block_flags(params: &Params, height: u32, hash: &BlockHash) -> Flags {
    let exception = params.script_flag_exceptions.iter().find(|(block, _)| block == hash);
    let mut flags = exception.map_or(VERIFY_P2SH | VERIFY_WITNESS | VERIFY_TAPROOT, |(_, flags)| *flags);
    if height >= params.bip66_height {
        flags |= VERIFY_DERSIG;
    }
    if height >= params.bip65_height {
        flags |= VERIFY_CHECKLOCKTIMEVERIFY;
    }
    if height >= params.csv_height {
        flags |= VERIFY_CHECKSEQUENCEVERIFY;
    }
    if height >= params.segwit_height {
        flags |= VERIFY_NULLDUMMY;
    }
    flags
}

/// Why the scripts of a transaction were not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptFail {
    /// The script of this input, or its signature, is not satisfied.
    #[error("script verification of input {input} failed")]
    Input {
        /// Index of the input.
        input: usize,
    },
    /// The caller did not give one spent output for each input.
    #[error("{spent} spent outputs for {inputs} inputs")]
    SpentCount {
        /// Inputs of the transaction.
        inputs: usize,
        /// Outputs given.
        spent: usize,
    },
    /// The kernel can not read the transaction or does not know the flags.
    #[error("the kernel can not verify this transaction: {0}")]
    Unusable(&'static str),
}

impl ScriptFail {
    /// The failure as Core names it in a block.
    pub fn into_block_reject(self) -> Reject {
        Reject::new(
            RejectKind::Consensus,
            "block-script-verify-flag-failed",
            self.to_string(),
        )
    }
}

/// An output as the transaction that spends it sees it.
pub trait Spent {
    /// What it is worth.
    fn value(&self) -> Amount;
    /// Who may spend it.
    fn script(&self) -> &Script;
}

impl Spent for TxOut {
    fn value(&self) -> Amount {
        self.value
    }

    fn script(&self) -> &Script {
        &self.script_pubkey
    }
}

impl Spent for Coin {
    fn value(&self) -> Amount {
        self.output.value
    }

    fn script(&self) -> &Script {
        &self.output.script_pubkey
    }
}

/// Verifies every input of `tx`; `spent` holds the outputs that it spends, in input order. Pure computation: call it
/// from as many threads as there are.
pub fn verify_tx(tx: &Transaction, spent: &[impl Spent], flags: Flags) -> Result<(), ScriptFail> {
    verify_raw(&consensus::serialize(tx), spent, flags)
}

/// [`verify_tx`] for a transaction in wire form, with its witness.
pub fn verify_raw(raw: &[u8], spent: &[impl Spent], flags: Flags) -> Result<(), ScriptFail> {
    let tx = kernel::Transaction::new(raw).map_err(|_| ScriptFail::Unusable("it does not decode"))?;
    verify_all(&tx, spent, flags)
}

fn verify_all(tx: &(impl TransactionExt + Sync), spent: &[impl Spent], flags: Flags) -> Result<(), ScriptFail> {
    if tx.input_count() != spent.len() {
        return Err(ScriptFail::SpentCount {
            inputs: tx.input_count(),
            spent: spent.len(),
        });
    }
    let refused = |_| ScriptFail::Unusable("a spent output was refused");
    let mut outputs = Vec::with_capacity(spent.len());
    for output in spent {
        let script = kernel::ScriptPubkey::new(output.script().as_bytes()).map_err(refused)?;
        // An amount outside of the signed range is no amount; the rules refuse it before scripts are looked at.
        let amount = i64::try_from(output.value().to_sat())
            .map_err(|_| ScriptFail::Unusable("the amount of a spent output is out of range"))?;
        outputs.push(kernel::TxOut::new(&script, amount));
    }
    let precomputed = kernel::PrecomputedTransactionData::new(tx, &outputs).map_err(refused)?;
    for (input, output) in outputs.iter().enumerate() {
        let (script, amount) = (output.script_pubkey(), output.value());
        match kernel::verify(&script, Some(amount), tx, input, Some(flags), &precomputed) {
            Ok(()) => {}
            Err(kernel::KernelError::ScriptVerify(kernel::ScriptVerifyError::Invalid)) => {
                return Err(ScriptFail::Input { input });
            }
            Err(_) => return Err(ScriptFail::Unusable("the flags do not go together")),
        }
    }
    Ok(())
}

/// Whether one input of a transaction may spend `output`, where not all that the transaction spends need be known.
/// Without all of it nothing can be said of taproot, and such an input fails.
pub fn verify_input(
    tx: &Transaction,
    input: usize,
    output: &TxOut,
    spent: Option<&[TxOut]>,
    flags: Flags,
) -> Result<(), ScriptFail> {
    let refused = |_| ScriptFail::Unusable("a spent output was refused");
    if spent.is_none() && output.script_pubkey.is_p2tr() {
        return Err(ScriptFail::Input { input });
    }
    let tx =
        kernel::Transaction::new(&consensus::serialize(tx)).map_err(|_| ScriptFail::Unusable("it does not decode"))?;
    if input >= tx.input_count() {
        return Err(ScriptFail::Unusable("it has no such input"));
    }
    let amount = |output: &TxOut| {
        i64::try_from(output.value.to_sat())
            .map_err(|_| ScriptFail::Unusable("the amount of a spent output is out of range"))
    };
    let mut outputs = Vec::new();
    for output in spent.into_iter().flatten() {
        let script = kernel::ScriptPubkey::new(output.script_pubkey.as_bytes()).map_err(refused)?;
        outputs.push(kernel::TxOut::new(&script, amount(output)?));
    }
    let precomputed = kernel::PrecomputedTransactionData::new(&tx, &outputs).map_err(refused)?;
    let flags = if spent.is_some() {
        flags
    } else {
        flags & !VERIFY_TAPROOT
    };
    let script = kernel::ScriptPubkey::new(output.script_pubkey.as_bytes()).map_err(refused)?;
    kernel::verify(&script, Some(amount(output)?), &tx, input, Some(flags), &precomputed)
        .map_err(|_| ScriptFail::Input { input })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Network;

    #[test]
    fn flags_rise_with_the_height_and_respect_the_exceptions() {
        let params = Params::new(Network::Mainnet);
        let other = params.genesis.block_hash();
        let always = VERIFY_P2SH | VERIFY_WITNESS | VERIFY_TAPROOT;
        assert_eq!(block_flags(&params, 1, &other), always);
        assert_eq!(block_flags(&params, 363_724, &other), always);
        assert_eq!(block_flags(&params, 363_725, &other), always | VERIFY_DERSIG);
        assert_eq!(
            block_flags(&params, 388_381, &other),
            always | VERIFY_DERSIG | VERIFY_CHECKLOCKTIMEVERIFY
        );
        assert_eq!(block_flags(&params, 481_823, &other), VERIFY_ALL & !VERIFY_NULLDUMMY);
        assert_eq!(block_flags(&params, 481_824, &other), VERIFY_ALL);

        let bip16 = "00000000000002dc756eebf4f49723ed8d30cc28a5f108eb94b1ba88ac4f9c22"
            .parse()
            .unwrap();
        assert_eq!(block_flags(&params, 170_060, &bip16), VERIFY_NONE);
        let taproot = "0000000000000000000f14c35b2d841e986ab5441de8c585d5ffe55ea1e395ad"
            .parse()
            .unwrap();
        assert_eq!(block_flags(&params, 692_261, &taproot), VERIFY_ALL & !VERIFY_TAPROOT);

        for network in [Network::Testnet4, Network::Signet, Network::Regtest] {
            let params = Params::new(network);
            assert_eq!(block_flags(&params, 1, &taproot), VERIFY_ALL);
        }
    }

    #[test]
    fn a_wrong_count_of_spent_outputs_is_our_error_not_the_kernels() {
        let tx = Params::new(Network::Regtest).genesis.txdata[0].clone();
        assert_eq!(
            verify_tx(&tx, &[] as &[TxOut], VERIFY_ALL),
            Err(ScriptFail::SpentCount { inputs: 1, spent: 0 })
        );
        assert!(matches!(
            verify_raw(&[1, 2, 3], &[] as &[TxOut], VERIFY_ALL),
            Err(ScriptFail::Unusable(_))
        ));
    }
}
